//! Lines and columns as V8 counts them: both from 1, columns in UTF-16 code units, lines ended by LF, CR, CRLF, U+2028
//! and U+2029.

use crate::edits::is_line_end;

/// The line and column of a byte offset; an offset past the end counts as the end.
pub(crate) fn line_column(text: &str, offset: usize) -> (u32, u32) {
    Cursor::new(text).advance(offset)
}

/// Finds the lines and columns of many offsets in one pass, as long as they rise.
#[derive(Debug)]
pub(crate) struct Cursor<'t> {
    text: &'t str,
    offset: usize,
    line: u32,
    column: u32,
}

impl<'t> Cursor<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, offset: 0, line: 1, column: 1 }
    }

    pub(crate) fn advance(&mut self, offset: usize) -> (u32, u32) {
        if offset < self.offset {
            *self = Self::new(self.text);
        }
        for c in self.text[self.offset..].chars() {
            if self.offset + c.len_utf8() > offset {
                break;
            }
            self.offset += c.len_utf8();
            let is_crlf = c == '\r' && self.text[self.offset..].starts_with('\n');
            if is_line_end(c) && !is_crlf {
                (self.line, self.column) = (self.line + 1, 1);
            } else {
                self.column += if c.len_utf16() == 2 { 2 } else { 1 };
            }
        }
        (self.line, self.column)
    }
}

/// The byte offset of a line and column; a column past the end of its line counts as the end of the line.
pub(crate) fn offset(text: &str, line: u32, column: u32) -> Option<usize> {
    let (from, to) = lines(text).nth(line.checked_sub(1)? as usize)?;
    let mut left = column.checked_sub(1)?;
    for (at, c) in text[from..to].char_indices() {
        let width = u32::try_from(c.len_utf16()).expect("1 or 2");
        if left < width || is_line_end(c) {
            return Some(from + at);
        }
        left -= width;
    }
    Some(to)
}

/// The start and end of every line; the end includes the line terminator.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let from = next?;
        let mut ends = text[from..].char_indices().skip_while(|&(_, c)| !is_line_end(c));
        let to = ends.next().map(|(at, c)| {
            let crlf = c == '\r' && text[from + at + 1..].starts_with('\n');
            from + at + c.len_utf8() + usize::from(crlf)
        });
        next = to;
        Some((from, to.unwrap_or(text.len())))
    })
}
