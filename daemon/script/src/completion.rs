//! Which statements give a program its value.
//!
//! The rule is ECMAScript's own: the value of a program is the completion value of its statement list, which is what
//! `eval` returns and what a REPL shows. Expression statements have a value, and the last one that ran counts.
//! Declarations and empty statements have none and leave the value as it is. `if`, loops, `switch` and `try` always
//! have one: `undefined` unless a statement inside gave another. A `finally` block does not count.
//!
//! In: the statements of a program. Out: a [`Plan`] with the places at which a variable must be set. Nothing is edited
//! here. The walk goes backwards, so that a statement whose value is surely overwritten is left alone: a program that
//! ends with an expression gets a single edit.

use std::collections::{HashMap, HashSet};

use oxc_ast::ast::{ExportDefaultDeclarationKind, Program, Statement, TryStatement};
use oxc_span::GetSpan;

/// Where the value must be set. Statements are named by the offset at which they begin.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Statements whose expression is the value from there on.
    pub(crate) values: HashSet<u32>,
    /// Statements before which the value becomes `undefined`.
    pub(crate) resets: HashMap<u32, Reset>,
    /// `finally` blocks that may be left by `break` or `continue`: the value is kept aside while they run.
    pub(crate) kept: HashSet<u32>,
}

/// How to put the reset of a statement in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The statement stands in a list: the reset goes before it.
    InList,
    /// The statement is the sole body of another one: both go into a block.
    InBlock,
}

/// Makes the plan of a program; empty when the program can have no value.
pub(crate) fn plan(program: &Program<'_>) -> Plan {
    let mut planner = Planner::default();
    planner.list(&program.body);
    if !planner.set
        && let Some(directive) = program.directives.last()
    {
        planner.plan.values.insert(directive.span.start);
    }
    if planner.plan.values.is_empty() { Plan::default() } else { planner.plan }
}

#[derive(Debug, Default)]
struct Planner {
    plan: Plan,
    /// A statement after this point surely sets the value.
    set: bool,
    /// `break` or `continue` may leave the statements being walked.
    breakable: bool,
}

/// Where a statement stands, for its [`Reset`].
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    reset: Reset,
}

impl Planner {
    fn list(&mut self, statements: &[Statement<'_>]) {
        for statement in statements.iter().rev() {
            if self.set && !self.breakable {
                break;
            }
            self.statement(statement, Place { start: statement.span().start, reset: Reset::InList });
        }
    }

    fn body(&mut self, statement: &Statement<'_>) {
        self.statement(statement, Place { start: statement.span().start, reset: Reset::InBlock });
    }

    fn statement(&mut self, statement: &Statement<'_>, place: Place) {
        match statement {
            Statement::ExpressionStatement(it) => self.value(it.span.start),
            Statement::ExportDefaultDeclaration(it) => match it.declaration {
                ExportDefaultDeclarationKind::FunctionDeclaration(_)
                | ExportDefaultDeclarationKind::ClassDeclaration(_)
                | ExportDefaultDeclarationKind::TSInterfaceDeclaration(_) => {}
                _ => self.value(it.span.start),
            },
            Statement::BlockStatement(it) => self.list(&it.body),
            Statement::LabeledStatement(it) => self.breakable(|this| this.statement(&it.body, place)),
            Statement::IfStatement(it) => {
                let after = self.set;
                self.body(&it.consequent);
                let set_in_consequent = std::mem::replace(&mut self.set, after);
                if let Some(alternate) = &it.alternate {
                    self.body(alternate);
                }
                self.reset_unless(set_in_consequent && self.set, place);
            }
            Statement::DoWhileStatement(it) => self.repeated(&it.body, place),
            Statement::WhileStatement(it) => self.repeated(&it.body, place),
            Statement::ForStatement(it) => self.repeated(&it.body, place),
            Statement::ForInStatement(it) => self.repeated(&it.body, place),
            Statement::ForOfStatement(it) => self.repeated(&it.body, place),
            Statement::SwitchStatement(it) => {
                self.breakable(|this| it.cases.iter().rev().for_each(|case| this.list(&case.consequent)));
                self.reset_unless(false, place);
            }
            Statement::TryStatement(it) => self.attempt(it, place),
            Statement::BreakStatement(_) | Statement::ContinueStatement(_) => self.set = false,
            Statement::ReturnStatement(_) | Statement::ThrowStatement(_) => self.set = true,
            _ => {}
        }
    }

    fn value(&mut self, start: u32) {
        if !self.set {
            self.plan.values.insert(start);
            self.set = true;
        }
    }

    fn reset_unless(&mut self, set_inside: bool, place: Place) {
        if !set_inside {
            self.plan.resets.insert(place.start, place.reset);
        }
        self.set = true;
    }

    fn repeated(&mut self, body: &Statement<'_>, place: Place) {
        self.breakable(|this| this.body(body));
        self.reset_unless(false, place);
    }

    fn breakable(&mut self, walk: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.breakable, true);
        walk(self);
        self.breakable = outside;
    }

    fn attempt(&mut self, it: &TryStatement<'_>, place: Place) {
        if let Some(finalizer) = &it.finalizer
            && self.breakable
            && !finalizer.body.is_empty()
        {
            // A `finally` block counts only when a `break` or `continue` leaves it.
            self.set = true;
            self.list(&finalizer.body);
            self.plan.kept.insert(finalizer.span.start);
            self.set = false;
        }
        let after = self.set;
        self.list(&it.block.body);
        let mut set_inside = self.set;
        if let Some(handler) = &it.handler {
            self.set = after;
            self.list(&handler.body.body);
            set_inside &= self.set;
        }
        self.reset_unless(set_inside, place);
    }
}
