//! From text to syntax tree, or to the first error.
//!
//! Hostile input is expected: what nests too deeply for the recursion of the parser, or of a walk over its tree, is
//! refused here and nowhere else.

use oxc_allocator::Allocator;
use oxc_ast::ast::{Expression, Program, TSType, TSTypeName};
use oxc_ast_visit::{Visit, walk};
use oxc_diagnostics::OxcDiagnostic;
use oxc_parser::{ParseOptions, Parser};
use oxc_semantic::{Scoping, SemanticBuilder};
use oxc_span::{GetSpan, SourceType};

use crate::nesting::{MOST_LEVELS, too_deep_at};

/// The stack that the deepest program needs in a debug build, twice.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// A syntax error as a byte offset.
#[derive(Debug)]
pub(crate) struct ParseError {
    pub(crate) message: String,
    pub(crate) offset: usize,
}

/// A parsed program with its names resolved.
pub(crate) struct Parsed<'a> {
    pub(crate) program: &'a Program<'a>,
    pub(crate) scoping: Scoping,
}

/// Parses `source` as a TypeScript module in which `return` is allowed at the top.
pub(crate) fn parse<'a>(allocator: &'a Allocator, source: &'a str) -> Result<Parsed<'a>, ParseError> {
    if let Some(offset) = too_deep_at(source) {
        return Err(too_deep(offset));
    }
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let parsed = Parser::new(allocator, source, SourceType::ts()).with_options(options).parse();
    if let Some(error) = first_error(parsed.diagnostics.errors()) {
        return Err(error);
    }
    let program: &Program<'a> = allocator.alloc(parsed.program);
    if let Some(offset) = TreeDepth::excess(program) {
        return Err(too_deep(offset));
    }
    let checked = SemanticBuilder::new_compiler().with_enum_eval(true).build(program);
    match first_error(checked.diagnostics.errors()) {
        Some(error) => Err(error),
        None => Ok(Parsed { program, scoping: checked.semantic.into_scoping() }),
    }
}

fn first_error<'d>(errors: impl Iterator<Item = &'d OxcDiagnostic>) -> Option<ParseError> {
    errors
        .map(|error| {
            // Of a name that is declared twice, the second place is the error.
            let twice = error.message.contains("already been declared");
            let label = if twice { error.labels.last() } else { error.labels.first() };
            ParseError {
                message: error.message.to_string(),
                offset: label.map_or(0, |label| label.offset() as usize),
            }
        })
        .min_by_key(|error| error.offset)
}

fn too_deep(offset: usize) -> ParseError {
    ParseError { message: "The program is nested too deeply here".to_owned(), offset }
}

/// Measures chains that the parser reads without recursion, such as `a + b + c`, but that make a deep tree.
#[derive(Default)]
struct TreeDepth {
    depth: usize,
    excess: Option<usize>,
}

impl TreeDepth {
    fn excess(program: &Program<'_>) -> Option<usize> {
        // Every level takes at least one byte.
        if program.span.size() as usize <= MOST_LEVELS {
            return None;
        }
        let mut measure = Self::default();
        measure.visit_program(program);
        measure.excess
    }

    fn deeper(&mut self, offset: u32, walk: impl FnOnce(&mut Self)) {
        if self.depth >= MOST_LEVELS {
            self.excess.get_or_insert(offset as usize);
        } else {
            self.depth += 1;
            walk(self);
            self.depth -= 1;
        }
    }
}

impl<'a> Visit<'a> for TreeDepth {
    fn visit_expression(&mut self, it: &Expression<'a>) {
        self.deeper(it.span().start, |this| walk::walk_expression(this, it));
    }

    fn visit_ts_type(&mut self, it: &TSType<'a>) {
        self.deeper(it.span().start, |this| walk::walk_ts_type(this, it));
    }

    fn visit_ts_type_name(&mut self, it: &TSTypeName<'a>) {
        self.deeper(it.span().start, |this| walk::walk_ts_type_name(this, it));
    }
}
