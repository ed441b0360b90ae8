//! Messages of bounded size from parts of any size.
//!
//! A message that grows too large is dropped while the rest of it passes by; all that is kept is the id of the request that
//! it answers, wherever in the message that stands, so that this request can be told.

use rmcp::model::RequestId;

/// Collects one message after the other.
#[derive(Debug)]
pub(crate) struct Collector {
    max_bytes: usize,
    kept: Vec<u8>,
    passed_by: Option<PassedBy>,
}

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    Whole(Vec<u8>),
    TooLarge { id: Option<RequestId>, bytes: u64 },
}

#[derive(Debug, Default)]
struct PassedBy {
    scanner: IdScanner,
    bytes: u64,
}

/// Finds the top-level member `id` of an object in passing.
#[derive(Debug, Default)]
pub(crate) struct IdScanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The string that was read last at depth 1, or what is being read of it.
    last_string: Vec<u8>,
    /// The scalar behind `"id":`, while and after it is read.
    value: Option<Vec<u8>>,
    reading_value: bool,
}

/// Longest key or id that matters, in bytes; ids are ours, and small numbers.
const MAX_SCALAR_BYTES: usize = 64;

impl Collector {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, kept: Vec::new(), passed_by: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.passed_by.is_none()
    }

    pub(crate) fn push(&mut self, part: &[u8]) {
        if self.passed_by.is_none() && self.kept.len() + part.len() > self.max_bytes {
            let mut passed_by = PassedBy::default();
            passed_by.push(&std::mem::take(&mut self.kept));
            self.passed_by = Some(passed_by);
        }
        match &mut self.passed_by {
            Some(passed_by) => passed_by.push(part),
            None => self.kept.extend_from_slice(part),
        }
    }

    /// The message is complete; the next one begins.
    pub(crate) fn finish(&mut self) -> Collected {
        match self.passed_by.take() {
            Some(passed_by) => Collected::TooLarge { id: passed_by.scanner.id(), bytes: passed_by.bytes },
            None => Collected::Whole(std::mem::take(&mut self.kept)),
        }
    }
}

impl PassedBy {
    fn push(&mut self, part: &[u8]) {
        self.bytes += part.len() as u64;
        self.scanner.push(part);
    }
}

impl IdScanner {
    pub(crate) fn push(&mut self, part: &[u8]) {
        for &byte in part {
            self.step(byte);
        }
    }

    pub(crate) fn id(self) -> Option<RequestId> {
        serde_json::from_slice(&self.value?).ok()
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            self.step_string(byte);
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.depth == 1 {
                    self.last_string.clear();
                    self.keep_value(byte);
                }
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.reading_value = false;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.reading_value = false;
            }
            b':' if self.depth == 1 && self.last_string == b"id" && self.value.is_none() => {
                self.value = Some(Vec::new());
                self.reading_value = true;
            }
            b',' if self.depth == 1 => {
                self.last_string.clear();
                self.reading_value = false;
            }
            _ if self.depth == 1 => self.keep_value(byte),
            _ => {}
        }
    }

    fn step_string(&mut self, byte: u8) {
        let ends = byte == b'"' && !self.escaped;
        self.escaped = byte == b'\\' && !self.escaped;
        self.in_string = !ends;
        if self.depth == 1 {
            self.keep_value(byte);
            if !ends && self.last_string.len() < MAX_SCALAR_BYTES {
                self.last_string.push(byte);
            }
        }
    }

    fn keep_value(&mut self, byte: u8) {
        if self.reading_value
            && let Some(value) = &mut self.value
            && value.len() < MAX_SCALAR_BYTES
        {
            value.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmcp::model::NumberOrString;

    use super::*;

    fn scan(text: &str) -> Option<RequestId> {
        let mut scanner = IdScanner::default();
        text.as_bytes().chunks(3).for_each(|part| scanner.push(part));
        scanner.id()
    }

    #[test]
    fn the_id_is_found_wherever_it_stands() {
        let number = |n| Some(NumberOrString::Number(n));
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"id":9}}"#, number(7)),
            (r#"{"result":{"id":9,"a":[{"id":1}]},"jsonrpc":"2.0","id":7}"#, number(7)),
            (r#"{"result":"\"id\":9","id" : 7 }"#, number(7)),
            (r#"{"result":"id","id":7}"#, number(7)),
            (r#"{"id":"a,\"b","result":0}"#, Some(NumberOrString::String("a,\"b".into()))),
            (r#"{"result":{"id":9}}"#, None),
            (r#"{"method":"id","params":{}}"#, None),
            (r#"[{"id":1}]"#, None),
            (r#"{"id":{"a":1}}"#, None),
            ("", None),
        ] {
            assert_eq!(scan(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut collector = Collector::new(10);
        collector.push(b"0123456789");
        assert_eq!(collector.finish(), Collected::Whole(b"0123456789".to_vec()));
        collector.push(br#"{"id":5,"#);
        for _ in 0..1000 {
            collector.push(b"\"x\": [1, 2, 3], ");
            assert!(collector.kept.len() <= 10);
        }
        let bytes = 8 + 16_000;
        assert_eq!(collector.finish(), Collected::TooLarge { id: Some(NumberOrString::Number(5)), bytes });
        assert!(collector.is_empty());
    }

    proptest! {
        #[test]
        fn the_scanner_agrees_with_a_parser(keys in prop::collection::vec("[a-z\"\\\\{}:,]{0,4}", 0..5), id in 0_u32..1000, at in 0_usize..5) {
            let mut members: Vec<String> = keys
                .iter()
                .filter(|key| *key != "id")
                .map(|key| format!("{}: {}", serde_json::json!(key), serde_json::json!({ "id": 1, "v": key })))
                .collect();
            members.insert(at.min(members.len()), format!("\"id\": {id}"));
            let text = format!("{{{}}}", members.join(", "));
            let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(parsed["id"].as_u64(), Some(u64::from(id)));
            prop_assert_eq!(scan(&text), Some(NumberOrString::Number(i64::from(id))));
        }
    }
}
