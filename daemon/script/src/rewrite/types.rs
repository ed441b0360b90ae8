//! Erasing type syntax that the tree does not hold as a node of its own, or that needs more than spaces in its place.

use oxc_ast::ast::{ArrowFunctionExpression, FormalParameter, TSThisParameter, TSTypeAssertion};
use oxc_ast_visit::Visit;
use oxc_span::{GetSpan, Span};

use super::Rewriter;

impl<'a> Rewriter<'_, 'a> {
    /// Erases a `?` or `!` in a gap between two nodes.
    pub(super) fn erase_marker(&mut self, marker: &str, from: u32, to: u32) {
        if let Some(span) = self.token(marker, from, to) {
            self.erase(span);
        }
    }

    pub(super) fn formal_parameter(&mut self, it: &FormalParameter<'a>) {
        self.refuse_parameter_decorators(&it.decorators);
        let pattern = it.pattern.span();
        self.erase_modifiers(it.span.start, pattern.start);
        self.visit_binding_pattern(&it.pattern);
        if it.optional {
            self.erase_marker("?", pattern.end, it.span.end);
        }
        if let Some(annotation) = &it.type_annotation {
            self.visit_ts_type_annotation(annotation);
        }
        if let Some(initializer) = &it.initializer {
            self.visit_expression(initializer);
        }
    }

    /// `this: T` is no parameter; the comma after it goes too.
    pub(super) fn this_parameter(&mut self, it: &TSThisParameter<'a>) {
        let comma = self.tokens(it.span.end, self.source_end()).next().filter(|&(_, token)| token == ",");
        let end = comma.map_or(it.span.end, |(span, _)| span.end);
        self.erase(Span::new(it.span.start, end));
    }

    /// No line end may be left between `async` and the parameters, nor between them and the arrow.
    pub(super) fn arrow_function(&mut self, it: &ArrowFunctionExpression<'a>) {
        if let Some(types) = &it.type_parameters {
            self.erase_in_line(types.span);
        }
        self.visit_formal_parameters(&it.params);
        if let Some(annotation) = &it.return_type {
            let arrow = self.token("=", annotation.span.end, self.source_end());
            let end = arrow.map_or(annotation.span.end, |arrow| arrow.start);
            self.erase_in_line(Span::new(annotation.span.start, end));
        }
        self.visit_arrow_function_body(&it.body);
    }

    /// `<T>value` becomes `(value)`: an object literal must not become a block, and `return` must not lose its value to
    /// a line end.
    pub(super) fn type_assertion(&mut self, it: &TSTypeAssertion<'a>) {
        self.out.edits.replace(it.span.start, it.expression.span().start, "(");
        self.visit_expression(&it.expression);
        self.out.edits.close(it.span.end, ")");
    }
}
