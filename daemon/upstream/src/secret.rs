//! Values that must not be seen, and the filter that keeps them out of texts.
//!
//! A [`Secret`] cannot be printed. A [`Redactor`] knows the values of one server and replaces them, as they are and as
//! base64, hex, percent-encoding or JSON would write them, in anything that leaves: stderr kept for the operator, errors,
//! log lines. It looks for known values only; it never guesses what a secret looks like.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// Values shorter than this are not looked for, in bytes: they would be found everywhere.
const MIN_BYTES: usize = 4;

/// Words in a variable's name that say its value is a secret.
const NAME_SIGNS: [&str; 9] =
    ["TOKEN", "KEY", "SECRET", "PASS", "PWD", "AUTH", "CREDENTIAL", "COOKIE", "DSN"];

/// What RFC 3986 asks to be percent-encoded; some encoders do so with more.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value that only the connection may see.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(String);

/// Replaces known secrets in texts. Clones share what they know.
#[derive(Clone, Default)]
pub struct Redactor(Option<Arc<AhoCorasick>>);

/// What the redactors of this process look for, as long as they are in use: one for each configuration and login.
static LIVE: RwLock<Vec<Weak<AhoCorasick>>> = RwLock::new(Vec::new());

/// `text` without any secret that a [`Redactor`] of this process knows: for logs and last words, which do not know whose
/// texts they are given.
pub fn redact_known(text: &str) -> Cow<'_, str> {
    let live = LIVE.read().unwrap_or_else(PoisonError::into_inner);
    let mut text = Cow::Borrowed(text);
    for automaton in live.iter().filter_map(Weak::upgrade) {
        if automaton.is_match(&*text) {
            text = Cow::Owned(Redactor(Some(automaton)).redact(&text));
        }
    }
    text
}

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself: for the connection, and for nothing that is shown or written.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Redactor {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut patterns = BTreeSet::new();
        for secret in secrets {
            let value = secret.expose().trim();
            forms(value, &mut patterns);
            if let Some((_, token)) = value.split_once(' ') {
                // `Bearer TOKEN`: the token alone counts too.
                forms(token, &mut patterns);
            }
        }
        if patterns.is_empty() {
            return Self(None);
        }
        // The kind that is built in linear time and space, whatever the values are.
        let kind = Some(AhoCorasickKind::ContiguousNFA);
        let built = AhoCorasick::builder().kind(kind).match_kind(MatchKind::LeftmostLongest).build(patterns);
        let automaton = Arc::new(built.expect("a configuration's values fit into one automaton"));
        let mut live = LIVE.write().unwrap_or_else(PoisonError::into_inner);
        live.retain(|known| known.strong_count() > 0);
        live.push(Arc::downgrade(&automaton));
        Self(Some(automaton))
    }

    pub fn redact(&self, text: &str) -> String {
        let Some(automaton) = &self.0 else { return text.to_owned() };
        let mut out = String::with_capacity(text.len());
        automaton.replace_all_with(text, &mut out, |_, _, out| {
            out.push_str(REDACTED);
            true
        });
        out
    }
}

impl Redactor {
    /// Replaces secrets in all strings of `value`.
    pub fn redact_value(&self, value: &mut Value) {
        match value {
            Value::String(text) if self.finds(text) => *text = self.redact(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_value(item)),
            Value::Object(members) => members.values_mut().for_each(|member| self.redact_value(member)),
            _ => {}
        }
    }

    /// Whether there is anything to replace in `text`.
    pub(crate) fn finds(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|automaton| automaton.is_match(text))
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_forms = self.0.as_ref().map_or(0, |automaton| automaton.patterns_len());
        write!(f, "Redactor({n_forms} forms)")
    }
}

/// Whether an environment variable's value is to be kept secret: its name says so, or the value looks like a token (16
/// characters or more, letters and digits, neither a path nor a URL).
pub fn is_secret_variable(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let named = NAME_SIGNS.iter().any(|sign| name.contains(sign));
    let token = value.len() >= 16
        && !value.contains(['/', '\\', ' '])
        && value.bytes().any(|b| b.is_ascii_digit())
        && value.bytes().any(|b| b.is_ascii_alphabetic());
    named || token
}

/// Every way in which `value` may turn up in a text.
fn forms(value: &str, into: &mut BTreeSet<String>) {
    let value = value.trim();
    if value.len() < MIN_BYTES {
        return;
    }
    into.insert(value.to_owned());
    for line in value.lines().map(str::trim).filter(|line| line.len() >= 2 * MIN_BYTES) {
        into.insert(line.to_owned());
    }
    into.insert(utf8_percent_encode(value, NON_ALPHANUMERIC).to_string());
    into.insert(utf8_percent_encode(value, RESERVED).to_string());
    let hex = value.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes everything");
        hex
    });
    into.insert(hex.to_ascii_uppercase());
    into.insert(hex);
    if let Ok(json) = serde_json::to_string(value) {
        into.insert(json[1..json.len() - 1].to_owned());
    }
    for offset in 0..3 {
        let mut bytes = vec![0_u8; offset];
        bytes.extend_from_slice(value.as_bytes());
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            into.extend(stable_part(&encoded, offset, bytes.len()));
        }
    }
}

/// The characters of a base64 text that do not depend on what stands around the value in the encoded bytes.
fn stable_part(encoded: &str, offset: usize, n_bytes: usize) -> Option<String> {
    let start = (offset * 8).div_ceil(6);
    let end = n_bytes * 8 / 6;
    (end >= start + 2 * MIN_BYTES).then(|| encoded[start..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secret: &str, text: &str, expected: &str) {
        assert_eq!(Redactor::new([&Secret::new(secret)]).redact(text), expected);
    }

    #[test]
    fn every_spelling_of_a_secret_is_replaced() {
        let secret = "p@ss/w\"rd-é-1234567890";
        check(secret, &format!("a {secret} b"), "a [redacted] b");
        check(secret, "x=p%40ss%2Fw%22rd%2D%C3%A9%2D1234567890&", "x=[redacted]&");
        check("h\u{e9}x-key", "68c3a9782d6b6579 68C3A9782D6B6579", "[redacted] [redacted]");
        check(secret, "x=p%40ss%2Fw%22rd-%C3%A9-1234567890&", "x=[redacted]&");
        check(secret, &format!("{}", serde_json::json!({ "k": secret })), r#"{"k":"[redacted]"}"#);
    }

    #[test]
    fn base64_is_found_wherever_the_secret_lies_in_the_encoded_bytes() {
        let secret = "correct-horse-battery";
        for around in ["", "u", "us", "user:", "user1:"] {
            for engine in
                [&base64::engine::general_purpose::STANDARD, &base64::engine::general_purpose::URL_SAFE]
            {
                let text = engine.encode(format!("{around}{secret}{around}"));
                let redacted = Redactor::new([&Secret::new(secret)]).redact(&text);
                assert!(redacted.contains(REDACTED), "{around:?} {text} {redacted}");
                assert!(redacted.len() <= text.len() - 16 + REDACTED.len(), "{redacted}");
            }
        }
    }

    #[test]
    fn the_token_of_a_header_counts_alone() {
        check("Bearer abcdef123", "got abcdef123", "got [redacted]");
    }

    #[test]
    fn a_large_value_of_many_words_is_known_at_once() {
        let value = "word ".repeat(10_000);
        let redactor = Redactor::new([&Secret::new(&value)]);
        assert_eq!(redactor.redact(&format!("<{}>", value.trim())), "<[redacted]>");
        let patterns = redactor.0.expect("there are some").patterns_len();
        assert!(patterns < 30, "{patterns} forms");
    }

    #[test]
    fn texts_of_nobody_are_cleared_of_what_anybody_keeps_secret() {
        let (one, two) = (Secret::new("s3cret-of-one-server"), Secret::new("s3cret-of-another"));
        let text = "s3cret-of-another and s3cret-of-one-server";
        let _first = Redactor::new([&one]);
        let second = Redactor::new([&two]).clone();
        assert_eq!(redact_known(text), "[redacted] and [redacted]");
        drop(second);
        assert_eq!(redact_known(text), "s3cret-of-another and [redacted]");
    }

    #[test]
    fn short_values_are_left_alone_and_nothing_can_be_printed() {
        check("abc", "abc", "abc");
        assert_eq!(format!("{:?}", Secret::new("hunter22")), REDACTED);
        let redactor = format!("{:?}", Redactor::new([&Secret::new("hunter22")]));
        assert!(!redactor.contains("hunter22"));
    }

    #[test]
    fn secrets_are_known_by_name_or_by_look() {
        for (name, value, expected) in [
            ("GITHUB_TOKEN", "x", true),
            ("api_key", "", true),
            ("MODE", "production", false),
            ("X", "ghp_0123456789abcdef", true),
            ("MEMORY_FILE_PATH", "/home/me/notes-2026-01-01.json", false),
        ] {
            assert_eq!(is_secret_variable(name, value), expected, "{name}={value}");
        }
    }
}
