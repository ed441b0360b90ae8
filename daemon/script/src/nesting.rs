//! Refuses programs that nest too deeply, before the parser sees them.
//!
//! The parser recurses as deep as a program nests and would overflow the stack, which ends the whole process. So a scan
//! without recursion first finds an upper bound of the depth: open brackets, and inside each of them the tokens that can
//! nest without a bracket (`!!!x`, `a => b => c`, `if (a) if (b) c`, `a ? b : c ? d : e`), counted since the last place
//! where a statement or list element surely ended.
//!
//! A wrong guess about the text may only make the bound too high. On a line where a slash may begin a regular expression
//! or a division, nothing is skipped, and what brackets close there still counts.

use crate::edits::is_line_end;
use crate::rewrite::skip_blank;

/// The greatest bound that is let through. Each level costs the parser at most about 7 KB of stack in a debug build.
pub(crate) const MOST_LEVELS: usize = 4_000;

/// For each `<` that may begin type arguments the parser reads up to the end of the statement, in vain when it is a
/// comparison, so `a < a < a < ...` takes quadratic time. This many tokens read in vain are about two seconds.
const MOST_READ_IN_VAIN: usize = 2_000_000;

/// The offset at which `source` nests too deeply.
pub(crate) fn too_deep_at(source: &str) -> Option<usize> {
    // Every level takes at least one byte.
    if source.len() <= MOST_LEVELS { None } else { Scan::new(source).run() }
}

/// Words that can be more than a name; sorted.
const KEYWORDS: [&str; 60] = [
    "abstract",
    "accessor",
    "as",
    "assert",
    "asserts",
    "async",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "declare",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "export",
    "extends",
    "finally",
    "for",
    "from",
    "function",
    "get",
    "global",
    "if",
    "implements",
    "import",
    "in",
    "infer",
    "instanceof",
    "interface",
    "is",
    "keyof",
    "let",
    "module",
    "namespace",
    "new",
    "of",
    "out",
    "readonly",
    "return",
    "satisfies",
    "set",
    "static",
    "switch",
    "throw",
    "try",
    "type",
    "typeof",
    "unique",
    "using",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

/// Keywords behind which a slash begins a regular expression; sorted.
const OPERATORS: [&str; 16] = [
    "await",
    "case",
    "default",
    "delete",
    "do",
    "else",
    "extends",
    "in",
    "instanceof",
    "new",
    "return",
    "throw",
    "typeof",
    "var",
    "while",
    "yield",
];

/// Keywords that go on with what stands before them, even on a new line or behind a block; sorted.
const CONTINUING: [&str; 13] = [
    "as",
    "assert",
    "catch",
    "else",
    "extends",
    "finally",
    "implements",
    "in",
    "instanceof",
    "is",
    "of",
    "satisfies",
    "while",
];

/// What the last token means for a slash behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// A regular expression begins.
    Operator,
    /// A division.
    Operand,
    /// Either, for all that can be told without parsing.
    Unknown,
}

/// An open bracket, or the program itself.
#[derive(Debug, Default)]
struct Level {
    /// What closes it; a backtick for the substitution of a template.
    closer: u8,
    /// It is the head of an `if` or a loop: a statement follows it.
    is_head: bool,
    /// Tokens that nest, since the last end of a statement or list element.
    run: usize,
    /// The same for tokens that go on behind a comma.
    kept: usize,
    /// Open angle brackets, if that is what they are.
    angles: usize,
    /// Behind a decorator: a line end or a `}` may come before the class that it belongs to.
    is_decorated: bool,
    /// The same behind a decorator that may hold braces itself, which the parser lets through.
    is_decorated_oddly: bool,
}

impl Level {
    fn count(&self) -> usize {
        self.run + self.kept + self.angles
    }
}

struct Scan<'s> {
    source: &'s str,
    at: usize,
    levels: Vec<Level>,
    /// Everything that the levels count, and what was closed in an uncertain way.
    depth: usize,
    last: Last,
    /// The last token is a name or literal: one more on a new line begins a statement.
    ends_operand: bool,
    /// The last two tokens as far as they are keywords.
    word: &'s str,
    word_before: &'s str,
    /// A label may stand before a colon that comes next.
    is_label: bool,
    /// A statement, and so a label, may begin here.
    begins_statement: bool,
    /// A line ended since the last token.
    new_line: bool,
    /// The last token is a `;` or `}` that may have ended a statement.
    ended_by: u8,
    /// Up to here nothing is skipped.
    uncertain_to: usize,
    read_in_vain: usize,
}

impl<'s> Scan<'s> {
    fn new(source: &'s str) -> Self {
        Self {
            source,
            at: 0,
            levels: vec![Level::default()],
            depth: 0,
            last: Last::Operator,
            ends_operand: false,
            word: "",
            word_before: "",
            is_label: false,
            begins_statement: true,
            new_line: false,
            ended_by: 0,
            uncertain_to: 0,
            read_in_vain: 0,
        }
    }

    fn run(&mut self) -> Option<usize> {
        if self.source.starts_with("#!") {
            self.skip_line();
        }
        while let Some(c) = self.source[self.at..].chars().next() {
            let start = self.at;
            self.at += c.len_utf8();
            match c {
                _ if is_line_end(c) => self.new_line = true,
                _ if c.is_whitespace() || c == '\u{feff}' => {}
                '/' => self.slash(),
                '"' | '\'' if self.is_certain() => self.string(c),
                '`' if self.is_certain() => self.template(),
                '`' => self.uncertain_to = usize::MAX,
                '(' => self.open(b')'),
                '[' => self.open(b']'),
                '{' => self.open(b'}'),
                ')' | ']' | '}' => self.close(c),
                ',' => self.comma(),
                ';' => self.semicolon(),
                _ if is_word(c) => self.word(start),
                _ => self.punctuator(c),
            }
            if self.depth > MOST_LEVELS || self.read_in_vain > MOST_READ_IN_VAIN {
                return Some(start);
            }
        }
        None
    }

    fn is_certain(&self) -> bool {
        self.at > self.uncertain_to
    }

    fn next_byte(&self) -> Option<u8> {
        self.source.as_bytes().get(self.at).copied()
    }

    fn level(&mut self) -> &mut Level {
        self.levels.last_mut().expect("the lowest level is never closed")
    }

    fn count(&mut self, counter: impl FnOnce(&mut Level) -> &mut usize) {
        *counter(self.level()) += 1;
        self.depth += 1;
    }

    /// Forgets what a comma ends.
    fn end_element(&mut self) {
        if self.is_certain() {
            self.depth -= std::mem::take(&mut self.level().run);
        }
    }

    /// Forgets what the end of a statement ends.
    fn end_statement(&mut self) {
        if self.is_certain() {
            let level = self.level();
            let ended = level.count();
            (level.run, level.kept, level.angles) = (0, 0, 0);
            (level.is_decorated, level.is_decorated_oddly) = (false, false);
            self.depth -= ended;
        }
    }

    /// To be called before a token changes anything; `continues` unless it surely begins something new behind a block
    /// or on a new line.
    fn begin(&mut self, continues: bool) {
        let ended_by = std::mem::take(&mut self.ended_by);
        let new_line = std::mem::take(&mut self.new_line) && self.ends_operand;
        let is_decorated = self.level().is_decorated;
        let ended = match ended_by {
            _ if is_decorated && ended_by != b';' => false,
            b';' => !matches!(self.word, "else" | "while"),
            b'}' => !continues,
            _ => new_line && !continues,
        };
        if ended {
            self.end_statement();
        }
    }

    /// To be called when a token that is no word is over.
    fn token(&mut self, last: Last) {
        (self.last, self.ends_operand) = (last, false);
        (self.word_before, self.word) = ("", "");
        (self.is_label, self.begins_statement) = (false, false);
        self.new_line = false;
    }

    fn open(&mut self, closer: u8) {
        let is_head = matches!(self.word, "for" | "if" | "while" | "with") || self.word_before == "for";
        self.word = "";
        self.begin(true);
        self.levels.push(Level { closer, is_head, ..Level::default() });
        self.depth += 1;
        self.token(Last::Operator);
        self.begins_statement = true;
    }

    fn close(&mut self, c: char) {
        self.word = "";
        self.begin(true);
        let closes = |level: &Level| char::from(level.closer) == c || level.closer == b'`' && c == '}';
        let open = self.levels.iter().skip(1).rposition(closes).map(|index| index + 1);
        self.token(Last::Unknown);
        let Some(open) = open.filter(|_| self.uncertain_to != usize::MAX) else { return };
        let is_sure = self.is_certain() && open + 1 == self.levels.len();
        let level = self.levels.drain(open..).next().expect("`open` is an index");
        if is_sure {
            self.depth -= 1 + level.count();
        }
        match c {
            '}' if level.closer == b'`' => self.template(),
            '}' => {
                self.ended_by = b'}';
                self.begins_statement = true;
                let around = self.level();
                around.is_decorated &= around.is_decorated_oddly || around.angles > 0;
            }
            _ if level.is_head => self.begins_statement = true,
            _ => (self.last, self.ends_operand) = (Last::Operand, true),
        }
    }

    fn comma(&mut self) {
        self.begin(true);
        self.end_element();
        self.token(Last::Operator);
    }

    fn semicolon(&mut self) {
        self.begin(true);
        self.token(Last::Operator);
        self.ended_by = b';';
        self.begins_statement = true;
    }

    fn word(&mut self, start: usize) {
        let rest = &self.source[start..];
        self.at = start + rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let is_property = self.source[..start].ends_with(['.', '#']);
        let word = if is_property { "" } else { &self.source[start..self.at] };
        self.word_before = std::mem::replace(&mut self.word, word);
        self.begin(is_property || CONTINUING.binary_search(&word).is_ok());
        let is_keyword = KEYWORDS.binary_search(&word).is_ok();
        match word {
            "class" | "do" | "else" | "for" | "if" | "while" | "with" => self.count(|level| &mut level.kept),
            _ if is_keyword => self.count(|level| &mut level.run),
            _ => {}
        }
        self.ends_operand = !is_keyword;
        self.last = match word {
            "of" | "void" => Last::Unknown,
            _ if OPERATORS.binary_search(&word).is_ok() => Last::Operator,
            _ => Last::Operand,
        };
        self.is_label = std::mem::replace(&mut self.begins_statement, matches!(word, "do" | "else"));
    }

    fn punctuator(&mut self, c: char) {
        self.word = "";
        let is_postfix = self.last == Last::Operand && !self.new_line;
        let is_prefix = self.last != Last::Operand;
        let is_label = self.is_label;
        self.begin(c != '@');
        let mut last = Last::Operator;
        if c == '@' {
            let is_odd = is_odd_decorator(&self.source[skip_blank(self.source, self.at)..]);
            let level = self.level();
            (level.is_decorated, level.is_decorated_oddly) = (true, level.is_decorated_oddly || is_odd);
        }
        match (c, self.next_byte()) {
            ('!', next) if next != Some(b'=') && is_postfix => last = Last::Operand,
            ('+', Some(b'+')) | ('-', Some(b'-')) => {
                self.at += 1;
                self.count(|level| &mut level.run);
                if is_postfix {
                    last = Last::Operand;
                }
            }
            ('=', Some(b'>')) => {
                self.at += 1;
                self.count(|level| &mut level.run);
            }
            ('<', _) => {
                self.level().angles += 1;
                self.depth += 1;
                self.read_in_vain += self.level().angles;
                if is_prefix {
                    // `<T>a` nests although its bracket is closed at once.
                    self.count(|level| &mut level.run);
                }
            }
            ('>', _) => {
                last = Last::Unknown;
                if self.is_certain() && self.level().angles > 0 {
                    self.level().angles -= 1;
                    self.depth -= 1;
                }
            }
            (':', _) if is_label => self.count(|level| &mut level.kept),
            ('=' | '?' | ':' | '.' | '@', _) | ('*', Some(b'*')) => self.count(|level| &mut level.run),
            _ if is_prefix => self.count(|level| &mut level.run),
            _ => {}
        }
        self.token(last);
        self.begins_statement = c == ':';
    }

    fn slash(&mut self) {
        match (self.next_byte(), self.last) {
            (Some(b'*'), _) if !self.is_certain() => self.uncertain_to = usize::MAX,
            _ if !self.is_certain() => {}
            (Some(b'/'), _) => self.skip_line(),
            (Some(b'*'), _) => {
                let text = &self.source[self.at + 1..];
                let end = text.find("*/").map_or(text.len(), |end| end + 2);
                self.new_line |= text[..end].contains(is_line_end);
                self.at += 1 + end;
            }
            (_, Last::Operand) => self.punctuator('/'),
            (_, Last::Operator) => self.regular_expression(),
            (_, Last::Unknown) => {
                let rest = &self.source[self.at..];
                self.uncertain_to = self.at + rest.find(is_line_end).unwrap_or(rest.len());
                self.token(Last::Unknown);
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = &self.source[self.at..];
        self.at += rest.find(is_line_end).unwrap_or(rest.len());
    }

    fn regular_expression(&mut self) {
        self.word = "";
        self.begin(true);
        let mut is_in_class = false;
        let mut chars = self.source[self.at..].char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '\\' => {
                    chars.next();
                }
                '[' => is_in_class = true,
                ']' => is_in_class = false,
                '/' if !is_in_class => {
                    self.at += index + 1;
                    self.token(Last::Operand);
                    return self.ends_operand = true;
                }
                _ if is_line_end(c) => break,
                _ => {}
            }
        }
        self.uncertain_to = usize::MAX;
    }

    /// Skips a string. The parser stops at one that its line does not end.
    fn string(&mut self, quote: char) {
        self.word = "";
        self.begin(false);
        let text = &self.source[self.at..];
        let mut chars = text.char_indices();
        let end = loop {
            match chars.next() {
                Some((index, '\\')) => {
                    let is_crlf = text[index + 1..].starts_with("\r\n");
                    chars.nth(usize::from(is_crlf));
                }
                Some((index, c)) if c == quote => break index + 1,
                Some((_, '\n' | '\r')) | None => break text.len(),
                Some(_) => {}
            }
        };
        self.at += end;
        self.token(Last::Operand);
        self.ends_operand = true;
    }

    /// Skips the text of a template up to its end or to the next `${`.
    fn template(&mut self) {
        self.word = "";
        self.begin(true);
        let text = &self.source[self.at..];
        let mut chars = text.char_indices();
        loop {
            match chars.next() {
                Some((_, '\\')) => {
                    chars.next();
                }
                Some((index, '`')) => {
                    self.at += index + 1;
                    self.token(Last::Operand);
                    return self.ends_operand = true;
                }
                Some((index, '$')) if text[index + 1..].starts_with('{') => {
                    self.at += index + 2;
                    self.open(b'`');
                    return;
                }
                Some(_) => {}
                None => return self.at = self.source.len(),
            }
        }
    }
}

/// True when a decorator that goes on like this is neither a name nor in parentheses.
fn is_odd_decorator(rest: &str) -> bool {
    let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
    !rest.starts_with('(') && word.is_empty() || matches!(word, "async" | "class" | "function" | "new")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '$' | '_' | '\\') || !c.is_ascii()
}
