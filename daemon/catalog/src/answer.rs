//! From a raw `CallToolResult` to the value that code gets.

use serde_json::Value;
use thiserror::Error;

use crate::text::clipped;

/// Longest message of a tool's error; the whole text stays in its content.
const MAX_MESSAGE_CHARS: usize = 2_000;

/// What a tool call gave: a value, or the tool's own error.
pub type Unwrapped = Result<Value, ToolError>;

/// A result with `isError`: the tool ran and says that it failed.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{message}")]
pub struct ToolError {
    /// The text of its content, or a sentence where there is none.
    pub message: String,
    /// Its content, as it came.
    pub content: Vec<Value>,
    /// Its `structuredContent`, if there is one.
    pub structured: Option<Value>,
}

/// The value of a `CallToolResult`, by these rules, the first that fits:
///
/// 1. `isError` is true: the [`ToolError`].
/// 2. `structuredContent` is there: that. (`null` counts only without content, or where `output_schema` allows `null`:
///    some servers write `null` for "none".)
/// 3. No content: `null`.
/// 4. One text: the JSON in it if it is an object or an array; a JSON number, boolean or `null` only if
///    `output_schema` names that type, because the text `7` is more often a text than a number; else the text.
/// 5. One part of another kind: that part.
/// 6. Several parts: an array of all of them, as they came.
pub fn unwrap(mut result: Value, output_schema: Option<&Value>) -> Unwrapped {
    let structured = result.get_mut("structuredContent").map(Value::take);
    let content = match result.get_mut("content").map(Value::take) {
        Some(Value::Array(parts)) => parts,
        _ => Vec::new(),
    };
    if result.get("isError") == Some(&Value::Bool(true)) {
        return Err(ToolError { message: message(&content, structured.as_ref()), content, structured });
    }
    match structured {
        Some(Value::Null) if !content.is_empty() && !allows(output_schema, "null") => {}
        Some(value) => return Ok(value),
        None => {}
    }
    let mut parts = content;
    if parts.len() > 1 {
        return Ok(Value::Array(parts));
    }
    let Some(mut part) = parts.pop() else { return Ok(Value::Null) };
    let is_text = part.get("type").and_then(Value::as_str) == Some("text");
    match part.get_mut("text").map(Value::take) {
        Some(Value::String(text)) if is_text => Ok(parsed(text, output_schema)),
        Some(text) => {
            part["text"] = text;
            Ok(part)
        }
        None => Ok(part),
    }
}

fn parsed(text: String, output_schema: Option<&Value>) -> Value {
    let is_json = |value: &Value| match value {
        Value::Object(_) | Value::Array(_) => true,
        Value::Null => allows(output_schema, "null"),
        Value::Bool(_) => allows(output_schema, "boolean"),
        Value::Number(_) => allows(output_schema, "number") || allows(output_schema, "integer"),
        // A text that merely stands in quotes is not one that was quoted.
        Value::String(_) => false,
    };
    let may_be_json = output_schema.is_some() || text.trim_start().starts_with(['{', '[']);
    match may_be_json.then(|| serde_json::from_str(&text)) {
        Some(Ok(value)) if is_json(&value) => value,
        _ => Value::String(text),
    }
}

/// True if the schema's `type` names this type.
fn allows(schema: Option<&Value>, name: &str) -> bool {
    match schema.and_then(|schema| schema.get("type")) {
        Some(Value::String(only)) => only == name,
        Some(Value::Array(names)) => names.iter().any(|it| it == name),
        _ => false,
    }
}

fn message(content: &[Value], structured: Option<&Value>) -> String {
    let texts = content.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
    let text = texts.map(str::trim).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
    let text = match structured {
        Some(value) if text.is_empty() && !value.is_null() => value.to_string(),
        _ => text,
    };
    if text.is_empty() {
        return "the tool failed and gave no reason".to_owned();
    }
    clipped(&text, MAX_MESSAGE_CHARS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> Value {
        json!({"type": "text", "text": text})
    }

    fn check(result: Value, schema: Option<Value>, expected: Value) {
        assert_eq!(unwrap(result.clone(), schema.as_ref()), Ok(expected), "{result}");
    }

    #[test]
    fn structured_content_comes_first() {
        check(json!({"content": [text("7")], "structuredContent": {"n": 7}}), None, json!({"n": 7}));
        check(json!({"content": [], "structuredContent": [1]}), None, json!([1]));
        check(json!({"content": [text("hello")], "structuredContent": null}), None, json!("hello"));
        check(
            json!({"content": [text("null")], "structuredContent": null}),
            Some(json!({"type": ["null"]})),
            json!(null),
        );
    }

    #[test]
    fn one_text_is_json_where_it_surely_is() {
        check(json!({"content": [text(" {\"a\": 1.0} ")]}), None, json!({"a": 1.0}));
        check(json!({"content": [text("[]")]}), None, json!([]));
        check(json!({"content": [text("[not json")]}), None, json!("[not json"));
        for plain in ["7", "true", "null", "\"x\"", "hello", ""] {
            check(json!({"content": [text(plain)]}), None, json!(plain));
        }
        check(json!({"content": [text("7")]}), Some(json!({"type": "integer"})), json!(7));
        check(json!({"content": [text("7")]}), Some(json!({"type": "string"})), json!("7"));
        check(json!({"content": [text("true")]}), Some(json!({"type": ["boolean", "null"]})), json!(true));
    }

    #[test]
    fn other_parts_stay_as_they_are() {
        let image = json!({"type": "image", "data": "AA==", "mimeType": "image/png"});
        check(json!({"content": [image]}), None, image.clone());
        check(json!({"content": [text("{}"), image]}), None, json!([text("{}"), image]));
        check(json!({"content": []}), None, json!(null));
        check(json!({}), None, json!(null));
        check(json!({"content": "no array"}), None, json!(null));
        check(json!(3), None, json!(null));
        check(json!({"content": [{"type": "odd", "text": "x"}]}), None, json!({"type": "odd", "text": "x"}));
        check(json!({"content": [{"type": "text", "text": 5}]}), None, json!({"type": "text", "text": 5}));
        check(json!({"content": [5]}), None, json!(5));
    }

    #[test]
    fn errors_carry_their_content() {
        let error =
            unwrap(json!({"isError": true, "content": [text(" no such issue "), text("try 5")]}), None);
        let error = error.expect_err("it is an error");
        assert_eq!(error.to_string(), "no such issue\ntry 5");
        assert_eq!(error.content.len(), 2);
        let bare = unwrap(json!({"isError": true, "structuredContent": {"code": 5}}), None)
            .expect_err("it is an error");
        assert_eq!((bare.message.as_str(), bare.structured), ("{\"code\":5}", Some(json!({"code": 5}))));
        let empty = unwrap(json!({"isError": true}), None).expect_err("it is an error");
        assert_eq!(empty.message, "the tool failed and gave no reason");
    }
}
