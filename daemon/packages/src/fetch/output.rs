//! What Deno prints while it fetches: progress, and at the end perhaps why it failed.

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use deno_semver::Version;
use tokio::sync::watch;

use crate::error::{LayerError, says_full};
use crate::progress::Progress;

/// Lines kept for the failure's text: Deno's own errors have fewer.
const KEPT_LINES: usize = 40;

/// Characters of Deno's text in an error that fits no kind.
const MAX_DETAIL: usize = 600;

/// An archive that came, and not as it was packed.
const BAD_ARCHIVE: &[&str] = &[
    "error reading a body",
    "end of file before message length reached",
    "unexpected end of file",
    "invalid gzip header",
    "corrupt deflate stream",
    "extracting tarball",
];

/// No answer, an answer that says so, or an answer of something that is no registry, such as the page of a hotel's network.
const UNREACHABLE: &[&str] = &[
    "error sending request",
    "error reading a body",
    "client error",
    "Bad response: 5",
    "Bad response: 429",
    "packument missing name",
    "expected value at line",
    "JSR package manifest for",
    "JSR package version manifest for",
];

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
                let package = package_in(archive);
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
    /// Puts Deno's text into a kind. Deno has no codes for these; the texts are those of 2.9, each held by a test with the
    /// real program.
    pub(super) fn failure(&self, status: ExitStatus, staging: &Path) -> LayerError {
        let text = self.text(staging);
        let package = || between(&text, "npm package '", "'").unwrap_or_else(|| "a package".to_owned());
        if says_full(&text) {
            return LayerError::DiskFull;
        }
        if text.contains("checksum did not match") || text.contains("ntegrity check failed") {
            let npm = between(&text, "package '", "'").map(|name| format!("npm:{name}"));
            let jsr = || between(&text, "Specifier: ", "\n").map(|address| jsr_package(&address));
            return LayerError::Integrity {
                package: npm.or_else(jsr).unwrap_or_else(|| "a package".to_owned()),
            };
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
        if has(&["Bad response: 401", "Bad response: 403", "401 Unauthorized", "403 Forbidden"]) {
            return LayerError::AccessDenied { detail };
        }
        if text.contains("Failed caching npm package") && has(BAD_ARCHIVE) {
            return LayerError::BadArchive { detail };
        }
        if has(UNREACHABLE) {
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

/// `axios-1.7.9` as `axios 1.7.9`.
fn package_in(archive: &str) -> String {
    let is_version = |text: &str| Version::parse_from_npm(text).is_ok();
    let dashes = archive.match_indices('-').map(|(at, _)| (&archive[..at], &archive[at + 1..]));
    let parts = dashes.into_iter().find(|(_, version)| is_version(version));
    parts.map_or_else(|| archive.to_owned(), |(name, version)| format!("{name} {version}"))
}

/// The package in the address of a file of it: `https://jsr.io/@std/path/1.0.0/mod.ts`.
fn jsr_package(address: &str) -> String {
    let parts: Vec<&str> = address.split('/').skip_while(|part| !part.starts_with('@')).take(3).collect();
    match parts[..] {
        [scope, name, version] => format!("jsr:{scope}/{}@{}", name, version.trim_end_matches("_meta.json")),
        _ => "a package of jsr".to_owned(),
    }
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(rest[..rest.find(after).unwrap_or(rest.len())].to_owned())
}

fn short(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.into_iter().map(without_user).collect::<Vec<_>>().join(" ").chars().take(MAX_DETAIL).collect()
}

/// An address may have been configured with a password in it.
fn without_user(word: &str) -> String {
    match word.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or_default();
            let user = host.rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[user..])
        }
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_packages_and_counts_them() {
        let progress = Arc::new(watch::Sender::new(Progress::Queued));
        let mut output = Output::new(Arc::clone(&progress));
        let table = [
            ("Download https://r.example/axios", "resolving (1 packages)"),
            ("Download https://r.example/@scope%2fis-odd", "resolving (2 packages)"),
            ("Download https://r.example/axios/-/axios-1.7.9.tgz", "fetching axios 1.7.9 (1 of 2)"),
            ("Download https://r.example/x/-/is-odd-3.0.0-rc.1.tgz", "fetching is-odd 3.0.0-rc.1 (2 of 2)"),
            ("Download https://r.example/x/-/base-64-1.0.0.tgz", "fetching base-64 1.0.0 (3 of 3)"),
            ("Warning something", "fetching base-64 1.0.0 (3 of 3)"),
        ];
        for (line, expected) in table {
            output.line(line);
            assert_eq!(progress.borrow().to_string(), expected, "{line}");
        }
    }

    #[test]
    fn errors_hold_no_password_and_no_path() {
        let mut output = Output::new(Arc::new(watch::Sender::new(Progress::Queued)));
        output.line("error: Bad response: 503 from https://me:secret@r.example/x");
        output.line("    at file:///secret/place/main.js:1:8");
        output.line("and /stage/x");
        let status = std::os::unix::process::ExitStatusExt::from_raw(256);
        let error = output.failure(status, Path::new("/stage")).to_string();
        assert_eq!(
            error,
            "the package registry cannot be reached: Bad response: 503 from https://r.example/x and /x"
        );
    }
}
