//! What a schema cannot say: values that have a syntax of their own, and that must fit each other. Pure.

use std::path::Path;

use conductor_packages::Allowlist;
use conductor_upstream::nearest;

use super::Config;
use super::document::{Document, Problem};
use super::types::{PolicySection, ProfileSection};
use crate::profile::{defaults, run_args};

/// Everything that is wrong in a document of the right shape.
pub(crate) fn problems(config: &Config, document: &Document<'_>) -> Vec<Problem> {
    let mut check = Check { document, problems: Vec::new() };
    for (name, profile) in &config.profiles {
        check.profile(name, profile);
    }
    check.policy(&config.policy, config);
    for (key, words) in config.http.problems() {
        check.add(&["http", key], &words);
    }
    check.problems
}

struct Check<'d, 'a> {
    document: &'d Document<'a>,
    problems: Vec<Problem>,
}

impl Check<'_, '_> {
    /// Adds an error's words; what follows `hint:` in them becomes the hint.
    fn add(&mut self, path: &[&str], words: &str) {
        let (what, hint) = match words.split_once("\nhint: ") {
            Some((what, hint)) => (what, Some(hint.to_owned())),
            None => (words, None),
        };
        self.problems.push(self.document.problem(self.document.span_of(path), path, what, hint));
    }

    fn profile(&mut self, name: &str, profile: &ProfileSection) {
        let path = |key| ["profiles", name, key];
        if let Some(error) = profile.run_args.as_deref().and_then(|text| run_args::parse(text).err()) {
            self.add(&path("run-args"), &error.to_string());
        }
        if let Some(text) = &profile.workspace {
            self.absolute(&path("workspace"), text);
        }
        if let Some(text) = profile.mcp_config.as_deref().filter(|text| *text != "none") {
            self.absolute(&path("mcp-config"), text);
        }
        if let Some(lock) = profile.packages_lock.as_deref().filter(|lock| !lock.is_absolute()) {
            self.add(&path("packages-lock"), &format!("`{}` must be an absolute path", lock.display()));
        }
        let heap = profile.heap_mib.unwrap_or(defaults::HEAP_MIB);
        if profile.max_memory_mib.is_some_and(|memory| memory < heap) {
            self.add(&path("max-memory-mib"), &format!("must not be below `heap-mib`, which is {heap}"));
        }
        let allowed = self.packages(&path("packages"), profile.packages.as_deref());
        for specifier in profile.preload.iter().flatten() {
            if let Some(refusal) = allowed.as_ref().and_then(|allowed| allowed.judge(specifier).err()) {
                self.add(&path("preload"), &refusal.to_string());
            }
        }
    }

    fn policy(&mut self, policy: &PolicySection, config: &Config) {
        self.packages(&["policy", "packages"], policy.packages.as_deref());
        let directories = [
            ("read", &policy.read),
            ("write", &policy.write),
            ("ffi", &policy.ffi),
            ("workspaces", &policy.workspaces),
        ];
        for (key, list) in directories {
            for text in list.iter().flatten() {
                self.absolute(&["policy", key], text);
                let fixed = text.replace("${HOME}", "").replace("${userHome}", "");
                if fixed.contains("${") {
                    let path = ["policy", key];
                    self.add(
                        &path,
                        &format!(
                            "`{text}` refers to what a session can choose\nhint: write the directory itself"
                        ),
                    );
                }
            }
        }
        for (kind, list) in [("net", &policy.net), ("env", &policy.env), ("sys", &policy.sys)] {
            for value in list.iter().flatten() {
                if let Err(why) = run_args::check_value(kind, value) {
                    self.add(&["policy", kind], &format!("`{value}` {why}"));
                }
            }
        }
        for name in policy.profiles.iter().flatten() {
            let known = || config.profiles.keys().map(String::as_str).chain(["default"]);
            if !known().any(|known| known == name) {
                let near = nearest(name, known()).map(|near| format!("\nhint: did you mean `{near}`?"));
                let words = format!("there is no profile `{name}` in this file{}", near.unwrap_or_default());
                self.add(&["policy", "profiles"], &words);
            }
        }
    }

    fn absolute(&mut self, path: &[&str], text: &str) {
        let is_absolute =
            Path::new(text).is_absolute() || text.starts_with("${") || text == "~" || text.starts_with("~/");
        if !is_absolute {
            self.add(path, &format!("`{text}` must be an absolute path\nhint: begin it with / or ~/"));
        }
    }

    /// The list, or the default one, unless it is wrong.
    fn packages(&mut self, path: &[&str], list: Option<&[String]>) -> Option<Allowlist> {
        let text = list.map_or(conductor_packages::DEFAULT_PACKAGES.to_owned(), |list| list.join(" "));
        Allowlist::parse(&text).inspect_err(|error| self.add(path, &error.to_string())).ok()
    }
}
