//! Text that servers wrote, made fit for where it goes.

/// A line or block comment's content cannot end the comment, hide characters, or reorder what a reader sees.
pub(crate) fn comment_safe(text: &str) -> String {
    let visible = text.chars().filter(|&c| c == '\n' || c == '\t' || !is_hidden(c));
    visible.collect::<String>().replace("*/", "*\\/")
}

/// One line: runs of white space become one blank.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `max_chars` characters, the last of them `…` if some were cut.
pub(crate) fn clipped(text: &str, max_chars: usize) -> String {
    if text.chars().nth(max_chars).is_none() {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    cut
}

/// Controls, and the marks that change the direction of text or show nothing at all.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_cannot_be_left() {
        assert_eq!(comment_safe("a */ b **/ c"), "a *\\/ b **\\/ c");
        assert_eq!(comment_safe("a *\u{200b}/ b"), "a *\\/ b");
        assert_eq!(comment_safe("x\u{202e}y\u{7}z\r\n"), "xyz\n");
    }

    #[test]
    fn cuts_are_marked_and_whole_characters() {
        assert_eq!(clipped("äöü", 3), "äöü");
        assert_eq!(clipped("äöüß", 3), "äö…");
        assert_eq!(clipped("a b c", 3), "a…");
        assert_eq!(one_line(" a\n\t b "), "a b");
    }
}
