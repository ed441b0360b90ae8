//! Edits of TOML, as replacements of byte ranges found by `toml_edit`.
//!
//! Its own printing is not used: it writes every line break anew, so that a file with Windows line ends would change
//! throughout. What is added stands at the end of the file, which is a place for a table whatever comes before.

use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml_edit::{Document, InlineTable, Item, Key, Table, TableLike, TomlError};

use super::document::{DocumentError, Format, is_secret, line_break, position, splice};

pub(super) fn servers(format: Format, text: &str) -> Result<Vec<(String, Value)>, DocumentError> {
    let document = parse(text)?;
    let Some(servers) = container(&document, format, text)? else { return Ok(Vec::new()) };
    Ok(servers.iter().map(|(name, item)| (name.to_owned(), json(item))).collect())
}

pub(super) fn has(text: &str, key: &str) -> bool {
    parse(text).is_ok_and(|document| document.contains_key(key))
}

/// Adds a server at the end of the file.
pub(super) fn insert(format: Format, text: &str, name: &str, entry: &Value) -> Result<String, DocumentError> {
    let document = parse(text)?;
    if let Some(item) = document.get(format.container).filter(|item| item.is_inline_table()) {
        return Err(inline(text, item, format.container));
    }
    container(&document, format, text)?;
    let eol = line_break(text);
    let gap = match text {
        "" => String::new(),
        text if text.ends_with('\n') => eol.to_owned(),
        _ => [eol, eol].concat(),
    };
    let mut added = format!("{text}{gap}[{}.{}]{eol}", format.container, Key::new(name));
    for (key, value) in entry.as_object().into_iter().flatten() {
        added.push_str(&format!("{} = {}{eol}", Key::new(key), written(value)));
    }
    Ok(added)
}

/// Sets one member of a server that is there.
pub(super) fn set_member(
    format: Format,
    text: &str,
    name: &str,
    key: &str,
    value: &Value,
) -> Result<String, DocumentError> {
    let document = parse(text)?;
    let Some(item) = container(&document, format, text)?.and_then(|servers| servers.get(name)) else {
        return Ok(text.to_owned());
    };
    let entry = item.as_table_like().ok_or_else(|| not_table(text, item, name))?;
    if let Some(member) = entry.get(key) {
        let span = member.span().filter(|_| member.is_value()).ok_or_else(|| inline(text, member, key))?;
        return Ok(splice(text, vec![(span, written(value))]));
    }
    let Some(header) = item.as_table().and_then(|table| header(text, table)) else {
        return Err(inline(text, item, name));
    };
    let at = line_end(text, header.end);
    let eol = line_break(text);
    let gap = if text[..at].ends_with('\n') { "" } else { eol };
    Ok(splice(text, vec![(at..at, format!("{gap}{} = {}{eol}", Key::new(key), written(value)))]))
}

/// Takes a server out, with the tables below it and the blank line above it.
pub(super) fn remove(format: Format, text: &str, name: &str) -> Result<String, DocumentError> {
    let document = parse(text)?;
    if let Some(item) = document.get(format.container).filter(|item| item.is_inline_table()) {
        return Err(inline(text, item, format.container));
    }
    let Some((key, item)) =
        container(&document, format, text)?.and_then(|servers| servers.get_key_value(name))
    else {
        return Ok(text.to_owned());
    };
    let mut cuts = Vec::new();
    collect_lines(text, key.span(), item, &mut cuts);
    let cuts = joined(cuts).into_iter().map(|range| (range, String::new())).collect();
    Ok(splice(text, cuts))
}

/// Where texts stand that should not be shown.
pub(super) fn secrets(text: &str) -> Vec<Range<usize>> {
    fn collect<'a>(table: &'a dyn TableLike, path: &mut Vec<&'a str>, found: &mut Vec<Range<usize>>) {
        for (key, item) in table.iter() {
            if item.is_str()
                && is_secret(path, key)
                && !item.as_str().is_some_and(|text| text.starts_with("${"))
            {
                found.extend(item.span());
            } else if let Some(below) = item.as_table_like() {
                path.push(key);
                collect(below, path, found);
                path.pop();
            }
        }
    }
    let mut found = Vec::new();
    if let Ok(document) = parse(text) {
        collect(document.as_table(), &mut Vec::new(), &mut found);
    }
    found
}

fn parse(text: &str) -> Result<Document<&str>, DocumentError> {
    Document::parse(text).map_err(|error: TomlError| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        DocumentError::Syntax { line, column, message: error.message().replace('\n', ", ") }
    })
}

fn container<'d>(
    document: &'d Document<&str>,
    format: Format,
    text: &str,
) -> Result<Option<&'d dyn TableLike>, DocumentError> {
    let Some(item) = document.get(format.container) else { return Ok(None) };
    item.as_table_like().map(Some).ok_or_else(|| not_table(text, item, format.container))
}

fn not_table(text: &str, item: &Item, what: &str) -> DocumentError {
    let (line, column) = place(text, item);
    let found = if item.is_array() || item.is_array_of_tables() { "a list" } else { "a single value" };
    DocumentError::NotObject { line, column, what: what.to_owned(), found }
}

fn inline(text: &str, item: &Item, what: &str) -> DocumentError {
    let (line, column) = place(text, item);
    DocumentError::Inline { line, column, what: what.to_owned() }
}

fn place(text: &str, item: &Item) -> (usize, usize) {
    position(text, item.span().map_or(0, |span| span.start))
}

/// The `[a.b]` that opens a table; a table that only its members made has none.
fn header(text: &str, table: &Table) -> Option<Range<usize>> {
    table.span().filter(|span| text[span.clone()].starts_with('['))
}

/// The lines that make `item`: for a table with a header all from there to its last member.
fn collect_lines(text: &str, key: Option<Range<usize>>, item: &Item, lines: &mut Vec<Range<usize>>) {
    match item {
        Item::Table(table) => {
            let own = header(text, table);
            let mut members = Vec::new();
            for (name, member) in table.iter() {
                collect_lines(text, table.key(name).and_then(Key::span), member, &mut members);
            }
            if let Some(own) = own {
                let is_below = |member: &Item| member.as_table().is_some_and(|table| !table.is_dotted());
                let mut end = line_end(text, own.end);
                for (name, member) in table.iter().filter(|(_, member)| !is_below(member)) {
                    let mut own_lines = Vec::new();
                    collect_lines(text, table.key(name).and_then(Key::span), member, &mut own_lines);
                    end = own_lines.iter().map(|line| line.end).max().unwrap_or(end).max(end);
                }
                members.push(with_gap_above(text, own.start..end));
            }
            lines.extend(members);
        }
        Item::ArrayOfTables(tables) => {
            tables.iter().for_each(|table| collect_lines(text, None, &Item::Table(table.clone()), lines));
        }
        Item::Value(value) => {
            if let (Some(key), Some(value)) = (key, value.span()) {
                let start = text[..key.start].rfind('\n').map_or(0, |at| at + 1);
                lines.push(start..line_end(text, value.end));
            }
        }
        Item::None => {}
    }
}

/// `table` and the blank line that sets it apart from what is above.
fn with_gap_above(text: &str, table: Range<usize>) -> Range<usize> {
    let start = text[..table.start].rfind('\n').map_or(0, |at| at + 1);
    let before = &text[..start];
    let above = before.strip_suffix('\n').map(|before| before.strip_suffix('\r').unwrap_or(before));
    match above {
        Some(above) if above.is_empty() || above.ends_with('\n') => above.len()..table.end,
        _ => start..table.end,
    }
}

/// The end of the line that holds the byte before `at`, its line break included.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

/// Overlapping ranges made one.
fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut out: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

fn json(item: &Item) -> Value {
    if let Some(table) = item.as_table_like() {
        return Value::Object(
            table.iter().map(|(key, item)| (key.to_owned(), json(item))).collect::<Map<_, _>>(),
        );
    }
    match item {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| json(&Item::Table(table.clone()))).collect(),
        Item::Value(value) => json_of_value(value),
        Item::Table(_) | Item::None => Value::Null,
    }
}

fn json_of_value(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => text.value().as_str().into(),
        toml_edit::Value::Integer(number) => (*number.value()).into(),
        toml_edit::Value::Float(number) => {
            Number::from_f64(*number.value()).map_or(Value::Null, Value::Number)
        }
        toml_edit::Value::Boolean(truth) => (*truth.value()).into(),
        toml_edit::Value::Datetime(time) => time.value().to_string().into(),
        toml_edit::Value::Array(items) => items.iter().map(json_of_value).collect(),
        toml_edit::Value::InlineTable(table) => {
            Value::Object(table.iter().map(|(key, value)| (key.to_owned(), json_of_value(value))).collect())
        }
    }
}

/// A value on one line.
fn written(value: &Value) -> String {
    toml(value).to_string()
}

fn toml(value: &Value) -> toml_edit::Value {
    match value {
        Value::Null => "".into(),
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => toml_edit::Value::Array(items.iter().map(toml).collect()),
        Value::Object(members) => {
            let table: InlineTable =
                members.iter().map(|(key, value)| (Key::new(key), toml(value))).collect();
            toml_edit::Value::InlineTable(table)
        }
    }
}
