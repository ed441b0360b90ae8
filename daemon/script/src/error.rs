//! Syntax errors as a model can act on them: message, place, three lines of code, a hint.

use crate::edits::is_line_end;
use crate::position::{line_column, lines};

/// Why a program cannot be run at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column})")]
pub struct SyntaxError {
    pub message: String,
    /// From 1.
    pub line: u32,
    /// From 1, in UTF-16 code units, as V8 and editors count.
    pub column: u32,
    /// The line with its neighbours and a caret, as [`code_frame`] draws it.
    pub code_frame: String,
    /// The usual cure, where there is one.
    pub hint: Option<String>,
}

impl SyntaxError {
    pub(crate) fn at(source: &str, offset: usize, message: impl Into<String>, hint: Option<String>) -> Self {
        let (line, column) = line_column(source, offset);
        let message = message.into().chars().map(visible).collect();
        Self { message, line, column, code_frame: code_frame(source, line, column), hint }
    }
}

/// The parser quotes the program, and a control character in it would not be seen, or move a terminal's cursor.
fn visible(c: char) -> String {
    if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() }
}

/// How much of a long line is shown around the caret.
const FRAME_COLUMNS: usize = 120;

/// Draws a line of the source with the lines before and after it and a caret under the column. Line and column count
/// from 1, columns in UTF-16 code units. Empty when there is no such line.
pub fn code_frame(source: &str, line: u32, column: u32) -> String {
    let wanted = line as usize;
    let near: Vec<_> = lines(source)
        .enumerate()
        .map(|(index, bounds)| (index + 1, bounds))
        .skip_while(|&(number, _)| number + 1 < wanted)
        .take_while(|&(number, _)| number <= wanted.saturating_add(1))
        .collect();
    let Some(&(_, (from, to))) = near.iter().find(|&&(number, _)| number == wanted) else {
        return String::new();
    };
    let caret = caret_column(&source[from..to], column);
    let cut = caret.saturating_sub(FRAME_COLUMNS * 2 / 3);
    let width = wanted.saturating_add(1).to_string().len();
    let mut frame = String::new();
    for (number, (from, to)) in near {
        let text: String = source[from..to]
            .chars()
            .filter(|&c| !is_line_end(c))
            .skip(cut)
            .take(FRAME_COLUMNS)
            .map(printable)
            .collect();
        let mark = if number == wanted { '>' } else { ' ' };
        frame.push_str(format!("{mark} {number:width$} | {text}").trim_end());
        frame.push('\n');
        if number == wanted {
            frame.push_str(&format!("  {:width$} | {}^\n", "", " ".repeat(caret - cut)));
        }
    }
    frame
}

/// The index of the character that a UTF-16 column points at, or of the end of the line.
fn caret_column(text: &str, column: u32) -> usize {
    let mut left = column.saturating_sub(1) as usize;
    text.chars()
        .take_while(|&c| {
            let is_before = left >= c.len_utf16() && !is_line_end(c);
            left = left.saturating_sub(c.len_utf16());
            is_before
        })
        .count()
}

/// A tab is as wide as its caret; other control characters would move it.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}
