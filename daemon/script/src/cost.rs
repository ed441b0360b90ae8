//! Refuses programs that would take the checks behind the parser quadratic time.
//!
//! The checks search from a node towards the root (for the loop of a `continue`, the function of an `await`), pass a name
//! on from scope to scope until one declares it, and search all elements of a class for a private name. In code that people
//! write that is a few steps for each node; a hostile program of some hundred kilobytes can make it minutes. So one walk
//! counts the steps beforehand. It also bounds the text that constant strings of enums can grow to.

use std::collections::{HashMap, HashSet};

use oxc_ast::AstKind;
use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::GetSpan as _;
use oxc_syntax::scope::{ScopeFlags, ScopeId};

/// The steps that are let through. One takes the checks up to 10 ns in a release build, so this is about a second; 6 MB
/// of ordinary code have about a tenth of it.
const MOST_STEPS: u64 = 150_000_000;

/// A program of fewer bytes has no time for that many steps, however deep it nests.
const SMALL_PROGRAM_BYTES: u32 = 8 << 10;

/// What a `var` costs in each block that it is hoisted through: an entry in a table of names.
const STEPS_PER_HOISTED_VAR: u64 = 40;

/// What each node around a labelled `break` or `continue` costs.
const STEPS_PER_LABEL: u64 = 8;

/// What each private name in reach costs when a name that nobody declared is compared with it for a suggestion.
const STEPS_PER_SUGGESTION: u64 = 60;

/// What each declaration of the same enum costs when a member is looked up.
const STEPS_PER_ENUM: u64 = 4;

/// The greatest length of the constant strings of all enums, in bytes.
const MOST_ENUM_TEXT: u64 = 16 << 20;

/// The length of a number in a string.
const NUMBER_TEXT: u64 = 24;

/// The decorators of a program: each of them and what it decorates become about 200 bytes of code.
const MOST_DECORATORS: usize = 20_000;

/// The offset at which a program takes too many steps.
pub(crate) fn too_costly_at(program: &Program<'_>) -> Option<u32> {
    if program.span.size() <= SMALL_PROGRAM_BYTES && !program.source_text.contains("enum") {
        return None;
    }
    let mut cost = Cost::default();
    cost.visit_program(program);
    cost.excess
}

#[derive(Default)]
struct Cost {
    steps: u64,
    /// Nodes around the walk.
    depth: u64,
    /// Blocks around the walk, up to each function around it.
    blocks: Vec<u64>,
    scopes: Vec<bool>,
    is_in_var: bool,
    /// The classes around the walk: all their elements, and the private names.
    classes: Vec<(u64, HashSet<String>)>,
    is_in_enum: bool,
    /// How often each enum is declared, and the greatest of these numbers.
    enums: HashMap<String, u64>,
    most_declarations: u64,
    /// The longest constant string that a member of this name may have.
    member_texts: HashMap<String, u64>,
    enum_text: u64,
    decorators: usize,
    excess: Option<u32>,
}

impl Cost {
    fn add(&mut self, steps: u64, offset: u32) {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MOST_STEPS {
            self.excess.get_or_insert(offset);
        }
    }

    fn private_name(&mut self, name: &str, offset: u32) {
        let elements: u64 = self.classes.iter().map(|(elements, _)| elements).sum();
        let is_declared = self.classes.iter().rev().any(|(_, names)| names.contains(name));
        self.add(elements * if is_declared { 1 } else { STEPS_PER_SUGGESTION }, offset);
    }
}

impl<'a> Visit<'a> for Cost {
    fn enter_node(&mut self, kind: AstKind<'a>) {
        self.depth += 1;
        self.add(self.depth, kind.span().start);
    }

    fn leave_node(&mut self, _: AstKind<'a>) {
        self.depth -= 1;
    }

    fn enter_scope(&mut self, flags: ScopeFlags, _: &std::cell::Cell<Option<ScopeId>>) {
        self.scopes.push(flags.is_var());
        match self.blocks.last_mut() {
            Some(blocks) if !flags.is_var() => *blocks += 1,
            _ => self.blocks.push(0),
        }
    }

    fn leave_scope(&mut self) {
        match (self.scopes.pop(), self.blocks.last_mut()) {
            (Some(false), Some(blocks)) if *blocks > 0 => *blocks -= 1,
            _ => drop(self.blocks.pop()),
        }
    }

    fn visit_variable_declaration(&mut self, it: &VariableDeclaration<'a>) {
        let outer = std::mem::replace(&mut self.is_in_var, it.kind.is_var());
        walk::walk_variable_declaration(self, it);
        self.is_in_var = outer;
    }

    fn visit_binding_identifier(&mut self, it: &BindingIdentifier<'a>) {
        if self.is_in_var {
            let blocks = self.blocks.last().copied().unwrap_or_default();
            self.add(blocks * STEPS_PER_HOISTED_VAR, it.span.start);
        }
        walk::walk_binding_identifier(self, it);
    }

    fn visit_label_identifier(&mut self, it: &LabelIdentifier<'a>) {
        self.add(self.depth * STEPS_PER_LABEL, it.span.start);
        walk::walk_label_identifier(self, it);
    }

    fn visit_class_body(&mut self, it: &ClassBody<'a>) {
        let keys = it.body.iter().filter_map(ClassElement::property_key);
        let names = keys.filter_map(|key| match key {
            PropertyKey::PrivateIdentifier(name) => Some(name.name.to_string()),
            _ => None,
        });
        self.classes.push((it.body.len() as u64, names.collect()));
        walk::walk_class_body(self, it);
        self.classes.pop();
    }

    fn visit_private_identifier(&mut self, it: &PrivateIdentifier<'a>) {
        self.private_name(&it.name, it.span.start);
        walk::walk_private_identifier(self, it);
    }

    fn visit_property_key(&mut self, it: &PropertyKey<'a>) {
        // The declaration of a private name is no search for it.
        if !it.is_private_identifier() {
            walk::walk_property_key(self, it);
        }
    }

    fn visit_decorator(&mut self, it: &Decorator<'a>) {
        self.decorators += 1;
        if self.decorators > MOST_DECORATORS {
            self.excess.get_or_insert(it.span.start);
        }
        walk::walk_decorator(self, it);
    }

    fn visit_ts_enum_declaration(&mut self, it: &TSEnumDeclaration<'a>) {
        let declarations = self.enums.entry(it.id.name.to_string()).or_default();
        *declarations += 1;
        self.most_declarations = self.most_declarations.max(*declarations);
        walk::walk_ts_enum_declaration(self, it);
    }

    fn visit_ts_enum_member(&mut self, it: &TSEnumMember<'a>) {
        let length = it.initializer.as_ref().map_or(NUMBER_TEXT, |value| self.text_length(value));
        let longest = self.member_texts.entry(it.id.static_name().to_string()).or_default();
        *longest = length.max(*longest);
        self.enum_text = self.enum_text.saturating_add(length);
        if self.enum_text > MOST_ENUM_TEXT {
            self.excess.get_or_insert(it.span.start);
        }
        let outer = std::mem::replace(&mut self.is_in_enum, true);
        walk::walk_ts_enum_member(self, it);
        self.is_in_enum = outer;
    }

    fn visit_identifier_reference(&mut self, it: &IdentifierReference<'a>) {
        if self.is_in_enum {
            self.add(self.most_declarations * STEPS_PER_ENUM, it.span.start);
        }
        walk::walk_identifier_reference(self, it);
    }
}

impl Cost {
    /// An upper bound of the length of a constant string.
    fn text_length(&self, value: &Expression<'_>) -> u64 {
        let of_member = |name: &str| self.member_texts.get(name).copied().unwrap_or(NUMBER_TEXT);
        match value {
            Expression::StringLiteral(it) => it.value.len() as u64,
            Expression::Identifier(it) => of_member(&it.name),
            Expression::StaticMemberExpression(it) => of_member(&it.property.name),
            Expression::ComputedMemberExpression(it) => match &it.expression {
                Expression::StringLiteral(name) => of_member(&name.value),
                _ => NUMBER_TEXT,
            },
            Expression::ParenthesizedExpression(it) => self.text_length(&it.expression),
            Expression::BinaryExpression(it) => {
                self.text_length(&it.left).saturating_add(self.text_length(&it.right))
            }
            Expression::TemplateLiteral(it) => {
                let values = it.expressions.iter().map(|value| self.text_length(value));
                values.fold(u64::from(it.span.size()), u64::saturating_add)
            }
            _ => NUMBER_TEXT,
        }
    }
}
