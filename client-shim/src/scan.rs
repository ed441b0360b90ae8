//! A streaming scanner over one JSON text: checks the grammar and picks a few short values out, in constant memory.
//!
//! In: the bytes of one message, in pieces of any size. Out: a [`Scan`]. It never builds a tree and never holds more of the
//! message than the values it was made to pick, each up to [`MAX_TOKEN_BYTES`], so it can look at a message that is too
//! large to hold. It accepts what RFC 8259 accepts, nested at most [`MAX_DEPTH`] deep; the bytes of strings are not checked
//! to be UTF-8.

mod escape;

use std::ops::Range;

use escape::hex_digit;

pub use escape::unescape;

/// Longest value that is picked, bytes as spelled. Ids and method names are some dozen; a longer one is reported as such.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// Deepest nesting: what the daemon's parser (`serde_json`) accepts.
pub const MAX_DEPTH: usize = 127;

/// A value that is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `id`
    Id,
    /// `method`
    Method,
    /// `params.uri`
    Uri,
    /// `params.requestId`
    RequestId,
    /// `params._meta["io.modelcontextprotocol/subscriptionId"]`
    SubscriptionId,
}

const SLOTS: usize = 5;

/// A picked value as it was spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picked {
    /// A string with its quotes, a number, `true`, `false` or `null`, and where in the message it stands.
    Scalar { raw: Vec<u8>, at: Range<usize> },
    /// Longer than [`MAX_TOKEN_BYTES`].
    Long,
    /// An object or an array.
    Container,
}

/// What kind of value the whole text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    Object,
    Array,
    Scalar,
}

/// What is wrong with the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not JSON: the first byte that cannot stand where it stands, or the end of the text.
    Grammar { at: usize },
    /// Nested deeper than [`MAX_DEPTH`].
    Depth,
    /// Half of a surrogate pair in a string's escapes: JSON, but not text.
    Surrogate,
}

/// The result of scanning one text. Of members that occur twice the last counts, as in `serde_json`.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// `None`: the text is blank.
    pub top: Option<Top>,
    pub fault: Option<Fault>,
    /// The object has a member `result`.
    pub has_result: bool,
    /// The object has a member `error`.
    pub has_error: bool,
    /// A line break stands between tokens.
    pub has_line_break: bool,
    picked: [Option<Picked>; SLOTS],
}

impl Scan {
    pub fn get(&self, slot: Slot) -> Option<&Picked> {
        self.picked[slot as usize].as_ref()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Scanner {
    scan: Scan,
    state: State,
    /// Bytes taken so far.
    offset: usize,
    depth: usize,
    /// Bit n: the container at depth n + 1 is an object.
    objects: u128,
    /// Which object is open at depth 1, 2 and 3; deeper ones are never of interest.
    scopes: [Scope; 3],
    /// Which member's value comes next.
    member: Member,
    /// The key, or the value to be picked, that is being read.
    token: Token,
    /// A high surrogate was escaped; its other half must follow.
    high_surrogate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value must come.
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After `{`.
    KeyOrEnd,
    /// After `,` in an object.
    Key,
    Colon,
    /// After a value: `,`, the end of the container, or at depth 0 nothing.
    After,
    Str(Text),
    Escape(Text),
    Hex(Text, HexDigits),
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Literal(&'static [u8]),
    Failed,
}

/// What a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Key,
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HexDigits {
    left: u8,
    value: u16,
}

/// How far a number has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Message,
    Params,
    Meta,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Picked(Slot),
    Params,
    Meta,
    Result,
    Error,
    Other,
}

/// Bytes of one token, up to [`MAX_TOKEN_BYTES`].
#[derive(Debug, Default)]
struct Token {
    wanted: bool,
    bytes: Vec<u8>,
    long: bool,
    start: usize,
}

impl Token {
    fn begin(&mut self, wanted: bool, start: usize) {
        *self = Self { wanted, start, ..Self::default() };
    }

    fn push(&mut self, bytes: &[u8]) {
        if !self.wanted || self.long {
            return;
        }
        if self.bytes.len() + bytes.len() > MAX_TOKEN_BYTES {
            (self.long, self.bytes) = (true, Vec::new());
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            scan: Scan::default(),
            state: State::Value,
            offset: 0,
            depth: 0,
            objects: 0,
            scopes: [Scope::Other; 3],
            member: Member::Other,
            token: Token::default(),
            high_surrogate: false,
        }
    }
}

impl Scanner {
    /// Takes the next bytes of the text.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            if self.state == State::Failed {
                return;
            }
            let plain = match self.state {
                State::Str(_) => {
                    rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
                }
                _ => 0,
            };
            if plain > 0 {
                self.end_surrogate();
                self.token.push(&rest[..plain]);
                self.advance(&mut rest, plain);
            } else if self.step(byte) {
                self.advance(&mut rest, 1);
            }
        }
    }

    /// The text has ended.
    pub fn finish(mut self) -> Scan {
        if matches!(self.state, State::Number(n) if n.may_end()) {
            self.end_scalar(self.offset);
        }
        let whole = self.state == State::After && self.depth == 0;
        let blank = self.state == State::Value && self.scan.top.is_none();
        if !whole && !blank && self.state != State::Failed {
            self.fail();
        }
        self.scan
    }

    fn advance(&mut self, rest: &mut &[u8], n: usize) {
        *rest = &rest[n..];
        self.offset += n;
    }

    fn fail(&mut self) {
        self.scan.fault = Some(Fault::Grammar { at: self.offset });
        self.state = State::Failed;
    }

    /// Takes one byte; `false`: the byte ended a number and must be taken again.
    fn step(&mut self, byte: u8) -> bool {
        match self.state {
            State::Str(text) => self.in_string(text, byte),
            State::Escape(text) => self.in_escape(text, byte),
            State::Hex(text, digits) => self.in_hex(text, digits, byte),
            State::Literal(rest) => self.in_literal(rest, byte),
            State::Number(number) => return self.in_number(number, byte),
            _ => self.between_tokens(byte),
        }
        true
    }

    fn between_tokens(&mut self, byte: u8) {
        match (self.state, byte) {
            (_, b'\n' | b'\r') => self.scan.has_line_break = true,
            (_, b' ' | b'\t') => {}
            (State::ValueOrEnd, b']') | (State::KeyOrEnd, b'}') => self.close(),
            (State::Value | State::ValueOrEnd, _) => self.begin_value(byte),
            (State::Key | State::KeyOrEnd, b'"') => self.begin_string(Text::Key, true),
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') if self.depth > 0 => {
                self.member = Member::Other;
                self.state = if self.in_object() { State::Key } else { State::Value };
            }
            (State::After, b'}') if self.depth > 0 && self.in_object() => self.close(),
            (State::After, b']') if self.depth > 0 && !self.in_object() => self.close(),
            _ => self.fail(),
        }
    }

    fn begin_value(&mut self, byte: u8) {
        if self.depth == 0 {
            self.scan.top = Some(match byte {
                b'{' => Top::Object,
                b'[' => Top::Array,
                _ => Top::Scalar,
            });
        }
        match self.member {
            Member::Result => self.scan.has_result = true,
            Member::Error => self.scan.has_error = true,
            _ => {}
        }
        let wanted = matches!(self.member, Member::Picked(_));
        let state = match byte {
            b'{' => return self.open(State::KeyOrEnd),
            b'[' => return self.open(State::ValueOrEnd),
            b'"' => return self.begin_string(Text::Value, wanted),
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digits),
            _ => return self.fail(),
        };
        self.state = state;
        self.token.begin(wanted, self.offset);
        self.token.push(&[byte]);
    }

    fn begin_string(&mut self, text: Text, wanted: bool) {
        self.state = State::Str(text);
        self.token.begin(wanted, self.offset);
        self.token.push(b"\"");
    }

    fn in_string(&mut self, text: Text, byte: u8) {
        match byte {
            b'"' => {
                self.end_surrogate();
                self.token.push(b"\"");
                match text {
                    Text::Key => self.end_key(),
                    Text::Value => self.end_scalar(self.offset + 1),
                }
            }
            b'\\' => {
                self.token.push(b"\\");
                self.state = State::Escape(text);
            }
            _ => self.fail(),
        }
    }

    fn in_escape(&mut self, text: Text, byte: u8) {
        self.token.push(&[byte]);
        match byte {
            b'u' => self.state = State::Hex(text, HexDigits { left: 4, value: 0 }),
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.end_surrogate();
                self.state = State::Str(text);
            }
            _ => self.fail(),
        }
    }

    fn in_hex(&mut self, text: Text, digits: HexDigits, byte: u8) {
        let Some(digit) = hex_digit(byte) else { return self.fail() };
        self.token.push(&[byte]);
        let value = digits.value << 4 | digit;
        if digits.left > 1 {
            self.state = State::Hex(text, HexDigits { left: digits.left - 1, value });
            return;
        }
        self.state = State::Str(text);
        match value {
            0xD800..=0xDBFF => {
                self.end_surrogate();
                self.high_surrogate = true;
            }
            0xDC00..=0xDFFF if self.high_surrogate => self.high_surrogate = false,
            0xDC00..=0xDFFF => self.blame_surrogate(),
            _ => self.end_surrogate(),
        }
    }

    /// Something other than a low surrogate follows.
    fn end_surrogate(&mut self) {
        if std::mem::take(&mut self.high_surrogate) {
            self.blame_surrogate();
        }
    }

    /// The scan goes on: the id may still come.
    fn blame_surrogate(&mut self) {
        self.scan.fault.get_or_insert(Fault::Surrogate);
    }

    fn in_literal(&mut self, rest: &'static [u8], byte: u8) {
        let [expected, rest @ ..] = rest else { return self.fail() };
        if byte != *expected {
            return self.fail();
        }
        self.token.push(&[byte]);
        self.state = State::Literal(rest);
        if rest.is_empty() {
            self.end_scalar(self.offset + 1);
        }
    }

    fn in_number(&mut self, number: Number, byte: u8) -> bool {
        match number.next(byte) {
            Some(next) => {
                self.token.push(&[byte]);
                self.state = State::Number(next);
                true
            }
            None if number.may_end() => {
                self.end_scalar(self.offset);
                false
            }
            None => {
                self.fail();
                true
            }
        }
    }

    /// A string, number or literal has ended just before `end`.
    fn end_scalar(&mut self, end: usize) {
        if let Member::Picked(slot) = self.member {
            let token = std::mem::take(&mut self.token);
            self.scan.picked[slot as usize] = Some(match token.long {
                true => Picked::Long,
                false => Picked::Scalar { raw: token.bytes, at: token.start..end },
            });
        }
        self.state = State::After;
    }

    fn end_key(&mut self) {
        let key = if self.token.long { Vec::new() } else { unescape(&self.token.bytes) };
        self.member = match (self.scope(), &key[..]) {
            (Scope::Message, b"id") => Member::Picked(Slot::Id),
            (Scope::Message, b"method") => Member::Picked(Slot::Method),
            (Scope::Message, b"result") => Member::Result,
            (Scope::Message, b"error") => Member::Error,
            (Scope::Message, b"params") => {
                self.forget(&[Slot::Uri, Slot::RequestId, Slot::SubscriptionId]);
                Member::Params
            }
            (Scope::Params, b"uri") => Member::Picked(Slot::Uri),
            (Scope::Params, b"requestId") => Member::Picked(Slot::RequestId),
            (Scope::Params, b"_meta") => {
                self.forget(&[Slot::SubscriptionId]);
                Member::Meta
            }
            (Scope::Meta, b"io.modelcontextprotocol/subscriptionId") => Member::Picked(Slot::SubscriptionId),
            _ => Member::Other,
        };
        self.state = State::Colon;
    }

    fn forget(&mut self, slots: &[Slot]) {
        for &slot in slots {
            self.scan.picked[slot as usize] = None;
        }
    }

    fn open(&mut self, state: State) {
        if self.depth == MAX_DEPTH {
            self.scan.fault = Some(Fault::Depth);
            self.state = State::Failed;
            return;
        }
        if let Member::Picked(slot) = self.member {
            self.scan.picked[slot as usize] = Some(Picked::Container);
        }
        let is_object = state == State::KeyOrEnd;
        let bit = 1 << self.depth;
        self.objects = if is_object { self.objects | bit } else { self.objects & !bit };
        if let Some(scope) = self.scopes.get_mut(self.depth) {
            *scope = match self.member {
                _ if !is_object => Scope::Other,
                Member::Params => Scope::Params,
                Member::Meta => Scope::Meta,
                _ if self.depth == 0 => Scope::Message,
                _ => Scope::Other,
            };
        }
        self.depth += 1;
        self.member = Member::Other;
        self.state = state;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.state = State::After;
    }

    fn in_object(&self) -> bool {
        self.objects >> (self.depth - 1) & 1 == 1
    }

    fn scope(&self) -> Scope {
        self.scopes.get(self.depth - 1).copied().unwrap_or(Scope::Other)
    }
}

impl Number {
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Digits, b'0'..=b'9') => Self::Digits,
            (Self::Zero | Self::Digits, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::ESign,
            (Self::E | Self::ESign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Digits | Self::Fraction | Self::Exponent)
    }
}

#[cfg(test)]
mod tests;
