//! From text to syntax tree, or to the first error.

use oxc_allocator::Allocator;
use oxc_ast::ast::Program;
use oxc_diagnostics::OxcDiagnostic;
use oxc_parser::{ParseOptions, Parser};
use oxc_semantic::{Scoping, SemanticBuilder};
use oxc_span::SourceType;

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
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let parsed = Parser::new(allocator, source, SourceType::ts()).with_options(options).parse();
    if let Some(error) = first_error(parsed.diagnostics.errors()) {
        return Err(error);
    }
    let program: &Program<'a> = allocator.alloc(parsed.program);
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
