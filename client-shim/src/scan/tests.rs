use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn scan_in_pieces(bytes: &[u8], piece: usize) -> Scan {
    let mut scanner = Scanner::default();
    bytes.chunks(piece.max(1)).for_each(|piece| scanner.feed(piece));
    scanner.finish()
}

fn picked(scan: &Scan, slot: Slot) -> Option<Value> {
    match scan.get(slot)? {
        Picked::Scalar { raw, .. } => Some(serde_json::from_slice(raw).expect("a picked scalar is JSON")),
        Picked::Long => panic!("no long tokens here"),
        Picked::Container => None,
    }
}

/// What the tree says about the same text.
fn check_against_tree(text: &[u8], scan: &Scan) {
    let Ok(tree) = serde_json::from_slice::<Value>(text) else {
        // Two things are JSON by its grammar, and still no value for the tree.
        let out_of_range = scan.fault.is_none() && text.iter().any(|b| matches!(b, b'e' | b'E'));
        let blank = scan.top.is_none() && text.iter().all(|b| b" \t\r\n".contains(b));
        let not_utf8 = std::str::from_utf8(text).is_err();
        assert!(
            scan.fault.is_some() || out_of_range || blank || not_utf8,
            "{:?}",
            String::from_utf8_lossy(text)
        );
        return;
    };
    assert_eq!(scan.fault, None, "{tree}");
    let scalar = |value: Option<&Value>| value.filter(|v| !v.is_object() && !v.is_array()).cloned();
    let params = tree.get("params");
    let meta = params.and_then(|p| p.get("_meta"));
    assert_eq!(picked(scan, Slot::Id), scalar(tree.get("id")));
    assert_eq!(picked(scan, Slot::Method), scalar(tree.get("method")));
    assert_eq!(picked(scan, Slot::Uri), scalar(params.and_then(|p| p.get("uri"))));
    assert_eq!(picked(scan, Slot::RequestId), scalar(params.and_then(|p| p.get("requestId"))));
    let subscription = meta.and_then(|m| m.get("io.modelcontextprotocol/subscriptionId"));
    assert_eq!(picked(scan, Slot::SubscriptionId), scalar(subscription));
    assert_eq!(scan.has_result, tree.get("result").is_some());
    assert_eq!(scan.has_error, tree.get("error").is_some());
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "id",
            "method",
            "params",
            "result",
            "error",
            "uri",
            "requestId",
            "_meta",
            "io.modelcontextprotocol/subscriptionId",
            "x",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..7)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The tree's text with some characters escaped that need not be, and with white space between tokens.
fn respell(value: &Value, seed: u8) -> String {
    let space = ["", " ", "\t", "\r\n", "  "][usize::from(seed) % 5];
    let string = |text: &str| {
        let spell = |(at, c): (usize, char)| match (at + usize::from(seed)) % 3 {
            0 => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
            _ => {
                let quoted = serde_json::to_string(&c).expect("JSON");
                quoted[1..quoted.len() - 1].to_owned()
            }
        };
        format!("\"{}\"", text.chars().enumerate().map(spell).collect::<String>())
    };
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| respell(item, seed.wrapping_add(1))).collect();
            format!("[{space}{}{space}]", items.join(&format!("{space},")))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| {
                    format!("{}{space}:{space}{}", string(key), respell(value, seed.wrapping_add(1)))
                })
                .collect();
            format!("{{{space}{}{space}}}", members.join(&format!("{space},")))
        }
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn agrees_with_the_tree(value in tree(), seed: u8, piece in 1usize..20) {
        for text in [value.to_string(), format!(" {}\r", value)] {
            check_against_tree(text.as_bytes(), &scan_in_pieces(text.as_bytes(), piece));
        }
        let respelled = respell(&value, seed);
        check_against_tree(respelled.as_bytes(), &scan_in_pieces(respelled.as_bytes(), piece));
    }

    /// Damaged texts: the scanner and the tree agree on what is still JSON.
    #[test]
    fn agrees_on_damage(
        value in tree(), at: prop::sample::Index, junk in "[\\[\\]{}\",:0-9eE.+tfnu \\\\-]{0,3}", drop in 0usize..4,
        piece in 1usize..20,
    ) {
        let text = value.to_string().into_bytes();
        let at = at.index(text.len() + 1);
        let end = (at + drop).min(text.len());
        let damaged = [&text[..at], junk.as_bytes(), &text[end..]].concat();
        check_against_tree(&damaged, &scan_in_pieces(&damaged, piece));
    }

    #[test]
    fn agrees_on_noise(text in "[\\[\\]{}\",:0-9eE.+truefalsn \\\\-]{0,24}", piece in 1usize..9) {
        check_against_tree(text.as_bytes(), &scan_in_pieces(text.as_bytes(), piece));
    }

    /// How the text is cut makes no difference.
    #[test]
    fn any_cut_gives_the_same_scan(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..40) {
        let (whole, cut) = (scan_in_pieces(&bytes, bytes.len()), scan_in_pieces(&bytes, piece));
        prop_assert_eq!((whole.top, whole.fault), (cut.top, cut.fault));
        prop_assert_eq!(whole.picked, cut.picked);
    }
}

#[test]
fn knows_where_a_picked_value_stands() {
    let text = br#" {"x":[{"id":1}], "id" : "a\"b" ,"method":"m","params":{"requestId":-1e2}}"#;
    let scan = scan_in_pieces(text, 3);
    for (slot, spelled) in [(Slot::Id, r#""a\"b""#), (Slot::RequestId, "-1e2"), (Slot::Method, "\"m\"")] {
        let Some(Picked::Scalar { raw, at }) = scan.get(slot) else { panic!("{slot:?} is picked") };
        assert_eq!(raw, spelled.as_bytes());
        assert_eq!(&text[at.clone()], spelled.as_bytes());
    }
}

#[test]
fn the_last_of_two_members_counts() {
    let text = br#"{"id":1,"params":{"uri":"a","_meta":{"io.modelcontextprotocol/subscriptionId":1}},"params":{"_meta":{}},"id":2}"#;
    check_against_tree(text, &scan_in_pieces(text, 7));
}

#[test]
fn nests_as_deep_as_the_daemon_can_read() {
    for (depth, fine) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false), (100_000, false)] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan_in_pieces(text.as_bytes(), 64).fault.is_none(), fine);
        assert_eq!(serde_json::from_str::<Value>(&text).is_ok(), fine);
    }
}

#[test]
fn holds_no_more_than_a_token_of_a_large_text() {
    let mut scanner = Scanner::default();
    scanner.feed(br#"{"method":"m","id":""#);
    for _ in 0..1000 {
        scanner.feed(&[b'x'; 1000]);
        assert!(scanner.token.bytes.capacity() <= 2 * MAX_TOKEN_BYTES);
    }
    scanner.feed(br#"","params":{}}"#);
    let scan = scanner.finish();
    assert_eq!((scan.fault, scan.get(Slot::Id)), (None, Some(&Picked::Long)));
}

#[test]
fn half_surrogates_do_not_hide_the_id() {
    for (string, whole) in [
        (r"\ud83d\ude00", true),
        (r"\ud83d", false),
        (r"\ude00", false),
        (r"\ud83dx", false),
        (r"\ud83d\n", false),
        (r"\ud83d\u0061", false),
        (r"\ud83d\ud83d\ude00", false),
    ] {
        let text = format!(r#"{{"p":"{string}","id":5}}"#);
        let scan = scan_in_pieces(text.as_bytes(), 2);
        assert_eq!(scan.fault, (!whole).then_some(Fault::Surrogate), "{text}");
        assert_eq!(picked(&scan, Slot::Id), Some(5.into()));
        assert_eq!(serde_json::from_str::<Value>(&text).is_ok(), whole, "{text}");
    }
}
