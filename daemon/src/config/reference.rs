//! The reference of `config.toml`, docs/CONFIG.md, from the schema. Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema::schema;

/// What stands above the tables and does not come from the types.
const PREFACE: &str = include_str!("reference/preface.md");

/// The whole document.
pub(crate) fn document() -> String {
    let root = object(schema());
    let sections = properties(root);
    let mut text = PREFACE.to_owned();
    let plain = sections.iter().filter(|(_, schema)| schema["type"] != "object");
    heading(&mut text, "At the top", "");
    table(&mut text, plain);
    for (name, schema) in sections.iter().filter(|(_, schema)| schema["type"] == "object") {
        let schema = object(schema);
        let described = words(schema, "description");
        match schema.get("additionalProperties").filter(|each| each.is_object()) {
            Some(each) => {
                let each = object(each);
                heading(&mut text, &format!("`[{name}.{}]`", words(schema, "x-each")), described);
                let _written = writeln!(text, "{}\n", words(each, "description"));
                table(&mut text, properties(each).iter());
            }
            None => {
                heading(&mut text, &format!("`[{name}]`"), described);
                table(&mut text, properties(schema).iter());
            }
        }
    }
    text
}

fn heading(text: &mut String, title: &str, described: &str) {
    let _written = writeln!(text, "\n## {title}\n");
    if !described.is_empty() {
        let _written = writeln!(text, "{described}\n");
    }
}

fn table<'a>(text: &mut String, rows: impl Iterator<Item = (&'a String, &'a Value)>) {
    text.push_str("| key | value | default | what |\n|---|---|---|---|\n");
    for (name, schema) in rows {
        let schema = object(schema);
        let cells =
            [format!("`{name}`"), value(schema), default(schema), words(schema, "description").to_owned()];
        let _written = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
}

fn value(schema: &Map<String, Value>) -> String {
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return enumeration(names, schema);
    }
    let bound = |key: &str| schema.get(key).map(plain);
    match (words(schema, "type"), words(schema, "x-syntax")) {
        ("string", syntax) if syntax.starts_with("duration") => {
            let never = if syntax == "duration" { "" } else { ", or `\"never\"`" };
            let (least, most) = (bound("x-least"), bound("x-most"));
            format!("duration, {} to {}{never}", least.unwrap_or_default(), most.unwrap_or_default())
        }
        ("string", "") => "text".to_owned(),
        ("string", syntax) => syntax.to_owned(),
        ("integer", _) => {
            let (least, most) = (bound("minimum"), bound("maximum"));
            format!(
                "{} to {} {}",
                least.unwrap_or_default(),
                most.unwrap_or_default(),
                words(schema, "x-unit")
            )
        }
        ("boolean", _) => "`true` or `false`".to_owned(),
        ("array", _) => {
            match schema.get("items").and_then(|items| items.get("enum")).and_then(Value::as_array) {
                Some(names) => format!("list of {}", enumeration(names, &Map::new())),
                None => "list of texts".to_owned(),
            }
        }
        (other, _) => other.to_owned(),
    }
}

/// The names, each with what it means where that is said.
fn enumeration(names: &[Value], schema: &Map<String, Value>) -> String {
    let meanings = schema.get("x-taplo").and_then(|taplo| taplo.pointer("/docs/enumValues"));
    let meaning = |n: usize| meanings?.get(n)?.as_str();
    let told = names.iter().enumerate().map(|(n, name)| match meaning(n) {
        Some(meaning) => format!("`{name}`: {}", meaning.trim_end_matches('.')),
        None => format!("`{name}`"),
    });
    let separator = if meanings.is_some() { ";<br>" } else { ", " };
    told.collect::<Vec<_>>().join(separator)
}

fn default(schema: &Map<String, Value>) -> String {
    match schema.get("default") {
        Some(Value::Array(items)) => {
            format!("`[{}]`", items.iter().map(Value::to_string).collect::<Vec<_>>().join(", "))
        }
        Some(default) => format!("`{default}`"),
        None => words(schema, "x-default").to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn words<'a>(schema: &'a Map<String, Value>, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn properties(schema: &Map<String, Value>) -> &Map<String, Value> {
    object(&schema["properties"])
}

fn object(schema: &Value) -> &Map<String, Value> {
    schema.as_object().expect("every schema of ours is an object")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `CONDUCTOR_UPDATE_DOCS=1` the document is written instead of compared.
    #[test]
    fn the_document_is_what_the_types_say() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIG.md");
        if std::env::var_os("CONDUCTOR_UPDATE_DOCS").is_some() {
            std::fs::write(&path, document()).expect("writes");
        }
        let written = std::fs::read_to_string(&path).expect("is there");
        assert!(
            written == document(),
            "docs/CONFIG.md is out of date: run this with CONDUCTOR_UPDATE_DOCS=1"
        );
    }

    /// The example of the preface, and each default that is a value, are right.
    #[test]
    fn what_is_written_there_can_be_used() {
        let example = PREFACE.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let path = std::path::Path::new("config.toml");
        crate::config::Config::parse(example.expect("has an example"), path).expect("is right");
    }
}
