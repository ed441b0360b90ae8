//! JSON as editors write it: comments and trailing commas become blanks, so that every position stays what it was.

/// `text` with comments and trailing commas replaced by spaces; line breaks stay.
pub(crate) fn blanked(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut last_comma = None;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = end_of_string(&bytes, at);
                last_comma = None;
                continue;
            }
            b'/' if matches!(bytes.get(at + 1), Some(b'/' | b'*')) => {
                at = blank_comment(&mut bytes, at);
                continue;
            }
            b',' => last_comma = Some(at),
            b'}' | b']' => {
                if let Some(comma) = last_comma.take() {
                    bytes[comma] = b' ';
                }
            }
            byte if byte.is_ascii_whitespace() => {}
            _ => last_comma = None,
        }
        at += 1;
    }
    String::from_utf8(bytes).expect("whole characters were replaced")
}

/// The index behind the string that opens at `open`.
fn end_of_string(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Blanks the comment at `start` and gives the index behind it.
fn blank_comment(bytes: &mut [u8], start: usize) -> usize {
    let rest = &bytes[start..];
    let length = if rest[1] == b'/' {
        rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
    } else {
        rest[2..].windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |end| end + 4)
    };
    for byte in &mut bytes[start..start + length] {
        if !matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    start + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_go_and_positions_stay() {
        let text = "{ // é\n \"a\": [1, 2, /* x\n */], \"b\": \"// no, \\\" }\", }";
        let blank = blanked(text);
        assert_eq!(blank.len(), text.len());
        let value: serde_json::Value = serde_json::from_str(&blank).expect("JSON");
        assert_eq!(value, serde_json::json!({ "a": [1, 2], "b": "// no, \" }" }));
        let position = |text: &str| text.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(position(&blank), position(text));
    }

    #[test]
    fn what_is_cut_off_stays_wrong() {
        for text in ["{\"a", "{\"a\\", "/* x", "{,}", "[,]", "//"] {
            assert_eq!(blanked(text).len(), text.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn plain_json_is_not_touched(text in "[a-z0-9:{}\\[\\]\" \\\\]*") {
            proptest::prop_assert_eq!(blanked(&text), text);
        }
    }
}
