//! Holds a document to the schema and tells everything that is wrong, each with its place. Pure.

use std::ops::Range;

use conductor_upstream::nearest;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Document, Problem};
use super::duration;
use super::schema::schema;

/// Everything in which the document is not what the schema says.
pub(crate) fn problems(document: &Document<'_>) -> Vec<Problem> {
    let mut check = Check { document, problems: Vec::new() };
    check.table(document.root().get_ref(), object(schema()), &mut Vec::new());
    check.problems.sort_by_key(|problem| (problem.line, problem.column));
    check.problems
}

struct Check<'d, 'a> {
    document: &'d Document<'a>,
    problems: Vec<Problem>,
}

impl<'d> Check<'d, '_> {
    fn value(
        &mut self,
        value: &'d Spanned<DeValue<'_>>,
        schema: &Map<String, Value>,
        path: &mut Vec<&'d str>,
    ) {
        let expected = schema.get("type").and_then(Value::as_str).unwrap_or_default();
        let wrong = match (value.get_ref(), expected) {
            (DeValue::Table(table), "object") => return self.table(table, schema, path),
            (DeValue::Array(items), "array") => {
                let item = schema.get("items").map(object);
                for value in items.iter() {
                    if let Some(item) = item {
                        self.value(value, item, path);
                    }
                }
                count(items.len(), schema)
            }
            (DeValue::String(text), "string") => text_problem(text, schema),
            (DeValue::Integer(number), "integer") => number_problem(number.as_str(), number.radix(), schema),
            (DeValue::Boolean(_), "boolean") => None,
            (found, _) => Some(format!("must be {}, and is {}", kind(schema), found_kind(found))),
        };
        if let Some(what) = wrong {
            self.add(value.span(), path, what, None);
        }
    }

    fn table(&mut self, table: &'d DeTable<'_>, schema: &Map<String, Value>, path: &mut Vec<&'d str>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in table.iter() {
            let name: &'d str = key.get_ref();
            let known = properties.and_then(|properties| properties.get(name));
            let below =
                known.or_else(|| schema.get("additionalProperties").filter(|other| other.is_object()));
            match below {
                Some(below) => {
                    path.push(name);
                    self.value(value, object(below), path);
                    path.pop();
                }
                None => {
                    let hint = self.hint_for(name, properties, path);
                    self.add(key.span(), path, format!("unknown key `{name}`"), hint);
                }
            }
        }
        for name in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !table.iter().any(|(key, _)| key.get_ref() == name) {
                self.add(self.document.span_of(path), path, format!("`{name}` is missing"), None);
            }
        }
    }

    /// The name that was probably meant, here or in another section.
    fn hint_for(&self, name: &str, here: Option<&Map<String, Value>>, path: &[&str]) -> Option<String> {
        let known = here.into_iter().flat_map(Map::keys).map(String::as_str);
        if let Some(near) = nearest(name, known.clone()) {
            return Some(format!("did you mean `{near}`?"));
        }
        let elsewhere = sections().find(|(section, properties)| {
            !path.first().is_some_and(|first| section.starts_with(first)) && properties.contains_key(name)
        });
        if let Some((section, _)) = elsewhere {
            return Some(format!("it belongs into [{section}]"));
        }
        let known: Vec<_> = known.collect();
        (!known.is_empty()).then(|| format!("known are {}", known.join(", ")))
    }

    fn add(&mut self, span: Range<usize>, path: &[&str], what: impl Into<String>, hint: Option<String>) {
        self.problems.push(self.document.problem(span, path, what, hint));
    }
}

/// Each table of the schema by its heading.
pub(super) fn sections() -> impl Iterator<Item = (String, &'static Map<String, Value>)> {
    let root = object(schema());
    let tables = root["properties"].as_object().into_iter().flatten();
    tables.filter_map(|(name, below)| match below.get("additionalProperties") {
        Some(each) if each.is_object() => {
            let wildcard = below.get("x-each").and_then(Value::as_str).unwrap_or("NAME");
            Some((format!("{name}.{wildcard}"), each.get("properties")?.as_object()?))
        }
        _ => Some((name.clone(), below.get("properties")?.as_object()?)),
    })
}

fn object(schema: &Value) -> &Map<String, Value> {
    schema.as_object().expect("every schema of ours is an object")
}

fn text_problem(text: &str, schema: &Map<String, Value>) -> Option<String> {
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return (!names.iter().any(|name| name == text)).then(|| {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
            let near = nearest(text, names.iter().copied()).filter(|_| names.len() > 3);
            let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            format!("`{text}` is none of {}{near}", names.join(", "))
        });
    }
    match schema.get("x-syntax").and_then(Value::as_str) {
        Some("duration") => return span_problem(text, duration::parse(text).map(Some), schema),
        Some("duration or never") => return span_problem(text, duration::parse_or_never(text), schema),
        _ => {}
    }
    let length = text.chars().count() as u64;
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    match (bound("minLength"), bound("maxLength")) {
        (Some(1), _) if length == 0 => Some("must not be empty".to_owned()),
        (Some(least), _) if length < least => Some(format!("must have at least {least} characters")),
        (_, Some(most)) if length > most => Some(format!("must have at most {most} characters")),
        _ => None,
    }
}

fn span_problem(
    text: &str,
    read: Option<Option<std::time::Duration>>,
    schema: &Map<String, Value>,
) -> Option<String> {
    let Some(read) = read else {
        let never = if schema["x-syntax"] == "duration" { "" } else { ", nor \"never\"" };
        return Some(format!("{}{never}", duration::wrong(text)));
    };
    let bound = |key: &str| schema.get(key).and_then(Value::as_str);
    let (least, most) = (bound("x-least")?, bound("x-most")?);
    let is_within = |span: std::time::Duration| {
        duration::parse(least).is_none_or(|least| span >= least)
            && duration::parse(most).is_none_or(|most| span <= most)
    };
    (!read.is_none_or(is_within)).then(|| format!("must be from {least} to {most}, and is {text}"))
}

fn number_problem(digits: &str, radix: u32, schema: &Map<String, Value>) -> Option<String> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
    let (least, most) = (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(i64::MAX));
    let within = i64::from_str_radix(digits, radix).is_ok_and(|number| number >= least && number <= most);
    let unit = schema.get("x-unit").and_then(Value::as_str).unwrap_or_default();
    let sign = if radix == 10 { digits.trim_start_matches('+') } else { digits };
    (!within).then(|| format!("must be from {least} to {most} {unit}, and is {sign}"))
}

fn count(found: usize, schema: &Map<String, Value>) -> Option<String> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    let found = found as u64;
    match (bound("minItems"), bound("maxItems")) {
        (Some(least), _) if found < least => {
            Some(format!("must have at least {least} entries, and has {found}"))
        }
        (_, Some(most)) if found > most => Some(format!("must have at most {most} entries, and has {found}")),
        _ => None,
    }
}

fn kind(schema: &Map<String, Value>) -> &'static str {
    match (schema.get("type").and_then(Value::as_str), schema.get("x-syntax").and_then(Value::as_str)) {
        (_, Some(syntax)) if syntax.starts_with("duration") => "a duration like \"30s\"",
        (Some("string"), _) => "a text in quotes",
        (Some("integer"), _) => "a whole number",
        (Some("boolean"), _) => "true or false",
        (Some("array"), _) => "a list",
        _ => "a table",
    }
}

fn found_kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
