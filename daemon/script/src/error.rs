//! Syntax errors as a model can act on them: message, place, three lines of code, a hint.

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
        Self { message: message.into(), line, column, code_frame: code_frame(source, line, column), hint }
    }
}

/// How much of a long line is shown around the caret.
const FRAME_COLUMNS: usize = 120;

/// Draws a line of the source with the lines before and after it and a caret under the column. Line and column count
/// from 1, columns in UTF-16 code units. Empty when there is no such line.
pub fn code_frame(source: &str, line: u32, column: u32) -> String {
    let first = line.saturating_sub(1).max(1);
    let width = (line + 1).to_string().len();
    let mut frame = String::new();
    let shown = lines(source).enumerate().skip(first as usize - 1).take((line + 2 - first) as usize);
    for (index, (from, to)) in shown {
        let number = index + 1;
        let text = source[from..to].trim_end_matches(crate::edits::is_line_end);
        let caret = caret_column(text, column);
        let cut = caret.saturating_sub(FRAME_COLUMNS * 2 / 3);
        let visible: String = text.chars().skip(cut).take(FRAME_COLUMNS).map(printable).collect();
        let mark = if number == line as usize { '>' } else { ' ' };
        frame.push_str(format!("{mark} {number:width$} | {visible}").trim_end());
        frame.push('\n');
        if number == line as usize {
            frame.push_str(&format!("  {:width$} | {}^\n", "", " ".repeat(caret - cut)));
        }
    }
    frame
}

/// The index of the character that a UTF-16 column points at.
fn caret_column(text: &str, column: u32) -> usize {
    let mut left = column.saturating_sub(1) as usize;
    text.chars()
        .take_while(|c| {
            left >= c.len_utf16() && {
                left -= c.len_utf16();
                true
            }
        })
        .count()
}

/// A tab is as wide as its caret; other control characters would move it.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}
