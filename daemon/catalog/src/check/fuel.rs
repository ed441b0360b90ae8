//! How much work a check of one value against one schema can be.
//!
//! A schema of a few lines can cost more steps than there are atoms: alternatives of alternatives that all refer to each
//! other. And one that refers to itself without going into the value never ends. The validator does not count, so this
//! does, before it: the same steps, without comparing anything, until they are done or too many.

use serde_json::{Map, Value};

use crate::schema::Document;

/// Steps after which a check is given up: far more than any honest schema takes, some ten milliseconds for the validator.
const MAX_STEPS: usize = 100_000;
/// Levels of schemas within schemas on one path. Bounds this walk's stack and the validator's.
const MAX_DEPTH: usize = 192;

/// Whether checking `value` against `root` takes a bounded number of steps.
pub(crate) fn is_affordable(root: &Value, value: &Value) -> bool {
    let mut walk = Walk { document: Document::new(root), steps: 0 };
    walk.schema(root, value, 0).is_some()
}

struct Walk<'s> {
    document: Document<'s>,
    steps: usize,
}

impl<'s> Walk<'s> {
    /// `None` as soon as it is too much.
    fn schema(&mut self, schema: &'s Value, value: &Value, depth: usize) -> Option<()> {
        self.steps += 1;
        if self.steps > MAX_STEPS || depth > MAX_DEPTH {
            return None;
        }
        let Value::Object(keywords) = schema else { return Some(()) };
        // To know what is left for these keywords, the validator evaluates the ones beside them a second time.
        let is_repeated =
            ["unevaluatedItems", "unevaluatedProperties"].iter().any(|key| keywords.contains_key(*key));
        for _ in 0..=usize::from(is_repeated) {
            self.in_place(keywords, value, depth + 1)?;
            match value {
                Value::Array(items) => self.items(keywords, items, depth + 1)?,
                Value::Object(fields) => self.fields(keywords, fields, depth + 1)?,
                _ => {}
            }
        }
        Some(())
    }

    /// Schemas that apply to the value itself.
    fn in_place(&mut self, keywords: &'s Map<String, Value>, value: &Value, depth: usize) -> Option<()> {
        for (keyword, argument) in keywords {
            match (keyword.as_str(), argument) {
                ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                    if let Some(target) = self.document.resolve(reference) {
                        self.schema(target, value, depth)?;
                    }
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                    for schema in schemas {
                        self.schema(schema, value, depth)?;
                    }
                }
                ("not" | "if" | "then" | "else", schema) => self.schema(schema, value, depth)?,
                ("dependentSchemas" | "dependencies", Value::Object(schemas)) => {
                    for schema in schemas.values() {
                        self.schema(schema, value, depth)?;
                    }
                }
                ("enum", Value::Array(values)) => self.steps += values.len(),
                _ => {}
            }
        }
        Some(())
    }

    fn items(&mut self, keywords: &'s Map<String, Value>, items: &[Value], depth: usize) -> Option<()> {
        for keyword in ["items", "prefixItems", "additionalItems", "contains", "unevaluatedItems"] {
            match keywords.get(keyword) {
                Some(Value::Array(schemas)) => {
                    for (schema, item) in schemas.iter().zip(items) {
                        self.schema(schema, item, depth)?;
                    }
                }
                Some(schema) => {
                    for item in items {
                        self.schema(schema, item, depth)?;
                    }
                }
                None => {}
            }
        }
        Some(())
    }

    fn fields(
        &mut self,
        keywords: &'s Map<String, Value>,
        fields: &Map<String, Value>,
        depth: usize,
    ) -> Option<()> {
        if let Some(Value::Object(properties)) = keywords.get("properties") {
            for (name, schema) in properties {
                if let Some(value) = fields.get(name) {
                    self.schema(schema, value, depth)?;
                }
            }
        }
        let patterns = keywords.get("patternProperties").and_then(Value::as_object);
        let others = ["additionalProperties", "unevaluatedProperties", "propertyNames"];
        let schemas = others.iter().filter_map(|keyword| keywords.get(*keyword));
        for schema in schemas.chain(patterns.into_iter().flat_map(Map::values)) {
            for value in fields.values() {
                self.schema(schema, value, depth)?;
            }
        }
        Some(())
    }
}
