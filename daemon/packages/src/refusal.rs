//! Why code may not have a package, in words for the model that wrote it.

use std::fmt;

use unicode_security::confusable_detection::skeleton;

use crate::specifier::Malformed;

/// Characters of a specifier that are quoted back. Enough to recognise it by; the code itself has the rest.
const MAX_QUOTED: usize = 80;

/// A package that may not be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// What was refused and why. Holds no path of this machine, and no control characters.
    pub message: String,
    /// What to write instead, where there is something.
    pub hint: Option<String>,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// No package specifier at all, or one that tries to be something else.
    Malformed,
    /// `https:`, `file:`, `data:` and every other scheme but `npm:` and `jsr:`.
    Scheme,
    /// A package that is not on the list.
    NotAllowed,
    /// A package on the list, in a version that is not.
    Version,
    /// The package needs native code, which workers do not load.
    Native,
    /// The package has no such file.
    Subpath,
    /// The package is allowed and not in the layer at hand.
    NotInLayer,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, message: String, hint: Option<String>) -> Self {
        Self { kind, message, hint }
    }

    pub(crate) fn malformed(specifier: &str, why: &Malformed, hint: Option<String>) -> Self {
        let kind =
            if matches!(why, Malformed::Scheme(_)) { RefusalKind::Scheme } else { RefusalKind::Malformed };
        let message = match why {
            Malformed::Scheme(_) => format!("{} cannot be imported: {why}", quoted(specifier)),
            _ => format!("{} is no package specifier: {why}", quoted(specifier)),
        };
        Self::new(kind, message, hint)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

impl std::error::Error for Refusal {}

/// A specifier between backticks: what is not printable ASCII is escaped, and what is too long cut.
pub(crate) fn quoted(specifier: &str) -> String {
    let mut quoted: String = specifier.chars().take(MAX_QUOTED).map(visible).collect();
    if specifier.chars().nth(MAX_QUOTED).is_some() {
        quoted.push('…');
    }
    format!("`{quoted}`")
}

fn visible(character: char) -> String {
    match character {
        '`' => "'".to_owned(),
        ' '..='~' => character.to_string(),
        _ => character.escape_default().to_string(),
    }
}

/// The one of `names` that `wrong` was probably meant to be: the same to the eye, or at most two letters away.
pub(crate) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong: String = skeleton(&wrong.to_lowercase()).take(MAX_QUOTED).collect();
    names
        .filter_map(|name| {
            let name_skeleton: String = skeleton(name).collect();
            let distance = strsim::osa_distance(&wrong, &name_skeleton);
            (distance <= tolerance(name)).then_some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

/// Letters that may be wrong in a name: short names are near to everything.
fn tolerance(name: &str) -> usize {
    match name.len() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let names = ["axios", "lodash", "zod", "@std/path", "ms"];
        let table = [
            ("axois", Some("axios")),
            ("axioss", Some("axios")),
            ("\u{430}xios", Some("axios")),
            ("a\u{445}i\u{43e}s", Some("axios")),
            ("\u{ff41}xios", Some("axios")),
            ("AXIOS", Some("axios")),
            ("1odash", Some("lodash")),
            ("loadash", Some("lodash")),
            ("lodahs", Some("lodash")),
            ("@std/paht", Some("@std/path")),
            ("std/path", Some("@std/path")),
            ("zo", Some("zod")),
            ("mz", None),
            ("react", None),
            ("", None),
        ];
        for (wrong, expected) in table {
            assert_eq!(nearest(wrong, names.into_iter()), expected, "{wrong:?}");
        }
    }

    #[test]
    fn quotes_are_short_and_harmless() {
        assert_eq!(quoted("npm:axios"), "`npm:axios`");
        assert_eq!(quoted("a`b\n\u{1b}[31m\u{202e}\u{430}"), r"`a'b\n\u{1b}[31m\u{202e}\u{430}`");
        assert_eq!(quoted(&"x".repeat(1000)).chars().count(), MAX_QUOTED + 3);
    }
}
