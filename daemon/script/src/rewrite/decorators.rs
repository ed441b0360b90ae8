//! Decorators: TC39's proposal of 2022-03, the form that Deno runs.
//!
//! Decorators stay where they are written and become the name of a placeholder, a static method in front of what they
//! decorate. So they are evaluated in order with computed keys, in the scope and with the `await` of where they stand:
//!
//! ```text
//! class C { @a @b(1) m() {} @c x = 5 }
//! class C {static #s=R.apply(this,…);#i=C.#s.start(this); ;static[R.decorators(a, b(1))](){} m() {} … x = C.#s[1].init(this,5) }
//! ```
//!
//! `R` is the runtime, `decorators.js` as one line in the head of the program. `R.apply` is the first thing to run when
//! the class is made: it takes the placeholders away, calls the decorators, and gives a state that the class keeps in a
//! private static field. A private method or accessor becomes a public one with a symbol for its name, which `apply`
//! takes away too, and a private getter of what the decorators made of it.
//!
//! Decorators of a class itself come before `class`, so `class` moves in front of them:
//!
//! ```text
//! @a class C extends B { m() { return C } }
//! let C=R.finish(class $c extends R.heritage([ a],                  B) {static[R.waiting()](){}… m() { return $c.#s.class } });
//! @a class C {}
//! let C=R.finish(class $c{static[R.decorators( a)](){}           …});
//! ```

use std::collections::HashMap;

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::{GetSpan, Span};

use super::Rewriter;
use super::modules::quote;

const RUNTIME: &str = include_str!("decorators.js");

const NO_PARAMETERS: &str = "parameter decorators cannot be run here";
const NO_CONSTRUCTORS: &str = "a constructor cannot be decorated";
const NO_ABSTRACT_MEMBERS: &str = "an abstract member cannot be decorated";

/// What the made code of one decorated class refers to.
#[derive(Clone, Debug)]
pub(super) struct DecoratedClass {
    /// The name by which the class reaches itself.
    binding: String,
    /// The private static field that holds the state, with its `#`.
    state: String,
    /// Offsets at which the decorated elements begin, in order.
    members: Vec<u32>,
}

impl DecoratedClass {
    /// The state of the class.
    fn state(&self) -> String {
        format!("{}.{}", self.binding, self.state)
    }

    /// What the decorators made of the element that begins at `start`, if it has any.
    fn member(&self, start: u32) -> Option<String> {
        let index = self.members.binary_search(&start).ok()?;
        Some(format!("{}[{index}]", self.state()))
    }

    /// What runs the initializers that decorators added for instances.
    pub(super) fn start(&self) -> String {
        format!("{}.start(this)", self.state())
    }
}

/// An element of a class that can be decorated.
struct Element<'b, 'a> {
    span: Span,
    decorators: &'b [Decorator<'a>],
    kind: &'static str,
    key: &'b PropertyKey<'a>,
    computed: bool,
    is_static: bool,
}

impl<'b, 'a> Element<'b, 'a> {
    /// `None` for what has no decorators or does not exist at run time.
    fn of(element: &'b ClassElement<'a>) -> Option<Self> {
        let (decorators, kind, is_abstract) = match element {
            ClassElement::MethodDefinition(it) if it.value.body.is_some() => {
                let kind = match it.kind {
                    MethodDefinitionKind::Get => "getter",
                    MethodDefinitionKind::Set => "setter",
                    MethodDefinitionKind::Method | MethodDefinitionKind::Constructor => "method",
                };
                (&it.decorators, kind, false)
            }
            ClassElement::PropertyDefinition(it) if !it.declare => {
                (&it.decorators, "field", it.r#type == PropertyDefinitionType::TSAbstractPropertyDefinition)
            }
            ClassElement::AccessorProperty(it) => {
                (&it.decorators, "accessor", it.r#type == AccessorPropertyType::TSAbstractAccessorProperty)
            }
            _ => return None,
        };
        if decorators.is_empty() || is_abstract {
            return None;
        }
        Some(Self {
            span: element.span(),
            decorators,
            kind,
            key: element.property_key()?,
            computed: element.computed(),
            is_static: element.r#static(),
        })
    }

    fn private_name(&self) -> Option<&'b str> {
        match self.key {
            PropertyKey::PrivateIdentifier(name) => Some(name.name.as_str()),
            _ => None,
        }
    }

    /// The description that the runtime gets, as an object literal.
    fn description(&self, source: &str, storage: Option<&String>) -> String {
        let mut text = format!("{{kind:{}", quote(self.kind));
        if !self.computed {
            let name = match self.key {
                PropertyKey::StaticIdentifier(name) => quote(&name.name),
                PropertyKey::PrivateIdentifier(name) => quote(&format!("#{}", name.name)),
                PropertyKey::StringLiteral(name) => quote(&name.value),
                // A number, which is also its name.
                other => source[other.span().start as usize..other.span().end as usize].to_owned(),
            };
            text.push_str(&format!(",name:{name}"));
        }
        if self.is_static {
            text.push_str(",static:true");
        }
        if let Some(name) = self.private_name() {
            text.push_str(",private:true");
            let stored = match self.kind {
                "field" => Some(format!("#{name}")),
                "accessor" => storage.cloned(),
                _ => None,
            };
            if let Some(stored) = stored {
                // As members of a sequence the functions have no names.
                let get = format!("(0,function(){{return this.{stored}}})");
                let set = format!("(0,function(v){{this.{stored}=v}})");
                text.push_str(&format!(",get:{get},set:{set}"));
            }
        }
        text + "}"
    }
}

impl<'a> Rewriter<'_, 'a> {
    /// Names what the made code of a class needs; `None` when nothing of it is decorated.
    pub(super) fn decorated_class(&mut self, it: &Class<'a>) -> Option<DecoratedClass> {
        let members: Vec<_> =
            it.body.body.iter().filter_map(Element::of).map(|element| element.span.start).collect();
        if members.is_empty() && it.decorators.is_empty() {
            return None;
        }
        // Inside a class that may be replaced its name means what it was replaced by.
        let binding = match &it.id {
            Some(id) if it.decorators.is_empty() => id.name.to_string(),
            _ => self.out.names.fresh(),
        };
        Some(DecoratedClass { binding, state: format!("#{}", self.out.names.fresh()), members })
    }

    /// Names a class that must reach itself, or wraps one that is decorated itself.
    pub(super) fn decorated_head(&mut self, it: &Class<'a>, class: &DecoratedClass, keyword: Span) {
        if !it.decorators.is_empty() {
            self.class_decorators(it, class, keyword);
        } else if it.id.is_none() {
            self.out.edits.close(keyword.end, format!(" {}", class.binding));
        }
    }

    /// What the name of a decorated class becomes in its body.
    pub(super) fn replaced_class(&self, it: &Class<'a>) -> Option<String> {
        let class = self.decorated.as_ref().filter(|_| !it.decorators.is_empty())?;
        Some(format!("{}.class", class.state()))
    }

    /// Puts the head of the class in front of its decorators.
    fn class_decorators(&mut self, it: &Class<'a>, class: &DecoratedClass, keyword: Span) {
        let runtime = self.decorator_runtime();
        let (open, close) = match (&it.id, it.is_declaration()) {
            (Some(id), true) => (format!("let {}=", id.name), ");"),
            (None, true) => (";(".to_owned(), "));"),
            (_, false) => (String::new(), ")"),
        };
        let head = format!("{open}{runtime}.finish(class {}", class.binding);
        self.erase(keyword);
        if let Some(id) = &it.id {
            self.erase(id.span);
        }
        if let Some(heritage) = &it.heritage {
            let from = it.type_parameters.as_ref().map(|types| types.span.end);
            let from = from.or(it.id.as_ref().map(|id| id.span.end)).unwrap_or(keyword.end);
            if let Some(extends) = self.token("extends", from, heritage.expression.span().start) {
                self.erase(extends);
            }
            self.decorators(&it.decorators, format!("{head} extends {runtime}.heritage(["), "],".to_owned());
        } else {
            let brace = it.body.span.start;
            self.out.edits.replace(brace, brace + 1, " ");
            let placeholder = format!("{head}{{static[{runtime}.decorators(");
            self.decorators(&it.decorators, placeholder, ")](){}".to_owned());
        }
        self.out.edits.close(it.span.end, close);
    }

    /// Puts a placeholder in the place of the decorators of an element. Gives the offset behind them.
    pub(super) fn element_decorators(&mut self, element: &ClassElement<'a>) -> u32 {
        self.refuse_element(element);
        let member = self.decorated_member(element.span().start);
        let (Some(member), Some(it)) = (member, Element::of(element)) else { return element.span().start };
        let runtime = self.decorator_runtime();
        let mut after = ")](){}".to_owned();
        if let Some(name) = it.private_name() {
            let prefix = if it.is_static { "static " } else { "" };
            let value = format!("{prefix}get #{name}(){{return {member}.value}}");
            let get = format!("{prefix}get #{name}(){{return {member}.get.call(this)}}");
            let set = format!("{prefix}set #{name}(v){{{member}.set.call(this,v)}}");
            match it.kind {
                "method" => after.push_str(&value),
                "getter" => after.push_str(&get),
                "setter" => after.push_str(&set),
                "accessor" => after.extend([get, set]),
                _ => {}
            }
        }
        self.decorators(it.decorators, format!(";static[{runtime}.decorators("), after);
        it.decorators.last().map_or(it.span.start, |last| last.span.end)
    }

    /// What the decorators made of the element that begins at `start`, if it has any.
    pub(super) fn decorated_member(&self, start: u32) -> Option<String> {
        self.decorated.as_ref()?.member(start)
    }

    /// The text before and behind the computed key of a decorated element.
    pub(super) fn computed_key(&mut self, is_decorated: bool) -> (String, &'static str) {
        if !is_decorated {
            return (String::new(), "");
        }
        let runtime = self.decorator_runtime();
        (format!("{runtime}.key({runtime}.last,"), ")")
    }

    /// Visits the key of a method or field.
    pub(super) fn element_key(&mut self, key: &PropertyKey<'a>, computed: bool, is_decorated: bool) {
        let span = key.span();
        let (open, close) = self.computed_key(computed && is_decorated);
        if !open.is_empty() {
            self.out.edits.open(span.start, open);
        }
        self.visit_property_key(key);
        if !close.is_empty() {
            self.out.edits.close(span.end, close);
        }
    }

    /// Moves a private method out of the way of the getter that stands for it.
    pub(super) fn hide(&mut self, key: Span) {
        let text = format!("[{}.hidden()]", self.decorator_runtime());
        self.out.edits.replace(key.start, key.end, text);
    }

    /// Applies the decorators first of all when the class is made, and their initializers when an instance is.
    pub(super) fn apply_decorators(&mut self, it: &Class<'a>, starts_in_constructor: bool) {
        let Some(class) = self.decorated.clone() else { return };
        let runtime = self.decorator_runtime();
        let name = match &it.id {
            Some(_) if it.decorators.is_empty() => "void 0".to_owned(),
            Some(id) => quote(&id.name),
            None => quote(&self.anonymous_class_name(it)),
        };
        let elements: Vec<_> = it.body.body.iter().filter_map(Element::of).collect();
        let described: Vec<_> = elements
            .iter()
            .map(|element| element.description(self.source, self.storages.get(&element.span.start)))
            .collect();
        let mut text = String::new();
        if !it.decorators.is_empty() && it.heritage.is_some() {
            text.push_str(&format!("static[{runtime}.waiting()](){{}}"));
        }
        let (state, is_decorated) = (&class.state, !it.decorators.is_empty());
        let described = described.join(",");
        text.push_str(&format!("static {state}={runtime}.apply(this,{name},{is_decorated},[{described}]);"));
        if elements.iter().any(|element| !element.is_static) && !starts_in_constructor {
            text.push_str(&format!("#{}={};", self.out.names.fresh(), class.start()));
        }
        let first = it.decorators.first().or(elements.first().and_then(|element| element.decorators.first()));
        let origin = first.map_or(it.span.start, |decorator| decorator.span.start);
        self.out.edits.open_body(it.body.span.start + 1, text, origin);
    }

    /// Puts text around decorators, which become the arguments of a call.
    fn decorators(&mut self, decorators: &[Decorator<'a>], mut before: String, mut after: String) {
        for (index, decorator) in decorators.iter().enumerate() {
            let (start, is_last) = (decorator.span.start, index + 1 == decorators.len());
            self.out.edits.replace(start, start + 1, std::mem::replace(&mut before, " ".to_owned()));
            self.visit_expression(&decorator.expression);
            let text = if is_last { std::mem::take(&mut after) } else { ",".to_owned() };
            self.out.edits.close(decorator.span.end, text);
        }
    }

    /// The name of the constant that holds the runtime.
    fn decorator_runtime(&mut self) -> String {
        self.runtime.get_or_insert_with(|| self.out.names.fresh()).clone()
    }

    /// Puts the runtime into the head of a program that needs it.
    pub(super) fn hoist_decorator_runtime(&mut self) {
        if let Some(name) = &self.runtime {
            let lines = RUNTIME.lines().map(str::trim).filter(|line| !line.starts_with("//"));
            let code = lines.collect::<Vec<_>>().join(" ");
            self.out.edits.head_apart(format!("const {name}={code};"));
        }
    }

    /// The name that a class without one gets from where it stands.
    fn anonymous_class_name(&mut self, it: &Class<'a>) -> String {
        if !it.decorators.is_empty() && !it.is_declaration() {
            // As in Deno: it is an argument of a call.
            return String::new();
        }
        let program = self.program;
        let names = self.class_names.get_or_insert_with(|| {
            let mut names = ClassNames::default();
            names.visit_program(program);
            names.0
        });
        names.get(&it.span.start).cloned().unwrap_or_default()
    }

    fn refuse_element(&mut self, element: &ClassElement<'a>) {
        let (decorators, message, hint) = match element {
            ClassElement::MethodDefinition(it) if it.kind.is_constructor() => {
                (&it.decorators, NO_CONSTRUCTORS, "decorate the class instead")
            }
            ClassElement::PropertyDefinition(it)
                if it.r#type == PropertyDefinitionType::TSAbstractPropertyDefinition =>
            {
                (&it.decorators, NO_ABSTRACT_MEMBERS, "decorate the member that implements it")
            }
            _ => return,
        };
        if let Some(decorator) = decorators.first() {
            self.unsupported(decorator.span.start, message, hint);
        }
    }

    pub(super) fn refuse_parameter_decorators(&mut self, decorators: &[Decorator<'a>]) {
        if let Some(decorator) = decorators.first() {
            self.unsupported(
                decorator.span.start,
                NO_PARAMETERS,
                "they belong to TypeScript's legacy decorators, which Deno does not run: decorate the class or the method",
            );
        }
    }
}

/// The names of anonymous classes, as ECMAScript's NamedEvaluation gives them; computed ones are left out.
#[derive(Default)]
struct ClassNames(HashMap<u32, String>);

impl ClassNames {
    fn name(&mut self, value: &Expression<'_>, name: &str) {
        if let Expression::ClassExpression(class) = value.get_inner_expression()
            && class.id.is_none()
        {
            self.0.insert(class.span.start, name.to_owned());
        }
    }

    fn name_by_pattern(&mut self, pattern: &BindingPattern<'_>, value: Option<&Expression<'_>>) {
        if let (BindingPattern::BindingIdentifier(name), Some(value)) = (pattern, value) {
            self.name(value, &name.name);
        }
    }

    fn name_by_target(&mut self, target: &AssignmentTarget<'_>, value: &Expression<'_>) {
        if let AssignmentTarget::AssignmentTargetIdentifier(name) = target {
            self.name(value, &name.name);
        }
    }

    fn name_by_key(&mut self, key: &PropertyKey<'_>, computed: bool, value: Option<&Expression<'_>>) {
        let Some(value) = value.filter(|_| !computed) else { return };
        match key {
            PropertyKey::PrivateIdentifier(name) => self.name(value, &format!("#{}", name.name)),
            _ => {
                if let Some(name) = key.static_name() {
                    self.name(value, &name);
                }
            }
        }
    }
}

impl<'a> Visit<'a> for ClassNames {
    fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
        self.name_by_pattern(&it.id, it.init.as_ref());
        walk::walk_variable_declarator(self, it);
    }

    fn visit_formal_parameter(&mut self, it: &FormalParameter<'a>) {
        self.name_by_pattern(&it.pattern, it.initializer.as_deref());
        walk::walk_formal_parameter(self, it);
    }

    fn visit_assignment_pattern(&mut self, it: &AssignmentPattern<'a>) {
        self.name_by_pattern(&it.left, Some(&it.right));
        walk::walk_assignment_pattern(self, it);
    }

    fn visit_assignment_expression(&mut self, it: &AssignmentExpression<'a>) {
        if it.operator.is_assign() || it.operator.is_logical() {
            self.name_by_target(&it.left, &it.right);
        }
        walk::walk_assignment_expression(self, it);
    }

    fn visit_assignment_target_with_default(&mut self, it: &AssignmentTargetWithDefault<'a>) {
        self.name_by_target(&it.binding, &it.init);
        walk::walk_assignment_target_with_default(self, it);
    }

    fn visit_assignment_target_property_identifier(&mut self, it: &AssignmentTargetPropertyIdentifier<'a>) {
        if let Some(init) = &it.init {
            self.name(init, &it.binding.name);
        }
        walk::walk_assignment_target_property_identifier(self, it);
    }

    fn visit_object_property(&mut self, it: &ObjectProperty<'a>) {
        self.name_by_key(
            &it.key,
            it.computed || it.key.is_specific_static_name("__proto__"),
            Some(&it.value),
        );
        walk::walk_object_property(self, it);
    }

    fn visit_property_definition(&mut self, it: &PropertyDefinition<'a>) {
        if it.decorators.is_empty() {
            self.name_by_key(&it.key, it.computed, it.value.as_ref());
        }
        walk::walk_property_definition(self, it);
    }

    fn visit_accessor_property(&mut self, it: &AccessorProperty<'a>) {
        if it.decorators.is_empty() {
            self.name_by_key(&it.key, it.computed, it.value.as_ref());
        }
        walk::walk_accessor_property(self, it);
    }

    fn visit_export_default_declaration(&mut self, it: &ExportDefaultDeclaration<'a>) {
        if let ExportDefaultDeclarationKind::ClassDeclaration(class) = &it.declaration {
            self.0.insert(class.span.start, "default".to_owned());
        }
        walk::walk_export_default_declaration(self, it);
    }
}
