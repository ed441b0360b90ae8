//! Which packages code may import, and the judgement of one import.
//!
//! The administrator lists packages with the versions that may run; code names a package, with or without a version, and
//! gets the listed one. [`Allowlist::judge`] decides on text alone, before anything is looked up or fetched. Pure.

use std::collections::BTreeMap;
use std::fmt;

use deno_semver::VersionReq;

use crate::refusal::{Refusal, RefusalKind, nearest, quoted};
use crate::specifier::{Malformed, Package, Parsed, Registry};

mod defaults;
#[cfg(test)]
mod tests;

pub use defaults::DEFAULT_PACKAGES;

/// The packages that code may import.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Allowlist {
    /// By [`Package::key`].
    packages: BTreeMap<String, Package>,
    allows_any: bool,
}

/// A package that code asks for and may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    package: Package,
    subpath: Option<String>,
}

/// A list that cannot be used. The text names the entry and the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("package list: {} {reason}\nhint: {hint}", quoted(.entry))]
pub struct AllowlistError {
    pub entry: String,
    pub reason: String,
    pub hint: String,
}

impl Allowlist {
    /// What a session gets for a setting: the default list when there is none.
    ///
    /// # Errors
    /// See [`Allowlist::parse`].
    pub fn from_setting(setting: Option<&str>) -> Result<Self, AllowlistError> {
        Self::parse(setting.unwrap_or(DEFAULT_PACKAGES))
    }

    /// Allows nothing.
    pub fn none() -> Self {
        Self { packages: BTreeMap::new(), allows_any: false }
    }

    /// Reads entries between commas or white space: `npm:axios@^1`, `jsr:@std/path`. `all` or `*` allows every package,
    /// and entries beside it say which versions of those packages run. `none`, or no entry, allows nothing.
    ///
    /// # Errors
    /// An entry that is no package, one that is there twice, or `none` beside others.
    pub fn parse(text: &str) -> Result<Self, AllowlistError> {
        let mut list = Self::none();
        let entries: Vec<&str> =
            text.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty()).collect();
        for &entry in &entries {
            match entry {
                "*" => list.allows_any = true,
                _ if entry.eq_ignore_ascii_case("all") => list.allows_any = true,
                _ if entry.eq_ignore_ascii_case("none") && entries.len() == 1 => {}
                _ => list.add(entry)?,
            }
        }
        Ok(list)
    }

    fn add(&mut self, entry: &str) -> Result<(), AllowlistError> {
        let package = Package::parse(entry).map_err(|why| bad_entry(entry, &why))?;
        match self.packages.insert(package.key(), package) {
            None => Ok(()),
            Some(before) => Err(AllowlistError {
                entry: entry.to_owned(),
                reason: format!("is the second entry for {}", before.key()),
                hint: format!("keep one of {before} and {entry}"),
            }),
        }
    }

    /// True for `all`: code chooses what is fetched.
    pub fn allows_any(&self) -> bool {
        self.allows_any
    }

    /// True when no import of a package can succeed.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && !self.allows_any
    }

    /// The listed packages in the order of their names.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// Decides on an import specifier, or an entry of `dependencies`. A bare name (`axios`, `lodash/fp`, `@std/path`) means
    /// the listed package of that name.
    ///
    /// `node:` modules, paths and anything else that is no package are not for this function: it refuses them.
    ///
    /// # Errors
    /// The text is no package specifier, the package is not listed, or the version asked for is not allowed.
    pub fn judge(&self, specifier: &str) -> Result<Asked, Refusal> {
        let parsed = match Parsed::read(specifier) {
            Ok(parsed) => parsed,
            Err(why) => {
                let hint = self.hint_for(specifier);
                return Err(Refusal::malformed(specifier, &why, hint));
            }
        };
        match self.listed(&parsed) {
            Some(package) => ask(specifier, package, parsed),
            None if self.allows_any => ask_for_any(specifier, parsed),
            None => Err(self.not_allowed(specifier, &parsed)),
        }
    }

    fn listed(&self, parsed: &Parsed) -> Option<&Package> {
        let look_up =
            |registry: Registry| self.packages.get(&format!("{}{}", registry.scheme(), parsed.name));
        match parsed.registry {
            Some(registry) => look_up(registry),
            None => look_up(Registry::Npm).or_else(|| look_up(Registry::Jsr)),
        }
    }

    fn not_allowed(&self, specifier: &str, parsed: &Parsed) -> Refusal {
        let message = format!("the package {} is not allowed here", quoted(specifier));
        let other_registry = self.packages.values().find(|package| package.name() == parsed.name);
        let hint = match other_registry {
            Some(package) => Some(format!("write {}", quoted(&package.key()))),
            None if parsed.registry.is_none() && is_builtin(&parsed.name) => {
                Some(format!("this is a module of Node: write {}", quoted(&format!("node:{specifier}"))))
            }
            None => self.hint_for(specifier),
        };
        Refusal::new(RefusalKind::NotAllowed, message, hint)
    }

    /// What was probably meant, else what there is.
    fn hint_for(&self, specifier: &str) -> Option<String> {
        if let Some(package) = self.named_in_url(specifier).or_else(|| self.near(specifier)) {
            return Some(format!("write {}", quoted(&package.key())));
        }
        if self.allows_any {
            return Some("write `npm:NAME` or `jsr:@SCOPE/NAME`".to_owned());
        }
        if self.packages.is_empty() {
            return Some(
                "no package is allowed in this session; use what Deno and Node have built in".to_owned(),
            );
        }
        Some(format!("allowed are: {}", Names(&self.packages)))
    }

    fn near(&self, specifier: &str) -> Option<&Package> {
        let meant = |parts| nearest(&loose_name(specifier, parts), self.packages.values().map(Package::name));
        let found = meant(1).or_else(|| meant(2))?;
        self.packages.values().find(|package| package.name() == found)
    }

    /// `https://esm.sh/axios@1` and the like: a listed package as a part of the path.
    fn named_in_url(&self, specifier: &str) -> Option<&Package> {
        let (_, path) = specifier.split_once("://")?.1.split_once('/')?;
        self.packages.values().find(|package| {
            path.match_indices(package.name()).any(|(at, name)| {
                let before = path[..at].chars().next_back();
                let after = path[at + name.len()..].chars().next();
                matches!(before, None | Some('/' | ':')) && matches!(after, None | Some('/' | '@' | '?'))
            })
        })
    }
}

impl Asked {
    /// The package with the versions that may run, not the version that was asked for.
    pub fn package(&self) -> &Package {
        &self.package
    }

    /// The file in the package, as written.
    pub fn subpath(&self) -> Option<&str> {
        self.subpath.as_deref()
    }

    /// The specifier to which the import comes down, before a layer refines it.
    pub fn specifier(&self) -> String {
        self.package.specifier(self.subpath())
    }
}

fn ask(specifier: &str, package: &Package, parsed: Parsed) -> Result<Asked, Refusal> {
    if let Some(version) = &parsed.version
        && !overlaps(package.req().version_req.clone(), version)
    {
        let message = format!(
            "{} asks for version `{version}` of {}, and allowed is `{}`",
            quoted(specifier),
            package.key(),
            package.range()
        );
        let hint = format!("write {} without a version", quoted(&package.key()));
        return Err(Refusal::new(RefusalKind::Version, message, Some(hint)));
    }
    Ok(Asked { package: package.clone(), subpath: parsed.subpath })
}

/// `latest` means no version in particular: the newest of the allowed ones is what it gets.
fn overlaps(allowed: VersionReq, asked: &str) -> bool {
    asked == "latest" || VersionReq::parse_from_specifier(asked).is_ok_and(|asked| allowed.intersects(&asked))
}

fn ask_for_any(specifier: &str, parsed: Parsed) -> Result<Asked, Refusal> {
    let registry = parsed.registry.unwrap_or_else(|| {
        // The scope of Deno's standard library, which only jsr has.
        if parsed.name.starts_with("@std/") { Registry::Jsr } else { Registry::Npm }
    });
    if parsed.registry.is_none() && is_builtin(&parsed.name) {
        let hint = format!("this is a module of Node: write {}", quoted(&format!("node:{specifier}")));
        let message = format!("{} names no package", quoted(specifier));
        return Err(Refusal::new(RefusalKind::Malformed, message, Some(hint)));
    }
    let package = Package::new(registry, &parsed.name, parsed.version.as_deref())
        .map_err(|why| Refusal::malformed(specifier, &why, None))?;
    Ok(Asked { package, subpath: parsed.subpath })
}

fn bad_entry(entry: &str, why: &Malformed) -> AllowlistError {
    let hint = match why {
        Malformed::NoRegistry => format!("write {}", quoted(&format!("npm:{entry}"))),
        Malformed::HasSubpath => {
            "list the whole package, such as npm:lodash@^4; its files come with it".to_owned()
        }
        Malformed::UpperCase | Malformed::SchemeCase(_) => {
            format!("write {}", quoted(&entry.to_ascii_lowercase()))
        }
        Malformed::Version(_) => "a range is written ^1, ~1.2, 1.x or 1.2.3".to_owned(),
        Malformed::Scheme(_) => "only npm: and jsr: packages can be allowed, no addresses".to_owned(),
        Malformed::NoScope => "jsr packages are written jsr:@scope/name".to_owned(),
        _ => {
            "an entry is written npm:axios@^1 or jsr:@std/path@^1; entries are separated by commas".to_owned()
        }
    };
    AllowlistError { entry: entry.to_owned(), reason: format!("is no entry: {why}"), hint }
}

/// The package's name, of one part or two, in text that is perhaps not even a specifier.
fn loose_name(specifier: &str, parts: usize) -> String {
    let text = specifier.trim();
    let has_scheme = text
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("npm:") || start.eq_ignore_ascii_case("jsr:"));
    let text = if has_scheme { &text[4..] } else { text };
    let name: Vec<&str> = text.split('/').take(parts).collect();
    let name = name.join("/");
    match name.char_indices().skip(1).find(|(_, c)| *c == '@') {
        Some((at, _)) => name[..at].to_owned(),
        None => name,
    }
}

/// True for the modules of Node that code imports without `node:`.
pub fn is_builtin(name: &str) -> bool {
    const BUILTINS: &[&str] = &[
        "assert",
        "async_hooks",
        "buffer",
        "child_process",
        "cluster",
        "console",
        "constants",
        "crypto",
        "dgram",
        "diagnostics_channel",
        "dns",
        "domain",
        "events",
        "fs",
        "http",
        "http2",
        "https",
        "inspector",
        "module",
        "net",
        "os",
        "path",
        "perf_hooks",
        "process",
        "punycode",
        "querystring",
        "readline",
        "repl",
        "stream",
        "string_decoder",
        "sys",
        "timers",
        "tls",
        "tty",
        "url",
        "util",
        "v8",
        "vm",
        "wasi",
        "worker_threads",
        "zlib",
    ];
    BUILTINS.contains(&name)
}

/// The names of the packages, cut after some: a hint is for reading.
struct Names<'a>(&'a BTreeMap<String, Package>);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 30;
        for (at, key) in self.0.keys().take(SHOWN).enumerate() {
            write!(f, "{}{key}", if at == 0 { "" } else { ", " })?;
        }
        if self.0.len() > SHOWN { write!(f, " and {} more", self.0.len() - SHOWN) } else { Ok(()) }
    }
}
