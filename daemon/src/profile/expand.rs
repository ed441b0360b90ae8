//! Variables in configured values: `~`, `${userHome}`, `${HOME}`, `${env:NAME}`, `${workspaceFolder}`. Pure.
//!
//! Some IDEs expand these before they start the shim, some do not, so the daemon does it too.

use std::collections::{BTreeMap, BTreeSet};

/// What references stand for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub home: &'a str,
    /// The project directory the client named, or its working directory.
    pub project: &'a str,
    pub env: &'a BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("`${{env:{0}}}` is not set in the environment of the client")]
    Unset(String),
    #[error(
        "`${{{0}}}` is not known here\nhint: known are ${{userHome}}, ${{HOME}}, ${{env:NAME}}, ${{workspaceFolder}} and a leading ~"
    )]
    Unknown(String),
    #[error("`${{` without a closing brace")]
    Unclosed,
}

/// # Errors
/// A reference that is unknown, unset or not closed. The rest of the text is taken as it is.
pub fn expand(text: &str, scope: Scope<'_>) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    if rest == "~" || rest.starts_with("~/") {
        out.push_str(scope.home);
        rest = &rest[1..];
    }
    while let Some((before, inner)) = rest.split_once("${") {
        out.push_str(before);
        let (name, after) = inner.split_once('}').ok_or(ExpandError::Unclosed)?;
        out.push_str(value_of(name, scope)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value_of<'a>(name: &str, scope: Scope<'a>) -> Result<&'a str, ExpandError> {
    match name {
        "userHome" | "HOME" | "env:HOME" => Ok(scope.home),
        "workspaceFolder" => Ok(scope.project),
        _ => match name.strip_prefix("env:") {
            Some(variable) => scope
                .env
                .get(variable)
                .map(String::as_str)
                .ok_or_else(|| ExpandError::Unset(variable.to_owned())),
            None => Err(ExpandError::Unknown(name.to_owned())),
        },
    }
}

/// Names in `${env:NAME}` references of a text.
pub fn references(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("${").and_then(|(_, inner)| inner.split_once('}')) {
        names.extend(name.strip_prefix("env:").map(str::to_owned));
        rest = after;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_what_it_knows_and_names_what_it_does_not() {
        let env = BTreeMap::from([("X".to_owned(), "ex".to_owned())]);
        let scope = Scope { home: "/home/a", project: "/p", env: &env };
        for (text, expected) in [
            ("~", Ok("/home/a")),
            ("~/w", Ok("/home/a/w")),
            ("/a~b", Ok("/a~b")),
            ("~other", Ok("~other")),
            ("${userHome}/x/${HOME}", Ok("/home/a/x//home/a")),
            ("a${env:X}b${env:X}", Ok("aexbex")),
            ("${workspaceFolder}/src", Ok("/p/src")),
            ("$HOME", Ok("$HOME")),
            ("", Ok("")),
            ("${env:Y}", Err(ExpandError::Unset("Y".into()))),
            ("${nope}", Err(ExpandError::Unknown("nope".into()))),
            ("${env:X", Err(ExpandError::Unclosed)),
        ] {
            assert_eq!(expand(text, scope), expected.map(String::from), "{text}");
        }
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        let env = BTreeMap::from([("X".to_owned(), "${env:Y}~".to_owned())]);
        let scope = Scope { home: "/h", project: "/p", env: &env };
        assert_eq!(expand("${env:X}", scope), Ok("${env:Y}~".into()));
    }

    #[test]
    fn finds_references() {
        assert_eq!(references("${env:A}/${env:B}${HOME}${env:"), BTreeSet::from(["A".into(), "B".into()]));
        assert_eq!(references("${env:A${env:B}"), BTreeSet::from(["A${env:B".into()]), "as it is expanded");
    }
}
