//! Edits of a source text, and where every piece of the result came from.
//!
//! The rewrite never prints a syntax tree: it cuts and inserts text, so whatever it does not touch stays as the user
//! wrote it, byte for byte. Erased text becomes spaces, which keeps lines and columns; the [`PositionMap`] covers the rest.

/// Where an insertion stands among others at the same offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    /// Goes before everything: the head of the program.
    Head,
    /// Ends something that stands before the offset.
    Closing,
    /// Begins a statement at the offset; goes before what begins an expression there.
    Statement,
    /// Begins an expression at the offset, or replaces the text that follows.
    Opening,
}

#[derive(Debug)]
struct Edit {
    start: u32,
    end: u32,
    side: Side,
    text: String,
    /// The source offset to which every character of `text` maps; `None` when it is no part of the program.
    origin: Option<u32>,
}

/// A set of edits of one source text. Replaced ranges never overlap.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    edits: Vec<Edit>,
}

impl Edits {
    fn push(&mut self, start: u32, end: u32, side: Side, text: String, origin: u32) {
        self.edits.push(Edit { start, end, side, text, origin: Some(origin) });
    }

    /// Puts `text` where something begins: after everything that ends at `at`.
    pub(crate) fn open(&mut self, at: u32, text: impl Into<String>) {
        self.push(at, at, Side::Opening, text.into(), at);
    }

    /// Puts `text` before the statement that begins at `at`.
    pub(crate) fn open_statement(&mut self, at: u32, text: impl Into<String>) {
        self.push(at, at, Side::Statement, text.into(), at);
    }

    /// Puts `text` where something ends; what is pushed first stands first.
    pub(crate) fn close(&mut self, at: u32, text: impl Into<String>) {
        self.push(at, at, Side::Closing, text.into(), at);
    }

    /// Adds `text` to the head of the program, mapped to `origin`.
    pub(crate) fn head(&mut self, text: impl Into<String>, origin: u32) {
        self.push(0, 0, Side::Head, text.into(), origin);
    }

    /// Adds `text` that maps to no place to the head of the program.
    pub(crate) fn head_apart(&mut self, text: String) {
        self.edits.push(Edit { start: 0, end: 0, side: Side::Head, text, origin: None });
    }

    /// Puts `text` behind the brace that opens a class at `at`, mapped to `origin`.
    pub(crate) fn open_body(&mut self, at: u32, text: String, origin: u32) {
        self.push(at, at, Side::Statement, text, origin);
    }

    pub(crate) fn replace(&mut self, start: u32, end: u32, text: impl Into<String>) {
        debug_assert!(start < end, "an empty range is not replaced");
        self.push(start, end, Side::Opening, text.into(), start);
    }

    /// True when an insertion or replacement at exactly `at` begins with a parenthesis.
    pub(crate) fn opens_parenthesis_at(&self, at: u32) -> bool {
        self.edits
            .iter()
            .rev()
            .take_while(|edit| edit.start >= at)
            .any(|edit| edit.start == at && edit.side == Side::Opening && edit.text.starts_with('('))
    }

    /// Makes the new text. `rebase` turns an offset of the edited source into one of the user's source.
    pub(crate) fn apply(mut self, source: &str, rebase: impl Fn(u32) -> u32) -> (String, PositionMap) {
        self.edits.sort_by_key(|edit| (edit.start, edit.side));
        let mut code = String::with_capacity(source.len() + 256);
        let mut map = PositionMap::default();
        let mut done = 0;
        for edit in &self.edits {
            debug_assert!(edit.start >= done, "edits overlap: {edit:?} after {done}");
            map.push(&code, rebase(done), Kind::Copied);
            code.push_str(&source[done as usize..edit.start as usize]);
            let (origin, kind) = edit.origin.map_or((0, Kind::Apart), |origin| (rebase(origin), Kind::Made));
            map.push(&code, origin, kind);
            code.push_str(&edit.text);
            done = edit.end;
        }
        map.push(&code, rebase(done), Kind::Copied);
        code.push_str(&source[done as usize..]);
        (code, map)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Copied,
    Made,
    /// Comes from no place of the source.
    Apart,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    code: u32,
    source: u32,
    kind: Kind,
}

/// Which source offset each offset of the made code comes from, if any.
#[derive(Clone, Debug, Default)]
pub(crate) struct PositionMap {
    segments: Vec<Segment>,
}

impl PositionMap {
    fn push(&mut self, code: &str, source: u32, kind: Kind) {
        let code = u32::try_from(code.len()).expect("the parser refuses sources near 4 GiB");
        // An empty piece gives way to the one that begins where it does.
        if self.segments.last().is_some_and(|last| last.code == code) {
            self.segments.pop();
        }
        self.segments.push(Segment { code, source, kind });
    }

    pub(crate) fn source_offset(&self, code: u32) -> Option<u32> {
        let after = self.segments.partition_point(|segment| segment.code <= code);
        let Some(segment) = after.checked_sub(1).and_then(|index| self.segments.get(index)) else {
            return Some(0);
        };
        match segment.kind {
            Kind::Copied => Some(segment.source + (code - segment.code)),
            Kind::Made => Some(segment.source),
            Kind::Apart => None,
        }
    }
}

/// As many spaces as `text` has characters, with its line ends kept.
pub(crate) fn blank(text: &str) -> String {
    text.chars().map(|c| if is_line_end(c) { c } else { ' ' }).collect()
}

/// What JavaScript calls a line terminator.
pub(crate) fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}
