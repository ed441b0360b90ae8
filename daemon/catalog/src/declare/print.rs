//! [`Type`] as TypeScript, in a chosen amount of detail.

use std::collections::{BTreeSet, HashSet};

use super::lower::Named;
use super::ty::{Field, Object, Tuple, Type};
use crate::names::property_name;

/// Named types written inside one another, which bounds the stack.
const MAX_INLINED: usize = 8;

/// How much is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detail {
    /// Levels of objects and tuples.
    pub(crate) max_depth: usize,
    /// Properties of one object.
    pub(crate) max_fields: usize,
    /// Members of one union.
    pub(crate) max_members: usize,
    /// Lines of one doc comment; with 0 all stands on one line.
    pub(crate) max_doc_lines: usize,
    /// Whether named types are written where they are used. If not, they are named, and declared apart.
    pub(crate) inlines: bool,
    /// Bytes after which writing stops.
    pub(crate) max_bytes: usize,
}

/// Writes types; one printer for one declaration.
pub(crate) struct Printer<'t> {
    detail: Detail,
    named: &'t [Named],
    out: String,
    /// Named types met and not yet declared.
    wanted: BTreeSet<usize>,
    /// Named types being written in place.
    open: Vec<usize>,
    /// Docs written so far: answers often repeat what was said of the arguments.
    said: HashSet<(&'t str, &'t [String])>,
    n_cuts: usize,
}

/// What a printer wrote.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) text: String,
    /// Named types that the text refers to.
    pub(crate) wanted: BTreeSet<usize>,
    /// Places where something was left out.
    pub(crate) n_cuts: usize,
}

impl<'t> Printer<'t> {
    pub(crate) fn new(detail: Detail, named: &'t [Named]) -> Self {
        Self {
            detail,
            named,
            out: String::new(),
            wanted: BTreeSet::new(),
            open: Vec::new(),
            said: HashSet::new(),
            n_cuts: 0,
        }
    }

    /// The text, or `None` if it would have been longer than allowed.
    pub(crate) fn finish(self) -> Option<Printed> {
        (self.out.len() <= self.detail.max_bytes).then_some(Printed {
            text: self.out,
            wanted: self.wanted,
            n_cuts: self.n_cuts,
        })
    }

    pub(crate) fn push(&mut self, text: &str) {
        if self.out.len() <= self.detail.max_bytes {
            self.out.push_str(text);
        }
    }

    /// A doc comment on lines of its own; nothing if docs are off or there are none.
    pub(crate) fn doc(&mut self, lines: &[String], indent: usize) {
        let max = self.detail.max_doc_lines;
        if lines.is_empty() || max == 0 {
            return;
        }
        let kept = &lines[..lines.len().min(max)];
        let ellipsis = if kept.len() < lines.len() { " …" } else { "" };
        if let [line] = kept {
            self.push(&format!("/** {line}{ellipsis} */"));
        } else {
            self.push("/**");
            for (at, line) in kept.iter().enumerate() {
                self.line(indent);
                let ellipsis = if at + 1 == kept.len() { ellipsis } else { "" };
                self.push(format!(" * {line}{ellipsis}").trim_end());
            }
            self.line(indent);
            self.push(" */");
        }
        self.line(indent);
    }

    /// The declaration of a named type.
    pub(crate) fn declaration(&mut self, named: &'t Named) {
        self.doc(&named.doc, 0);
        if let Type::Object(object) = &named.ty
            && !self.is_record(object)
        {
            self.push(&format!("interface {} ", named.name));
            self.object(object, 0, 0);
        } else {
            self.push(&format!("type {} = ", named.name));
            self.ty(&named.ty, 0, 0);
            self.push(";");
        }
    }

    /// A type. `depth` counts the objects around it, `indent` the levels of indentation.
    pub(crate) fn ty(&mut self, ty: &'t Type, depth: usize, indent: usize) {
        if self.out.len() > self.detail.max_bytes {
            return;
        }
        match ty {
            Type::Unknown => self.push("unknown"),
            Type::Never => self.push("never"),
            Type::Null => self.push("null"),
            Type::Boolean => self.push("boolean"),
            Type::Number => self.push("number"),
            Type::String => self.push("string"),
            Type::Literal(source) => self.push(source),
            Type::Array(item) => {
                self.grouped(item, depth, indent);
                self.push("[]");
            }
            Type::Tuple(tuple) => self.tuple(tuple, depth, indent),
            Type::Object(object) => self.object(object, depth, indent),
            Type::Union(types) => self.joined(types, " | ", depth, indent),
            Type::Intersection(types) => self.joined(types, " & ", depth, indent),
            Type::Named(index) => self.named(*index, depth, indent),
            Type::Cut(ty, why) => {
                self.ty(ty, depth, indent);
                self.cut(why);
            }
            Type::More(ty, n) => {
                self.ty(ty, depth, indent);
                self.cut(&format!("{n} more"));
            }
        }
    }

    /// A type that stands before `[]` or beside `&`.
    fn grouped(&mut self, ty: &'t Type, depth: usize, indent: usize) {
        let target = match ty {
            Type::Named(index) if self.detail.inlines => &self.named[*index].ty,
            ty => ty,
        };
        let is_joined = matches!(
            target,
            Type::Union(_) | Type::Intersection(_) | Type::Cut(..) | Type::More(..) | Type::Named(_)
        );
        if is_joined && !matches!((target, self.detail.inlines), (Type::Named(_), false)) {
            self.push("(");
            self.ty(ty, depth, indent);
            self.push(")");
        } else {
            self.ty(ty, depth, indent);
        }
    }

    fn joined(&mut self, types: &'t [Type], operator: &str, depth: usize, indent: usize) {
        let is_union = operator == " | ";
        // A member of an intersection cannot be left out of a list, but may as well be missing: that widens it.
        let shown = types.len().min(self.detail.max_members.max(1));
        for (at, ty) in types[..shown].iter().enumerate() {
            if at > 0 {
                self.push(operator);
            }
            if is_union && !matches!(ty, Type::Intersection(_)) {
                self.ty(ty, depth, indent);
            } else {
                self.grouped(ty, depth, indent);
            }
        }
        let left = &types[shown..];
        if left.is_empty() {
            return;
        }
        if is_union {
            self.push(operator);
            self.push(common(left));
        }
        let n_left: usize = left.iter().map(|ty| if let Type::More(_, n) = ty { *n } else { 1 }).sum();
        self.cut(&format!("{n_left} more"));
    }

    fn tuple(&mut self, tuple: &'t Tuple, depth: usize, indent: usize) {
        if depth >= self.detail.max_depth {
            self.push("unknown[]");
            return self.cut("…");
        }
        self.push("[");
        for (at, item) in tuple.items.iter().enumerate() {
            if at > 0 {
                self.push(", ");
            }
            let optional = at >= tuple.n_required;
            if optional {
                self.push("(");
            }
            self.ty(item, depth + 1, indent);
            if optional {
                self.push(")?");
            }
        }
        if let Some(rest) = &tuple.rest {
            self.push(if tuple.items.is_empty() { "..." } else { ", ..." });
            self.grouped(rest, depth + 1, indent);
            self.push("[]");
        }
        self.push("]");
    }

    fn object(&mut self, object: &'t Object, depth: usize, indent: usize) {
        let is_cut = object.n_cut > 0;
        match (object.fields.as_slice(), &object.others) {
            ([], None) if !is_cut => return self.push("{}"),
            ([], Some(others)) if self.is_record(object) => {
                self.push("Record<string, ");
                self.ty(others, depth + 1, indent);
                return self.push(">");
            }
            _ if depth >= self.detail.max_depth => {
                self.push("{");
                self.cut(&format!("{} properties", object.fields.len() + object.n_cut));
                return self.push(" }");
            }
            _ => {}
        }
        let breaks = self.detail.max_doc_lines > 0 && !self.is_simple(object);
        self.push("{");
        let shown = self.shown(object);
        for (at, field) in object.fields.iter().enumerate() {
            if shown.contains(&at) {
                self.separate(breaks, indent + 1);
                self.field(field, depth, indent + 1);
            }
        }
        self.others(object, object.fields.len() - shown.len() + object.n_cut, breaks, depth, indent + 1);
        if breaks {
            self.line(indent);
        } else if self.out.ends_with(';') {
            self.out.truncate(self.out.len() - 1);
            self.push(" ");
        } else {
            self.push(" ");
        }
        self.push("}");
    }

    /// The properties that there is room for: required ones before optional ones.
    fn shown(&self, object: &Object) -> HashSet<usize> {
        let mut order: Vec<usize> = (0..object.fields.len()).collect();
        order.sort_by_key(|&at| object.fields[at].optional);
        order.into_iter().take(self.detail.max_fields).collect()
    }

    fn field(&mut self, field: &'t Field, depth: usize, indent: usize) {
        if self.said.insert((&field.name, &field.doc)) {
            self.doc(&field.doc, indent);
        }
        self.push(&property_name(&field.name));
        self.push(if field.optional { "?: " } else { ": " });
        self.ty(&field.ty, depth + 1, indent);
        self.push(";");
    }

    /// The index signature. TypeScript wants every listed property to fit it, JSON Schema does not: beside listed ones it is
    /// `unknown`, and the true type a comment.
    fn others(&mut self, object: &'t Object, n_hidden: usize, breaks: bool, depth: usize, indent: usize) {
        if object.others.is_none() && n_hidden == 0 {
            return;
        }
        self.separate(breaks, indent);
        self.push("[key: string]: ");
        match &object.others {
            Some(others) if object.fields.is_empty() && n_hidden == 0 => self.ty(others, depth + 1, indent),
            Some(others) if n_hidden == 0 && **others != Type::Unknown => {
                // Names stay names: a type of a name can have such a comment about itself.
                let detail =
                    Detail { max_depth: 1, max_doc_lines: 0, inlines: false, max_bytes: 200, ..self.detail };
                let mut printer = Printer::new(detail, self.named);
                printer.ty(others, 0, 0);
                let text = printer
                    .finish()
                    .map_or_else(|| "…".to_owned(), |printed| printed.text.replace("*/", "* /"));
                self.push(&format!("unknown /* {text} */"));
            }
            _ => self.push("unknown"),
        }
        if n_hidden > 0 {
            self.cut(&format!("{n_hidden} more properties"));
        }
        self.push(";");
    }

    fn named(&mut self, index: usize, depth: usize, indent: usize) {
        let named = &self.named[index];
        if !self.detail.inlines {
            self.wanted.insert(index);
            return self.push(&named.name);
        }
        if self.open.contains(&index) || self.open.len() >= MAX_INLINED || depth > self.detail.max_depth {
            self.push("unknown");
            return self.cut(&named.name);
        }
        self.open.push(index);
        self.ty(&named.ty, depth, indent);
        self.open.pop();
    }

    /// True for a small object without docs to write, which stays on one line.
    fn is_simple(&self, object: &Object) -> bool {
        let is_plain = |field: &Field| {
            let item = match &field.ty {
                Type::Array(item) => item,
                ty => ty,
            };
            let has_doc =
                !field.doc.is_empty() && !self.said.contains(&(field.name.as_str(), field.doc.as_slice()));
            let is_joined =
                matches!(item, Type::Object(_) | Type::Union(_) | Type::Intersection(_) | Type::Tuple(_));
            !has_doc && !is_joined
        };
        object.fields.len() <= 4 && object.fields.iter().all(is_plain)
    }

    /// True for what is written as `Record`.
    fn is_record(&self, object: &Object) -> bool {
        let others = object.others.as_deref();
        object.fields.is_empty() && object.n_cut == 0 && others.is_some_and(|others| !self.has_name(others))
    }

    /// True if a name stands in the type: a name that is declared in terms of `Record` of itself is an error.
    fn has_name(&self, ty: &Type) -> bool {
        match ty {
            Type::Named(_) => !self.detail.inlines,
            Type::Array(ty) | Type::Cut(ty, _) | Type::More(ty, _) => self.has_name(ty),
            Type::Union(types) | Type::Intersection(types) => types.iter().any(|ty| self.has_name(ty)),
            Type::Tuple(tuple) => tuple.items.iter().chain(tuple.rest.as_deref()).any(|ty| self.has_name(ty)),
            Type::Object(object) => {
                let fields = object.fields.iter().map(|field| &field.ty);
                fields.chain(object.others.as_deref()).any(|ty| self.has_name(ty))
            }
            _ => false,
        }
    }

    fn cut(&mut self, what: &str) {
        self.n_cuts += 1;
        self.push(&format!(" /* {what} */"));
    }

    fn separate(&mut self, breaks: bool, indent: usize) {
        if breaks { self.line(indent) } else { self.push(" ") }
    }

    fn line(&mut self, indent: usize) {
        self.push("\n");
        self.push(&"  ".repeat(indent));
    }
}

/// The type of members of a union that are not spelt out.
fn common(types: &[Type]) -> &'static str {
    if types.iter().all(is_text) {
        "string"
    } else if types.iter().all(is_number) {
        "number"
    } else {
        "unknown"
    }
}

fn is_text(ty: &Type) -> bool {
    match ty {
        Type::String => true,
        Type::Literal(source) => source.starts_with('"'),
        Type::Cut(ty, _) | Type::More(ty, _) => is_text(ty),
        _ => false,
    }
}

fn is_number(ty: &Type) -> bool {
    match ty {
        Type::Number => true,
        Type::Literal(source) => source.starts_with(|c: char| c.is_ascii_digit() || c == '-'),
        Type::Cut(ty, _) | Type::More(ty, _) => is_number(ty),
        _ => false,
    }
}
