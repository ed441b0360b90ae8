//! What a package specifier is: the one grammar that everything else in this crate relies on.
//!
//! In: text that a model or an administrator wrote. Out: a registry, a name, a version and a subpath made of characters
//! that mean nothing to a shell, a path or a URL, or the reason why the text is none. What passes has passed Deno's own
//! parser, too. Pure; looks nothing up.

use std::fmt;

use deno_semver::jsr::JsrPackageReqReference;
use deno_semver::npm::NpmPackageReqReference;
use deno_semver::package::{PackageReq, PackageReqReference, PackageReqReferenceParseError};

/// Bytes of a specifier. npm's longest name is 214; a subpath of the same size leaves room for a version.
const MAX_SPECIFIER_BYTES: usize = 512;

/// Bytes of a package name, with its scope: npm's limit (validate-npm-package-name).
const MAX_NAME_BYTES: usize = 214;

/// Where a package comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Registry {
    Npm,
    Jsr,
}

impl Registry {
    /// `npm:` or `jsr:`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Npm => "npm:",
            Self::Jsr => "jsr:",
        }
    }
}

/// A package and which versions of it: `npm:axios@^1`.
///
/// Two that allow the same versions are equal, however the range is written.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Package {
    registry: Registry,
    req: PackageReq,
}

impl Package {
    /// Reads `npm:NAME`, `npm:NAME@RANGE`, or the same with `jsr:`.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let Parsed { registry, name, version, subpath } = Parsed::read(text)?;
        let registry = registry.ok_or(Malformed::NoRegistry)?;
        if subpath.is_some() {
            return Err(Malformed::HasSubpath);
        }
        Self::new(registry, &name, version.as_deref())
    }

    pub(crate) fn new(registry: Registry, name: &str, version: Option<&str>) -> Result<Self, Malformed> {
        let scheme = registry.scheme();
        let text =
            version.map_or_else(|| format!("{scheme}{name}"), |range| format!("{scheme}{name}@{range}"));
        let req = reference(registry, &text)
            .map_err(|_| Malformed::Version(version.unwrap_or_default().to_owned()))?
            .req;
        Ok(Self { registry, req })
    }

    pub fn registry(&self) -> Registry {
        self.registry
    }

    /// The name with its scope, without the registry.
    pub fn name(&self) -> &str {
        &self.req.name
    }

    /// The versions, as written; `*` for any.
    pub fn range(&self) -> &str {
        self.req.version_req.version_text()
    }

    /// The registry and the name: what code calls the package when it names no version.
    pub fn key(&self) -> String {
        format!("{}{}", self.registry.scheme(), self.name())
    }

    /// The form in which a lock lists it: `npm:axios@1` for `npm:axios@^1`.
    pub(crate) fn locked_form(&self) -> String {
        format!("{}{}", self.registry.scheme(), self.req.to_string_normalized())
    }

    pub(crate) fn req(&self) -> &PackageReq {
        &self.req
    }

    /// The specifier of the package, or of `subpath` in it.
    pub(crate) fn specifier(&self, subpath: Option<&str>) -> String {
        subpath.map_or_else(|| self.to_string(), |subpath| format!("{self}/{subpath}"))
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.registry.scheme(), self.req)
    }
}

impl fmt::Debug for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The parts of a well-formed specifier.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// `None` for a bare name (`axios`).
    pub(crate) registry: Option<Registry>,
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) subpath: Option<String>,
}

/// Why text is no package specifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it is empty")]
    Empty,
    #[error("it is {0} bytes long; {MAX_SPECIFIER_BYTES} is the limit")]
    TooLong(usize),
    #[error("it holds a control character ({})", .0.escape_unicode())]
    Control(char),
    #[error("it holds white space")]
    WhiteSpace,
    #[error("it holds {}, which is no ASCII letter", .0.escape_unicode())]
    NotAscii(char),
    #[error("only `npm:` and `jsr:` packages can be imported, not `{0}:`")]
    Scheme(String),
    #[error("`{0}:` must be written in lower case")]
    SchemeCase(String),
    #[error("it is a path, not a package")]
    Path,
    #[error("it names no package")]
    NoName,
    #[error("`npm:` or `jsr:` is missing")]
    NoRegistry,
    #[error("a package name is written in lower case")]
    UpperCase,
    #[error("`{0}` cannot be part of a package name")]
    NameCharacter(char),
    #[error("a package name cannot begin with `{0}`")]
    NameStart(char),
    #[error("its name is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong,
    #[error("a jsr package has a scope: `jsr:@scope/name`")]
    NoScope,
    #[error("`{0}` is no version")]
    Version(String),
    #[error("the version belongs after the package's name, before the path in it")]
    VersionInPath,
    #[error("`{0}` cannot be part of a path in a package")]
    PathCharacter(char),
    #[error("a path in a package has no empty parts and no `.` or `..`")]
    PathPart,
    #[error("it names a file in a package where the whole package is meant")]
    HasSubpath,
}

impl Parsed {
    pub(crate) fn read(text: &str) -> Result<Self, Malformed> {
        check_characters(text)?;
        let (registry, rest) = split_scheme(text)?;
        let (name, version, subpath) = split_parts(rest)?;
        check_name(name, registry)?;
        if let Some(version) = version {
            check_version(version)?;
        }
        if let Some(subpath) = subpath {
            check_subpath(subpath)?;
        }
        Ok(Self {
            registry,
            name: name.to_owned(),
            version: version.map(str::to_owned),
            subpath: subpath.map(str::to_owned),
        })
    }
}

/// Deno's reading of a specifier.
pub(crate) fn reference(
    registry: Registry,
    text: &str,
) -> Result<PackageReqReference, PackageReqReferenceParseError> {
    match registry {
        Registry::Npm => NpmPackageReqReference::from_str(text).map(NpmPackageReqReference::into_inner),
        Registry::Jsr => JsrPackageReqReference::from_str(text).map(JsrPackageReqReference::into_inner),
    }
}

fn check_characters(text: &str) -> Result<(), Malformed> {
    if text.is_empty() {
        return Err(Malformed::Empty);
    }
    if text.len() > MAX_SPECIFIER_BYTES {
        return Err(Malformed::TooLong(text.len()));
    }
    for character in text.chars() {
        if character.is_control() {
            return Err(Malformed::Control(character));
        }
        if character.is_whitespace() {
            return Err(Malformed::WhiteSpace);
        }
        if !character.is_ascii() {
            return Err(Malformed::NotAscii(character));
        }
    }
    Ok(())
}

fn split_scheme(text: &str) -> Result<(Option<Registry>, &str), Malformed> {
    if text.starts_with(['.', '/', '\\', '#']) {
        return Err(Malformed::Path);
    }
    let Some((scheme, rest)) = text.split_once(':') else { return Ok((None, text)) };
    match scheme {
        "npm" => Ok((Some(Registry::Npm), rest)),
        "jsr" => Ok((Some(Registry::Jsr), rest)),
        _ if scheme.eq_ignore_ascii_case("npm") || scheme.eq_ignore_ascii_case("jsr") => {
            Err(Malformed::SchemeCase(scheme.to_owned()))
        }
        _ if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) => {
            Err(Malformed::Scheme(scheme.to_ascii_lowercase()))
        }
        _ => Err(Malformed::NameCharacter(':')),
    }
}

type Parts<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

/// `@scope/name@version/sub/path` into name, version and subpath.
fn split_parts(rest: &str) -> Result<Parts<'_>, Malformed> {
    // The slash of a scope belongs to the name.
    let scope = if rest.starts_with('@') { rest.find('/').ok_or(Malformed::NoName)? + 1 } else { 0 };
    let end = rest[scope..].find('/').map_or(rest.len(), |at| scope + at);
    let subpath = rest.get(end + 1..);
    let (name, version) = match rest[scope..end].split_once('@') {
        Some((name, version)) => (&rest[..scope + name.len()], Some(version)),
        None => (&rest[..end], None),
    };
    if name[scope..].is_empty() || scope == 2 {
        return Err(Malformed::NoName);
    }
    Ok((name, version, subpath))
}

fn check_name(name: &str, registry: Option<Registry>) -> Result<(), Malformed> {
    if name.len() > MAX_NAME_BYTES {
        return Err(Malformed::NameTooLong);
    }
    if registry == Some(Registry::Jsr) && !name.starts_with('@') {
        return Err(Malformed::NoScope);
    }
    let is_jsr = registry == Some(Registry::Jsr);
    for part in name.strip_prefix('@').unwrap_or(name).split('/') {
        if let Some(start @ ('.' | '_' | '-' | '~')) = part.chars().next() {
            return Err(Malformed::NameStart(start));
        }
        for character in part.chars() {
            match character {
                'a'..='z' | '0'..='9' | '-' => {}
                '.' | '_' | '~' if !is_jsr => {}
                'A'..='Z' => return Err(Malformed::UpperCase),
                _ => return Err(Malformed::NameCharacter(character)),
            }
        }
    }
    Ok(())
}

fn check_version(version: &str) -> Result<(), Malformed> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".^~*+-_".contains(&byte);
    let parses = || deno_semver::VersionReq::parse_from_specifier(version).is_ok();
    if version.bytes().all(is_plain) && parses() {
        Ok(())
    } else {
        Err(Malformed::Version(version.to_owned()))
    }
}

fn check_subpath(subpath: &str) -> Result<(), Malformed> {
    for character in subpath.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' | '~' | '+' | '/' => {}
            '@' => return Err(Malformed::VersionInPath),
            _ => return Err(Malformed::PathCharacter(character)),
        }
    }
    if subpath.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Malformed::PathPart);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(
        registry: Option<Registry>,
        name: &str,
        version: Option<&str>,
        subpath: Option<&str>,
    ) -> Parsed {
        Parsed {
            registry,
            name: name.to_owned(),
            version: version.map(str::to_owned),
            subpath: subpath.map(str::to_owned),
        }
    }

    #[test]
    fn reads_the_forms_that_code_uses() {
        use Registry::{Jsr, Npm};
        let table = [
            ("npm:axios", parsed(Some(Npm), "axios", None, None)),
            ("npm:axios@1.6", parsed(Some(Npm), "axios", Some("1.6"), None)),
            ("npm:axios@^1.6.0-rc.1", parsed(Some(Npm), "axios", Some("^1.6.0-rc.1"), None)),
            ("npm:lodash/fp", parsed(Some(Npm), "lodash", None, Some("fp"))),
            ("npm:@scope/x@^1/sub/path.js", parsed(Some(Npm), "@scope/x", Some("^1"), Some("sub/path.js"))),
            ("npm:socket.io@latest", parsed(Some(Npm), "socket.io", Some("latest"), None)),
            ("jsr:@std/path/posix", parsed(Some(Jsr), "@std/path", None, Some("posix"))),
            ("axios", parsed(None, "axios", None, None)),
            ("lodash/fp", parsed(None, "lodash", None, Some("fp"))),
            ("@std/path@1", parsed(None, "@std/path", Some("1"), None)),
        ];
        for (text, expected) in table {
            assert_eq!(Parsed::read(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn gives_the_reason_why_something_is_none() {
        use Malformed as M;
        let table = [
            ("", M::Empty),
            ("npm:", M::NoName),
            ("npm:@", M::NoName),
            ("npm:@scope", M::NoName),
            ("npm:@/x", M::NoName),
            ("npm:@scope/", M::NoName),
            ("npm:/axios", M::NoName),
            ("npm:@1", M::NoName),
            ("npm:axios'; import evil", M::WhiteSpace),
            ("npm:axios';import", M::NameCharacter('\'')),
            ("npm:axios\n", M::Control('\n')),
            ("npm:ax\0ios", M::Control('\0')),
            ("npm:$(id)", M::NameCharacter('$')),
            ("npm:`id`", M::NameCharacter('`')),
            ("npm:../x", M::NameStart('.')),
            ("npm:%2e%2e/x", M::NameCharacter('%')),
            ("npm:axios/%2e%2e/x", M::PathCharacter('%')),
            ("npm:axios/../x", M::PathPart),
            ("npm:axios//x", M::PathPart),
            ("npm:axios/", M::PathPart),
            ("npm:axios\\x", M::NameCharacter('\\')),
            ("npm:axios/a\\b", M::PathCharacter('\\')),
            ("npm:axios?x=1", M::NameCharacter('?')),
            ("npm:axios/a#b", M::PathCharacter('#')),
            ("npm:\u{430}xios", M::NotAscii('\u{430}')),
            ("npm:axios\u{202e}", M::NotAscii('\u{202e}')),
            ("npm:Axios", M::UpperCase),
            ("npm:@Scope/x", M::UpperCase),
            ("npm:-x", M::NameStart('-')),
            ("npm:_x", M::NameStart('_')),
            ("npm:axios@", M::Version(String::new())),
            ("npm:axios@>=1", M::Version(">=1".into())),
            ("npm:axios@1@2", M::Version("1@2".into())),
            ("npm:lodash/fp@4", M::VersionInPath),
            ("npm:npm:axios", M::NameCharacter(':')),
            ("NPM:axios", M::SchemeCase("NPM".into())),
            ("jsr:path", M::NoScope),
            ("jsr:@std/p_a", M::NameCharacter('_')),
            ("https://esm.sh/axios", M::Scheme("https".into())),
            ("FILE:///etc/passwd", M::Scheme("file".into())),
            ("data:text/javascript,1", M::Scheme("data".into())),
            ("./x.ts", M::Path),
            ("/etc/passwd", M::Path),
            ("#x", M::Path),
        ];
        for (text, expected) in table {
            assert_eq!(Parsed::read(text), Err(expected), "{text:?}");
        }
        assert!(matches!(Parsed::read(&format!("npm:{}", "a".repeat(600))), Err(M::TooLong(604))));
        assert!(matches!(Parsed::read(&format!("npm:{}", "a".repeat(215))), Err(M::NameTooLong)));
    }

    #[test]
    fn ranges_that_mean_the_same_are_the_same_package() {
        let caret = Package::parse("npm:axios@^1").unwrap();
        assert_eq!(caret, Package::parse("npm:axios@1").unwrap());
        assert_eq!(
            (caret.to_string(), caret.key(), caret.locked_form()),
            ("npm:axios@^1".into(), "npm:axios".into(), "npm:axios@1".into())
        );
        assert_eq!(Package::parse("npm:axios").unwrap().range(), "*");
        assert_eq!(Package::parse("npm:axios").unwrap().locked_form(), "npm:axios@*");
    }
}
