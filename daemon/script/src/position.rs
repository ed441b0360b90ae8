//! Lines and columns as V8 counts them: both from 1, columns in UTF-16 code units, lines ended by LF, CR, CRLF, U+2028
//! and U+2029.

use crate::edits::is_line_end;

/// The line and column of a byte offset; an offset past the end counts as the end.
pub(crate) fn line_column(text: &str, offset: usize) -> (u32, u32) {
    let offset = floor_char(text, offset);
    let (mut line, mut start) = (1, 0);
    for (from, to) in lines(text) {
        if from > offset {
            break;
        }
        (line, start) = (line + u32::from(from > 0), from);
        if offset < to {
            break;
        }
    }
    (line, 1 + utf16_len(&text[start..offset]))
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

fn utf16_len(text: &str) -> u32 {
    u32::try_from(text.encode_utf16().count()).unwrap_or(u32::MAX)
}

fn floor_char(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}
