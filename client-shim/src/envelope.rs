//! What the shim knows of a JSON-RPC message: its kind, its id, its method, and three short values some methods need.
//!
//! In: a [`Scan`]. Out: an [`Envelope`], or a [`Refusal`] that already is the answer to a message that cannot be served.

use std::ops::Range;

use crate::scan::{Fault, MAX_DEPTH, MAX_TOKEN_BYTES, Picked, Scan, Slot, Top, unescape};

/// JSON-RPC: the text is not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON-RPC: the message is not one that can be served.
pub const INVALID_REQUEST: i32 = -32600;
/// Ours: the request may have run, its answer is lost.
pub const LOST: i32 = -32001;
/// Ours: the daemon cannot be reached; the request did not run.
pub const UNREACHABLE: i32 = -32000;

/// A request id, equal to another spelling of the same id.
#[derive(Clone, Debug)]
pub struct Id {
    /// As it was spelled.
    raw: Box<[u8]>,
    canonical: Box<[u8]>,
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Id {}

impl Id {
    /// The id spelled `raw`: a JSON string, a number that a double holds, or `null`. Anything else is `None`: the daemon could
    /// not answer to it.
    pub fn new(raw: &[u8]) -> Option<Self> {
        let canonical = match raw.first()? {
            b'"' => [b"\"", &unescape(raw)[..]].concat(),
            b'-' | b'0'..=b'9' if is_finite(raw) => canonical_number(raw),
            b'n' => raw.to_vec(),
            _ => return None,
        };
        Some(Self { raw: raw.into(), canonical: canonical.into() })
    }

    /// An id of the shim's own, for a plain `text`.
    pub fn of_text(text: &str) -> Self {
        Self::new(&quote(text)).expect("a quoted string is an id")
    }

    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}

fn is_finite(number: &[u8]) -> bool {
    str::from_utf8(number).is_ok_and(|text| text.parse::<f64>().is_ok_and(f64::is_finite))
}

/// `1`, `1.0` and `1e0` are one number, as they are for the daemon (rmcp), and so are `1.50` and `1.5`, as which the daemon
/// spells it when it refuses such an id.
fn canonical_number(raw: &[u8]) -> Vec<u8> {
    // Beyond 2^53 a double no longer says which integer was meant.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let text = String::from_utf8_lossy(raw);
    if let Ok(integer) = text.parse::<i64>() {
        return integer.to_string().into_bytes();
    }
    if let Ok(integer) = text.parse::<u64>() {
        return integer.to_string().into_bytes();
    }
    match text.parse::<f64>() {
        Ok(number) if number.fract() == 0.0 && number.abs() < EXACT => {
            // Adding zero turns -0 into 0.
            format!("{:.0}", number + 0.0).into_bytes()
        }
        Ok(number) => format!("{number:e}").into_bytes(),
        Err(_) => raw.to_vec(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Notification,
    /// A result or an error.
    Response,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub kind: Kind,
    /// Absent in notifications.
    pub id: Option<Id>,
    /// Empty in responses.
    pub method: String,
    /// A response that is an error.
    pub is_error: bool,
    /// `params.uri`
    pub uri: Option<String>,
    /// `params.requestId`
    pub request_id: Option<Id>,
    /// `params._meta["io.modelcontextprotocol/subscriptionId"]`
    pub subscription_id: Option<Id>,
    /// The text has line breaks between its tokens.
    pub has_line_break: bool,
    id_at: Range<usize>,
    request_id_at: Range<usize>,
}

/// A message that is not forwarded: the JSON-RPC error that answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As spelled; `null` when it could not be read.
    pub id: Vec<u8>,
    pub code: i32,
    pub text: String,
}

impl Refusal {
    fn new(id: Option<&Id>, code: i32, text: impl Into<String>) -> Self {
        let id = id.map_or(&b"null"[..], Id::raw).to_vec();
        Self { id, code, text: text.into() }
    }

    /// The answer, without a line break.
    pub fn answer(&self) -> Vec<u8> {
        error_answer(&self.id, self.code, &self.text)
    }
}

impl Envelope {
    /// # Errors
    /// The answer to a message that is not JSON-RPC as MCP uses it. The scan must not be of a blank text.
    pub fn new(scan: &Scan) -> Result<Self, Refusal> {
        let (id, id_at) = id_in(scan, Slot::Id);
        let refuse = |code, text: String| Err(Refusal::new(id.as_ref(), code, text));
        match scan.fault {
            Some(Fault::Grammar { at }) => {
                return Err(Refusal::new(
                    None,
                    PARSE_ERROR,
                    format!("the message is not JSON (at byte {at})"),
                ));
            }
            Some(Fault::Depth) => {
                return refuse(
                    INVALID_REQUEST,
                    format!("the message is nested deeper than {MAX_DEPTH} levels"),
                );
            }
            Some(Fault::Surrogate) => {
                let text = "a string of the message holds half of a surrogate pair (\\ud800 to \\udfff), which is not text";
                return refuse(INVALID_REQUEST, text.to_owned());
            }
            None => {}
        }
        match scan.top {
            Some(Top::Array) => return refuse(INVALID_REQUEST, "batches are not supported".to_owned()),
            Some(Top::Object) => {}
            _ => return refuse(INVALID_REQUEST, "the message is not an object".to_owned()),
        }
        match scan.get(Slot::Id) {
            Some(Picked::Long) => {
                return refuse(INVALID_REQUEST, format!("the id is longer than {MAX_TOKEN_BYTES} bytes"));
            }
            Some(_) if id.is_none() => {
                return refuse(INVALID_REQUEST, "the id is not a string or a number".to_owned());
            }
            _ => {}
        }
        let Some((kind, method)) = kind_of(scan, id.is_some()) else {
            return refuse(INVALID_REQUEST, "the message is no request, notification or response".to_owned());
        };
        let (request_id, request_id_at) = id_in(scan, Slot::RequestId);
        Ok(Self {
            kind,
            method,
            is_error: scan.has_error,
            uri: text_in(scan, Slot::Uri),
            request_id,
            subscription_id: id_in(scan, Slot::SubscriptionId).0,
            has_line_break: scan.has_line_break,
            id,
            id_at,
            request_id_at,
        })
    }

    /// The answer to a message of `len` bytes when `limit` are allowed, whatever else is wrong with it.
    pub fn refuse_length(scan: &Scan, len: usize, limit: usize) -> Refusal {
        let id = Some(id_in(scan, Slot::Id).0).flatten().filter(|_| scan.fault.is_none());
        let text = format!(
            "the message is {len} bytes long, the limit is {limit} bytes\nhint: pass large data through a file"
        );
        Refusal::new(id.as_ref(), INVALID_REQUEST, text)
    }

    /// `json`, the text of this envelope, with another id.
    pub fn with_id(&self, json: &[u8], id: &Id) -> Vec<u8> {
        splice(json, &self.id_at, id.raw())
    }

    /// `json`, the text of this envelope, with another `params.requestId`.
    pub fn with_request_id(&self, json: &[u8], id: &Id) -> Vec<u8> {
        splice(json, &self.request_id_at, id.raw())
    }
}

fn splice(json: &[u8], at: &Range<usize>, new: &[u8]) -> Vec<u8> {
    [&json[..at.start], new, &json[at.end..]].concat()
}

fn id_in(scan: &Scan, slot: Slot) -> (Option<Id>, Range<usize>) {
    match scan.get(slot) {
        Some(Picked::Scalar { raw, at }) => (Id::new(raw), at.clone()),
        _ => (None, 0..0),
    }
}

fn text_in(scan: &Scan, slot: Slot) -> Option<String> {
    match scan.get(slot) {
        Some(Picked::Scalar { raw, .. }) if raw.starts_with(b"\"") => String::from_utf8(unescape(raw)).ok(),
        _ => None,
    }
}

fn kind_of(scan: &Scan, has_id: bool) -> Option<(Kind, String)> {
    let kind = if has_id { Kind::Request } else { Kind::Notification };
    match scan.get(Slot::Method) {
        // No method of MCP is that long: the daemon says so.
        Some(Picked::Long) => Some((kind, String::new())),
        Some(_) => text_in(scan, Slot::Method).map(|method| (kind, method)),
        None if has_id && (scan.has_result || scan.has_error) => Some((Kind::Response, String::new())),
        None => None,
    }
}

/// A JSON-RPC error, without a line break. `id` is JSON.
pub fn error_answer(id: &[u8], code: i32, text: &str) -> Vec<u8> {
    let head = [&b"{\"jsonrpc\":\"2.0\",\"id\":"[..], id, b",\"error\":{\"code\":"].concat();
    [&head[..], code.to_string().as_bytes(), b",\"message\":", &quote(text), b"}}"].concat()
}

/// `notifications/cancelled` for the request `id`.
pub fn cancelled(id: &Id, reason: &str) -> Vec<u8> {
    let head = &b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":"[..];
    [head, id.raw(), b",\"reason\":", &quote(reason), b"}}"].concat()
}

/// `text` as a JSON string.
fn quote(text: &str) -> Vec<u8> {
    let mut json = Vec::with_capacity(text.len() + 2);
    json.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => json.extend([b'\\', byte]),
            b'\n' => json.extend(b"\\n"),
            0..0x20 => json.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => json.push(byte),
        }
    }
    json.push(b'"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Scanner;
    use proptest::prelude::*;

    fn scan(json: &str) -> Scan {
        let mut scanner = Scanner::default();
        scanner.feed(json.as_bytes());
        scanner.finish()
    }

    fn refusal(json: &str) -> (String, i32, String) {
        let refusal = Envelope::new(&scan(json)).expect_err(json);
        let id = String::from_utf8(refusal.id).expect("UTF-8");
        (id, refusal.code, refusal.text)
    }

    #[test]
    fn tells_requests_notifications_and_responses_apart() {
        for (json, kind, id, method) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Kind::Request, Some("1"), "ping"),
            (r#"{"id":null,"method":"p"}"#, Kind::Request, Some("null"), "p"),
            (
                r#"{"method":"notifications/initialized"}"#,
                Kind::Notification,
                None,
                "notifications/initialized",
            ),
            (r#"{"id":"a","result":{"method":1,"id":2}}"#, Kind::Response, Some("\"a\""), ""),
            (r#" { "\u0069d" : -1.5e3 , "error" : null } "#, Kind::Response, Some("-1.5e3"), ""),
            (r#"{"params":{"id":7,"method":"x"},"method":"m","id":8}"#, Kind::Request, Some("8"), "m"),
        ] {
            let envelope = Envelope::new(&scan(json)).expect(json);
            assert_eq!((envelope.kind, envelope.method.as_str()), (kind, method), "{json}");
            assert_eq!(envelope.id.as_ref().map(|id| id.raw()), id.map(str::as_bytes), "{json}");
        }
    }

    #[test]
    fn refuses_with_the_id_when_there_is_one() {
        assert_eq!(
            refusal(r#"{"id":1"#),
            ("null".into(), -32700, "the message is not JSON (at byte 7)".into())
        );
        for (json, id, words) in [
            ("[1]", "null", "batches are not supported"),
            ("7", "null", "not an object"),
            (r#"{"id":{},"method":"a"}"#, "null", "id is not"),
            (r#"{"id":true,"method":"a"}"#, "null", "id is not"),
            (r#"{"id":1e400,"method":"a"}"#, "null", "id is not"),
            (r#"{"id":3}"#, "3", "no request"),
            (r#"{"id":4,"method":5}"#, "4", "no request"),
            (r#"{"result":4}"#, "null", "no request"),
            (r#"{"method":"a","params":"\ud83d","id":"x"}"#, "\"x\"", "surrogate"),
        ] {
            let (refused_id, code, text) = refusal(json);
            assert_eq!((refused_id.as_str(), code), (id, -32600), "{json}");
            assert!(text.contains(words), "{json}: {text}");
        }
    }

    #[test]
    fn ids_are_equal_in_any_spelling() {
        let id = |raw: &str| Id::new(raw.as_bytes()).expect(raw);
        for (one, other) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("0", "-0"),
            ("0", "-0.0"),
            ("1e40", "1.0e+40"),
            ("0.50", "0.5"),
            (r#""a""#, r#""\u0061""#),
        ] {
            assert_eq!(id(one), id(other));
        }
        for (one, other) in
            [("1", "\"1\""), ("1", "2"), ("\"\"", "null"), ("9007199254740993", "9007199254740992")]
        {
            assert_ne!(id(one), id(other));
        }
        assert_eq!(id("12345678901234567890"), id("12345678901234567890"));
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_json_for_the_same_text(text in any::<String>()) {
            let quoted = quote(&text);
            prop_assert_eq!(serde_json::from_slice::<String>(&quoted).expect("JSON"), text.clone());
            prop_assert_eq!(unescape(&quoted), text.into_bytes());
        }

        #[test]
        fn another_id_changes_nothing_else(id in any::<String>(), params in any::<Option<String>>()) {
            let json = serde_json::json!({"a": [1, "id"], "id": id, "method": "m", "params": {"requestId": params}});
            let text = json.to_string();
            let envelope = Envelope::new(&scan(&text)).expect("a request");
            let replaced = envelope.with_id(text.as_bytes(), &Id::of_text("new"));
            let mut expected = json.clone();
            expected["id"] = "new".into();
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&replaced).expect("JSON"), expected);
            if params.is_some() {
                let replaced = envelope.with_request_id(text.as_bytes(), &Id::of_text("new"));
                let mut expected = json.clone();
                expected["params"]["requestId"] = "new".into();
                prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&replaced).expect("JSON"), expected);
            }
        }
    }
}
