//! From text to syntax tree, or to the first error.
//!
//! Hostile input is expected: what nests too deeply for the recursion of the parser, or of a walk over its tree, or takes
//! the checks too long, is refused here and nowhere else. What only a type checker minds is let through, as Deno does.

use std::collections::HashSet;

use oxc_allocator::Allocator;
use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_diagnostics::OxcDiagnostic;
use oxc_parser::{ParseOptions, Parser};
use oxc_semantic::{Scoping, SemanticBuilder};
use oxc_span::{GetSpan, SourceType};

use crate::cost::too_costly_at;
use crate::nesting::{MOST_LEVELS, too_deep_at};
use crate::rewrite::skip_blank;

/// The stack that the deepest program needs in a debug build, twice.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// Numbers of TypeScript errors that do not keep a program from running once its types are erased.
const TOLERATED: [&str; 14] = [
    "1016", "1039", "1061", "1245", "1249", "1263", "1267", "1363", "2369", "2371", "2390", "2391", "2394",
    "2427",
];

/// A syntax error as a byte offset.
#[derive(Debug)]
pub(crate) struct ParseError {
    pub(crate) message: String,
    pub(crate) offset: u32,
}

/// A parsed program with its names resolved.
pub(crate) struct Parsed<'a> {
    pub(crate) program: &'a Program<'a>,
    pub(crate) scoping: Scoping,
}

/// Parses `source` as a TypeScript module in which `return` is allowed at the top.
pub(crate) fn parse<'a>(allocator: &'a Allocator, source: &'a str) -> Result<Parsed<'a>, ParseError> {
    if let Some(offset) = too_deep_at(source) {
        return Err(too_deep(u32::try_from(offset).unwrap_or(u32::MAX)));
    }
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let source_type = SourceType::ts().with_module(true);
    let parsed = Parser::new(allocator, source, source_type).with_options(options).parse();
    if let Some(error) =
        parsed.diagnostics.errors().filter(|error| !is_tolerated(error)).min_by_key(|e| place(e))
    {
        return Err(describe(source, error));
    }
    let program: &Program<'a> = allocator.alloc(parsed.program);
    if let Some(offset) = TreeDepth::excess(program) {
        return Err(too_deep(offset));
    }
    if let Some(offset) = too_costly_at(program) {
        return Err(ParseError {
            message: "The program is too costly to check from here on".to_owned(),
            offset,
        });
    }
    let checked = SemanticBuilder::new_compiler().with_enum_eval(true).build(program);
    let mut errors: Vec<_> = checked.diagnostics.errors().filter(|error| !is_tolerated(error)).collect();
    if errors.iter().any(|error| is_redeclaration(error)) {
        let repeatable = RepeatableNames::of(program);
        errors.retain(|error| !is_redeclaration(error) || !repeatable.0.contains(&place(error)));
    }
    match errors.into_iter().min_by_key(|error| place(error)) {
        Some(error) => Err(describe(source, error)),
        None => Ok(Parsed { program, scoping: checked.semantic.into_scoping() }),
    }
}

/// True when `source` is a program once JSX is allowed, with the offset of the first element.
pub(crate) fn jsx_at(source: &str) -> Option<u32> {
    // The scan for nesting does not know JSX, in which any text may stand between two tags.
    if source.matches('<').count() > MOST_LEVELS / 4 || too_deep_at(source).is_some() {
        return None;
    }
    let allocator = Allocator::default();
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let parsed =
        Parser::new(&allocator, source, SourceType::tsx().with_module(true)).with_options(options).parse();
    if parsed.diagnostics.has_errors() || TreeDepth::excess(&parsed.program).is_some() {
        return None;
    }
    let mut finder = FirstElement(None);
    finder.visit_program(&parsed.program);
    finder.0
}

fn too_deep(offset: u32) -> ParseError {
    ParseError { message: "The program is nested too deeply here".to_owned(), offset }
}

fn is_tolerated(error: &OxcDiagnostic) -> bool {
    let by_number = error.code.scope.as_deref() == Some("TS")
        && error.code.number.as_deref().is_some_and(|it| TOLERATED.contains(&it));
    by_number || error.message == "Enum member must have initializer."
}

fn is_redeclaration(error: &OxcDiagnostic) -> bool {
    error.message.starts_with("Identifier") && error.message.ends_with("has already been declared")
}

/// Where an error is. Of a name that is declared twice, the second place is the error.
fn place(error: &OxcDiagnostic) -> u32 {
    let label = if is_redeclaration(error) { error.labels.last() } else { error.labels.first() };
    label.map_or(0, |label| label.offset())
}

/// Words an error as V8 would where the parser is less clear.
fn describe(source: &str, error: &OxcDiagnostic) -> ParseError {
    let mut offset = place(error);
    let rest = source.get(offset as usize..).unwrap_or_default();
    let message = match error.message.as_ref() {
        "Unexpected token" if rest.trim().is_empty() => "Unexpected end of input".to_owned(),
        "Unexpected token" => format!("Unexpected token '{}'", token(rest)),
        "Expected a semicolon or an implicit semicolon after a statement, but found none" => {
            let next = skip_blank(source, offset as usize);
            offset = u32::try_from(next).unwrap_or(offset);
            format!("Unexpected '{}': expected `;` or a new line before it", token(&source[next..]))
        }
        message => message.replace(" but found `EOF`", " but the program ends"),
    };
    ParseError { message, offset }
}

/// The word or character that `text` begins with.
fn token(text: &str) -> &str {
    let len = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(text.len());
    let len = if len == 0 { text.chars().next().map_or(0, char::len_utf8) } else { len };
    &text[..len]
}

/// The places of names that may be declared twice in a program that runs: types, and public members of a class.
#[derive(Default)]
struct RepeatableNames(HashSet<u32>);

impl RepeatableNames {
    fn of(program: &Program<'_>) -> Self {
        let mut names = Self::default();
        names.visit_program(program);
        names
    }

    fn add(&mut self, name: &impl GetSpan) {
        self.0.insert(name.span().start);
    }
}

impl<'a> Visit<'a> for RepeatableNames {
    fn visit_property_key(&mut self, it: &PropertyKey<'a>) {
        if !it.is_private_identifier() {
            self.add(it);
        }
        walk::walk_property_key(self, it);
    }

    fn visit_ts_type_alias_declaration(&mut self, it: &TSTypeAliasDeclaration<'a>) {
        self.add(&it.id);
    }

    fn visit_ts_interface_declaration(&mut self, it: &TSInterfaceDeclaration<'a>) {
        self.add(&it.id);
    }

    fn visit_ts_type_parameter(&mut self, it: &TSTypeParameter<'a>) {
        self.add(&it.name);
    }
}

struct FirstElement(Option<u32>);

impl<'a> Visit<'a> for FirstElement {
    fn visit_jsx_element(&mut self, it: &JSXElement<'a>) {
        self.0.get_or_insert(it.span.start);
    }

    fn visit_jsx_fragment(&mut self, it: &JSXFragment<'a>) {
        self.0.get_or_insert(it.span.start);
    }
}

/// Measures chains that the parser reads without recursion, such as `a + b + c`, but that make a deep tree.
#[derive(Default)]
struct TreeDepth {
    depth: usize,
    excess: Option<u32>,
}

impl TreeDepth {
    fn excess(program: &Program<'_>) -> Option<u32> {
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
            self.excess.get_or_insert(offset);
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
