//! A `deno.lock` of version 5, read: which version each specifier came down to, and what needs what.
//!
//! Only Deno writes locks. This module reads what it wrote, or what an administrator checked in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use deno_semver::Version;
use serde::Deserialize;

use crate::specifier::{Package, Registry};

/// The only version that Deno ≥ 2.3 writes.
const VERSION: &str = "5";

/// A lock that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    #[error("it is no lock file: {0}")]
    Syntax(String),
    #[error("it has version {}; this program reads version {VERSION}", .0.escape_debug())]
    Version(String),
    #[error("it lists {} without an integrity hash", .0.escape_debug())]
    NoIntegrity(String),
}

#[derive(Debug, Default, Deserialize)]
struct Raw {
    version: String,
    #[serde(default)]
    specifiers: BTreeMap<String, String>,
    #[serde(default)]
    npm: BTreeMap<String, RawPackage>,
    #[serde(default)]
    jsr: BTreeMap<String, RawPackage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPackage {
    integrity: Option<String>,
    dependencies: Vec<String>,
    optional_dependencies: Vec<String>,
    os: Vec<String>,
    cpu: Vec<String>,
}

/// What a lock says.
#[derive(Debug)]
pub struct Lockfile {
    /// `npm:axios@1` to `1.7.9`, or `1.7.9_peer@1.0.0`.
    specifiers: BTreeMap<String, String>,
    /// `npm:axios@1.7.9` to what it needs, by the same kind of name.
    packages: BTreeMap<String, Node>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) needs: BTreeSet<String>,
    pub(crate) can_use: BTreeSet<String>,
    /// Made for some platforms only.
    pub(crate) is_platform_specific: bool,
    pub(crate) integrity: String,
}

impl Lockfile {
    /// # Errors
    /// It is no lock of the version that is read here, or one without hashes.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let raw: Raw = serde_json::from_str(text).map_err(|error| LockError::Syntax(error.to_string()))?;
        if raw.version != VERSION {
            return Err(LockError::Version(raw.version));
        }
        let names = Names::of(&raw);
        let mut packages = BTreeMap::new();
        let listed = raw.npm.iter().map(|entry| (Registry::Npm, entry));
        for (registry, (id, package)) in listed.chain(raw.jsr.iter().map(|entry| (Registry::Jsr, entry))) {
            let id = format!("{}{id}", registry.scheme());
            let Some(integrity) = package.integrity.clone() else { return Err(LockError::NoIntegrity(id)) };
            let needs =
                package.dependencies.iter().filter_map(|name| names.resolve(registry, name)).collect();
            let can_use = package
                .optional_dependencies
                .iter()
                .filter_map(|name| names.resolve(registry, name))
                .collect();
            let is_platform_specific = !(package.os.is_empty() && package.cpu.is_empty());
            packages.insert(id, Node { needs, can_use, is_platform_specific, integrity });
        }
        Ok(Self { specifiers: raw.specifiers, packages })
    }

    /// The locked version of a package, such as `1.7.9`.
    pub fn version_of(&self, package: &Package) -> Option<&str> {
        self.specifiers.get(&package.locked_form()).map(|locked| without_peers(locked))
    }

    /// The lock's own spelling of a package whose locked version `allowed` allows.
    pub fn spelling_within(&self, allowed: &Package) -> Option<Package> {
        if self.version_of(allowed).is_some() {
            return Some(allowed.clone());
        }
        self.specifiers.iter().find_map(|(specifier, locked)| {
            let spelled = Package::parse(specifier).ok().filter(|spelled| spelled.key() == allowed.key())?;
            allowed.admits(without_peers(locked)).then_some(spelled)
        })
    }

    /// The name in the lock of what a package came down to: `npm:axios@1.7.9`.
    pub fn id_of(&self, package: &Package) -> Option<String> {
        let locked = self.specifiers.get(&package.locked_form())?;
        Some(format!("{}@{locked}", package.key()))
    }

    /// Every package with its name in the lock.
    pub(crate) fn packages(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.packages.iter().map(|(id, node)| (id.as_str(), node))
    }

    pub(crate) fn node(&self, id: &str) -> Option<&Node> {
        self.packages.get(id)
    }

    /// The shortest way from `from` to a package that is named `name` (`form-data`, `npm:form-data` or
    /// `npm:form-data@4.0.1`), both ends included.
    pub fn path(&self, from: &str, name: &str) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([self.packages.get_key_value(from)?.0.as_str()]);
        while let Some(id) = queue.pop_front() {
            if is_named(id, name) {
                let back = std::iter::successors(Some(id), |id| came_from.get(id).copied());
                let mut path: Vec<String> = back.map(str::to_owned).collect();
                path.reverse();
                return Some(path);
            }
            let node = &self.packages[id];
            for next in node.needs.iter().chain(&node.can_use) {
                if next != from && !came_from.contains_key(next.as_str()) && self.packages.contains_key(next)
                {
                    came_from.insert(next, id);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

/// Resolves the short names of dependencies: a lock says `debug` where there is one version of it, `debug@4.4.3` where
/// there are several, and `jsr:@std/x` or `npm:x@1` in packages of jsr.
struct Names<'a> {
    raw: &'a Raw,
    by_name: BTreeMap<(Registry, &'a str), &'a str>,
}

impl<'a> Names<'a> {
    fn of(raw: &'a Raw) -> Self {
        let npm = raw.npm.keys().map(|id| (Registry::Npm, id));
        let all = npm.chain(raw.jsr.keys().map(|id| (Registry::Jsr, id)));
        let by_name = all.map(|(registry, id)| ((registry, name_of(id)), id.as_str())).collect();
        Self { raw, by_name }
    }

    fn resolve(&self, registry: Registry, written: &str) -> Option<String> {
        let (registry, written) = match (written.strip_prefix("npm:"), written.strip_prefix("jsr:")) {
            (Some(rest), _) => (Registry::Npm, rest),
            (_, Some(rest)) => (Registry::Jsr, rest),
            _ => (registry, written),
        };
        let listed = match registry {
            Registry::Npm => &self.raw.npm,
            Registry::Jsr => &self.raw.jsr,
        };
        let specifier = || self.raw.specifiers.get(&format!("{}{written}", registry.scheme()));
        let id = if listed.contains_key(written) {
            written.to_owned()
        } else if let Some(version) = specifier() {
            format!("{}@{version}", name_of(written))
        } else {
            (*self.by_name.get(&(registry, name_of(written)))?).to_owned()
        };
        Some(format!("{}{id}", registry.scheme()))
    }
}

impl Package {
    /// True when `version` is one of the versions that this allows. A tag (`latest`) admits any: only the registry knows.
    pub(crate) fn admits(&self, version: &str) -> bool {
        let range = self.req().version_req.range();
        range.is_none_or(|range| {
            Version::parse_from_npm(version).is_ok_and(|version| range.satisfies(&version))
        })
    }
}

/// The name in `name@version`; a scope's `@` is not the one.
pub(crate) fn name_of(id: &str) -> &str {
    let at = id.char_indices().skip(1).find(|(_, c)| *c == '@');
    at.map_or(id, |(at, _)| &id[..at])
}

/// The version in `name@version_peer@version`, without the peers.
pub(crate) fn version_in(id: &str) -> &str {
    without_peers(id[name_of(id).len()..].trim_start_matches('@'))
}

fn without_peers(version: &str) -> &str {
    version.split_once('_').map_or(version, |(version, _)| version)
}

fn is_named(id: &str, name: &str) -> bool {
    let Some((_, bare)) = id.split_once(':') else { return false };
    [id, bare, name_of(bare)].contains(&name)
        || id.strip_suffix(bare).is_some_and(|scheme| name.strip_prefix(scheme) == Some(name_of(bare)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"{
        "version": "5",
        "specifiers": { "npm:a@1": "1.2.0_peer@2.0.0", "npm:b@~2.1": "2.1.5", "jsr:@s/j@1": "1.0.0" },
        "jsr": { "@s/j@1.0.0": { "integrity": "x", "dependencies": ["npm:b@~2.1"] } },
        "npm": {
            "a@1.2.0_peer@2.0.0": { "integrity": "x", "dependencies": ["b@2.0.0", "peer"] },
            "b@2.0.0": { "integrity": "x", "dependencies": ["c"], "optionalDependencies": ["absent", "@n/linux"] },
            "b@2.1.5": { "integrity": "x" },
            "c@3.0.0": { "integrity": "x", "dependencies": ["a"] },
            "peer@2.0.0": { "integrity": "x" },
            "@n/linux@1.0.0": { "integrity": "x", "os": ["linux"] }
        }
    }"#;

    fn package(text: &str) -> Package {
        Package::parse(text).unwrap()
    }

    #[test]
    fn says_which_version_a_package_came_down_to() {
        let lock = Lockfile::parse(LOCK).unwrap();
        assert_eq!(lock.version_of(&package("npm:a@^1")), Some("1.2.0"));
        assert_eq!(lock.version_of(&package("npm:a@^1.1")), None);
        assert_eq!(lock.spelling_within(&package("npm:b@^2")).unwrap().to_string(), "npm:b@~2.1");
        assert_eq!(lock.spelling_within(&package("npm:b@2.0")), None);
        assert_eq!(lock.spelling_within(&package("npm:c")), None, "needed by others is not importable");
        assert!(lock.node("npm:@n/linux@1.0.0").unwrap().is_platform_specific);
    }

    #[test]
    fn says_what_brings_something_in() {
        let lock = Lockfile::parse(LOCK).unwrap();
        let a = lock.id_of(&package("npm:a@1")).unwrap();
        assert_eq!(lock.path(&a, "c").unwrap(), ["npm:a@1.2.0_peer@2.0.0", "npm:b@2.0.0", "npm:c@3.0.0"]);
        assert_eq!(lock.path(&a, "npm:@n/linux").unwrap().len(), 3);
        assert_eq!(lock.path(&a, "npm:b@2.0.0").unwrap().len(), 2);
        assert_eq!(lock.path(&a, "npm:b@2.1.5"), None);
        let j = lock.id_of(&package("jsr:@s/j@1")).unwrap();
        assert_eq!(lock.path(&j, "b").unwrap(), ["jsr:@s/j@1.0.0", "npm:b@2.1.5"]);
    }

    #[test]
    fn refuses_what_is_no_lock_of_its_version_with_hashes() {
        assert!(matches!(Lockfile::parse("{"), Err(LockError::Syntax(_))));
        assert_eq!(Lockfile::parse(r#"{"version":"4"}"#).unwrap_err(), LockError::Version("4".into()));
        let lock = r#"{"version":"5","npm":{"a@1.0.0":{}}}"#;
        assert_eq!(Lockfile::parse(lock).unwrap_err(), LockError::NoIntegrity("npm:a@1.0.0".into()));
    }
}
