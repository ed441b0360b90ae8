//! From the text of a configuration to its entries, keeping track of where everything stands.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::config::expand::Expansion;
use crate::config::{Disabled, Server, ServerDefaults, ServerSet, entry, jsonc};
use crate::nearest::nearest;

/// Largest configuration, in bytes: anything larger is the wrong file.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What a top-level key may be besides the servers: other parts of the files that IDEs keep.
const OTHER_TOP_LEVEL: [&str; 2] = ["inputs", "$schema"];

/// Why a configuration gives no servers at all.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum ParseError {
    #[error("line {line}, column {column}: {message}")]
    Json { line: usize, column: usize, message: String },
    #[error(
        "there is neither `mcpServers` nor `servers` in it\nhint: {{\"mcpServers\": {{\"NAME\": {{\"command\": \"…\"}}}}}}"
    )]
    NoServers,
    #[error("it is larger than 4 MiB")]
    TooLarge,
}

/// The members of an object in the order in which they were written, duplicates included.
pub(crate) struct Members<'a, T>(pub(crate) Vec<(String, T)>, PhantomData<&'a ()>);

/// The text of a configuration, for saying where something in it stands.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a>(&'a str);

pub(crate) fn parse(
    text: &str,
    expansion: &Expansion<'_>,
    defaults: &ServerDefaults,
) -> Result<ServerSet, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError::TooLarge);
    }
    let text = jsonc::blanked(text.strip_prefix('\u{feff}').unwrap_or(text));
    let source = Source(&text);
    let members: Members<'_, &RawValue> =
        serde_json::from_str(&text).map_err(|error| source.error(&error, 0))?;
    let mut set = ServerSet::default();
    let mut found = None;
    for (key, raw) in members.0 {
        match key.as_str() {
            "mcpServers" => found = Some(raw),
            "servers" => found = found.or(Some(raw)),
            key if OTHER_TOP_LEVEL.contains(&key) => {}
            key => set.warnings.push(unknown_key(source.position(raw), key, &["mcpServers", "servers"])),
        }
    }
    let servers = found.ok_or(ParseError::NoServers)?;
    let servers: Members<'_, &RawValue> = source.parse(servers)?;
    for (name, raw) in servers.0 {
        let server = entry::read(source, &name, raw, (expansion, defaults), &mut set.warnings);
        let duplicate =
            Disabled::Invalid(format!("line {}: there are two servers of this name", source.position(raw).0));
        set.servers
            .entry(name)
            .and_modify(|first| first.config = Err(duplicate))
            .or_insert_with(|| Server { description: server.description, config: server.config });
    }
    Ok(set)
}

/// A warning about a key that nothing reads.
pub(crate) fn unknown_key((line, column): (usize, usize), key: &str, known: &[&str]) -> String {
    let hint = nearest(key, known.iter().copied())
        .map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default();
    format!("line {line}, column {column}: unknown key `{key}` is ignored{hint}")
}

impl<'a> Source<'a> {
    /// Parses a part of the text.
    pub(crate) fn parse<T: Deserialize<'a>>(self, raw: &'a RawValue) -> Result<T, ParseError> {
        serde_json::from_str(raw.get()).map_err(|error| self.error(&error, self.offset(raw)))
    }

    /// The same, with the error as a text.
    pub(crate) fn value<T: Deserialize<'a>>(self, raw: &'a RawValue) -> Result<T, String> {
        self.parse(raw).map_err(|error| error.to_string())
    }

    /// Line and column, from 1, at which a part of the text begins.
    pub(crate) fn position(self, raw: &RawValue) -> (usize, usize) {
        self.at(self.offset(raw))
    }

    fn offset(self, raw: &RawValue) -> usize {
        (raw.get().as_ptr() as usize).saturating_sub(self.0.as_ptr() as usize)
    }

    fn at(self, offset: usize) -> (usize, usize) {
        let before = &self.0[..offset.min(self.0.len())];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The error of a part that begins at `offset`, at its place in the whole.
    fn error(self, error: &serde_json::Error, offset: usize) -> ParseError {
        let (first_line, first_column) = self.at(offset);
        let (line, column) = match error.line() {
            0 => (first_line, first_column),
            1 => (first_line, first_column - 1 + error.column().max(1)),
            n => (first_line + n - 1, error.column().max(1)),
        };
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
        ParseError::Json { line, column, message }
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Members<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<'a, T>(PhantomData<(&'a (), T)>);
        impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for Object<'a, T> {
            type Value = Members<'a, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry().map_err(de::Error::custom)? {
                    members.push(member);
                }
                Ok(Members(members, PhantomData))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}
