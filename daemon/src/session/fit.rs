//! What an exposed server lists, made so that strict clients can read it: many refuse a whole list for one entry that is
//! not as the protocol has it.
//!
//! Members of a wrong type go, a schema that is none becomes one that allows everything, and long descriptions are cut where
//! clients cut them. Everything else stays as the server wrote it. Pure.

use serde_json::{Map, Value, json};

/// Longest description of an exposed tool, prompt or resource, in bytes: Claude Code cuts longer ones, and whole lists of
/// them fill any model's context. `get_tool_details` shows them whole.
const MAX_DESCRIPTION_BYTES: usize = 2048;

/// Longest title, in bytes; a line.
const MAX_TITLE_BYTES: usize = 256;

/// What an entry is in a list of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tool,
    Prompt,
    Resource,
    Template,
}

/// The entry as the client gets it; its name or URI is a string already.
pub(super) fn fit(kind: Kind, mut entry: Value) -> Value {
    let Value::Object(members) = &mut entry else { return entry };
    keep_if(members, "title", Value::is_string);
    keep_if(members, "description", Value::is_string);
    keep_if(members, "icons", is_list_of_objects);
    keep_if(members, "_meta", Value::is_object);
    keep_if(members, "annotations", Value::is_object);
    cut(members, "title", MAX_TITLE_BYTES);
    cut(members, "description", MAX_DESCRIPTION_BYTES);
    match kind {
        Kind::Tool => {
            keep_if(members, "execution", Value::is_object);
            keep_if(members, "outputSchema", Value::is_object);
            if !members.get("inputSchema").is_some_and(|schema| schema["type"] == "object") {
                members.insert("inputSchema".to_owned(), json!({ "type": "object" }));
            }
        }
        Kind::Prompt => {
            keep_if(members, "arguments", Value::is_array);
            if let Some(Value::Array(arguments)) = members.get_mut("arguments") {
                arguments.retain(|argument| argument["name"].is_string());
            }
        }
        Kind::Resource | Kind::Template => {
            keep_if(members, "mimeType", Value::is_string);
            keep_if(members, "size", Value::is_number);
            if !members.get("name").is_some_and(Value::is_string) {
                let key = if kind == Kind::Resource { "uri" } else { "uriTemplate" };
                let name = members.get(key).cloned().unwrap_or_default();
                members.insert("name".to_owned(), name);
            }
        }
    }
    entry
}

fn is_list_of_objects(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(Value::is_object))
}

fn keep_if(members: &mut Map<String, Value>, name: &str, is_right: impl Fn(&Value) -> bool) {
    if members.get(name).is_some_and(|value| !is_right(value)) {
        // In its order: clients see the server's own.
        members.shift_remove(name);
    }
}

fn cut(members: &mut Map<String, Value>, name: &str, max_bytes: usize) {
    if let Some(Value::String(text)) = members.get_mut(name)
        && text.len() > max_bytes
    {
        text.truncate(text.floor_char_boundary(max_bytes - '…'.len_utf8()));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_stays_as_it_is() {
        let tool = json!({
            "name": "t", "zeta": [1], "description": "d", "inputSchema": { "type": "object", "x": 1 },
            "outputSchema": { "type": "array" }, "annotations": { "a": 1 }, "icons": [{ "src": "s" }],
        });
        assert_eq!(fit(Kind::Tool, tool.clone()).to_string(), tool.to_string());
        let prompt = json!({ "name": "p", "arguments": [{ "name": "a", "mood": 1 }] });
        assert_eq!(fit(Kind::Prompt, prompt.clone()), prompt);
    }

    #[test]
    fn what_no_strict_client_reads_goes() {
        let wrong = json!({
            "name": "t", "title": 1, "description": ["d"], "inputSchema": "x", "outputSchema": true,
            "annotations": [], "icons": {}, "_meta": null, "execution": 3, "other": 1,
        });
        assert_eq!(
            fit(Kind::Tool, wrong),
            json!({ "name": "t", "other": 1, "inputSchema": { "type": "object" } })
        );
        let prompt = json!({ "name": "p", "arguments": [{ "name": 1 }, { "name": "a" }, 7] });
        assert_eq!(fit(Kind::Prompt, prompt)["arguments"], json!([{ "name": "a" }]));
        let resource = json!({ "uri": "u:1", "mimeType": 1, "size": "3" });
        assert_eq!(fit(Kind::Resource, resource), json!({ "uri": "u:1", "name": "u:1" }));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let tool = json!({ "name": "t", "title": "é".repeat(1000), "description": "é".repeat(5000) });
        let fitted = fit(Kind::Tool, tool);
        let length = |name: &str| fitted[name].as_str().map(str::len);
        assert!(length("description").is_some_and(|bytes| (2040..=2048).contains(&bytes)));
        assert!(length("title").is_some_and(|bytes| (250..=256).contains(&bytes)));
        assert!(fitted["description"].as_str().is_some_and(|text| text.ends_with("é…")));
    }
}
