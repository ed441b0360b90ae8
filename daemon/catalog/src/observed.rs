//! The type of a tool's answers, learnt from answers.
//!
//! Most servers declare no output schema. What their tools answered before is then the best there is to tell a model. Only
//! shapes are kept, never values: names of properties, and which types were seen. Names can be data too (a map from
//! addresses to counts), so objects with many different names, or with names that do not look like names, are kept as
//! maps. All sizes are bounded; the result is kept on disk with the manifest.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Levels of nesting that are learnt.
const MAX_DEPTH: usize = 8;
/// Names of one object; more make it a map.
const MAX_FIELDS: usize = 48;
/// Items of one array that are looked at in one answer: the rest is usually alike.
const MAX_ITEMS: usize = 64;
/// Objects and arrays kept in all; new ones beyond that are learnt as `unknown`.
const MAX_SHAPES: usize = 200;
/// Values looked at in one answer, which bounds the time.
const MAX_VALUES: usize = 20_000;

/// The type of the values seen so far.
///
/// Merging is the union: every sample is a value of [`Observed::to_schema`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    n_samples: u64,
    shape: Shape,
}

/// What was seen in one place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Shape {
    #[serde(skip_serializing_if = "is_false")]
    any: bool,
    #[serde(skip_serializing_if = "is_false")]
    null: bool,
    #[serde(skip_serializing_if = "is_false")]
    boolean: bool,
    #[serde(skip_serializing_if = "is_false")]
    number: bool,
    #[serde(skip_serializing_if = "is_false")]
    string: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Box<Shape>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Fields>,
}

/// The properties of the objects seen in one place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Fields {
    n_seen: u64,
    /// In the order in which they were first seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
    /// The type of all values, once names are taken for data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    map: Option<Box<Shape>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Field {
    name: String,
    n_seen: u64,
    shape: Shape,
}

/// What one sample may still cost.
struct Budget {
    n_values: usize,
    n_shapes: usize,
}

impl Observed {
    /// Learns from one more answer, as code got it (after [`unwrap`](crate::unwrap)).
    ///
    /// True if the type changed: only then is there something new to keep.
    pub fn learn(&mut self, value: &Value) -> bool {
        let before = self.to_schema();
        let n_shapes = MAX_SHAPES.saturating_sub(self.shape.count(0));
        self.shape.learn(value, 0, &mut Budget { n_values: MAX_VALUES, n_shapes });
        self.n_samples = self.n_samples.saturating_add(1);
        self.n_samples == 1 || before != self.to_schema()
    }

    /// How many answers it was learnt from.
    pub fn n_samples(&self) -> u64 {
        self.n_samples
    }

    /// A JSON Schema that all samples satisfy.
    pub fn to_schema(&self) -> Value {
        if self.n_samples == 0 { Value::Bool(true) } else { self.shape.to_schema(0) }
    }
}

impl Shape {
    fn learn(&mut self, value: &Value, depth: usize, budget: &mut Budget) {
        if self.any {
            return;
        }
        if depth > MAX_DEPTH || budget.n_values == 0 {
            *self = Self { any: true, ..Self::default() };
            return;
        }
        budget.n_values -= 1;
        match value {
            Value::Null => self.null = true,
            Value::Bool(_) => self.boolean = true,
            Value::Number(_) => self.number = true,
            Value::String(_) => self.string = true,
            Value::Array(items) => {
                let shape = match &mut self.items {
                    Some(shape) => shape,
                    None if !budget.take_shape() => return *self = Self { any: true, ..Self::default() },
                    None => self.items.insert(Box::default()),
                };
                let sampled = items.iter().take(MAX_ITEMS);
                sampled.for_each(|item| shape.learn(item, depth + 1, budget));
                // Items that were not looked at might be of any type; the last one is the likeliest to differ.
                if let Some(last) = items.get(MAX_ITEMS..).and_then(<[Value]>::last) {
                    shape.learn(last, depth + 1, budget);
                }
            }
            Value::Object(fields) => {
                if self.object.is_none() && !budget.take_shape() {
                    return *self = Self { any: true, ..Self::default() };
                }
                self.object.get_or_insert_default().learn(fields, depth, budget);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        if self.any || other.any {
            *self = Self { any: true, ..Self::default() };
            return;
        }
        self.null |= other.null;
        self.boolean |= other.boolean;
        self.number |= other.number;
        self.string |= other.string;
        match (&mut self.items, other.items) {
            (Some(items), Some(other)) => items.merge(*other),
            (None, other) => self.items = other,
            (Some(_), None) => {}
        }
        match (&mut self.object, other.object) {
            (Some(object), Some(other)) => object.merge(other),
            (None, other) => self.object = other,
            (Some(_), None) => {}
        }
    }

    fn count(&self, depth: usize) -> usize {
        if depth > MAX_DEPTH {
            return 1;
        }
        let items = self.items.iter().map(|items| 1 + items.count(depth + 1));
        let object = self.object.iter().map(|object| {
            let fields = object.fields.iter().map(|field| &field.shape).chain(object.map.as_deref());
            1 + fields.map(|shape| shape.count(depth + 1)).sum::<usize>()
        });
        items.chain(object).sum()
    }

    fn to_schema(&self, depth: usize) -> Value {
        // What comes from disk may be deeper than what is learnt.
        if self.any || depth > MAX_DEPTH + 1 {
            return Value::Bool(true);
        }
        let plain = [
            ("string", self.string),
            ("number", self.number),
            ("boolean", self.boolean),
            ("null", self.null),
        ];
        let mut types: Vec<Value> = Vec::new();
        if let Some(object) = &self.object {
            types.push(object.to_schema(depth));
        }
        if let Some(items) = &self.items {
            types.push(json!({"type": "array", "items": items.to_schema(depth + 1)}));
        }
        types.extend(plain.iter().filter(|(_, seen)| *seen).map(|(name, _)| json!({"type": name})));
        match types.len() {
            // Only empty arrays were seen around it.
            0 => Value::Bool(true),
            1 => types.remove(0),
            _ => json!({"anyOf": types}),
        }
    }
}

impl Fields {
    fn learn(&mut self, object: &Map<String, Value>, depth: usize, budget: &mut Budget) {
        self.n_seen += 1;
        if self.map.is_none()
            && (self.n_names_with(object) > MAX_FIELDS || object.keys().any(|name| is_data(name)))
        {
            self.become_map();
        }
        for (name, value) in object {
            if let Some(map) = &mut self.map {
                map.learn(value, depth + 1, budget);
            } else if let Some(field) = self.fields.iter_mut().find(|field| field.name == *name) {
                field.n_seen += 1;
                field.shape.learn(value, depth + 1, budget);
            } else {
                let mut shape = Shape::default();
                shape.learn(value, depth + 1, budget);
                self.fields.push(Field { name: name.clone(), n_seen: 1, shape });
            }
        }
    }

    fn n_names_with(&self, object: &Map<String, Value>) -> usize {
        let n_missing = self.fields.iter().filter(|field| !object.contains_key(&field.name)).count();
        object.len() + n_missing
    }

    fn become_map(&mut self) {
        let mut map = Shape::default();
        self.fields.drain(..).for_each(|field| map.merge(field.shape));
        self.map = Some(Box::new(map));
    }

    fn merge(&mut self, mut other: Self) {
        self.n_seen += other.n_seen;
        let new = other
            .fields
            .iter()
            .filter(|field| self.fields.iter().all(|known| known.name != field.name))
            .count();
        if self.map.is_some() || other.map.is_some() || self.fields.len() + new > MAX_FIELDS {
            self.become_map_of(&mut other);
            return;
        }
        for field in other.fields {
            match self.fields.iter_mut().find(|known| known.name == field.name) {
                Some(known) => {
                    known.n_seen += field.n_seen;
                    known.shape.merge(field.shape);
                }
                None => self.fields.push(field),
            }
        }
    }

    fn become_map_of(&mut self, other: &mut Self) {
        let mut all = self.map.take().map_or_else(Shape::default, |map| *map);
        self.become_map();
        other.fields.drain(..).for_each(|field| all.merge(field.shape));
        [self.map.take(), other.map.take()].into_iter().flatten().for_each(|map| all.merge(*map));
        self.map = Some(Box::new(all));
    }

    fn to_schema(&self, depth: usize) -> Value {
        if let Some(map) = &self.map {
            return json!({"type": "object", "additionalProperties": map.to_schema(depth + 1)});
        }
        let properties: Map<String, Value> =
            self.fields.iter().map(|field| (field.name.clone(), field.shape.to_schema(depth + 1))).collect();
        let always = self.fields.iter().filter(|field| field.n_seen >= self.n_seen);
        let required: Vec<&str> = always.map(|field| field.name.as_str()).collect();
        json!({"type": "object", "properties": properties, "required": required})
    }
}

impl Budget {
    fn take_shape(&mut self) -> bool {
        let has = self.n_shapes > 0;
        self.n_shapes = self.n_shapes.saturating_sub(1);
        has
    }
}

/// Names of properties are words; ids, addresses, dates and paths are data.
fn is_data(name: &str) -> bool {
    let n_digits = name.chars().filter(char::is_ascii_digit).count();
    name.is_empty()
        || name.chars().nth(64).is_some()
        || name.starts_with(|c: char| c.is_ascii_digit())
        || n_digits > 4
        || name.contains(['@', '/', '\\', ' ', '\n'])
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any_json;

    fn observed(samples: &[Value]) -> Observed {
        let mut observed = Observed::default();
        for sample in samples {
            observed.learn(sample);
        }
        observed
    }

    fn check(samples: &[Value], expected: &str) {
        let schema = observed(samples).to_schema();
        assert_eq!(crate::declare::expected(&schema, &schema), expected, "{samples:?}");
    }

    #[test]
    fn samples_are_merged() {
        check(&[], "unknown");
        check(
            &[json!({"id": 1, "tags": ["a"]}), json!({"id": 2, "tags": [], "next": null})],
            "{ id: number; tags: string[]; next?: null }",
        );
        check(&[json!([{"a": 1}, {"a": "x", "b": true}])], "{ a: string | number; b?: boolean }[]");
        check(&[json!([]), json!("text")], "unknown[] | string");
        check(&[json!({}), json!({"a": 1})], "{ a?: number }");
    }

    #[test]
    fn names_that_are_data_make_a_map() {
        check(&[json!({"ann@example.com": 1, "bob@example.com": 2})], "Record<string, number>");
        check(&[json!({"a": 1}), json!({"2024-05-01": "x"})], "Record<string, string | number>");
        let many: Map<String, Value> = (0..60).map(|n| (format!("k{n}"), json!(n))).collect();
        check(&[Value::Object(many)], "Record<string, number>");
    }

    #[test]
    fn no_value_is_kept() {
        let kept = serde_json::to_string(&observed(&[json!({"token": "s3cret", "n": 4711})]))
            .expect("it serialises");
        assert!(kept.contains("token") && !kept.contains("s3cret") && !kept.contains("4711"), "{kept}");
    }

    #[test]
    fn only_news_is_reported() {
        let mut observed = Observed::default();
        assert!(observed.learn(&json!({"a": 1})));
        assert!(!observed.learn(&json!({"a": 2})));
        assert!(observed.learn(&json!({"a": null})));
        assert!(observed.learn(&json!({})));
        assert_eq!(observed.n_samples(), 4);
    }

    #[test]
    fn hostile_answers_stay_small() {
        let mut deep = json!(1);
        (0..100).for_each(|_| deep = json!({"a": [deep]}));
        let wide: Vec<Value> =
            (0..5_000).map(|n| json!({format!("k{}", n % 40): {format!("j{}", n % 40): [n]}})).collect();
        let kept = serde_json::to_string(&observed(&[deep, json!(wide)])).expect("it serialises");
        assert!(kept.len() < 200_000, "{}", kept.len());
    }

    proptest! {
        #[test]
        fn every_sample_satisfies_the_schema(samples in prop::collection::vec(any_json(), 1..5)) {
            let observed = observed(&samples);
            let schema = observed.to_schema();
            let validator = jsonschema::validator_for(&schema).expect("a valid schema");
            for sample in &samples {
                prop_assert!(validator.is_valid(sample), "{sample} is no {schema}");
            }
            let kept = serde_json::to_string(&observed).expect("it serialises");
            prop_assert_eq!(serde_json::from_str::<Observed>(&kept).expect("it is read back"), observed);
        }
    }
}
