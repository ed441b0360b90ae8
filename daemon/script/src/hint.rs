//! Hints for the mistakes that language models make when they write a program as text.

/// The usual cure of a syntax error, where the text around it tells.
pub(crate) fn hint(source: &str, offset: usize, message: &str) -> Option<&'static str> {
    let offset = (0..=offset.min(source.len())).rev().find(|&at| source.is_char_boundary(at))?;
    let line_start = source[..offset].rfind('\n').map_or(0, |at| at + 1);
    let line = source[line_start..].lines().next().unwrap_or_default().trim();
    let rest = &source[offset..];
    let hint = if is_fenced(source) || line.starts_with("```") {
        "remove the Markdown fence (```) around the code"
    } else if is_html(source) {
        "this is HTML: send only the TypeScript or JavaScript"
    } else if is_python(line) {
        "this looks like Python: the code must be TypeScript or JavaScript"
    } else if rest.starts_with(['\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}']) {
        "use straight quotes (' or \") instead of typographic ones"
    } else if message.contains("await` is only allowed") || message.contains("`for await` loops are only") {
        "`await` works at the top level and in functions marked `async`"
    } else if message.starts_with("Unterminated string") {
        if rest.starts_with('`') {
            "close the template literal with a backtick"
        } else {
            "close the string on its line, or use a template literal (backticks) for text of several lines"
        }
    } else if message.ends_with("the program ends") || message == "Unexpected end of input" {
        "the code ends before everything is closed: was it cut off?"
    } else if is_misplaced_decorator(line, rest, message) {
        "only classes and their members can be decorated, and decorators stand before all modifiers"
    } else if message.contains("too costly to check") {
        "use fewer levels of nesting, fewer private names, or smaller parts"
    } else if message.contains("nested too deeply") {
        "split the expression into parts, or read large data from a file or a string"
    } else {
        return None;
    };
    Some(hint)
}

fn is_misplaced_decorator(line: &str, rest: &str, message: &str) -> bool {
    message == "Decorators are not valid here."
        || rest.starts_with('@') && (message.contains("'@'") || message.contains("`@`"))
        || line.starts_with('@') && message.starts_with("Unexpected token")
}

/// A program in a Markdown fence. It can be valid syntax: to JavaScript the fence is a row of template literals.
pub(crate) fn is_fenced(source: &str) -> bool {
    source.trim_start().starts_with("```")
}

pub(crate) fn is_html(source: &str) -> bool {
    let start = source.trim_start().as_bytes();
    [&b"<!doctype"[..], b"<html", b"<head", b"<body", b"<script", b"<!--"]
        .iter()
        .any(|tag| start.get(..tag.len()).is_some_and(|text| text.eq_ignore_ascii_case(tag)))
}

fn is_python(line: &str) -> bool {
    let block = line.ends_with(':');
    let opens = |word: &str| line.starts_with(word);
    (block
        && ["def ", "class ", "if ", "elif ", "else:", "for ", "while ", "try:", "except", "with "]
            .iter()
            .any(|it| opens(it)))
        || (opens("def ") && line.contains("):"))
        || (opens("from ") && line.contains(" import "))
        || (opens("import ") && line.contains(" as ") && !line.contains('*') && !line.contains('{'))
        || opens("# ")
        || opens("print ")
}
