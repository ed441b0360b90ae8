//! Cutting long text down to its beginning and end, and telling what is missing. Pure.
//!
//! The beginning says what kind of text it is, the end is where errors and totals stand, so both are kept.

use serde::Serialize;

/// How much of a text is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Excerpt {
    /// Of the whole text.
    pub total_bytes: usize,
    /// Left out between the beginning and the end.
    pub omitted_bytes: usize,
    /// Left out, counted in whole or partial lines.
    pub omitted_lines: usize,
    /// Where the whole text is, while it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// Cuts `text` to about `limit` bytes: two thirds from its beginning, one third from its end, with a line between them that
/// says what is missing. Prefers to cut at line ends. `None` when the text is short enough.
pub(crate) fn excerpt(text: &str, limit: usize) -> Option<(String, Excerpt)> {
    if text.len() <= limit {
        return None;
    }
    let head = cut_after_line(&text[..text.floor_char_boundary(limit / 3 * 2)]);
    let tail = cut_before_line(&text[text.ceil_char_boundary(text.len() - limit / 3)..]);
    let omitted = &text[head.len()..text.len() - tail.len()];
    let omitted_lines = omitted.matches('\n').count() + usize::from(!omitted.ends_with('\n'));
    let newline = if head.ends_with('\n') { "" } else { "\n" };
    let shown =
        format!("{head}{newline}[… {} bytes in {omitted_lines} lines left out …]\n{tail}", omitted.len());
    let excerpt =
        Excerpt { total_bytes: text.len(), omitted_bytes: omitted.len(), omitted_lines, resource: None };
    Some((shown, excerpt))
}

/// Up to the last line end, unless that would lose more than half.
fn cut_after_line(head: &str) -> &str {
    match head.rfind('\n') {
        Some(end) if end >= head.len() / 2 => &head[..=end],
        _ => head,
    }
}

/// From the first line start on, unless that would lose more than half.
fn cut_before_line(tail: &str) -> &str {
    match tail.find('\n') {
        Some(end) if end < tail.len() / 2 => &tail[end + 1..],
        _ => tail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_is_left_alone() {
        assert_eq!(excerpt("", 0), None);
        assert_eq!(excerpt("abc", 3), None);
    }

    #[test]
    fn keeps_whole_lines_of_both_ends_and_counts_what_is_missing() {
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}\n")).collect();
        let text = lines.concat();
        let (shown, excerpt) = excerpt(&text, 900).expect("is long");
        assert!(shown.starts_with("line 0\n") && shown.ends_with("line 999\n"), "{shown}");
        assert!(shown.len() < 1000);
        let kept = shown.lines().filter(|line| line.starts_with("line ")).count();
        assert_eq!(kept + excerpt.omitted_lines, 1000);
        assert!(shown.contains(&format!(
            "[… {} bytes in {} lines left out …]",
            excerpt.omitted_bytes, excerpt.omitted_lines
        )));
        assert_eq!(excerpt.total_bytes, text.len());
    }

    #[test]
    fn one_endless_line_is_cut_between_characters() {
        let text = "é".repeat(10_000);
        let (shown, excerpt) = excerpt(&text, 100).expect("is long");
        let kept = shown.chars().filter(|c| *c == 'é').count() * 2;
        assert_eq!(kept + excerpt.omitted_bytes, text.len());
        assert!(kept <= 100 && kept > 90);
    }
}
