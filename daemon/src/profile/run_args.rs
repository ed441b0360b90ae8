//! `MCP_CONDUCTOR_RUN_ARGS`: Deno permission flags, comma-separated. Pure.
//!
//! `allow-read=/ws,/data,allow-net=api.github.com` — a token that is no flag continues the list before it. Leading dashes are
//! tolerated. Only flags that grant something are known: everything else about a worker is conductor's business.

use std::collections::BTreeSet;

use conductor_pool::{Grant, Grants};

/// Kinds of permission, as flags name them (`allow-KIND`) and `[policy] session-grants` lists them.
pub const KINDS: [&str; 8] = ["read", "write", "net", "env", "run", "ffi", "sys", "all"];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunArgsError {
    #[error("`{}` is not known\nhint: known are {}", .flag.escape_debug(), known_flags())]
    UnknownFlag { flag: String },
    #[error(
        "`{0}` would let code fetch what it imports\nhint: allow packages with MCP_CONDUCTOR_ALLOWED_PACKAGES"
    )]
    Import(String),
    #[error("`{0}` takes nothing away here: what is not allowed is denied\nhint: leave it out")]
    Deny(String),
    #[error(
        "`{flag}=` has an empty list\nhint: name values, or write `{flag}` alone to allow everything of that kind"
    )]
    EmptyList { flag: String },
    #[error("`{}` follows no list\nhint: write allow-read=/a,/b", .value.escape_debug())]
    NoList { value: String },
    #[error("`{flag}` stands both alone and with a list\nhint: keep one of them")]
    BothForms { flag: String },
    #[error("`allow-all` takes no list")]
    AllWithList,
    #[error("`{}` in `{flag}` {why}", .value.escape_debug())]
    BadValue { flag: String, value: String, why: &'static str },
}

fn known_flags() -> String {
    KINDS.map(|kind| format!("allow-{kind}")).join(", ")
}

/// Reads the flags. Values are taken as they stand; [`super::resolve`] expands and checks paths.
///
/// # Errors
/// The first token that is wrong, by name.
pub fn parse(text: &str) -> Result<Grants, RunArgsError> {
    let mut grants = Grants::default();
    let mut open_list: Option<&'static str> = None;
    for token in text.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        match flag_of(token)? {
            Some((kind, None)) => {
                grant_all(&mut grants, kind)?;
                open_list = None;
            }
            Some((kind, Some(value))) => {
                if value.is_empty() {
                    return Err(RunArgsError::EmptyList { flag: format!("allow-{kind}") });
                }
                grant_value(&mut grants, kind, value)?;
                open_list = Some(kind);
            }
            None => {
                let kind = open_list.ok_or_else(|| RunArgsError::NoList { value: token.to_owned() })?;
                grant_value(&mut grants, kind, token)?;
            }
        }
    }
    Ok(grants)
}

/// The flags of these grants, as [`parse`] reads them.
pub fn text(grants: &Grants) -> String {
    let mut grants = grants.clone();
    let mut flags: Vec<String> = if grants.all { vec!["allow-all".to_owned()] } else { Vec::new() };
    for kind in KINDS {
        match grant_mut(&mut grants, kind) {
            None | Some(Grant::None) => {}
            Some(Grant::All) => flags.push(format!("allow-{kind}")),
            Some(Grant::Only(values)) => {
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                flags.push(format!("allow-{kind}={}", values.join(",")));
            }
        }
    }
    flags.join(",")
}

/// The grant of one kind; `None` for `all`, which is no list.
pub fn grant_mut<'a>(grants: &'a mut Grants, kind: &str) -> Option<&'a mut Grant> {
    match kind {
        "read" => Some(&mut grants.read),
        "write" => Some(&mut grants.write),
        "net" => Some(&mut grants.net),
        "env" => Some(&mut grants.env),
        "run" => Some(&mut grants.run),
        "ffi" => Some(&mut grants.ffi),
        "sys" => Some(&mut grants.sys),
        _ => None,
    }
}

type Flag<'a> = (&'static str, Option<&'a str>);

fn flag_of(token: &str) -> Result<Option<Flag<'_>>, RunArgsError> {
    if token == "-A" {
        return Ok(Some(("all", None)));
    }
    let dashed = token.starts_with('-');
    let bare = token.trim_start_matches('-');
    let (name, value) = match bare.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (bare, None),
    };
    let is_word = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    if is_word && name.starts_with("deny-") {
        return Err(RunArgsError::Deny(name.to_owned()));
    }
    match name.strip_prefix("allow-") {
        Some("import") => Err(RunArgsError::Import(name.to_owned())),
        Some(kind) if is_word => match KINDS.iter().find(|known| **known == kind) {
            Some(kind) => Ok(Some((kind, value))),
            None => Err(RunArgsError::UnknownFlag { flag: name.to_owned() }),
        },
        _ if dashed => Err(RunArgsError::UnknownFlag { flag: name.to_owned() }),
        _ => Ok(None),
    }
}

fn grant_all(grants: &mut Grants, kind: &str) -> Result<(), RunArgsError> {
    match grant_mut(grants, kind) {
        None => grants.all = true,
        Some(Grant::Only(_)) => return Err(RunArgsError::BothForms { flag: format!("allow-{kind}") }),
        Some(grant) => *grant = Grant::All,
    }
    Ok(())
}

fn grant_value(grants: &mut Grants, kind: &str, value: &str) -> Result<(), RunArgsError> {
    let flag = format!("allow-{kind}");
    check_value(kind, value).map_err(|why| RunArgsError::BadValue {
        flag: flag.clone(),
        value: value.to_owned(),
        why,
    })?;
    match grant_mut(grants, kind) {
        None => return Err(RunArgsError::AllWithList),
        Some(Grant::All) => return Err(RunArgsError::BothForms { flag }),
        Some(Grant::Only(values)) => {
            values.insert(value.to_owned());
        }
        Some(grant @ Grant::None) => *grant = Grant::Only(BTreeSet::from([value.to_owned()])),
    }
    Ok(())
}

pub(crate) fn check_value(kind: &str, value: &str) -> Result<(), &'static str> {
    if value.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    match kind {
        "net" if value.contains("://") => Err("is a URL; write the host alone, or host:port"),
        "net" if value.contains(['/', ' ', '@', '?', '#']) => Err("is no host or host:port"),
        "env" if !is_variable_name(value) => Err("is no variable name"),
        "sys" if !value.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            Err("is no system descriptor like hostname")
        }
        _ => Ok(()),
    }
}

fn is_variable_name(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(values: &[&str]) -> Grant {
        Grant::Only(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn reads_flags_and_lists() {
        for (text, expected) in [
            ("", Grants::default()),
            ("allow-read", Grants { read: Grant::All, ..Grants::default() }),
            (
                "allow-read=/a, /b,--allow-net=x.org:443",
                Grants { read: only(&["/a", "/b"]), net: only(&["x.org:443"]), ..Grants::default() },
            ),
            ("allow-env=A,B,allow-env=C,", Grants { env: only(&["A", "B", "C"]), ..Grants::default() }),
            ("allow-all", Grants { all: true, ..Grants::default() }),
            ("-A", Grants { all: true, ..Grants::default() }),
            ("allow-net=allow-me.org", Grants { net: only(&["allow-me.org"]), ..Grants::default() }),
            (
                "allow-net=a.org,allow-b.org",
                Grants { net: only(&["a.org", "allow-b.org"]), ..Grants::default() },
            ),
            (
                "allow-sys=hostname,osRelease",
                Grants { sys: only(&["hostname", "osRelease"]), ..Grants::default() },
            ),
        ] {
            assert_eq!(parse(text), Ok(expected.clone()), "{text}");
            assert_eq!(parse(&super::text(&expected)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn names_what_is_wrong() {
        for (text, says) in [
            ("allow-nett=a", "`allow-nett` is not known"),
            ("--no-prompt", "`no-prompt` is not known"),
            ("deny-net=a", "takes nothing away"),
            ("allow-import=x", "MCP_CONDUCTOR_ALLOWED_PACKAGES"),
            ("allow-read=", "empty list"),
            ("/a", "follows no list"),
            ("allow-read,/a", "follows no list"),
            ("allow-read,allow-read=/a", "both alone and with a list"),
            ("allow-read=/a,allow-read", "both alone and with a list"),
            ("allow-all=x", "takes no list"),
            ("allow-net=https://a.org/", "is a URL"),
            ("allow-net=a b", "is no host"),
            ("allow-env=A-B", "is no variable name"),
            ("allow-read=/a\nb", "control character"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?} says {error:?}");
        }
    }
}
