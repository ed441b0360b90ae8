//! Edits of JSON and JSON with comments, as replacements of byte ranges found by `jsonc-parser`.
//!
//! Its concrete syntax tree is not used for writing: it drops blank lines around what it inserts and comments beside what
//! it removes. Positions from its parser leave all bytes of others as they are.

use std::ops::Range;

use jsonc_parser::ast::{self, Object, ObjectProp};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, ParseResult, parse_to_ast};
use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::document::{DocumentError, Format, Syntax, is_secret, line_break, position, splice};

type Change = (Range<usize>, String);

pub(super) fn servers(format: Format, text: &str) -> Result<Vec<(String, Value)>, DocumentError> {
    let tree = Tree::parse(format.syntax, text)?;
    let Some(servers) = tree.servers(format)? else { return Ok(Vec::new()) };
    let mut found = Vec::with_capacity(servers.properties.len());
    for property in &servers.properties {
        tree.unique(servers, property.name.as_str())?;
        found.push((property.name.as_str().to_owned(), property.value.clone().into()));
    }
    Ok(found)
}

pub(super) fn has(format: Format, text: &str, key: &str) -> bool {
    Tree::parse(format.syntax, text)
        .is_ok_and(|tree| tree.root().is_ok_and(|root| root.is_some_and(|root| root.get(key).is_some())))
}

/// Adds a server behind the others; makes what is missing above it.
pub(super) fn insert(format: Format, text: &str, name: &str, entry: &Value) -> Result<String, DocumentError> {
    let tree = Tree::parse(format.syntax, text)?;
    let changes = match (tree.servers(format)?, tree.root()?) {
        (Some(servers), _) => tree.append(servers, name, entry),
        (None, Some(root)) => {
            let container = serde_json::json!({ name: entry });
            tree.append(root, format.container, &container)
        }
        (None, None) => {
            let document = serde_json::json!({ format.container: { name: entry } });
            vec![tree.first_value(&document)]
        }
    };
    Ok(splice(text, changes))
}

/// Sets one member of a server that is there.
pub(super) fn set_member(
    format: Format,
    text: &str,
    name: &str,
    key: &str,
    value: &Value,
) -> Result<String, DocumentError> {
    let tree = Tree::parse(format.syntax, text)?;
    let servers = tree.servers(format)?;
    let Some(property) = servers.and_then(|servers| servers.get(name)) else { return Ok(text.to_owned()) };
    let entry = tree.object(&property.value, name)?;
    tree.unique(entry, key)?;
    let changes = match entry.get(key) {
        Some(member) => {
            let style = tree.style(entry);
            vec![(range(&member.value), tree.written(value, &style))]
        }
        None => tree.append(entry, key, value),
    };
    Ok(splice(text, changes))
}

/// Takes a server out, with its comma and its line.
pub(super) fn remove(format: Format, text: &str, name: &str) -> Result<String, DocumentError> {
    let tree = Tree::parse(format.syntax, text)?;
    let Some(servers) = tree.servers(format)? else { return Ok(text.to_owned()) };
    let Some(index) = servers.properties.iter().position(|property| property.name.as_str() == name) else {
        return Ok(text.to_owned());
    };
    Ok(splice(text, tree.cut(servers, index)))
}

/// Where texts stand that should not be shown.
pub(super) fn secrets(format: Format, text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if let Ok(tree) = Tree::parse(format.syntax, text)
        && let Some(value) = &tree.parsed.value
    {
        collect_secrets(value, &mut Vec::new(), &mut found);
    }
    found
}

fn collect_secrets<'a>(value: &'a ast::Value<'_>, path: &mut Vec<&'a str>, found: &mut Vec<Range<usize>>) {
    match value {
        ast::Value::Object(object) => {
            for property in &object.properties {
                let key = property.name.as_str();
                match &property.value {
                    ast::Value::StringLit(text) if is_secret(path, key) && !text.value.starts_with("${") => {
                        found.push(range(&property.value));
                    }
                    value => {
                        path.push(key);
                        collect_secrets(value, path, found);
                        path.pop();
                    }
                }
            }
        }
        ast::Value::Array(array) => {
            array.elements.iter().for_each(|value| collect_secrets(value, path, found))
        }
        _ => {}
    }
}

/// How what is added is laid out.
#[derive(Debug)]
enum Style {
    /// Members have lines of their own, indented by `indent`; deeper levels by `unit` more.
    Lines { indent: String, unit: String },
    /// Everything is on one line.
    Compact,
}

/// A document that was read whole.
struct Tree<'a> {
    text: &'a str,
    parsed: ParseResult<'a>,
}

impl<'a> Tree<'a> {
    fn parse(syntax: Syntax, text: &'a str) -> Result<Self, DocumentError> {
        let collect = CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
        let relaxed = syntax == Syntax::Jsonc;
        let options = ParseOptions {
            allow_comments: relaxed,
            allow_trailing_commas: relaxed,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        };
        let parsed = parse_to_ast(text, &collect, &options).map_err(|error| DocumentError::Syntax {
            line: error.line_display(),
            column: error.column_display(),
            message: error.kind().to_string(),
        })?;
        let tree = Self { text, parsed };
        // The parser lets comments before the first value pass whatever its options say.
        if let Some(comment) = tree.tokens(0..text.len()).find(|token| !relaxed && is_comment(token)) {
            let (line, column) = position(text, comment.range.start);
            return Err(DocumentError::Syntax { line, column, message: "Comments are not allowed".into() });
        }
        Ok(tree)
    }

    /// The object that the document is; `None` for a document without any value.
    fn root(&self) -> Result<Option<&Object<'a>>, DocumentError> {
        self.parsed.value.as_ref().map(|value| self.object(value, "the document")).transpose()
    }

    /// The object that holds the servers.
    fn servers(&self, format: Format) -> Result<Option<&Object<'a>>, DocumentError> {
        let Some(root) = self.root()? else { return Ok(None) };
        self.unique(root, format.container)?;
        root.get(format.container).map(|property| self.object(&property.value, format.container)).transpose()
    }

    fn object<'t>(&self, value: &'t ast::Value<'a>, what: &str) -> Result<&'t Object<'a>, DocumentError> {
        let found = match value {
            ast::Value::Object(object) => return Ok(object),
            ast::Value::Array(_) => "a list",
            ast::Value::StringLit(_) => "a text",
            ast::Value::NumberLit(_) => "a number",
            ast::Value::BooleanLit(_) => "true or false",
            ast::Value::NullKeyword(_) => "null",
        };
        let (line, column) = position(self.text, value.start());
        Err(DocumentError::NotObject { line, column, what: what.to_owned(), found })
    }

    fn unique(&self, object: &Object<'a>, key: &str) -> Result<(), DocumentError> {
        match object.properties.iter().filter(|property| property.name.as_str() == key).nth(1) {
            None => Ok(()),
            Some(second) => {
                let (line, column) = position(self.text, second.start());
                Err(DocumentError::Twice { line, column, key: key.to_owned() })
            }
        }
    }

    /// Commas and comments between two places.
    fn tokens(&self, between: Range<usize>) -> impl Iterator<Item = &TokenAndRange<'a>> {
        let tokens = self.parsed.tokens.as_deref().unwrap_or_default();
        let first = tokens.partition_point(|token| token.range.start < between.start);
        tokens[first..].iter().take_while(move |token| token.range.end <= between.end)
    }

    fn comma(&self, between: Range<usize>) -> Option<Range<usize>> {
        let comma = self.tokens(between).find(|token| token.token == Token::Comma)?;
        Some(comma.range.start..comma.range.end)
    }

    /// The end of the comments that follow `from` on its line, or `from`.
    fn behind_comments(&self, from: usize, limit: usize) -> usize {
        let mut end = from;
        for token in self.tokens(from..limit) {
            if !is_comment(token) || self.text[end..token.range.start].contains('\n') {
                break;
            }
            end = token.range.end;
        }
        // What a parser counts to a line comment may end with the line's own carriage return.
        from + self.text[from..end].trim_end_matches('\r').len()
    }

    /// Adds a member behind the others.
    fn append(&self, object: &Object<'a>, key: &str, value: &Value) -> Vec<Change> {
        let style = self.style(object);
        let (open, close) = (object.start() + 1, object.end() - 1);
        let member = self.member(key, value, &style);
        let Some(last) = object.properties.last() else {
            let inside = self.text[open..close].trim_end();
            return vec![self.only_member(open + inside.len()..close, member, &style)];
        };
        let separated = match &style {
            Style::Lines { indent, .. } => [line_break(self.text), indent, &member].concat(),
            Style::Compact if self.text[range(last)].contains(": ") => format!(" {member}"),
            Style::Compact => member,
        };
        match self.comma(last.end()..close) {
            Some(comma) => {
                let at = self.behind_comments(comma.end, close);
                vec![(at..at, format!("{separated},"))]
            }
            None => {
                let at = self.behind_comments(last.end(), close);
                if at == last.end() {
                    return vec![(at..at, format!(",{separated}"))];
                }
                vec![(last.end()..last.end(), ",".into()), (at..at, separated)]
            }
        }
    }

    /// The change that puts the only member of an object into `rest`, the white space before its end.
    fn only_member(&self, rest: Range<usize>, member: String, style: &Style) -> Change {
        let Style::Lines { indent, unit } = style else { return (rest, member) };
        let eol = line_break(self.text);
        let kept = &self.text[rest.clone()];
        if kept.contains('\n') {
            return (rest.start..rest.start, [eol, indent, &member].concat());
        }
        let outer = indent.strip_suffix(unit.as_str()).unwrap_or_default();
        (rest, [eol, indent, &member, eol, outer].concat())
    }

    /// The change that writes a value into a document that has none, behind its comments.
    fn first_value(&self, value: &Value) -> Change {
        let eol = line_break(self.text);
        let style = Style::Lines { indent: String::new(), unit: "  ".into() };
        let written = self.written(value, &style);
        let before = self.text.trim_end();
        let gap = if before.is_empty() { "" } else { eol };
        (before.len()..self.text.len(), [gap, &written, eol].concat())
    }

    /// What has to go so that a member is gone.
    fn cut(&self, object: &Object<'a>, index: usize) -> Vec<Change> {
        let member = &object.properties[index];
        let previous = index.checked_sub(1).map(|index| &object.properties[index]);
        let (open, close) = (object.start() + 1, object.end() - 1);
        let next = object.properties.get(index + 1).map(ObjectProp::start);
        let own_comma = self.comma(member.end()..next.unwrap_or(close));
        let end = own_comma.as_ref().map_or(member.end(), |comma| comma.end);
        let span = self.whole_line(member.start()..end, next.is_none());
        let inside_is_blank =
            self.text[open..span.start].trim().is_empty() && self.text[span.end..close].trim().is_empty();
        if object.properties.len() == 1 && inside_is_blank {
            return vec![(open..close, String::new())];
        }
        let mut changes = vec![(span.clone(), String::new())];
        if own_comma.is_none()
            && let Some(comma) = previous.and_then(|previous| self.comma(previous.end()..member.start()))
            && comma.end <= span.start
        {
            changes.push((comma, String::new()));
        }
        changes
    }

    /// `member` and what only serves to set it apart: its line break and indentation, or the blanks beside it.
    fn whole_line(&self, member: Range<usize>, is_last: bool) -> Range<usize> {
        let (before, after) = (&self.text[..member.start], &self.text[member.end..]);
        let rest_of_line = after.split('\n').next().unwrap_or_default().trim();
        let begins_line = before.trim_end_matches([' ', '\t']).ends_with('\n');
        let ends_line = rest_of_line.is_empty() || (is_last && rest_of_line.starts_with(['}', ']']));
        if begins_line && ends_line {
            let line_start = before.trim_end_matches([' ', '\t']).len();
            let above = &before[..line_start - 1];
            let above = above.strip_suffix('\r').unwrap_or(above).len();
            // A line comment must not swallow what follows.
            let keeps_break = !rest_of_line.is_empty() && self.is_line_comment_end(above);
            return if keeps_break { line_start..member.end } else { above..member.end };
        }
        if is_last && !begins_line {
            return before.trim_end_matches([' ', '\t']).len()..member.end;
        }
        let blanks = after.len() - after.trim_start_matches([' ', '\t']).len();
        member.start..member.end + blanks
    }

    fn is_line_comment_end(&self, at: usize) -> bool {
        let is_it = |token: &TokenAndRange<'_>| {
            let end = self.text[..token.range.end].trim_end_matches('\r').len();
            matches!(token.token, Token::CommentLine(_)) && end == at
        };
        self.parsed.tokens.iter().flatten().any(is_it)
    }

    fn style(&self, object: &Object<'a>) -> Style {
        let inside = &self.text[range(object)];
        let root = self.parsed.value.as_ref().map(|value| &self.text[range(value)]).unwrap_or_default();
        let has_members = !root.trim_matches(['{', '}', ' ']).is_empty();
        if has_members && (!root.contains('\n') || (!inside.contains('\n') && !object.properties.is_empty()))
        {
            return Style::Compact;
        }
        let unit = self.indent_unit();
        let lined = object.properties.iter().rev().find_map(|member| self.own_indent(member.start()));
        let indent = lined.unwrap_or_else(|| {
            let line = self.text[..object.start()].rfind('\n').map_or(0, |at| at + 1);
            let outer = self.text[line..].chars().take_while(|c| matches!(c, ' ' | '\t')).collect::<String>();
            outer + &unit
        });
        Style::Lines { indent, unit }
    }

    /// The first member's indentation, beyond that of the document.
    fn indent_unit(&self) -> String {
        let root = self.parsed.value.as_ref().and_then(ast::Value::as_object);
        let first = root.and_then(|root| {
            Some((self.own_indent(root.start()).unwrap_or_default(), root.properties.first()?))
        });
        let unit = first.and_then(|(outer, first)| {
            let inner = self.own_indent(first.start())?;
            inner.strip_prefix(outer.as_str()).map(str::to_owned)
        });
        unit.filter(|unit| !unit.is_empty()).unwrap_or_else(|| "  ".into())
    }

    /// The blanks before `at` if there is nothing else before it on its line.
    fn own_indent(&self, at: usize) -> Option<String> {
        let line = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let before = &self.text[line..at];
        before.trim_matches([' ', '\t']).is_empty().then(|| before.to_owned())
    }

    fn member(&self, key: &str, value: &Value, style: &Style) -> String {
        let key = Value::from(key);
        let spaced = matches!(style, Style::Lines { .. }) || self.text.contains("\": ");
        format!("{key}{}{}", if spaced { ": " } else { ":" }, self.written(value, style))
    }

    fn written(&self, value: &Value, style: &Style) -> String {
        let Style::Lines { indent, unit } = style else { return value.to_string() };
        let mut bytes = Vec::new();
        let formatter = PrettyFormatter::with_indent(unit.as_bytes());
        value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter)).expect("a vector takes all");
        let text = String::from_utf8(bytes).expect("JSON is UTF-8");
        text.replace('\n', &[line_break(self.text), indent].concat())
    }
}

fn is_comment(token: &TokenAndRange<'_>) -> bool {
    matches!(token.token, Token::CommentLine(_) | Token::CommentBlock(_))
}

fn range(node: &impl jsonc_parser::common::Ranged) -> Range<usize> {
    node.start()..node.end()
}
