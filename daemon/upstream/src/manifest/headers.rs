//! Tools whose schemas announce arguments in headers of HTTP, and do it wrong: clients must not use those (MCP 2026-07-28,
//! SEP-2243), because machines on the way would read something else than the server. Pure.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// The keyword.
const HEADER: &str = "x-mcp-header";

/// Takes out the tools that may not be used; gives why, in one text.
pub(super) fn take_out(tools: &mut Vec<Value>) -> Option<String> {
    let mut wrong = Vec::new();
    tools.retain(|tool| match tool.get("inputSchema").and_then(Value::as_object).map(check) {
        Some(Err(why)) => {
            wrong.push(format!("{}: {why}", tool["name"].as_str().unwrap_or_default()));
            false
        }
        _ => true,
    });
    (!wrong.is_empty()).then(|| format!("tools are left out, {}", wrong.join("; ")))
}

/// Whether every announcement is one that can be followed.
fn check(schema: &Map<String, Value>) -> Result<(), String> {
    if schema.contains_key(HEADER) {
        return Err(format!("{HEADER} is not on a property"));
    }
    check_reached(schema, &mut HashSet::new())
}

/// `schema` is reached by names of properties alone, so that there is one argument for it in a call.
fn check_reached(schema: &Map<String, Value>, names: &mut HashSet<String>) -> Result<(), String> {
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for property in properties.values().filter_map(Value::as_object) {
                    if let Some(header) = property.get(HEADER) {
                        check_header(header, property, names)?;
                    }
                    check_reached(property, names)?;
                }
            }
            // The announcement itself, and data.
            (HEADER | "default" | "const" | "enum" | "examples" | "dependentRequired", _) => {}
            _ if announces(value) => return Err(format!("{HEADER} is not on a property")),
            _ => {}
        }
    }
    Ok(())
}

fn check_header(
    header: &Value,
    property: &Map<String, Value>,
    names: &mut HashSet<String>,
) -> Result<(), String> {
    let Some(name) = header.as_str() else { return Err(format!("{HEADER} is no text")) };
    if http::HeaderName::try_from(name).is_err() {
        return Err(format!("{name:?} is no name of a header"));
    }
    if !names.insert(name.to_ascii_lowercase()) {
        return Err(format!("two arguments have the header {name}"));
    }
    match property.get("type").and_then(Value::as_str) {
        Some("string" | "integer" | "boolean") => Ok(()),
        _ => Err(format!("{name} is of no type that a header can hold")),
    }
}

/// Whether the keyword is anywhere in a schema.
fn announces(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.contains_key(HEADER) || members.values().any(announces),
        Value::Array(items) => items.iter().any(announces),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_taken_out(schema: Value) -> bool {
        let mut tools = vec![json!({ "name": "t", "inputSchema": schema }), json!({ "name": "plain" })];
        let problem = take_out(&mut tools);
        assert_eq!(problem.is_some(), tools.len() == 1, "{problem:?}");
        assert_eq!(tools.last().map(|tool| &tool["name"]), Some(&json!("plain")));
        tools.len() == 1
    }

    #[test]
    fn tools_that_announce_headers_wrong_are_taken_out() {
        let of = |property: Value| json!({ "properties": { "a": property } });
        let named = |name: Value| json!({ "type": "string", "x-mcp-header": name });
        for right in [
            json!({}),
            of(named(json!("Region"))),
            of(json!({ "type": "object", "properties": { "b": named(json!("Deep")) } })),
            of(json!({ "type": "string", "default": { "x-mcp-header": "data" } })),
            json!({ "properties": { "x-mcp-header": { "type": "string" } } }),
            json!({ "properties": { "a": named(json!("A")), "b": named(json!("B")) } }),
        ] {
            assert!(!is_taken_out(right.clone()), "{right}");
        }
        for wrong in [
            of(named(json!(""))),
            of(named(json!(7))),
            of(named(json!("two words"))),
            of(named(json!("a:b"))),
            of(json!({ "type": "number", "x-mcp-header": "A" })),
            of(json!({ "type": ["string", "null"], "x-mcp-header": "A" })),
            of(json!({ "type": "array", "items": named(json!("A")) })),
            of(json!({ "anyOf": [named(json!("A"))] })),
            json!({ "x-mcp-header": "A" }),
            json!({ "$defs": { "d": named(json!("A")) } }),
            json!({ "properties": { "a": named(json!("A")), "b": named(json!("a")) } }),
        ] {
            assert!(is_taken_out(wrong.clone()), "{wrong}");
        }
    }
}
