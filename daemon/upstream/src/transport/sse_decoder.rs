//! Server-sent events from parts of any size (WHATWG HTML, 9.2.6), with a bound on what one event may hold.

use rmcp::model::RequestId;

use crate::transport::bounded::{Collected, Collector};

/// Longest field other than `data`, in bytes: names of events, ids of events.
const MAX_FIELD_BYTES: usize = 4096;

/// One event; one without data is still an event here, because its id and its retry time count.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: Option<String>,
    pub data: Option<String>,
    pub id: Option<String>,
    pub retry: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    Event(Event),
    /// An event whose data was too large, with the id of the request that it answers.
    TooLarge {
        id: Option<RequestId>,
        bytes: u64,
    },
}

/// The state between two parts.
#[derive(Debug)]
pub struct Decoder {
    /// The field's name while it is read; then its value goes where it belongs.
    field: Vec<u8>,
    position: Position,
    small: Vec<u8>,
    data: Collector,
    has_data: bool,
    event: Event,
    after_cr: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Name,
    /// Behind the colon, where one space may stand.
    Space,
    Value,
}

impl Decoder {
    /// Data of more than `max_bytes` in one event is refused.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            field: Vec::new(),
            position: Position::Name,
            small: Vec::new(),
            data: Collector::new(max_bytes),
            has_data: false,
            event: Event::default(),
            after_cr: false,
        }
    }

    pub fn push(&mut self, mut part: &[u8], out: &mut impl Extend<Decoded>) {
        while let Some(&byte) = part.first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                part = &part[1..];
                continue;
            }
            if self.position == Position::Value && self.field == b"data" {
                let end = part.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(part.len());
                if end > 0 {
                    self.data.push(&part[..end]);
                    part = &part[end..];
                    continue;
                }
            }
            part = &part[1..];
            match byte {
                b'\r' | b'\n' => {
                    self.after_cr = byte == b'\r';
                    out.extend(self.end_line());
                }
                b':' if self.position == Position::Name => self.begin_value(),
                b' ' if self.position == Position::Space => self.position = Position::Value,
                _ => self.push_byte(byte),
            }
        }
    }

    fn begin_value(&mut self) {
        self.position = Position::Space;
        if self.field == b"data" {
            self.begin_data();
        }
    }

    fn begin_data(&mut self) {
        if self.has_data {
            self.data.push(b"\n");
        }
        self.has_data = true;
    }

    fn push_byte(&mut self, byte: u8) {
        match self.position {
            Position::Name if self.field.len() < MAX_FIELD_BYTES => self.field.push(byte),
            Position::Name => {}
            Position::Space | Position::Value => {
                self.position = Position::Value;
                if self.field == b"data" {
                    self.data.push(&[byte]);
                } else if self.small.len() < MAX_FIELD_BYTES && !self.field.is_empty() {
                    self.small.push(byte);
                }
            }
        }
    }

    fn end_line(&mut self) -> Option<Decoded> {
        let field = std::mem::take(&mut self.field);
        let position = std::mem::replace(&mut self.position, Position::Name);
        let value = String::from_utf8_lossy(&std::mem::take(&mut self.small)).into_owned();
        match field.as_slice() {
            b"" if position == Position::Name => return self.end_event(),
            b"data" if position == Position::Name => self.begin_data(),
            b"event" => self.event.name = Some(value),
            b"id" if !value.contains('\0') => self.event.id = Some(value),
            b"retry" => self.event.retry = value.parse().ok(),
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Decoded> {
        let mut event = std::mem::take(&mut self.event);
        if std::mem::take(&mut self.has_data) {
            match self.data.finish() {
                Collected::TooLarge { id, bytes } => return Some(Decoded::TooLarge { id, bytes }),
                Collected::Whole(data) => event.data = Some(String::from_utf8_lossy(&data).into_owned()),
            }
        }
        (event != Event::default()).then_some(Decoded::Event(event))
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::NumberOrString;

    use super::*;

    fn decode(text: &str, chunk: usize) -> Vec<Decoded> {
        let mut decoder = Decoder::new(100);
        let mut out = Vec::new();
        text.as_bytes().chunks(chunk).for_each(|part| decoder.push(part, &mut out));
        out
    }

    fn check(text: &str, expected: &[Event]) {
        for chunk in [1, 2, 3, 1000] {
            let expected: Vec<_> = expected.iter().cloned().map(Decoded::Event).collect();
            assert_eq!(decode(text, chunk), expected, "{text:?} in parts of {chunk}");
        }
    }

    fn data(data: &str) -> Event {
        Event { data: Some(data.to_owned()), ..Event::default() }
    }

    #[test]
    fn events_come_out_however_they_are_cut_and_ended() {
        for end in ["\n", "\r", "\r\n"] {
            let text = [
                ": hello",
                "event: endpoint",
                "data: /x?y=1",
                "id: 7",
                "retry: 30",
                "",
                "data:a",
                "data",
                "data:  b",
                "",
                "",
            ]
            .join(end);
            let first = Event {
                name: Some("endpoint".into()),
                id: Some("7".into()),
                retry: Some(30),
                ..data("/x?y=1")
            };
            check(&text, &[first, data("a\n\n b")]);
        }
        check("id: 1\n\n", &[Event { id: Some("1".into()), ..Event::default() }]);
        check(": ping\n\n: ping\n\n", &[]);
        check("data: not ended", &[]);
        check("data: ä: b\nunknown: x\n\n", &[data("ä: b")]);
    }

    #[test]
    fn an_event_that_is_too_large_names_its_request_and_the_next_one_is_read() {
        let large = "x".repeat(1000);
        let text = format!("data: {{\"result\":\"{large}\",\"id\":3}}\n\ndata: ok\n\n");
        let decoded = decode(&text, 64);
        assert_eq!(decoded.len(), 2);
        assert!(
            matches!(&decoded[0], Decoded::TooLarge { id: Some(NumberOrString::Number(3)), bytes } if *bytes > 1000)
        );
        assert_eq!(decoded[1], Decoded::Event(data("ok")));
    }
}
