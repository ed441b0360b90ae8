//! The one operation of this crate: [`prepare`].

use std::borrow::Cow;
use std::panic;

use oxc_allocator::Allocator;
use oxc_ast::ast::{Expression, Statement};

use crate::edits::{PositionMap, is_line_end};
use crate::error::SyntaxError;
use crate::hint::{hint, is_fenced, is_html};
use crate::parse::{self, jsx_at};
use crate::position::{Cursor, line_column, offset};
use crate::rewrite::{rewrite, skip_blank};

/// A program, ready to run.
#[derive(Clone, Debug)]
pub struct Script {
    /// The body of an async function with one parameter, [`Script::api_name`].
    pub code: String,
    /// A name that the program does not use.
    pub api_name: String,
    /// Every module specifier that is written as a literal, static imports first.
    pub imports: Vec<Import>,
    source: String,
    map: PositionMap,
}

/// A literal module specifier of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub specifier: String,
    /// From 1, in the user's source.
    pub line: u32,
    /// From 1, in UTF-16 code units.
    pub column: u32,
    /// True for `import("x")`.
    pub dynamic: bool,
}

impl Script {
    /// The place in the user's source that a place in [`Script::code`] comes from. Both count from 1, columns in UTF-16
    /// code units. `None` when the code has no such line, or when the place is in the runtime of decorators, which is no
    /// part of the program.
    pub fn original_position(&self, line: u32, column: u32) -> Option<(u32, u32)> {
        let at = u32::try_from(offset(&self.code, line, column)?).ok()?;
        Some(line_column(&self.source, self.map.source_offset(at)? as usize))
    }
}

/// Rewrites a program, or says what is wrong with it.
///
/// A program that as a whole can be read as an expression beginning with `{` is one, as in a REPL: `{a: 1}` is an object
/// and not a block with a label. Comments around it do not matter, a semicolon behind it does.
pub fn prepare(source: &str) -> Result<Script, SyntaxError> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    // A mistake in the parser must not end a session that has nothing to do with this program.
    panic::catch_unwind(|| stacker::grow(parse::STACK_BYTES, || prepare_here(source)))
        .unwrap_or_else(|_| Err(SyntaxError::at(source, 0, "The parser failed on this program", None)))
}

fn prepare_here(source: &str) -> Result<Script, SyntaxError> {
    if is_fenced(source) {
        let offset = source.len() - source.trim_start().len();
        return Err(refuse(source, offset, "The code is in a Markdown fence".to_owned()));
    }
    let braced = Program::braced(source).map(|program| program.prepare());
    if let Some(Ok(script)) = braced {
        return Ok(script);
    }
    let as_written = Program { source, braced: None, text: Cow::Borrowed(source) }.prepare();
    match (as_written, braced) {
        // The reading that gets further is the one that was meant.
        (Err(first), Some(Err(second))) if (second.line, second.column) > (first.line, first.column) => {
            Err(second)
        }
        (Err(error), _) if is_html(source) => Err(error),
        (Err(error), _) => Err(jsx_at(source).map_or(error, |offset| refuse_jsx(source, offset as usize))),
        (script, _) => script,
    }
}

fn refuse(source: &str, offset: usize, message: String) -> SyntaxError {
    let hint = hint(source, offset, &message).map(str::to_owned);
    SyntaxError::at(source, offset, message, hint)
}

fn refuse_jsx(source: &str, offset: usize) -> SyntaxError {
    let hint = "build the text with a template literal, or call a library's element function instead of JSX";
    SyntaxError::at(source, offset, "JSX cannot be run here", Some(hint.to_owned()))
}

/// What is parsed: the user's source, or the same in parentheses.
struct Program<'s> {
    source: &'s str,
    /// The offset of the opening parenthesis; the closing one is at the end, behind a line end.
    braced: Option<u32>,
    text: Cow<'s, str>,
}

impl<'s> Program<'s> {
    /// The program as an expression, when it begins with a brace.
    fn braced(source: &'s str) -> Option<Self> {
        let line = if source.starts_with("#!") { source.find(is_line_end)? } else { 0 };
        let open = skip_blank(source, line);
        let (before, after) = (&source[..open], &source[open..]);
        after.starts_with('{').then(|| Self {
            source,
            braced: u32::try_from(open).ok(),
            text: Cow::Owned(format!("{before}({after}\n)")),
        })
    }

    fn prepare(&self) -> Result<Script, SyntaxError> {
        let allocator = Allocator::default();
        let parsed = parse::parse(&allocator, &self.text)
            .map_err(|error| refuse(self.source, self.rebase(error.offset) as usize, error.message))?;
        if let Some(open) = self.braced
            && !is_sole_parenthesis(parsed.program, open)
        {
            return Err(refuse(self.source, 0, "Unexpected token ')'".to_owned()));
        }
        let mut rewritten = rewrite(&self.text, parsed.program, &parsed.scoping);
        if let Some(it) = rewritten.refusal {
            let offset = self.rebase(it.offset) as usize;
            return Err(SyntaxError::at(self.source, offset, it.message, it.hint.map(str::to_owned)));
        }
        if let Some(open) = self.braced {
            // Made text, so that what stands between the parentheses maps to the user's columns.
            rewritten.edits.replace(open, open + 1, "(");
        }
        let mut cursor = Cursor::new(self.source);
        let imports = rewritten.imports.into_iter().map(|site| {
            let (line, column) = cursor.advance(self.rebase(site.offset) as usize);
            Import { specifier: site.specifier, line, column, dynamic: site.dynamic }
        });
        let imports = imports.collect();
        let (code, map) = rewritten.edits.apply(&self.text, |offset| self.rebase(offset));
        let (api_name, source) = (rewritten.names.api().to_owned(), self.source.to_owned());
        Ok(Script { code, api_name, imports, source, map })
    }

    /// From an offset of the parsed text to one of the user's source.
    fn rebase(&self, offset: u32) -> u32 {
        offset - u32::from(self.braced.is_some_and(|open| offset > open))
    }
}

/// False when the text closes the parenthesis that was put in front of it, as `{}) ; (1` would.
fn is_sole_parenthesis(program: &oxc_ast::ast::Program<'_>, open: u32) -> bool {
    match program.body.as_slice() {
        [Statement::ExpressionStatement(it)] => {
            it.span.start == open && matches!(it.expression, Expression::ParenthesizedExpression(_))
        }
        _ => false,
    }
}
