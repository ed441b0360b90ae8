//! What a schema says in words: its description, and the rules that a TypeScript type cannot hold.

use serde_json::{Map, Value};

use crate::text::{clipped, comment_safe, one_line};

/// Longest description taken from one schema: longer ones are manuals, and a model pays for each word.
const MAX_DESCRIPTION_CHARS: usize = 1_000;
/// Longest value quoted in a rule: a pattern, a default, an example.
const MAX_VALUE_CHARS: usize = 80;

/// The lines of the doc comment of something with this schema; none if there is nothing to say.
pub(crate) fn doc(schema: &Map<String, Value>) -> Vec<String> {
    let mut lines = schema.get("description").and_then(Value::as_str).map(description).unwrap_or_default();
    let rules = rules(schema);
    if !rules.is_empty() {
        let rules = rules.join(", ");
        match lines.as_mut_slice() {
            [only] => *only = format!("{only} ({rules})"),
            _ => lines.push(rules),
        }
    }
    lines
}

/// The lines of a description, safe in a comment and of a bounded length.
pub(crate) fn description(text: &str) -> Vec<String> {
    let text = comment_safe(text);
    let lines = text.trim().lines().map(|line| line.trim_end().to_owned());
    let mut left = MAX_DESCRIPTION_CHARS;
    let mut kept: Vec<String> = Vec::new();
    for line in lines {
        if left == 0 {
            break;
        }
        let line = clipped(&line, left);
        left = left.saturating_sub(line.chars().count() + 1);
        if !(line.is_empty() && kept.last().is_none_or(String::is_empty)) {
            kept.push(line);
        }
    }
    kept
}

fn rules(schema: &Map<String, Value>) -> Vec<String> {
    let mut rules = Vec::new();
    if schema.get("type").and_then(Value::as_str) == Some("integer") {
        rules.push("integer".to_owned());
    }
    for key in ["format", "contentEncoding", "contentMediaType"] {
        rules.extend(schema.get(key).and_then(Value::as_str).map(short));
    }
    rules.extend(range(schema));
    for (at_least, at_most, unit) in [
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "properties"),
    ] {
        rules.extend(counts(schema.get(at_least), schema.get(at_most), unit));
    }
    if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
        rules.push("no item twice".to_owned());
    }
    let valued = [("multipleOf", "multiple of "), ("pattern", "pattern "), ("default", "default ")];
    let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let valued = valued.iter().filter(|(key, _)| *key != "default" || !names_default(description));
    rules.extend(valued.filter_map(|(key, words)| Some(format!("{words}{}", value(schema.get(*key)?)))));
    for (key, word) in [("deprecated", "deprecated"), ("readOnly", "read-only"), ("writeOnly", "write-only")]
    {
        if schema.get(key) == Some(&Value::Bool(true)) {
            rules.push(word.to_owned());
        }
    }
    rules
}

/// Many authors write the default into the description too.
fn names_default(description: &str) -> bool {
    clipped(description, MAX_DESCRIPTION_CHARS).to_lowercase().contains("default")
}

fn range(schema: &Map<String, Value>) -> Option<String> {
    // Draft 4 has booleans in the exclusive keywords.
    let number = |key: &str| schema.get(key).filter(|it| it.is_number());
    let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    let low = match (number("exclusiveMinimum"), number("minimum")) {
        (Some(limit), _) => Some(format!("> {limit}")),
        (None, Some(limit)) if flag("exclusiveMinimum") => Some(format!("> {limit}")),
        (None, limit) => limit.map(|limit| format!("≥ {limit}")),
    };
    let high = match (number("exclusiveMaximum"), number("maximum")) {
        (Some(limit), _) => Some(format!("< {limit}")),
        (None, Some(limit)) if flag("exclusiveMaximum") => Some(format!("< {limit}")),
        // Generated schemas name the largest integer that a double holds where there is no bound.
        (None, limit) => limit.filter(|it| it.as_f64() < Some(9e15)).map(|limit| format!("≤ {limit}")),
    };
    let low = low.filter(|it| it != "≥ -9007199254740991");
    match (low, high) {
        (Some(low), Some(high)) => match (low.strip_prefix("≥ "), high.strip_prefix("≤ ")) {
            (Some(low), Some(high)) => Some(format!("{low} to {high}")),
            _ => Some(format!("{low} and {high}")),
        },
        (low, high) => low.or(high),
    }
}

fn counts(at_least: Option<&Value>, at_most: Option<&Value>, unit: &str) -> Option<String> {
    match (at_least.and_then(Value::as_u64).filter(|&it| it > 0), at_most.and_then(Value::as_u64)) {
        (Some(low), Some(high)) if low == high => Some(format!("{low} {unit}")),
        (Some(low), Some(high)) => Some(format!("{low} to {high} {unit}")),
        (Some(low), None) => Some(format!("at least {low} {unit}")),
        (None, Some(high)) => Some(format!("at most {high} {unit}")),
        (None, None) => None,
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() > 4 * MAX_VALUE_CHARS => {
            short(&format!("\"{}", clipped(text, MAX_VALUE_CHARS)))
        }
        Value::Array(items) if items.len() > 16 => format!("[{} items]", items.len()),
        Value::Object(fields) if fields.len() > 8 => format!("{{{} properties}}", fields.len()),
        value => short(&value.to_string()),
    }
}

fn short(text: &str) -> String {
    clipped(&comment_safe(&one_line(text)), MAX_VALUE_CHARS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, expected: &[&str]) {
        assert_eq!(doc(schema.as_object().expect("an object")), expected, "{schema}");
    }

    #[test]
    fn rules_follow_the_description() {
        check(json!({}), &[]);
        check(
            json!({"description": "Page.", "type": "integer", "minimum": 1, "maximum": 100, "default": 30}),
            &["Page. (integer, 1 to 100, default 30)"],
        );
        check(json!({"format": "date-time", "pattern": "^a*/b$"}), &["date-time, pattern \"^a*\\/b$\""]);
        check(
            json!({"description": "a\n\n\nb */ c", "minItems": 1, "uniqueItems": true}),
            &["a", "", "b *\\/ c", "at least 1 items, no item twice"],
        );
        check(json!({"minimum": 0, "exclusiveMinimum": true, "maximum": 9007199254740991i64}), &["> 0"]);
        check(json!({"description": "Page, by default 1.", "default": 1}), &["Page, by default 1."]);
        check(json!({"minLength": 2, "maxLength": 2, "deprecated": true}), &["2 characters, deprecated"]);
    }

    #[test]
    fn long_texts_are_cut() {
        let long = doc(json!({"description": "x\n".repeat(5_000), "default": "y".repeat(5_000)})
            .as_object()
            .expect("an object"));
        assert!(
            long.iter().map(|line| line.chars().count() + 1).sum::<usize>() < MAX_DESCRIPTION_CHARS + 200
        );
    }
}
