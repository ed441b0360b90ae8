//! What Deno prints while it fetches: progress, and at the end perhaps why it failed.

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::LayerError;
use crate::progress::Progress;

/// Lines kept for the failure's text: Deno's own errors have fewer.
const KEPT_LINES: usize = 40;

/// Characters of Deno's text in an error that fits no kind.
const MAX_DETAIL: usize = 600;

#[derive(Debug)]
pub(super) struct Output {
    progress: Arc<watch::Sender<Progress>>,
    resolved: u32,
    fetched: u32,
    kept: VecDeque<String>,
}

impl Output {
    pub(super) fn new(progress: Arc<watch::Sender<Progress>>) -> Self {
        progress.send_replace(Progress::Resolving { seen: 0 });
        Self { progress, resolved: 0, fetched: 0, kept: VecDeque::new() }
    }

    pub(super) fn line(&mut self, line: &str) {
        match line.strip_prefix("Download ") {
            Some(address) => self.download(address),
            None => {
                if self.kept.len() == KEPT_LINES {
                    self.kept.pop_front();
                }
                self.kept.push_back(line.to_owned());
            }
        }
    }

    fn download(&mut self, address: &str) {
        let file = address.rsplit('/').next().unwrap_or_default();
        let progress = match file.strip_suffix(".tgz") {
            Some(archive) => {
                self.fetched += 1;
                let package = self.package(archive);
                Progress::Fetching { package, done: self.fetched, of: self.resolved.max(self.fetched) }
            }
            None => {
                self.resolved += 1;
                Progress::Resolving { seen: self.resolved }
            }
        };
        self.progress.send_replace(progress);
    }

    /// `axios-1.7.9` as `axios 1.7.9`.
    fn package(&self, archive: &str) -> String {
        let version = archive.match_indices('-').find(|(at, _)| {
            archive[at + 1..].starts_with(|c: char| c.is_ascii_digit()) && archive[at + 1..].contains('.')
        });
        version.map_or_else(
            || archive.to_owned(),
            |(at, _)| format!("{} {}", &archive[..at], &archive[at + 1..]),
        )
    }

    /// Puts Deno's text into a kind. Deno has no codes for these; the texts are those of 2.9, each held by a test with the
    /// real program.
    pub(super) fn failure(&self, status: ExitStatus, staging: &Path) -> LayerError {
        let text = self.text(staging);
        let package = || between(&text, "npm package '", "'").unwrap_or_else(|| "a package".to_owned());
        if ["No space left on device", "os error 28", "Disk quota exceeded", "File too large"]
            .iter()
            .any(|t| text.contains(t))
        {
            return LayerError::DiskFull;
        }
        if text.contains("checksum did not match") || text.contains("ntegrity check failed") {
            let package = between(&text, "package '", "'").or_else(|| between(&text, "Package: ", "\n"));
            return LayerError::Integrity { package: package.unwrap_or_else(|| "a package".to_owned()) };
        }
        if text.contains("does not exist") && text.contains("npm package '") {
            return LayerError::UnknownPackage { package: format!("npm:{}", package()) };
        }
        if text.contains("JSR package not found") {
            let name =
                between(&text, "JSR package not found: ", "\n").unwrap_or_else(|| "a package".to_owned());
            return LayerError::UnknownPackage { package: format!("jsr:{name}") };
        }
        if text.contains("Could not find npm package '") {
            let range = between(&text, "matching '", "'").unwrap_or_default();
            return LayerError::NoSuchVersion { package: format!("npm:{}", package()), range };
        }
        if text.contains("Could not find version of '") {
            let name = between(&text, "version of '", "'").unwrap_or_default();
            let range = between(&text, "constraint '", "'").or_else(|| between(&text, "matches '", "'"));
            return LayerError::NoSuchVersion {
                package: format!("jsr:{name}"),
                range: range.unwrap_or_default(),
            };
        }
        self.transport_failure(&text, status)
    }

    fn transport_failure(&self, text: &str, status: ExitStatus) -> LayerError {
        let detail = short(text);
        let has = |texts: &[&str]| texts.iter().any(|part| text.contains(part));
        if has(&["401 Unauthorized", "403 Forbidden", "Bad response: 401", "Bad response: 403"]) {
            return LayerError::AccessDenied { detail };
        }
        if has(&[
            "extracting tarball",
            "unexpected end of file",
            "invalid gzip header",
            "corrupt deflate stream",
            "end of file before message length reached",
        ]) {
            return LayerError::BadArchive { detail };
        }
        if has(&[
            "error sending request",
            "client error",
            "Connection refused",
            "dns error",
            "timed out",
            "connection closed",
            "error reading a body",
            "Bad response: 5",
            "500 Internal",
            "502 Bad",
            "503 Service",
            "504 Gateway",
            "Too Many Requests",
            "manifest for",
        ]) {
            return LayerError::RegistryUnreachable { detail };
        }
        let detail = if detail.is_empty() { format!("it ended with {status}") } else { detail };
        LayerError::Fetch { detail }
    }

    /// Deno's error without the places in our own module and without paths.
    fn text(&self, staging: &Path) -> String {
        let from = self.kept.iter().position(|line| line.starts_with("error")).unwrap_or(0);
        let lines = self.kept.iter().skip(from).map(String::as_str);
        let lines = lines.filter(|line| !line.trim_start().starts_with("at file:"));
        let staging = staging.to_string_lossy();
        let text: String = lines.map(|line| format!("{}\n", line.replace(&*staging, ""))).collect();
        text.trim_start_matches("error: ").to_owned()
    }
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(rest[..rest.find(after).unwrap_or(rest.len())].to_owned())
}

fn short(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MAX_DETAIL).collect()
}
