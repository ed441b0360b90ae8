//! The escapes of JSON strings.

pub(super) fn hex_digit(byte: u8) -> Option<u16> {
    char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok())
}

/// The text of a string token (with its quotes), escapes resolved. Half surrogates become U+FFFD; a token that is no
/// string comes back as it is.
pub fn unescape(token: &[u8]) -> Vec<u8> {
    let Some(mut rest) = token.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")) else {
        return token.to_vec();
    };
    let mut text = Vec::with_capacity(rest.len());
    while let [byte, after @ ..] = rest {
        rest = after;
        let (b'\\', [escape, after @ ..]) = (*byte, after) else {
            text.push(*byte);
            continue;
        };
        rest = after;
        match escape {
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                let (char, after) = unescape_unicode(rest);
                text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            other => text.push(*other),
        }
    }
    text
}

/// The character at the start of four hex digits, or of a surrogate pair `hhhh\uhhhh`, and what follows it.
fn unescape_unicode(digits: &[u8]) -> (char, &[u8]) {
    let unit = |digits: &[u8]| {
        let digits = digits.first_chunk::<4>()?;
        digits.iter().try_fold(0u32, |value, &d| Some(value << 4 | u32::from(hex_digit(d)?)))
    };
    let rest = digits.get(4..).unwrap_or_default();
    match unit(digits) {
        Some(high @ 0xD800..=0xDBFF) => match rest.strip_prefix(b"\\u").and_then(unit) {
            Some(low @ 0xDC00..=0xDFFF) => {
                let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), &rest[6..])
            }
            _ => (char::REPLACEMENT_CHARACTER, rest),
        },
        Some(unit) => (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), rest),
        None => (char::REPLACEMENT_CHARACTER, rest),
    }
}
