//! Package lists, and the judgement of what code imports.

use conductor_packages::Allowlist;

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
