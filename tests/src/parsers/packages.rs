//! Package lists, the judgement of what code imports, and locks.

use std::collections::BTreeSet;

use conductor_packages::{Allowlist, Lockfile};

pub(super) const SPECIFIER_WORDS: &[&str] = &[
    "npm:",
    "jsr:",
    "@std/",
    "@^1",
    "@1.2.3",
    "@*",
    "@latest",
    "@>=1 <2",
    "/",
    "..",
    "/./",
    "axios",
    "lodash/fp",
    "all",
    "none",
    "node:fs",
    "https://",
    "file:",
    "data:",
    "%2e",
    "\u{0430}",
    "\n",
    ",",
    "@",
];

pub(super) const LOCK_WORDS: &[&str] = &[
    "npm:a@1 npm:c\n",
    "jsr:@s/j@1 b\n",
    "{\"version\":\"5\",",
    "\"specifiers\":{",
    "\"npm:a@1\":\"1.2.0\"",
    "\"1.2.0_peer@2.0.0\"",
    "\"npm\":{",
    "\"jsr\":{",
    "\"a@1.2.0\":{\"integrity\":\"x\",",
    "\"dependencies\":[\"a\",\"b@2.0.0\"]",
    "\"optionalDependencies\":[",
    "\"os\":[\"linux\"]",
    "@",
    "_",
    "\\u001b",
    "}",
    "]",
    ",",
    "null",
];

/// The first line is a list, the rest a specifier: what is allowed is spelled in characters that mean nothing to a shell, a
/// path or a URL, is of a listed package, and is allowed again when it is spelled that way; what is refused is refused in
/// words.
pub(super) fn specifier(bytes: &[u8]) {
    let text = super::text_of(bytes);
    let (list, specifier) = text.split_once('\n').unwrap_or((text, text));
    let list = match Allowlist::parse(list) {
        Ok(list) => list,
        Err(error) => return super::assert_told(&error.to_string()),
    };
    let entries: Vec<String> = list.packages().map(ToString::to_string).collect();
    if entries.iter().all(|entry| !entry.contains([' ', ','])) {
        let any = if list.allows_any() { "all," } else { "" };
        assert_eq!(Allowlist::parse(&format!("{any}{}", entries.join(","))).as_ref(), Ok(&list));
    }
    match list.judge(specifier) {
        Ok(asked) => {
            let spelled = asked.specifier();
            assert!(spelled.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{spelled:?}");
            assert!(!spelled.split('/').any(|part| matches!(part, "." | "..")), "{spelled:?}");
            let is_listed = list.packages().any(|package| package.key() == asked.package().key());
            assert!(is_listed || list.allows_any(), "{spelled:?} is not listed");
            let again = list.judge(&spelled).unwrap_or_else(|why| panic!("{spelled:?}: {why}"));
            assert_eq!(again.specifier(), spelled);
        }
        Err(refusal) => super::assert_told(&refusal.to_string()),
    }
}

/// The first line is a package and a name, the rest a lock: what it says of the package it says in every way of asking, and
/// what leads to the name is a way without a turn.
pub(super) fn lockfile(bytes: &[u8]) {
    let text = super::text_of(bytes);
    let (question, lock) = text.split_once('\n').unwrap_or(("npm:a@1 b", text));
    let lock = match Lockfile::parse(lock) {
        Ok(lock) => lock,
        Err(error) => return super::assert_told(&error.to_string()),
    };
    let (package, name) = question.split_once(' ').unwrap_or((question, "b"));
    let Ok(list) = Allowlist::parse(package) else { return };
    let Some(package) = list.packages().next().cloned() else { return };
    let id = lock.id_of(&package);
    assert_eq!(id.is_some(), lock.version_of(&package).is_some(), "{package}");
    if let Some(spelled) = lock.spelling_within(&package) {
        assert_eq!(spelled.key(), package.key());
        assert!(id.is_none() || spelled == package, "{spelled} is not {package}");
    }
    let Some(id) = id else { return };
    assert!(id.starts_with(&package.key().to_string()), "{id} is none of {package}");
    if let Some(path) = lock.path(&id, name) {
        assert_eq!(path.first(), Some(&id));
        assert_eq!(path.iter().collect::<BTreeSet<_>>().len(), path.len(), "{path:?} goes in circles");
    }
}
