//! Classes: type-only members and modifiers, parameter properties, `accessor`. Decorators are in [`super::decorators`].
//!
//! A parameter property becomes a field declared first and an assignment in the constructor, behind `super()`. As in
//! Deno, initializers of other fields see the properties: one that mentions `this` moves into a private method that the
//! constructor calls.

use std::collections::HashMap;

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::{GetSpan, Span};
use oxc_syntax::scope::ScopeFlags;

use super::Rewriter;
use super::modules::quote;

/// The greatest length of all that is inserted behind calls of `super`, in bytes: each of them gets the whole.
const MOST_ASSIGNED: usize = 8 << 20;

const MODIFIERS: [&str; 7] =
    ["public", "private", "protected", "readonly", "override", "abstract", "declare"];

impl<'a> Rewriter<'_, 'a> {
    pub(super) fn class(&mut self, it: &Class<'a>) {
        if it.declare {
            return self.erase_whole(it.span);
        }
        let decorated = self.decorated_class(it);
        let start = it.decorators.last().map_or(it.span.start, |last| last.span.end.max(it.span.start));
        let Some(keyword) = self.token("class", start, it.body.span.start) else { return };
        self.erase_modifiers(start, keyword.start);
        if let Some(class) = &decorated {
            self.decorated_head(it, class, keyword);
        }
        let mut head_end = it.id.as_ref().map_or(keyword.end, |id| id.span.end);
        if let Some(types) = &it.type_parameters {
            self.visit_ts_type_parameter_declaration(types);
            head_end = types.span.end;
        }
        if let Some(heritage) = &it.heritage {
            self.visit_class_heritage(heritage);
            if !it.decorators.is_empty() {
                self.out.edits.close(heritage.expression.span().end, ")");
            }
            let types = heritage.type_arguments.as_ref().map(|types| types.span.end);
            head_end = types.unwrap_or(heritage.expression.span().end);
        }
        if !it.implements.is_empty() {
            self.erase(Span::new(head_end, it.body.span.start));
        }
        let outer = std::mem::replace(&mut self.decorated, decorated);
        let replaced = it.id.as_ref().and_then(|id| id.symbol_id.get()).zip(self.replaced_class(it));
        if let Some((symbol, class)) = &replaced {
            self.replaced.insert(*symbol, class.clone());
        }
        self.class_body(it);
        if let Some((symbol, _)) = replaced {
            self.replaced.remove(&symbol);
        }
        self.decorated = outer;
    }

    fn class_body(&mut self, it: &Class<'a>) {
        let properties = parameter_properties(&it.body);
        let mut fields = String::new();
        let mut assignments = Vec::new();
        for name in &properties {
            fields.push_str(&format!("{name};"));
            assignments.push(format!("this.{name}={name}"));
        }
        if !fields.is_empty() {
            self.out.edits.open_statement(it.body.span.start + 1, fields);
        }
        if let Some(class) = self.decorated.as_ref().filter(|_| !properties.is_empty()) {
            assignments.push(class.start());
        }
        // Only what comes first in the text is known when the constructor is reached, so fields are named ahead of it.
        let mut initializers = HashMap::new();
        for element in &it.body.body {
            if let ClassElement::PropertyDefinition(field) = element
                && !properties.is_empty()
                && let Some(target) = self.moved_initializer(field)
            {
                let method = format!("#{}", self.out.names.fresh());
                assignments.push(format!("{target}=this.{method}()"));
                initializers.insert(field.span.start, method);
            }
        }
        let outer = self.constructor_assignments.take();
        for element in &it.body.body {
            let start = self.element_decorators(element);
            match element {
                ClassElement::MethodDefinition(method)
                    if method.kind.is_constructor() && !assignments.is_empty() =>
                {
                    self.constructor(method, &assignments.join(","), it.heritage.is_some());
                }
                ClassElement::PropertyDefinition(field) => {
                    let moved = initializers.get(&field.span.start);
                    self.field(field, start, moved.map(String::as_str));
                }
                ClassElement::MethodDefinition(method) => self.method(method, start),
                ClassElement::AccessorProperty(accessor) => self.accessor(accessor, start),
                ClassElement::StaticBlock(block) => walk::walk_static_block(self, block),
                ClassElement::TSIndexSignature(signature) => self.erase_whole(signature.span),
            }
        }
        self.constructor_assignments = outer;
        self.apply_decorators(it, !properties.is_empty());
    }

    fn constructor(&mut self, it: &MethodDefinition<'a>, assignments: &str, derived: bool) {
        let body = it.value.body.as_ref().map(|body| body.span);
        match body {
            Some(body) if !derived => {
                self.out.edits.open_statement(body.start + 1, format!("{assignments};"))
            }
            Some(_) => self.constructor_assignments = Some(assignments.to_owned()),
            None => {}
        }
        self.method(it, it.span.start);
        self.constructor_assignments = None;
    }

    /// `super(a)` becomes `(super(a),this.x=x,this)` in a constructor with parameter properties.
    pub(super) fn super_call(&mut self, it: &CallExpression<'a>) {
        let Some(assignments) = &self.constructor_assignments else { return };
        self.assigned += assignments.len();
        if self.assigned > MOST_ASSIGNED {
            return self.unsupported(
                it.span.start,
                "a class with this many parameter properties cannot call `super` this often",
                "call `super` once, or assign the properties in the constructor",
            );
        }
        let text = format!(",{assignments},this)");
        self.out.edits.open(it.span.start, "(");
        self.out.edits.close(it.span.end, text);
    }

    /// `start` is where the element begins without its decorators.
    fn method(&mut self, it: &MethodDefinition<'a>, start: u32) {
        if it.value.body.is_none() {
            return self.erase_whole(it.span);
        }
        let is_decorated = self.decorated_member(it.span.start).is_some();
        self.element_modifiers(start, it.key.span().start);
        if is_decorated && it.key.is_private_identifier() {
            self.hide(it.key.span());
        } else {
            self.element_key(&it.key, it.computed, is_decorated);
        }
        if it.optional {
            self.erase_marker("?", it.key.span().end, it.value.span.start);
        }
        self.visit_function(&it.value, ScopeFlags::Function);
    }

    fn field(&mut self, it: &PropertyDefinition<'a>, start: u32, moved_to: Option<&str>) {
        if it.declare || it.r#type == PropertyDefinitionType::TSAbstractPropertyDefinition {
            return self.erase_whole(it.span);
        }
        let member = self.decorated_member(it.span.start);
        let key = it.key.span();
        self.element_modifiers(start, key.start);
        self.element_key(&it.key, it.computed, member.is_some());
        let annotation = it.type_annotation.as_ref().map(|annotation| annotation.span);
        let value = it.value.as_ref().map(GetSpan::span);
        let marker_end = annotation.or(value).map_or(it.span.end, |next| next.start);
        self.erase_marker(if it.optional { "?" } else { "!" }, key.end, marker_end);
        if let Some(annotation) = annotation {
            self.erase(annotation);
        }
        match (moved_to, value) {
            (Some(method), Some(value)) => {
                let from = annotation.map_or(key.end, |annotation| annotation.end);
                self.move_value(it, method, from, value);
            }
            (Some(method), None) => {
                self.initial_value(it.span, None, member.as_deref(), &format!(";{method}(){{return "));
                self.out.edits.close(self.value_end(it.span), "}");
            }
            (None, _) => self.initial_value(it.span, it.value.as_ref(), member.as_deref(), "="),
        }
        self.end_erased(it.span);
    }

    /// Moves the value of a field into a private method, with the name that it gives to a function.
    fn move_value(&mut self, it: &PropertyDefinition<'a>, method: &str, from: u32, value: Span) {
        let name = quote(self.text(it.key.span()));
        if let Some(equals) = self.token("=", from, value.start) {
            let text = format!(";{method}(){{return({{{name}:");
            self.out.edits.replace(equals.start, equals.end, text);
        }
        let member = self.decorated_member(it.span.start);
        self.initial_value(it.span, it.value.as_ref(), member.as_deref(), "=");
        self.out.edits.close(value.end, format!("}})[{name}]}}"));
    }

    /// Visits the value of a field or accessor and lets the decorators of `member` change it. `before` stands before one
    /// that only the decorators give.
    fn initial_value(
        &mut self,
        element: Span,
        value: Option<&Expression<'a>>,
        member: Option<&str>,
        before: &str,
    ) {
        match (value, member) {
            (Some(value), Some(member)) => {
                self.out.edits.open(value.span().start, format!("{member}.init(this,"));
                self.visit_expression(value);
                self.out.edits.close(value.span().end, ")");
            }
            (Some(value), None) => self.visit_expression(value),
            (None, Some(member)) => {
                self.out.edits.close(self.value_end(element), format!("{before}{member}.init(this)"));
            }
            (None, None) => {}
        }
    }

    /// Where the value of a field ends, or would.
    fn value_end(&self, element: Span) -> u32 {
        if self.text(element).ends_with(';') { element.end - 1 } else { element.end }
    }

    /// `accessor x = 1` becomes a private field with a getter and a setter. A computed key is evaluated once, where it
    /// stands, and kept in a variable.
    fn accessor(&mut self, it: &AccessorProperty<'a>, start: u32) {
        if it.r#type == AccessorPropertyType::TSAbstractAccessorProperty {
            return self.erase_whole(it.span);
        }
        let member = self.decorated_member(it.span.start);
        let key = it.key.span();
        self.element_modifiers(start, key.start);
        let Some(keyword) = self.token("accessor", start, key.start) else { return };
        let storage = format!("#{}", self.out.names.fresh());
        let prefix = if it.r#static { "static " } else { "" };
        let get = format!("(){{return this.{storage}}}{prefix}");
        let set = format!("(v){{this.{storage}=v}}{prefix}");
        let open = self.token("[", keyword.end, key.start).filter(|_| it.computed);
        let close = self.token("]", key.end, it.span.end).filter(|_| it.computed);
        if let (Some(open), Some(close)) = (open, close) {
            let variable = self.out.names.fresh();
            let (before, after) = self.computed_key(member.is_some());
            self.out.edits.replace(keyword.start, open.end, format!("get [{variable}={before}"));
            self.visit_property_key(&it.key);
            let text = format!("{after}]{get}set [{variable}]{set}{storage}");
            self.out.edits.replace(close.start, close.end, text);
            self.variables.push(variable);
        } else if member.is_some() && it.key.is_private_identifier() {
            self.out.edits.replace(keyword.start, key.end, storage.clone());
            self.storages.insert(it.span.start, storage);
        } else {
            let name = self.text(key);
            self.out.edits.replace(
                keyword.start,
                key.end,
                format!("get {name}{get}set {name}{set}{storage}"),
            );
        }
        if it.definite {
            self.erase_marker("!", it.key.span().end, it.span.end);
        }
        if let Some(annotation) = &it.type_annotation {
            self.visit_ts_type_annotation(annotation);
        }
        self.initial_value(it.span, it.value.as_ref(), member.as_deref(), "=");
        self.end_erased(it.span);
    }

    pub(super) fn erase_modifiers(&mut self, from: u32, to: u32) {
        for (span, word) in self.tokens(from, to) {
            if MODIFIERS.contains(&word) {
                self.erase(span);
            }
        }
    }

    /// Erases modifiers of a class element; a leading one leaves a semicolon, so that the element stays apart from the
    /// one before it.
    fn element_modifiers(&mut self, from: u32, to: u32) {
        let first = self.tokens(from, to).next();
        match first {
            Some((span, word)) if MODIFIERS.contains(&word) => {
                self.erase_whole(span);
                self.erase_modifiers(span.end, to);
            }
            _ => self.erase_modifiers(from, to),
        }
    }

    /// What to assign in the constructor when the initializer of a field must wait for the parameter properties.
    fn moved_initializer(&self, field: &PropertyDefinition<'a>) -> Option<String> {
        // Where decorators add initializers, these run before any field has its value.
        let waits = match &field.value {
            Some(value) => self.decorated.is_some() || mentions_this(value),
            None => self.decorated_member(field.span.start).is_some(),
        };
        if field.r#static || field.computed || field.declare || !waits {
            return None;
        }
        let key = self.text(field.key.span());
        Some(match &field.key {
            PropertyKey::StaticIdentifier(_) | PropertyKey::PrivateIdentifier(_) => format!("this.{key}"),
            _ => format!("this[{key}]"),
        })
    }
}

/// The names of the parameters that are properties, in order.
fn parameter_properties<'b>(body: &'b ClassBody<'_>) -> Vec<&'b str> {
    let constructor = body.body.iter().find_map(|element| match element {
        ClassElement::MethodDefinition(it) if it.kind.is_constructor() && it.value.body.is_some() => Some(it),
        _ => None,
    });
    let parameters = constructor.into_iter().flat_map(|it| &it.value.params.items);
    parameters
        .filter(|it| it.accessibility.is_some() || it.readonly || it.r#override)
        .filter_map(|it| match &it.pattern {
            BindingPattern::BindingIdentifier(name) => Some(name.name.as_str()),
            BindingPattern::AssignmentPattern(it) => match &it.left {
                BindingPattern::BindingIdentifier(name) => Some(name.name.as_str()),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn mentions_this(value: &Expression<'_>) -> bool {
    struct Finder(bool);
    impl<'a> Visit<'a> for Finder {
        fn visit_this_expression(&mut self, _: &ThisExpression) {
            self.0 = true;
        }
    }
    let mut finder = Finder(false);
    finder.visit_expression(value);
    finder.0
}
