//! From JSON Schema (2020-12, draft 7 and their relatives as servers write them) to [`Type`].
//!
//! Keywords that no type can hold (`not`, `if`, `dependentRequired`, …) are left to the check of arguments. Every cut
//! widens: what the schema allows, the type allows. The work is bounded by [`MAX_NODES`], the stack by [`MAX_DEPTH`].

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::doc::doc;
use super::ty::{Field, Object, Tuple, Type};
use crate::names::quoted;
use crate::schema;
use crate::text::{clipped, comment_safe, one_line};

/// Schemas visited for one declaration; real tools have tens, some hundreds.
const MAX_NODES: usize = 4_000;
/// Levels of nesting; deeper parts become `unknown`.
const MAX_DEPTH: usize = 24;
/// Properties of one object.
const MAX_FIELDS: usize = 200;
/// Members of one union, and items of one tuple.
const MAX_MEMBERS: usize = 100;
/// Distinct targets of `$ref`.
const MAX_NAMED: usize = 100;
/// Characters of a property name or a string literal; longer ones are data, not names.
const MAX_NAME_CHARS: usize = 120;

/// Names that declarations use themselves, or that TypeScript does not let a type have.
const RESERVED: [&str; 24] = [
    "Promise",
    "Record",
    "Array",
    "Partial",
    "Mcp",
    "any",
    "unknown",
    "never",
    "object",
    "string",
    "number",
    "boolean",
    "bigint",
    "symbol",
    "undefined",
    "void",
    "null",
    "this",
    "true",
    "false",
    "typeof",
    "keyof",
    "infer",
    "enum",
];

/// A type that has a name because a `$ref` points to it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) doc: Vec<String>,
    pub(crate) ty: Type,
}

/// One or several schemas on their way to types that share a list of names.
pub(crate) struct Lowering<'n> {
    prefix: &'n str,
    named: Vec<Named>,
    taken: HashSet<String>,
    n_nodes: usize,
}

/// The document that references are resolved in, and what its targets are called.
struct Document<'s> {
    schema: schema::Document<'s>,
    targets: HashMap<&'s str, usize>,
}

impl<'n> Lowering<'n> {
    /// Names of types begin with `prefix`, which is empty or an identifier.
    pub(crate) fn new(prefix: &'n str) -> Self {
        let taken = RESERVED.iter().map(|&name| name.to_owned()).collect();
        Self { prefix, named: Vec::new(), taken, n_nodes: 0 }
    }

    /// The type of values that `schema` accepts, which is `root` or a part of it: references are resolved in `root`.
    pub(crate) fn lower<'s>(&mut self, root: &'s Value, schema: &'s Value) -> Type {
        let mut document = Document { schema: schema::Document::new(root), targets: HashMap::new() };
        let first = self.named.len();
        let ty = self.schema(&mut document, schema, 0);
        self.break_circles(first);
        ty
    }

    /// The types that have names.
    pub(crate) fn into_named(self) -> Vec<Named> {
        self.named
    }

    fn schema<'s>(&mut self, document: &mut Document<'s>, schema: &'s Value, depth: usize) -> Type {
        self.n_nodes += 1;
        match schema {
            _ if depth > MAX_DEPTH => Type::cut("nested too deeply"),
            _ if self.n_nodes > MAX_NODES => Type::cut("too large"),
            Value::Bool(false) => Type::Never,
            Value::Object(keywords) => self.keywords(document, keywords, depth),
            _ => Type::Unknown,
        }
    }

    fn keywords<'s>(
        &mut self,
        document: &mut Document<'s>,
        schema: &'s Map<String, Value>,
        depth: usize,
    ) -> Type {
        let mut parts = Vec::new();
        for key in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(reference) = schema.get(key).and_then(Value::as_str) {
                parts.push(self.reference(document, reference, depth));
            }
        }
        for part in list(schema, "allOf") {
            parts.push(self.schema(document, part, depth + 1));
        }
        for key in ["anyOf", "oneOf"] {
            if let [_, ..] = list(schema, key) {
                parts.push(
                    self.members(list(schema, key), |this, member| this.schema(document, member, depth + 1)),
                );
            }
        }
        let own = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
            (Some(value), _) => self.literal(value, depth),
            (None, Some(values)) => self.members(values, |this, value| this.literal(value, depth)),
            (None, None) => self.typed(document, schema, depth),
        };
        // A bare `type: object` beside alternatives that say which objects adds nothing.
        if parts.iter().all(|part| *part == Type::Unknown) || own != Type::any_object() {
            parts.insert(0, own);
        }
        let mut ty = Type::intersection(parts);
        if let Type::Object(object) = &mut ty {
            require(object, schema);
        }
        if schema.get("nullable") == Some(&Value::Bool(true)) { Type::union([ty, Type::Null]) } else { ty }
    }

    fn reference<'s>(&mut self, document: &mut Document<'s>, reference: &'s str, depth: usize) -> Type {
        if let Some(&index) = document.targets.get(reference) {
            return Type::Named(index);
        }
        let Some(target) = document.schema.resolve(reference) else {
            let what = if reference.starts_with('#') { "nothing there" } else { "in another document" };
            return Type::cut(format!("$ref {}: {what}", shown(reference)));
        };
        if self.named.len() >= MAX_NAMED {
            return Type::cut("too many named types");
        }
        let index = self.named.len();
        let doc = target.as_object().map(doc).unwrap_or_default();
        let name = self.name(reference, document.schema.root());
        self.named.push(Named { name, doc, ty: Type::Unknown });
        document.targets.insert(reference, index);
        let ty = self.schema(document, target, depth + 1);
        if matches!(ty, Type::Cut(..)) {
            // Cut only because of where it was first met: the same target may be met again nearer the top.
            document.targets.remove(reference);
        }
        self.named[index].ty = ty;
        Type::Named(index)
    }

    /// A free name for the target of a reference.
    fn name(&mut self, reference: &str, root: &Value) -> String {
        let tail = reference.rsplit(['/', '#']).next().unwrap_or_default();
        let base = match (tail, root.get("title").and_then(Value::as_str)) {
            ("", Some(title)) => pascal(title),
            ("", None) => "Root".to_owned(),
            (tail, _) => pascal(tail),
        };
        let base = format!("{}{base}", self.prefix);
        let base =
            if base.starts_with(|c: char| c.is_ascii_alphabetic()) { base } else { format!("T{base}") };
        let numbered = (2..).map(|n| format!("{base}{n}"));
        let free = std::iter::once(base.clone()).chain(numbered).find(|name| self.taken.insert(name.clone()));
        free.expect("a counter finds a free name in the end")
    }

    fn typed<'s>(
        &mut self,
        document: &mut Document<'s>,
        schema: &'s Map<String, Value>,
        depth: usize,
    ) -> Type {
        match schema.get("type") {
            Some(Value::String(name)) => self.of_type(document, schema, name, depth),
            Some(Value::Array(names)) => {
                let names: Vec<&str> = names.iter().filter_map(Value::as_str).take(8).collect();
                Type::union(names.into_iter().map(|name| self.of_type(document, schema, name, depth)))
            }
            _ if has(schema, &["properties", "patternProperties"])
                || schema.get("additionalProperties").is_some_and(Value::is_object) =>
            {
                self.object(document, schema, depth)
            }
            _ if has(schema, &["items", "prefixItems"]) => self.array(document, schema, depth),
            _ => Type::Unknown,
        }
    }

    fn of_type<'s>(
        &mut self,
        document: &mut Document<'s>,
        schema: &'s Map<String, Value>,
        name: &str,
        depth: usize,
    ) -> Type {
        match name {
            "null" => Type::Null,
            "boolean" => Type::Boolean,
            "number" | "integer" => Type::Number,
            "string" => Type::String,
            "array" => self.array(document, schema, depth),
            "object" => self.object(document, schema, depth),
            _ => Type::cut(format!("type {}", shown(name))),
        }
    }

    fn array<'s>(
        &mut self,
        document: &mut Document<'s>,
        schema: &'s Map<String, Value>,
        depth: usize,
    ) -> Type {
        // Draft 7 has tuples in `items` and what follows them in `additionalItems`.
        let (first, rest) = match (schema.get("prefixItems"), schema.get("items")) {
            (Some(Value::Array(first)), rest) => (first.as_slice(), rest),
            (_, Some(Value::Array(first))) => (first.as_slice(), schema.get("additionalItems")),
            (_, rest) => (&[][..], rest),
        };
        let item =
            |this: &mut Self, document: &mut Document<'s>, schema| this.schema(document, schema, depth + 1);
        if first.is_empty() {
            return Type::Array(Box::new(rest.map_or(Type::Unknown, |rest| item(self, document, rest))));
        }
        let items: Vec<Type> = first.iter().take(MAX_MEMBERS).map(|it| item(self, document, it)).collect();
        let rest = if first.len() > MAX_MEMBERS {
            Some(Type::cut(format!("{} more items", first.len() - MAX_MEMBERS)))
        } else {
            Some(rest.map_or(Type::Unknown, |rest| item(self, document, rest)))
                .filter(|rest| *rest != Type::Never)
        };
        let count = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let n_required = count("minItems").unwrap_or(0).min(items.len());
        let full = count("maxItems").is_some_and(|most| most <= first.len());
        Type::Tuple(Tuple { items, n_required, rest: rest.filter(|_| !full).map(Box::new) })
    }

    fn object<'s>(
        &mut self,
        document: &mut Document<'s>,
        schema: &'s Map<String, Value>,
        depth: usize,
    ) -> Type {
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut object = Object::default();
        let required = required(schema);
        // Required ones first, lest a cut take one.
        let all = properties.into_iter().flatten();
        let (must, may): (Vec<_>, Vec<_>) = all.partition(|(name, _)| required.contains(name.as_str()));
        for (name, property) in must.into_iter().chain(may) {
            if object.fields.len() >= MAX_FIELDS || !is_short(name) {
                object.n_cut += 1;
                continue;
            }
            let ty = self.schema(document, property, depth + 1);
            let doc = property.as_object().map(doc).unwrap_or_default();
            object.fields.push(Field {
                name: name.clone(),
                optional: !required.contains(name.as_str()),
                doc,
                ty,
            });
        }
        if let Some(properties) = properties {
            // The order in which the server wrote them is the one its author thought readable.
            let place: HashMap<&str, usize> =
                properties.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
            object.fields.sort_by_key(|field| place.get(field.name.as_str()).copied());
        }
        object.others = self.others(document, schema, properties.is_some(), depth).map(Box::new);
        Type::Object(object)
    }

    /// The type of properties that are not listed.
    fn others<'s>(
        &mut self,
        document: &mut Document<'s>,
        schema: &'s Map<String, Value>,
        has_properties: bool,
        depth: usize,
    ) -> Option<Type> {
        let mut types = Vec::new();
        if let Some(patterns) = schema.get("patternProperties").and_then(Value::as_object) {
            for pattern in patterns.values().take(MAX_MEMBERS) {
                types.push(self.schema(document, pattern, depth + 1));
            }
        }
        match schema.get("additionalProperties") {
            Some(others) => types.push(self.schema(document, others, depth + 1)),
            // Objects with listed properties are read as closed: a misspelt name should be found.
            None if types.is_empty() && !has_properties => types.push(Type::Unknown),
            None => {}
        }
        Some(Type::union(types)).filter(|ty| *ty != Type::Never)
    }

    fn members<'v>(
        &mut self,
        values: &'v [Value],
        mut each: impl FnMut(&mut Self, &'v Value) -> Type,
    ) -> Type {
        let mut types: Vec<Type> = Vec::new();
        for value in values.iter().take(MAX_MEMBERS) {
            types.push(each(self, value));
        }
        if let Some(n) = values.len().checked_sub(MAX_MEMBERS).filter(|&n| n > 0) {
            types.push(widest(&values[MAX_MEMBERS..], n));
        }
        Type::union(types)
    }

    fn literal(&mut self, value: &Value, depth: usize) -> Type {
        self.n_nodes += 1;
        match value {
            _ if depth > MAX_DEPTH => Type::cut("nested too deeply"),
            _ if self.n_nodes > MAX_NODES => Type::cut("too large"),
            Value::Null => Type::Null,
            Value::Bool(_) | Value::Number(_) => Type::Literal(value.to_string()),
            Value::String(text) if !is_short(text) => Type::Cut(Box::new(Type::String), shown(text)),
            Value::String(text) => Type::Literal(quoted(text)),
            Value::Array(items) if items.len() <= MAX_MEMBERS => {
                let items: Vec<Type> = items.iter().map(|item| self.literal(item, depth + 1)).collect();
                Type::Tuple(Tuple { n_required: items.len(), items, rest: None })
            }
            Value::Object(fields)
                if fields.len() <= MAX_MEMBERS && fields.keys().all(|name| is_short(name)) =>
            {
                let field = |(name, value): (&String, &Value)| Field {
                    name: name.clone(),
                    optional: false,
                    doc: Vec::new(),
                    ty: self.literal(value, depth + 1),
                };
                Type::Object(Object { fields: fields.iter().map(field).collect(), ..Object::default() })
            }
            Value::Array(_) | Value::Object(_) => Type::cut("a large constant"),
        }
    }

    /// `type A = A | string` is an error in TypeScript, and says nothing: such names become `unknown`.
    fn break_circles(&mut self, first: usize) {
        for start in first..self.named.len() {
            let mut seen = HashSet::new();
            let mut next = self.named[start].ty.names_directly();
            while let Some(index) = next.pop() {
                if index == start {
                    self.named[start].ty = Type::cut("defined by itself");
                    break;
                }
                if seen.insert(index) {
                    next.extend(self.named[index].ty.names_directly());
                }
            }
        }
    }
}

/// Applies `required` to properties that came from `allOf` or `$ref` beside it, and declares those that nothing else does.
fn require(object: &mut Object, schema: &Map<String, Value>) {
    for name in list(schema, "required").iter().filter_map(Value::as_str).take(MAX_FIELDS) {
        let has_room = object.fields.len() < MAX_FIELDS;
        match object.fields.iter_mut().find(|field| field.name == name) {
            Some(field) => field.optional = false,
            None if is_short(name) && has_room => {
                let ty = object.others.as_deref().cloned().unwrap_or(Type::Unknown);
                object.fields.push(Field { name: name.to_owned(), optional: false, doc: Vec::new(), ty });
            }
            None => {}
        }
    }
}

/// What `n` values that are not spelt out have in common.
fn widest(values: &[Value], n: usize) -> Type {
    let ty = if values.iter().all(Value::is_string) {
        Type::String
    } else if values.iter().all(Value::is_number) {
        Type::Number
    } else {
        Type::Unknown
    };
    // A plain `unknown` would swallow the members that are spelt out, and they are the useful part.
    Type::More(Box::new(ty), n)
}

fn required(schema: &Map<String, Value>) -> HashSet<&str> {
    list(schema, "required").iter().filter_map(Value::as_str).collect()
}

fn list<'s>(schema: &'s Map<String, Value>, key: &str) -> &'s [Value] {
    schema.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn has(schema: &Map<String, Value>, keys: &[&str]) -> bool {
    keys.iter().any(|key| schema.contains_key(*key))
}

fn is_short(name: &str) -> bool {
    name.chars().nth(MAX_NAME_CHARS).is_none()
}

fn shown(text: &str) -> String {
    clipped(&comment_safe(&one_line(&clipped(text, 200))), 60)
}

/// `pull_request-review` → `PullRequestReview`.
pub(crate) fn pascal(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut name = String::new();
    for word in words {
        let (first, rest) = word.split_at(1);
        name.push_str(&first.to_ascii_uppercase());
        name.push_str(rest);
    }
    name.truncate(60);
    name
}
