//! The text of a configuration with its places: which key stands where, and what is wrong there. Pure.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest part of a line that is shown, characters.
const MAX_SHOWN: usize = 100;

/// A text and the tree it holds.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    text: &'a str,
    root: Spanned<DeTable<'a>>,
}

/// Something wrong in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The key it is about, dotted; empty where there is none.
    pub key: String,
    pub what: String,
    pub hint: Option<String>,
    /// The line, with what is meant marked below it.
    pub excerpt: String,
}

impl<'a> Document<'a> {
    /// # Errors
    /// Everything in the text that is no TOML.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self { text, root });
        }
        let problem = |error: &toml::de::Error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            problem_at(
                text,
                span,
                String::new(),
                format!("this is no TOML: {}", sentence(error.message())),
                None,
            )
        };
        Err(errors.iter().map(problem).collect())
    }

    pub(crate) fn root(&self) -> &Spanned<DeTable<'a>> {
        &self.root
    }

    /// A problem at a place of this text.
    pub(crate) fn problem(
        &self,
        span: Range<usize>,
        path: &[&str],
        what: impl Into<String>,
        hint: Option<String>,
    ) -> Problem {
        problem_at(self.text, span, dotted(path), what.into(), hint)
    }

    /// Where the value of a key stands, or the part of its path that is there.
    pub(crate) fn span_of(&self, path: &[&str]) -> Range<usize> {
        let mut span = 0..0;
        let mut table = self.root.get_ref();
        for name in path {
            let Some((_, value)) = entry(table, name) else { break };
            span = value.span();
            match value.get_ref() {
                DeValue::Table(below) => table = below,
                _ => break,
            }
        }
        span
    }

    /// The value of a key, with the line in which the key stands.
    pub(crate) fn value_of(&self, path: &[&str]) -> Option<(usize, &Spanned<DeValue<'a>>)> {
        let (last, above) = path.split_last()?;
        let mut table = self.root.get_ref();
        for name in above {
            match entry(table, name)?.1.get_ref() {
                DeValue::Table(below) => table = below,
                _ => return None,
            }
        }
        let (key, value) = entry(table, last)?;
        Some((place(self.text, key.span().start).0, value))
    }
}

fn entry<'t, 'a>(
    table: &'t DeTable<'a>,
    name: &str,
) -> Option<(&'t Spanned<toml::de::DeString<'a>>, &'t Spanned<DeValue<'a>>)> {
    table.iter().find(|(key, _)| key.get_ref() == name)
}

/// `profiles.web.run-args`, with quotes where TOML wants them.
pub(crate) fn dotted(path: &[&str]) -> String {
    let bare = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let parts = path.iter().map(|part| if bare(part) { (*part).to_owned() } else { format!("{part:?}") });
    parts.collect::<Vec<_>>().join(".")
}

fn problem_at(text: &str, span: Range<usize>, key: String, what: String, hint: Option<String>) -> Problem {
    let (line, column) = place(text, span.start);
    Problem { line, column, key, what, hint, excerpt: excerpt(text, span, line, column) }
}

fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// The line, and a mark below what is meant, as far as it is on that line.
fn excerpt(text: &str, span: Range<usize>, line: usize, column: usize) -> String {
    let Some(whole) = text.lines().nth(line - 1) else { return String::new() };
    let shown: String = whole.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let start = text.floor_char_boundary(span.start);
    let meant = text[start..text.ceil_char_boundary(span.end.max(start))].lines().next().unwrap_or_default();
    let room = MAX_SHOWN.saturating_sub(column - 1).max(1);
    let width = meant.chars().count().clamp(1, room);
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let indent = " ".repeat((column - 1).min(MAX_SHOWN));
    format!("{number} | {shown}\n{margin} | {indent}{}", "^".repeat(width))
}

fn sentence(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

impl Problem {
    /// As a compiler tells it: place, what, the line, the cure.
    pub fn text(&self, path: &Path) -> String {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        let mut text = format!("{}:{}:{}: {key}{}", path.display(), self.line, self.column, self.what);
        for line in self.excerpt.lines() {
            text.push_str("\n  ");
            text.push_str(line);
        }
        if let Some(hint) = &self.hint {
            text.push_str("\n  hint: ");
            text.push_str(hint);
        }
        text
    }
}
