//! Classes: type-only members and modifiers, parameter properties, `accessor`.
//!
//! A parameter property becomes a field declared first and an assignment in the constructor, behind `super()`. As in
//! Deno, initializers of other fields see the properties: one that mentions `this` moves into a private method that the
//! constructor calls.

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::{GetSpan, Span};
use oxc_syntax::scope::ScopeFlags;

use super::Rewriter;
use super::modules::quote;

const MODIFIERS: [&str; 7] =
    ["public", "private", "protected", "readonly", "override", "abstract", "declare"];

impl<'a> Rewriter<'_, 'a> {
    pub(super) fn class(&mut self, it: &Class<'a>) {
        if it.declare {
            return self.erase_whole(it.span);
        }
        self.refuse_decorators(&it.decorators);
        let Some(keyword) = self.token("class", it.span.start, it.body.span.start) else { return };
        self.erase_modifiers(it.span.start, keyword.start);
        let mut head_end = it.id.as_ref().map_or(keyword.end, |id| id.span.end);
        if let Some(types) = &it.type_parameters {
            self.visit_ts_type_parameter_declaration(types);
            head_end = types.span.end;
        }
        if let Some(heritage) = &it.heritage {
            self.visit_class_heritage(heritage);
            let types = heritage.type_arguments.as_ref().map(|types| types.span.end);
            head_end = types.unwrap_or(heritage.expression.span().end);
        }
        if !it.implements.is_empty() {
            self.erase(Span::new(head_end, it.body.span.start));
        }
        self.class_body(it);
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
        // Only what comes first in the text is known when the constructor is reached, so fields are named ahead of it.
        let mut initializers = Vec::new();
        for element in &it.body.body {
            if let ClassElement::PropertyDefinition(field) = element
                && !properties.is_empty()
                && let Some(target) = moved_initializer(field, self.text(field.key.span()))
            {
                let method = format!("#{}", self.out.names.fresh());
                assignments.push(format!("{target}=this.{method}()"));
                initializers.push((field.span.start, method));
            }
        }
        let outer = self.constructor_assignments.take();
        for element in &it.body.body {
            match element {
                ClassElement::MethodDefinition(method)
                    if method.kind.is_constructor() && !assignments.is_empty() =>
                {
                    self.constructor(method, &assignments.join(","), it.heritage.is_some());
                }
                ClassElement::PropertyDefinition(field) => {
                    let moved = initializers.iter().find(|(start, _)| *start == field.span.start);
                    self.field(field, moved.map(|(_, method)| method.as_str()));
                }
                ClassElement::MethodDefinition(method) => self.method(method),
                ClassElement::AccessorProperty(accessor) => self.accessor(accessor),
                ClassElement::StaticBlock(block) => walk::walk_static_block(self, block),
                ClassElement::TSIndexSignature(signature) => self.erase_whole(signature.span),
            }
        }
        self.constructor_assignments = outer;
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
        self.method(it);
        self.constructor_assignments = None;
    }

    /// `super(a)` becomes `(super(a),this.x=x,this)` in a constructor with parameter properties.
    pub(super) fn super_call(&mut self, it: &CallExpression<'a>) {
        let Some(assignments) = self.constructor_assignments.clone() else { return };
        self.out.edits.open(it.span.start, "(");
        self.out.edits.close(it.span.end, format!(",{assignments},this)"));
    }

    fn method(&mut self, it: &MethodDefinition<'a>) {
        if it.value.body.is_none() {
            return self.erase_whole(it.span);
        }
        self.refuse_decorators(&it.decorators);
        self.element_modifiers(it.span.start, it.key.span().start);
        self.visit_property_key(&it.key);
        if it.optional {
            self.erase_marker("?", it.key.span().end, it.value.span.start);
        }
        self.visit_function(&it.value, ScopeFlags::Function);
    }

    fn field(&mut self, it: &PropertyDefinition<'a>, moved_to: Option<&str>) {
        if it.declare || it.r#type == PropertyDefinitionType::TSAbstractPropertyDefinition {
            return self.erase_whole(it.span);
        }
        self.refuse_decorators(&it.decorators);
        let key = it.key.span();
        self.element_modifiers(it.span.start, key.start);
        self.visit_property_key(&it.key);
        let annotation = it.type_annotation.as_ref().map(|annotation| annotation.span);
        let value = it.value.as_ref().map(GetSpan::span);
        let marker_end = annotation.or(value).map_or(it.span.end, |next| next.start);
        self.erase_marker(if it.optional { "?" } else { "!" }, key.end, marker_end);
        if let Some(annotation) = annotation {
            self.erase(annotation);
        }
        if let Some(value) = &it.value {
            let name = quote(self.text(key));
            if let Some(method) = moved_to {
                let from = annotation.map_or(key.end, |annotation| annotation.end);
                if let Some(equals) = self.token("=", from, value.span().start) {
                    self.out.edits.replace(
                        equals.start,
                        equals.end,
                        format!(";{method}(){{return({{{name}:"),
                    );
                }
            }
            self.visit_expression(value);
            if moved_to.is_some() {
                self.out.edits.close(value.span().end, format!("}})[{name}]}}"));
            }
        }
        self.end_erased(it.span);
    }

    /// `accessor x = 1` becomes a private field with a getter and a setter. A computed key is evaluated once, where it
    /// stands, and kept in a variable.
    fn accessor(&mut self, it: &AccessorProperty<'a>) {
        if it.r#type == AccessorPropertyType::TSAbstractAccessorProperty {
            return self.erase_whole(it.span);
        }
        self.refuse_decorators(&it.decorators);
        let key = it.key.span();
        self.element_modifiers(it.span.start, key.start);
        let Some(keyword) = self.token("accessor", it.span.start, key.start) else { return };
        let storage = format!("#{}", self.out.names.fresh());
        let prefix = if it.r#static { "static " } else { "" };
        let get = format!("(){{return this.{storage}}}{prefix}");
        let set = format!("(v){{this.{storage}=v}}{prefix}");
        let open = self.token("[", keyword.end, key.start).filter(|_| it.computed);
        let close = self.token("]", key.end, it.span.end).filter(|_| it.computed);
        if let (Some(open), Some(close)) = (open, close) {
            let variable = self.out.names.fresh();
            self.out.edits.replace(keyword.start, open.end, format!("get [{variable}="));
            self.visit_property_key(&it.key);
            self.out.edits.replace(close.start, close.end, format!("]{get}set [{variable}]{set}{storage}"));
            self.variables.push(variable);
        } else {
            let name = self.text(key);
            self.out.edits.replace(
                keyword.start,
                key.end,
                format!("get {name}{get}set {name}{set}{storage}"),
            );
        }
        self.accessor_value(it);
        self.end_erased(it.span);
    }

    fn accessor_value(&mut self, it: &AccessorProperty<'a>) {
        if it.definite {
            self.erase_marker("!", it.key.span().end, it.span.end);
        }
        if let Some(annotation) = &it.type_annotation {
            self.visit_ts_type_annotation(annotation);
        }
        if let Some(value) = &it.value {
            self.visit_expression(value);
        }
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

    pub(super) fn refuse_decorators(&mut self, decorators: &[Decorator<'a>]) {
        if let Some(decorator) = decorators.first() {
            self.unsupported(
                decorator.span.start,
                "decorators cannot be run here",
                "call the decorator as a function instead, or leave it out",
            );
        }
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

/// What to assign in the constructor when the initializer of a field must wait for the parameter properties.
fn moved_initializer(field: &PropertyDefinition<'_>, key: &str) -> Option<String> {
    let value = field.value.as_ref()?;
    if field.r#static || field.computed || field.declare || !mentions_this(value) {
        return None;
    }
    Some(match &field.key {
        PropertyKey::StaticIdentifier(_) | PropertyKey::PrivateIdentifier(_) => format!("this.{key}"),
        _ => format!("this[{key}]"),
    })
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
