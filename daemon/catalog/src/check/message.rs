//! The validator's errors in words that a model can act on.

use std::collections::HashSet;

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

use super::Problem;
use crate::declare::expected;
use crate::names::{is_identifier, quoted};
use crate::nearest::nearest;
use crate::text::clipped;

/// Characters of a given value, and names of an object, that are shown.
const MAX_GIVEN_CHARS: usize = 60;
const MAX_NAMES: usize = 20;
/// Alternatives within alternatives that are looked into for the one that was meant.
const MAX_ALTERNATIVES_DEPTH: usize = 4;

/// One or several problems for one error.
pub(crate) fn problems(error: &ValidationError<'_>, root: &Value, arguments: &Value) -> Vec<Problem> {
    of_error(error, root, arguments, 0)
}

/// The schema that a broken keyword stands in, and the document around it.
#[derive(Clone, Copy)]
struct Place<'s> {
    root: &'s Value,
    schema: Option<&'s Value>,
}

impl<'s> Place<'s> {
    fn new(error: &ValidationError<'_>, root: &'s Value) -> Self {
        let parent = error.schema_path().as_str().rsplit_once('/');
        Self { root, schema: parent.and_then(|(parent, _)| root.pointer(parent)) }
    }

    /// The type that was expected there, or `otherwise`.
    fn expected(&self, otherwise: &str) -> String {
        self.schema.map_or_else(|| otherwise.to_owned(), |schema| expected(self.root, schema))
    }

    fn property(&self, name: &str) -> Option<String> {
        Some(expected(self.root, self.schema?.get("properties")?.get(name)?))
    }

    fn properties(&self) -> impl Iterator<Item = &'s str> + use<'s> {
        let properties = self.schema.and_then(|schema| schema.get("properties")?.as_object());
        properties.into_iter().flat_map(|properties| properties.keys()).map(String::as_str)
    }
}

fn of_error(error: &ValidationError<'_>, root: &Value, arguments: &Value, depth: usize) -> Vec<Problem> {
    let pointer = error.instance_path().as_str();
    let path = path(pointer, arguments);
    let given = arguments.pointer(pointer).unwrap_or(&Value::Null);
    let place = Place::new(error, root);
    let problem = |message: String| vec![Problem { path: path.clone(), message }];
    match error.kind() {
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let ty = place.property(name).map_or_else(String::new, |ty| format!(" ({ty})"));
            let near = near_unknown(name, given, place);
            problem(format!("missing required property {}{ty}{near}", shown(name)))
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().map(|name| unknown_property(&path, name, place)).collect()
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            match meant(context, given).filter(|_| depth < MAX_ALTERNATIVES_DEPTH) {
                Some(errors) => {
                    errors.iter().flat_map(|error| of_error(error, root, arguments, depth + 1)).collect()
                }
                None => problem(mismatch(place, given)),
            }
        }
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => Vec::new(),
        kind => problem(words(kind, place, given)),
    }
}

/// The message for errors that concern one value and nothing else.
fn words(kind: &Kind, place: Place<'_>, given: &Value) -> String {
    match kind {
        Kind::Type { kind } => {
            let named = types(kind);
            // TypeScript knows no integers.
            let ty = if named.contains("integer") { named } else { place.expected(&named) };
            let hint = coercion(kind, given);
            format!("expected {ty}, got {}{hint}", described(given))
        }
        Kind::Enum { options } => {
            let names = options.as_array().into_iter().flatten().filter_map(Value::as_str);
            let near = given.as_str().map_or_else(String::new, |given| did_you_mean(given, names));
            format!("{}{near}", mismatch(place, given))
        }
        Kind::Constant { .. } => mismatch(place, given),
        Kind::OneOfMultipleValid { .. } => {
            format!("fits more than one alternative where exactly one may fit: {}", described(given))
        }
        Kind::FalseSchema => format!("nothing is allowed here, got {}", described(given)),
        Kind::Minimum { limit } => format!("must be ≥ {limit}, got {}", described(given)),
        Kind::Maximum { limit } => format!("must be ≤ {limit}, got {}", described(given)),
        Kind::ExclusiveMinimum { limit } => format!("must be > {limit}, got {}", described(given)),
        Kind::ExclusiveMaximum { limit } => format!("must be < {limit}, got {}", described(given)),
        Kind::MinLength { limit } => {
            format!("must have at least {limit} characters, got {}", described(given))
        }
        Kind::MaxLength { limit } => {
            format!("must have at most {limit} characters, got {}", described(given))
        }
        Kind::MinItems { limit } => format!("must have at least {limit} items, got {}", n_items(given)),
        Kind::MaxItems { limit } => format!("must have at most {limit} items, got {}", n_items(given)),
        Kind::AdditionalItems { limit } => format!("must have at most {limit} items, got {}", n_items(given)),
        Kind::UniqueItems => "must not have an item twice".to_owned(),
        Kind::Pattern { pattern } => {
            format!("must match the pattern {}, got {}", clipped(pattern, 120), described(given))
        }
        other => {
            clipped(&format!("breaks the schema's rule `{}`: got {}", other.keyword(), described(given)), 300)
        }
    }
}

/// Of several alternatives the one that was most likely meant: its `const` or `enum` discriminators fit, or it is the only
/// one of the given type.
fn meant<'e>(
    context: &'e [Vec<ValidationError<'static>>],
    given: &Value,
) -> Option<&'e [ValidationError<'static>]> {
    let wrong_type = |error: &ValidationError<'_>| matches!(error.kind(), Kind::Type { .. });
    let wrong_kind =
        |error: &ValidationError<'_>| matches!(error.kind(), Kind::Constant { .. } | Kind::Enum { .. });
    let is_here = |error: &ValidationError<'_>| error.instance_path().as_str().matches('/').count();
    let base = context.iter().flatten().map(is_here).min()?;
    let mut candidates = context.iter().filter(|errors| {
        !errors.is_empty() && !errors.iter().any(|error| wrong_type(error) && is_here(error) == base)
    });
    let all: Vec<_> = candidates.by_ref().collect();
    if let [only] = all.as_slice() {
        return Some(only);
    }
    // Objects told apart by a constant property: the one whose constant was given.
    let discriminated: Vec<_> = all.iter().filter(|errors| !errors.iter().any(wrong_kind)).collect();
    match discriminated.as_slice() {
        [only] if given.is_object() => Some(only),
        _ => None,
    }
}

fn unknown_property(path: &str, name: &str, place: Place<'_>) -> Problem {
    let known: Vec<&str> = place.properties().collect();
    let near = did_you_mean(name, known.iter().copied());
    let list = match known.len() {
        0 => "; no properties are known here".to_owned(),
        _ if !near.is_empty() => String::new(),
        n => {
            let names: Vec<String> =
                known.iter().take(MAX_NAMES).map(|name| clipped(name, MAX_GIVEN_CHARS)).collect();
            let more = if n > MAX_NAMES { format!(" and {} more", n - MAX_NAMES) } else { String::new() };
            format!("; known are {}{more}", names.join(", "))
        }
    };
    Problem { path: path.to_owned(), message: format!("unknown property {}{near}{list}", shown(name)) }
}

/// For a missing property: one that was given, is not known, and is spelt alike.
fn near_unknown(name: &str, given: &Value, place: Place<'_>) -> String {
    let known: HashSet<&str> = place.properties().collect();
    let unknown = given.as_object().into_iter().flat_map(|given| given.keys()).map(String::as_str);
    match nearest(name, unknown.filter(|name| !known.contains(name)).take(100)).first() {
        Some(near) => format!("; {} was given", shown(near)),
        None => String::new(),
    }
}

fn did_you_mean<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> String {
    match nearest(name, names.take(1_000)).as_slice() {
        [] => String::new(),
        near => format!(
            "; did you mean {}?",
            near.iter().map(|name| shown(name)).collect::<Vec<_>>().join(" or ")
        ),
    }
}

fn mismatch(place: Place<'_>, given: &Value) -> String {
    let ty = place.expected("another value");
    format!("expected {ty}, got {}", described(given))
}

/// Models often send numbers and objects as text.
fn coercion(kind: &TypeKind, given: &Value) -> &'static str {
    let wanted = types(kind);
    let wants = |name: &str| wanted.contains(name);
    let Value::String(text) = given else { return "" };
    match serde_json::from_str(text) {
        Ok(Value::Number(_)) if wants("number") || wants("integer") => "; give the number without quotes",
        Ok(Value::Bool(_)) if wants("boolean") => "; give it without quotes",
        Ok(Value::Object(_)) if wants("object") => "; give the object itself, not its JSON text",
        Ok(Value::Array(_)) if wants("array") => "; give the array itself, not its JSON text",
        _ => "",
    }
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(ty) => ty.to_string(),
        TypeKind::Multiple(types) => types.iter().map(|ty| ty.to_string()).collect::<Vec<_>>().join(" | "),
    }
}

/// A given value, shortened, with its type where that is not plain to see.
fn described(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(&clipped(text, MAX_GIVEN_CHARS)),
        Value::Array(_) => format!("an array of {}", n_items(value)),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().take(6).map(|name| clipped(name, 30)).collect();
            let more = if fields.len() > names.len() { ", …" } else { "" };
            format!("an object with {}{more}", names.join(", "))
        }
    }
}

fn n_items(value: &Value) -> String {
    match value.as_array().map_or(0, Vec::len) {
        1 => "1 item".to_owned(),
        n => format!("{n} items"),
    }
}

fn shown(name: &str) -> String {
    quoted(&clipped(name, MAX_GIVEN_CHARS))
}

/// `/labels/0/first name` → `labels[0]["first name"]`.
fn path(pointer: &str, arguments: &Value) -> String {
    let mut path = String::new();
    let mut at = Some(arguments);
    for step in pointer.split('/').skip(1) {
        let name = step.replace("~1", "/").replace("~0", "~");
        if at.is_some_and(Value::is_array) {
            path.push_str(&format!("[{name}]"));
            at = at.and_then(|value| value.get(name.parse::<usize>().ok()?));
        } else {
            if !is_identifier(&name) {
                path.push_str(&format!("[{}]", shown(&name)));
            } else if path.is_empty() {
                path.push_str(&name);
            } else {
                path.push_str(&format!(".{name}"));
            }
            at = at.and_then(|value| value.get(&name));
        }
    }
    clipped(&path, 300)
}
