//! The text of a configuration file and the servers it names. Edits change the bytes of one entry and no other byte.
//!
//! In: the bytes of a file. Out: its servers, and the bytes it would have with one more or one less. Pure. What cannot be
//! read whole is an error with its place, never a guess; every edit is read back before anybody gets to see it.

use std::ops::Range;

use serde_json::Value;

use super::{json, toml};

const BOM: &str = "\u{feff}";

/// What is put in place of a value that a screen should not show.
pub(super) const MASK: &str = "***";

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// JSON as JavaScript's own parser takes it.
    Json,
    /// JSON with comments and trailing commas.
    Jsonc,
    Toml,
}

/// How a file is written, and under which key it names servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) syntax: Syntax,
    pub(super) container: &'static str,
}

/// Why a file cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("it is not UTF-8 text: byte {at} cannot be read")]
    NotText { at: usize },
    #[error("line {line}, column {column}: {message}")]
    Syntax { line: usize, column: usize, message: String },
    #[error("line {line}, column {column}: {what} is {found}, where a group of names is expected")]
    NotObject { line: usize, column: usize, what: String, found: &'static str },
    #[error("line {line}, column {column}: {key} is written a second time")]
    Twice { line: usize, column: usize, key: String },
    #[error("line {line}, column {column}: {what} is written inline")]
    Inline { line: usize, column: usize, what: String },
    #[error("the edited text does not read back as it should")]
    Unsafe,
}

impl DocumentError {
    /// What to do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::NotText { .. } => "save the file as UTF-8, then try again",
            Self::Syntax { .. } => "repair that place in an editor, then try again; nothing was changed",
            Self::NotObject { .. } => {
                "put {} in its place (in TOML a [table]), or remove it, then try again; nothing was changed"
            }
            Self::Twice { .. } => "clients read only one of them: remove the other, then try again",
            Self::Inline { .. } => "write it as a [table] of its own, then try again; nothing was changed",
            Self::Unsafe => "add the entry by hand, and report this with the file's structure",
        }
    }
}

/// A file that was read whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    format: Format,
    /// Without the byte order mark.
    text: String,
    has_bom: bool,
    servers: Vec<(String, Value)>,
}

impl Document {
    /// Reads `bytes`; none at all are a file without servers.
    pub(super) fn parse(format: Format, bytes: &[u8]) -> Result<Self, DocumentError> {
        let text =
            str::from_utf8(bytes).map_err(|error| DocumentError::NotText { at: error.valid_up_to() })?;
        let (text, has_bom) = match text.strip_prefix(BOM) {
            Some(text) => (text, true),
            None => (text, false),
        };
        Self::of_text(format, text.to_owned(), has_bom)
    }

    fn of_text(format: Format, text: String, has_bom: bool) -> Result<Self, DocumentError> {
        let servers = match format.syntax {
            Syntax::Json | Syntax::Jsonc => json::servers(format, &text)?,
            Syntax::Toml => toml::servers(format, &text)?,
        };
        Ok(Self { format, text, has_bom, servers })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let bom = if self.has_bom { BOM } else { "" };
        [bom, self.text.as_str()].concat().into_bytes()
    }

    /// Names and entries, in the order of the file.
    pub(super) fn servers(&self) -> &[(String, Value)] {
        &self.servers
    }

    pub(super) fn server(&self, name: &str) -> Option<&Value> {
        self.servers.iter().find(|(known, _)| known == name).map(|(_, entry)| entry)
    }

    /// True when the top level has `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        match self.format.syntax {
            Syntax::Json | Syntax::Jsonc => json::has(self.format, &self.text, key),
            Syntax::Toml => toml::has(&self.text, key),
        }
    }

    /// With a new server behind the others.
    pub(super) fn with(&self, name: &str, entry: &Value) -> Result<Self, DocumentError> {
        let text = match self.format.syntax {
            Syntax::Json | Syntax::Jsonc => json::insert(self.format, &self.text, name, entry)?,
            Syntax::Toml => toml::insert(self.format, &self.text, name, entry)?,
        };
        let mut expected = self.servers.clone();
        expected.push((name.to_owned(), entry.clone()));
        self.checked(text, &expected)
    }

    /// With one member of a server set.
    pub(super) fn with_member(&self, name: &str, key: &str, value: &Value) -> Result<Self, DocumentError> {
        let text = match self.format.syntax {
            Syntax::Json | Syntax::Jsonc => json::set_member(self.format, &self.text, name, key, value)?,
            Syntax::Toml => toml::set_member(self.format, &self.text, name, key, value)?,
        };
        let mut expected = self.servers.clone();
        for (_, entry) in expected.iter_mut().filter(|(known, _)| known == name) {
            entry[key] = value.clone();
        }
        self.checked(text, &expected)
    }

    /// Without one of its servers.
    pub(super) fn without(&self, name: &str) -> Result<Self, DocumentError> {
        let text = match self.format.syntax {
            Syntax::Json | Syntax::Jsonc => json::remove(self.format, &self.text, name)?,
            Syntax::Toml => toml::remove(self.format, &self.text, name)?,
        };
        let mut expected = self.servers.clone();
        expected.retain(|(known, _)| known != name);
        self.checked(text, &expected)
    }

    /// The text for a screen: values that may be secret are hidden.
    pub(super) fn masked(&self) -> String {
        let secrets = match self.format.syntax {
            Syntax::Json | Syntax::Jsonc => json::secrets(self.format, &self.text),
            Syntax::Toml => toml::secrets(&self.text),
        };
        let mask = format!("\"{MASK}\"");
        splice(&self.text, secrets.into_iter().map(|range| (range, mask.clone())).collect())
    }

    fn checked(&self, text: String, expected: &[(String, Value)]) -> Result<Self, DocumentError> {
        let edited = Self::of_text(self.format, text, self.has_bom).map_err(|_| DocumentError::Unsafe)?;
        let same = edited.servers.len() == expected.len()
            && expected.iter().all(|(name, entry)| edited.server(name) == Some(entry));
        if same { Ok(edited) } else { Err(DocumentError::Unsafe) }
    }
}

/// `text` with each range replaced; ranges do not overlap.
pub(super) fn splice(text: &str, mut changes: Vec<(Range<usize>, String)>) -> String {
    changes.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len() + 256);
    let mut done = 0;
    for (range, replacement) in changes {
        out.push_str(&text[done..range.start]);
        out.push_str(&replacement);
        done = range.end;
    }
    out.push_str(&text[done..]);
    out
}

/// Line and column, from 1, of a byte.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The file's line break: that of its first line.
pub(super) fn line_break(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// True for a member whose text should not be shown: all of `env` and headers, and what is called a secret.
pub(super) fn is_secret(parents: &[&str], key: &str) -> bool {
    const GROUPS: [&str; 3] = ["env", "headers", "http_headers"];
    const WORDS: [&str; 7] = ["token", "secret", "password", "passwd", "apikey", "api_key", "authorization"];
    let key = key.to_ascii_lowercase();
    parents.last().is_some_and(|parent| GROUPS.contains(parent))
        || WORDS.iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests;
