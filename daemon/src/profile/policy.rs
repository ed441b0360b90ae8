//! Holding what a session's environment asks for against `[policy]`. Pure, but for reading where paths lead.
//!
//! More than is offered is refused, or cut down to what is offered: the policy says which. Nothing is cut in silence.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use conductor_pool::{Grant, Grants};

use super::expand::{Scope, expand};
use super::resolve::{RUN_ARGS, WORKSPACE};
use super::{ProfileError, run_args};
use crate::config::{Excess, PolicySection};
use crate::dirs::Dirs;

/// What is offered, and to whom it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    pub(super) policy: &'a PolicySection,
    pub(super) dirs: &'a Dirs,
}

impl Offer<'_> {
    pub(super) fn cuts(&self) -> bool {
        self.policy.excess == Excess::Cut
    }

    /// What of `asked` the session gets, and a warning for each part it does not get.
    ///
    /// # Errors
    /// The first part that is not offered, unless it is to be cut.
    pub(super) fn grants(&self, asked: Grants, warnings: &mut Vec<String>) -> Result<Grants, ProfileError> {
        let mut granted = asked;
        if granted.all {
            if self.offers_kind("all") {
                return Ok(granted);
            }
            self.refuse_kind("all")?;
            warnings.push("allow-all is cut to what [policy] offers".to_owned());
            granted = everything();
        }
        for kind in run_args::KINDS {
            let Some(grant) = run_args::grant_mut(&mut granted, kind) else { continue };
            if grant.is_none() {
                continue;
            }
            if !self.offers_kind(kind) {
                self.refuse_kind(kind)?;
                warnings.push(format!("allow-{kind} is cut: [policy] offers none of it to sessions"));
                *grant = Grant::None;
            } else if let Some(list) = self.list(kind)? {
                let (within, beyond) = intersection(kind, grant, &list);
                if let Some(value) = beyond {
                    self.refuse_value(kind, &value, &list)?;
                    warnings
                        .push(format!("allow-{kind}={value} is cut: [policy] offers {}", in_words(&list)));
                }
                *grant = within;
            }
        }
        Ok(granted)
    }

    /// Whether the environment may put a workspace there.
    ///
    /// # Errors
    /// It may not, and excess is refused.
    pub(super) fn workspace(
        &self,
        workspace: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<bool, ProfileError> {
        let Some(list) = &self.policy.workspaces else { return Ok(true) };
        let list = self.directories(list)?;
        let path = workspace.to_string_lossy();
        if list.iter().any(|offer| inside(&path, offer)) {
            return Ok(true);
        }
        let why = format!("`{path}` is outside what [policy] offers\nhint: offered is {}", in_words(&list));
        if !self.cuts() {
            return Err(ProfileError::Value { variable: WORKSPACE, why });
        }
        warnings.push(format!("{WORKSPACE}: `{path}` is outside what [policy] offers, and not used"));
        Ok(false)
    }

    fn offers_kind(&self, kind: &str) -> bool {
        self.policy.session_grants.iter().any(|offered| offered.name() == kind)
    }

    fn refuse_kind(&self, kind: &str) -> Result<(), ProfileError> {
        if self.cuts() {
            return Ok(());
        }
        let config = self.dirs.config_file().display().to_string();
        Err(ProfileError::KindRefused { variable: RUN_ARGS, kind: kind.to_owned(), config })
    }

    fn refuse_value(&self, kind: &'static str, value: &str, list: &[String]) -> Result<(), ProfileError> {
        if self.cuts() {
            return Ok(());
        }
        let (value, offered) = (value.to_owned(), in_words(list));
        Err(ProfileError::ValueRefused { variable: RUN_ARGS, kind, value, offered })
    }

    /// The list that bounds a kind; `None` where there is no bound.
    fn list(&self, kind: &str) -> Result<Option<Vec<String>>, ProfileError> {
        let list = match kind {
            "read" => &self.policy.read,
            "write" => &self.policy.write,
            "net" => &self.policy.net,
            "env" => &self.policy.env,
            "run" => &self.policy.run,
            "ffi" => &self.policy.ffi,
            "sys" => &self.policy.sys,
            _ => &None,
        };
        match list {
            Some(list) if matches!(kind, "read" | "write" | "ffi") => self.directories(list).map(Some),
            list => Ok(list.clone()),
        }
    }

    /// Paths of the policy, which may refer to the home directory and to nothing that a session can choose.
    fn directories(&self, list: &[String]) -> Result<Vec<String>, ProfileError> {
        let home = self.dirs.home.to_string_lossy();
        let scope = Scope { home: &home, project: "", env: &Default::default() };
        let expanded = list.iter().map(|path| expand(path, scope));
        let wrong = |error: super::expand::ExpandError| ProfileError::Value {
            variable: "[policy]",
            why: error.to_string(),
        };
        expanded.collect::<Result<_, _>>().map_err(wrong)
    }
}

/// Every kind as if it had been asked for alone.
fn everything() -> Grants {
    let mut grants = Grants::default();
    for kind in run_args::KINDS {
        if let Some(grant) = run_args::grant_mut(&mut grants, kind) {
            *grant = Grant::All;
        }
    }
    grants
}

/// What is both asked for and offered, and the first that is asked for and not offered.
fn intersection(kind: &str, asked: &Grant, offered: &[String]) -> (Grant, Option<String>) {
    let values = match asked {
        Grant::None => return (Grant::None, None),
        Grant::All => return (granted(offered.iter().cloned().collect()), Some("(all)".to_owned())),
        Grant::Only(values) => values,
    };
    let mut within = BTreeSet::new();
    let mut beyond = None;
    for value in values {
        if offered.iter().any(|offer| covers(kind, value, offer)) {
            within.insert(value.clone());
            continue;
        }
        beyond.get_or_insert_with(|| value.clone());
        // Of a directory above the offered ones, these are left.
        within.extend(offered.iter().filter(|offer| covers(kind, offer, value)).cloned());
    }
    (granted(within), beyond)
}

fn granted(values: BTreeSet<String>) -> Grant {
    if values.is_empty() { Grant::None } else { Grant::Only(values) }
}

/// Whether a grant of `offer` holds `value`.
fn covers(kind: &str, value: &str, offer: &str) -> bool {
    match kind {
        "read" | "write" | "ffi" => inside(value, offer),
        "net" => {
            let host = |text: &str| text.to_ascii_lowercase();
            host(value) == host(offer) || without_port(value).is_some_and(|bare| host(bare) == host(offer))
        }
        _ => value == offer,
    }
}

/// `host` of `host:port`; an address of IPv6 has its colons in brackets.
fn without_port(value: &str) -> Option<&str> {
    let (host, port) = value.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_port && (!host.contains(':') || host.ends_with(']'))).then_some(host)
}

/// By name, and in truth: a symbolic link in an offered directory must not lead out of it.
fn inside(path: &str, directory: &str) -> bool {
    let (path, directory) = (Path::new(path), Path::new(directory));
    path.starts_with(directory) && real(path).starts_with(real(directory))
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match there {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(Path::new(""))),
        None => path.to_owned(),
    }
}

fn in_words(list: &[String]) -> String {
    if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_offers_its_ports_and_a_port_only_itself() {
        for (value, offer, expected) in [
            ("a.org", "a.org", true),
            ("A.org", "a.org", true),
            ("a.org:443", "a.org", true),
            ("a.org:443", "a.org:443", true),
            ("a.org:80", "a.org:443", false),
            ("a.org", "a.org:443", false),
            ("b.a.org", "a.org", false),
            ("[::1]:80", "[::1]", true),
            ("::1", "::", false),
        ] {
            assert_eq!(covers("net", value, offer), expected, "{value} of {offer}");
        }
    }

    #[test]
    fn a_link_out_of_an_offered_directory_is_outside() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("is there");
        let (code, secret) = (root.join("code"), root.join("secret"));
        std::fs::create_dir(&code).expect("makes");
        std::fs::create_dir(&secret).expect("makes");
        std::os::unix::fs::symlink(&secret, code.join("link")).expect("links");
        let inside = |path: &Path| inside(&path.to_string_lossy(), &code.to_string_lossy());
        assert!(inside(&code.join("not/there/yet")));
        assert!(!inside(&code.join("link")) && !inside(&code.join("link/below")));
        assert!(!inside(&secret));
    }

    #[test]
    fn of_a_directory_above_the_offered_ones_these_are_left() {
        let offered = ["/a/b".to_owned(), "/c".to_owned()];
        let asked = Grant::Only(["/a", "/c/d", "/e"].map(String::from).into());
        let (within, beyond) = intersection("read", &asked, &offered);
        assert_eq!(within, Grant::Only(["/a/b", "/c/d"].map(String::from).into()));
        assert_eq!(beyond.as_deref(), Some("/a"));
        assert_eq!(intersection("read", &Grant::All, &[]).0, Grant::None);
    }
}
