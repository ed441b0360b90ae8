//! The JSON Schema of `config.toml`, from its types. Pure.
//!
//! It says all that [`super::check`] holds a document to. What JSON Schema has no word for stands in keywords of our own:
//! `x-syntax` (how a text is read), `x-least` and `x-most` (bounds of a duration), `x-unit`, `x-default` (a default that is no
//! one value), `x-each` (what a table's keys stand for), `x-restart` (read when the daemon starts), `x-secret`.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::Config;

/// The schema of a whole file.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(of::<Config>)
}

fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    settings.with_transform(RecursiveTransform(Plain)).into_generator().into_root_schema_for::<T>().to_value()
}

/// Makes of what Rust's types say what TOML has: no null, enumerations of names, integers without a size.
#[derive(Clone, Debug)]
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut Schema) {
        let Some(object) = schema.as_object_mut() else { return };
        without_null(object);
        if object.get("default").is_some_and(Value::is_null) {
            object.remove("default");
        }
        if object.get("type") == Some(&json!("integer")) {
            object.remove("format");
        }
        names(object);
        if let Some(Value::String(text)) = object.get_mut("description") {
            *text = text.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
        }
    }
}

/// An optional key may be absent; there is no null in TOML.
fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [kind] = types.as_slice() {
            let kind = kind.clone();
            object.insert("type".into(), kind);
        }
    }
    if let Some(Value::Array(variants)) = object.get("anyOf")
        && let [Value::Object(only), null] = variants.as_slice()
        && null.get("type") == Some(&json!("null"))
    {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// `oneOf` of named constants becomes `enum`, with what each means where Taplo looks for it.
fn names(object: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = object.get("oneOf") else { return };
    let constants: Option<Vec<_>> = variants.iter().map(|variant| variant.get("const").cloned()).collect();
    let Some(constants) = constants else { return };
    let meanings = variants.iter().map(|variant| variant.get("description").cloned().unwrap_or_default());
    let docs = json!({ "docs": { "enumValues": Value::from_iter(meanings) } });
    object.remove("oneOf");
    object.insert("type".into(), json!("string"));
    object.insert("enum".into(), constants.into());
    object.insert("x-taplo".into(), docs);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each<'a>(schema: &'a Value, found: &mut Vec<(String, &'a Map<String, Value>)>, path: &str) {
        let object = schema.as_object().expect("a schema is an object");
        found.push((path.to_owned(), object));
        for (name, below) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            each(below, found, &format!("{path}.{name}"));
        }
        for below in ["items", "additionalProperties"].iter().filter_map(|key| object.get(*key)) {
            if below.is_object() {
                each(below, found, &format!("{path}.*"));
            }
        }
    }

    #[test]
    fn every_keyword_is_one_that_the_parser_obeys_or_that_only_describes() {
        const OBEYED: [&str; 16] = [
            "type",
            "properties",
            "additionalProperties",
            "items",
            "enum",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "required",
            "pattern",
            "x-syntax",
            "x-least",
            "x-most",
        ];
        const DESCRIBE: [&str; 10] = [
            "$schema",
            "title",
            "description",
            "default",
            "x-default",
            "x-unit",
            "x-each",
            "x-restart",
            "x-taplo",
            "x-secret",
        ];
        let mut found = Vec::new();
        each(schema(), &mut found, "");
        for (path, object) in &found {
            for key in object.keys() {
                assert!(OBEYED.contains(&key.as_str()) || DESCRIBE.contains(&key.as_str()), "{path}: {key}");
            }
            // The parser knows ways to read a text by name and has no regular expressions.
            assert_eq!(object.contains_key("pattern"), object.contains_key("x-syntax"), "{path}");
            assert!(
                !object.contains_key("properties") || object["additionalProperties"] == json!(false),
                "{path}"
            );
        }
    }

    #[test]
    fn every_key_is_described_and_has_bounds_and_a_default() {
        let mut found = Vec::new();
        each(schema(), &mut found, "");
        for (path, object) in found.iter().filter(|(path, _)| !path.ends_with('*')) {
            assert!(object.contains_key("description"), "{path}");
            if object["type"] != "object" && !object.contains_key("x-required") {
                let told = ["default", "x-default"].iter().filter(|key| object.contains_key(**key)).count();
                assert_eq!(told, 1, "{path} has one default");
            }
            if object["type"] == "integer" {
                assert!(object.contains_key("minimum") && object.contains_key("maximum"), "{path}");
                assert!(object.contains_key("x-unit"), "{path}");
            }
            if object.contains_key("x-syntax")
                && object["x-syntax"].as_str().is_some_and(|it| it.starts_with("duration"))
            {
                assert!(object.contains_key("x-least") && object.contains_key("x-most"), "{path}");
            }
        }
    }
}
