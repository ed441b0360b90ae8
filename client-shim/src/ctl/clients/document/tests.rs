use proptest::prelude::*;
use serde_json::json;

use super::*;

const JSON: Format = Format { syntax: Syntax::Json, container: "mcpServers" };
const JSONC: Format = Format { syntax: Syntax::Jsonc, container: "mcpServers" };
const TOML: Format = Format { syntax: Syntax::Toml, container: "mcp_servers" };

fn read(format: Format, text: &str) -> Document {
    Document::parse(format, text.as_bytes()).expect("it can be read")
}

fn refused(format: Format, text: &str) -> DocumentError {
    Document::parse(format, text.as_bytes()).expect_err("it cannot be read")
}

fn text(document: &Document) -> String {
    String::from_utf8(document.bytes()).expect("UTF-8")
}

fn entry() -> Value {
    json!({ "command": "/s" })
}

/// Adds `us` to `before`, expects `after`, and `before` again once it is removed.
fn there_and_back(format: Format, before: &str, after: &str) {
    let added = read(format, before).with("us", &entry()).expect("is added");
    assert_eq!(text(&added), after);
    assert_eq!(text(&added.without("us").expect("is removed")), before);
}

#[test]
fn an_entry_goes_behind_the_others_and_away_again() {
    let lines = "{\n    \"mcpServers\": {\n        \"a\": {}\n    }\n}\n";
    let added = "{\n    \"mcpServers\": {\n        \"a\": {},\n        \"us\": {\n            \"command\": \"/s\"\n        }\n    }\n}\n";
    there_and_back(JSON, lines, added);
    there_and_back(JSON, &lines.replace("    ", "\t"), &added.replace("    ", "\t"));
    there_and_back(JSON, &lines.replace('\n', "\r\n"), &added.replace('\n', "\r\n"));
    let bom = |text: &str| format!("\u{feff}{text}");
    there_and_back(JSON, &bom(lines), &bom(added));
}

#[test]
fn a_document_on_one_line_stays_on_one_line() {
    there_and_back(
        JSON,
        r#"{"x":1,"mcpServers":{"a":{}}}"#,
        r#"{"x":1,"mcpServers":{"a":{},"us":{"command":"/s"}}}"#,
    );
    there_and_back(
        JSON,
        r#"{ "mcpServers": { "a": {} } }"#,
        r#"{ "mcpServers": { "a": {}, "us": {"command":"/s"} } }"#,
    );
    there_and_back(JSON, r#"{"mcpServers":{}}"#, r#"{"mcpServers":{"us":{"command":"/s"}}}"#);
}

#[test]
fn comments_blank_lines_and_trailing_commas_stay_where_they_are() {
    there_and_back(
        JSONC,
        "// top\n{\n  \"mcpServers\": {\n\n    // about a\n    \"a\": {}, // beside a\n\n    // at the end\n  },\n  \"z\": [1, 2,],\n}\n// end",
        "// top\n{\n  \"mcpServers\": {\n\n    // about a\n    \"a\": {}, // beside a\n    \"us\": {\n      \"command\": \"/s\"\n    },\n\n    // at the end\n  },\n  \"z\": [1, 2,],\n}\n// end",
    );
    there_and_back(
        JSONC,
        "{\n  \"mcpServers\": {\n    \"a\": {} /* x */ // beside a\n  }\n}\n",
        "{\n  \"mcpServers\": {\n    \"a\": {}, /* x */ // beside a\n    \"us\": {\n      \"command\": \"/s\"\n    }\n  }\n}\n",
    );
    there_and_back(
        JSONC,
        "{\n  \"mcpServers\": {\n    // none yet\n  }\n}",
        "{\n  \"mcpServers\": {\n    // none yet\n    \"us\": {\n      \"command\": \"/s\"\n    }\n  }\n}",
    );
    there_and_back(
        JSONC,
        "{\r\n  \"mcpServers\": {\r\n    \"a\": {} // beside a\r\n  }\r\n}",
        "{\r\n  \"mcpServers\": {\r\n    \"a\": {}, // beside a\r\n    \"us\": {\r\n      \"command\": \"/s\"\r\n    }\r\n  }\r\n}",
    );
}

#[test]
fn what_is_missing_above_an_entry_is_made() {
    let fresh = "{\n  \"mcpServers\": {\n    \"us\": {\n      \"command\": \"/s\"\n    }\n  }\n}\n";
    for (before, after) in [
        ("", fresh.to_owned()),
        ("\n", fresh.to_owned()),
        ("{}", fresh.trim_end().to_owned()),
        ("{ }\n", fresh.to_owned()),
        ("// mine\n", format!("// mine\n{fresh}")),
        ("{\n   \"a\": 1\n}", "{\n   \"a\": 1,\n   \"mcpServers\": {\n      \"us\": {\n         \"command\": \"/s\"\n      }\n   }\n}".to_owned()),
        ("{\n \"mcpServers\": {}\n}", "{\n \"mcpServers\": {\n  \"us\": {\n   \"command\": \"/s\"\n  }\n }\n}".to_owned()),
    ] {
        let document = read(JSONC, before);
        assert_eq!(document.servers(), []);
        let added = document.with("us", &entry()).expect("is added");
        assert_eq!(text(&added), after, "{before:?}");
        assert_eq!(added.without("us").expect("is removed").servers(), []);
    }
}

#[test]
fn only_the_entry_goes_wherever_it_stands() {
    for (before, after) in [
        // First, with others.
        ("{\"mcpServers\": {\n  \"us\": {\n  },\n  \"a\": {}\n}}", "{\"mcpServers\": {\n  \"a\": {}\n}}"),
        // Between others, with a comment of the user's.
        (
            "{\"mcpServers\": {\n  \"a\": {},\n  // ours\n  \"us\": {},\n\n  \"b\": {}\n}}",
            "{\"mcpServers\": {\n  \"a\": {},\n  // ours\n\n  \"b\": {}\n}}",
        ),
        // Last, the comma before it on a line with a comment.
        (
            "{\"mcpServers\": {\n  \"a\": {}, // a\n  \"us\": {}\n}}",
            "{\"mcpServers\": {\n  \"a\": {} // a\n}}",
        ),
        // With a comment beside it, which is not ours.
        (
            "{\"mcpServers\": {\n  \"a\": {},\n  \"us\": {} // note\n}}",
            "{\"mcpServers\": {\n  \"a\": {}\n  // note\n}}",
        ),
        // On one line, at each place.
        ("{\"mcpServers\": {\"us\": {}, \"a\": {}}}", "{\"mcpServers\": {\"a\": {}}}"),
        ("{\"mcpServers\": {\"a\": {}, \"us\": {}, \"b\": {}}}", "{\"mcpServers\": {\"a\": {}, \"b\": {}}}"),
        ("{\"mcpServers\": { \"a\": {}, \"us\": {} }}", "{\"mcpServers\": { \"a\": {} }}"),
        ("{\"mcpServers\": { \"us\": {} }}", "{\"mcpServers\": {}}"),
        // Commas at the start of lines.
        ("{\"mcpServers\": {\n  \"a\": {}\n, \"us\": {}\n}}", "{\"mcpServers\": {\n  \"a\": {}\n\n}}"),
        // The container is left, and comments in it.
        ("{\"mcpServers\": {\n  /* x */\n  \"us\": {},\n}}", "{\"mcpServers\": {\n  /* x */\n}}"),
    ] {
        assert_eq!(text(&read(JSONC, before).without("us").expect("is removed")), after, "{before}");
    }
    let without = read(JSON, "{\"a\":1}");
    assert_eq!(without.without("us").expect("is not there"), without);
}

#[test]
fn a_member_is_set_in_its_place() {
    let document =
        read(JSONC, "{\"mcpServers\": {\n  \"us\": { \"command\": \"/old\", /* mine */ \"env\": {} }\n}}");
    let edited = document.with_member("us", "command", &json!("/new")).expect("is set");
    assert_eq!(
        text(&edited),
        "{\"mcpServers\": {\n  \"us\": { \"command\": \"/new\", /* mine */ \"env\": {} }\n}}"
    );
    let edited = document.with_member("us", "args", &json!(["a"])).expect("is set");
    assert_eq!(edited.server("us").expect("is there")["args"], json!(["a"]));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let syntax =
        |line, column, message: &str| DocumentError::Syntax { line, column, message: message.into() };
    for (given, expected) in [
        ("{\n  \"a\": 1\n  \"b\": 2\n}", syntax(2, 9, "Expected comma")),
        ("{\n  \"a\": ", syntax(2, 8, "Expected value after colon in object property")),
        ("{} {}", syntax(1, 4, "Text cannot contain more than one JSON value")),
        ("// c\n{}", syntax(1, 1, "Comments are not allowed")),
        ("{\"a\": 1,}", syntax(1, 8, "Trailing commas are not allowed")),
        ("{'a': 1}", syntax(1, 2, "Single-quoted strings are not allowed")),
        ("{a: 1}", syntax(1, 2, "Expected string for object property")),
    ] {
        assert_eq!(refused(JSON, given), expected, "{given}");
    }
    let not_object =
        |line, column, what: &str, found| DocumentError::NotObject { line, column, what: what.into(), found };
    assert_eq!(refused(JSON, "null"), not_object(1, 1, "the document", "null"));
    assert_eq!(refused(JSON, "\n[]"), not_object(2, 1, "the document", "a list"));
    assert_eq!(refused(JSONC, "{\n \"mcpServers\": null}"), not_object(2, 16, "mcpServers", "null"));
    let twice = |line, column, key: &str| DocumentError::Twice { line, column, key: key.into() };
    assert_eq!(refused(JSON, "{\"mcpServers\":{},\"mcpServers\":{}}"), twice(1, 18, "mcpServers"));
    assert_eq!(refused(JSON, "{\"mcpServers\":{\"a\":{},\n\"a\":{}}}"), twice(2, 1, "a"));
    assert_eq!(Document::parse(JSON, b"{\"\xff\"}"), Err(DocumentError::NotText { at: 2 }));
    let deep = "[".repeat(100_000);
    assert!(matches!(refused(JSON, &deep), DocumentError::Syntax { .. }));
    // What does not concern us may be odd.
    assert!(read(JSON, "{\"x\":1,\"x\":2}").servers().is_empty());
}

#[test]
fn toml_gets_a_table_at_its_end_and_loses_it_again() {
    let after = "\n[mcp_servers.us]\ncommand = \"/s\"\n";
    for before in [
        "model = \"x\" # mine\n",
        "[mcp_servers.a]\ncommand = 'a' # c\n\n[mcp_servers.a.env]\nK = 'v'\n\n# end\n",
        "[mcp_servers]\na = { command = 'a' }\n",
        "mcp_servers.a.command = 'x'\n",
        "[[profiles]]\nname = 1\n\n\n",
    ] {
        there_and_back(TOML, before, &format!("{before}{after}"));
        let windows = |text: &str| text.replace('\n', "\r\n");
        there_and_back(TOML, &windows(before), &windows(&format!("{before}{after}")));
    }
    there_and_back(TOML, "", after.trim_start());
    let no_end = read(TOML, "a = 1").with("us", &entry()).expect("is added");
    assert_eq!(text(&no_end), "a = 1\n\n[mcp_servers.us]\ncommand = \"/s\"\n");
}

#[test]
fn toml_loses_the_entry_however_it_is_written() {
    for (before, after) in [
        (
            "[mcp_servers.us] # ours\ncommand = '/s'\nargs = [\n  'a', # b\n] # c\n# about b\n\n[b]\nx = 1\n",
            "# about b\n\n[b]\nx = 1\n",
        ),
        (
            "a = 1\n\n[mcp_servers.us]\ncommand = '/s'\n\n[mcp_servers.us.env]\nA = 'b'\n\n[b]\n\n[mcp_servers.us.tools.x]\ny = 1\n",
            "a = 1\n\n[b]\n",
        ),
        (
            "[mcp_servers]\nus = { command = '/s' } # ours\nb = { command = 'b' }\n",
            "[mcp_servers]\nb = { command = 'b' }\n",
        ),
        ("mcp_servers.us.command = '/s'\nx = 1\nmcp_servers.us.args = []\n", "x = 1\n"),
        ("[mcp_servers]\nus.command = '/s'\nb.command = 'b'\n", "[mcp_servers]\nb.command = 'b'\n"),
        ("[mcp_servers.us]", ""),
    ] {
        assert_eq!(text(&read(TOML, before).without("us").expect("is removed")), after, "{before}");
    }
}

#[test]
fn toml_members_are_set_in_their_place() {
    let set = |before: &str, key: &str| {
        read(TOML, before).with_member("us", key, &json!("/new")).map(|document| text(&document))
    };
    let table = "[mcp_servers.us]\r\ncommand = '/old' # mine\r\n";
    assert_eq!(set(table, "command").as_deref(), Ok("[mcp_servers.us]\r\ncommand = \"/new\" # mine\r\n"));
    let with_cwd = "[mcp_servers.us]\r\ncwd = \"/new\"\r\ncommand = '/old' # mine\r\n";
    assert_eq!(set(table, "cwd").as_deref(), Ok(with_cwd));
    let inline = "[mcp_servers]\nus = { command = '/old' }\n";
    assert_eq!(set(inline, "command").as_deref(), Ok("[mcp_servers]\nus = { command = \"/new\" }\n"));
    assert!(matches!(set(inline, "cwd"), Err(DocumentError::Inline { line: 2, .. })));
}

#[test]
fn toml_that_cannot_be_edited_is_refused() {
    assert!(matches!(refused(TOML, "a = 1\nb =\n"), DocumentError::Syntax { line: 2, .. }));
    assert!(matches!(refused(TOML, "[a]\n[a]\n"), DocumentError::Syntax { line: 2, .. }));
    let list = refused(TOML, "x = 1\nmcp_servers = []\n");
    assert!(
        matches!(list, DocumentError::NotObject { line: 2, column: 15, found: "a list", .. }),
        "{list:?}"
    );
    let inline = read(TOML, "mcp_servers = { us = { command = '/s' } }\n");
    assert!(matches!(inline.with("b", &entry()), Err(DocumentError::Inline { line: 1, .. })));
    assert!(matches!(inline.without("us"), Err(DocumentError::Inline { line: 1, .. })));
}

#[test]
fn toml_values_survive_the_way_to_json_and_back() {
    let value =
        json!({ "command": "a \"b\" \\ \n é", "args": ["x", 1, true, 0.5], "env": { "A B": "c", "d": {} } });
    let document = read(TOML, "").with("we ird.name", &value).expect("is added");
    assert_eq!(document.server("we ird.name"), Some(&value));
}

#[test]
fn secrets_do_not_reach_a_screen() {
    let json = r#"{"oauthToken": "s1", "mcpServers": {"a": {"args": ["x"], "env": {"K": "s2", "R": "${env:R}"}, "headers": {"Authorization": "s3"}}}}"#;
    let masked = read(JSON, json).masked();
    assert_eq!(masked, json.replace("s1", "***").replace("s2", "***").replace("s3", "***"));
    let toml = "api_key = 's1'\n[mcp_servers.a]\ncommand = 'x'\nenv = { K = \"s2\" }\n[mcp_servers.b.http_headers]\nX = 's3'\n";
    let masked = read(TOML, toml).masked();
    assert_eq!(masked.matches(MASK).count(), 3);
    assert!(!["s1", "s2", "s3"].iter().any(|secret| masked.contains(secret)), "{masked}");
}

/// Blanks and comments, with line breaks of one kind.
fn trivia(eol: &'static str) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => Just(String::new()),
        2 => Just(" ".to_owned()),
        2 => Just(format!("{eol}  ")),
        1 => Just(format!("{eol}\t{eol}")),
        1 => Just(format!("// note, \"x\": {{}}{eol}")),
        1 => Just("/* a, { */".to_owned()),
        1 => Just(format!("/* b{eol} */")),
    ];
    prop::collection::vec(piece, 0..3).prop_map(|pieces| pieces.concat())
}

/// An object with members `k0`…, each value given, with anything between its tokens that may stand there.
fn object(eol: &'static str, values: Vec<String>) -> impl Strategy<Value = String> {
    let n = values.len();
    let gaps = prop::collection::vec(trivia(eol), n * 4 + 1);
    (gaps, any::<bool>()).prop_map(move |(gaps, trailing)| {
        let mut text = format!("{{{}", gaps[0]);
        for (index, value) in values.iter().enumerate() {
            let gap = |at: usize| &gaps[index * 4 + at];
            let comma = if index + 1 < n || trailing { "," } else { "" };
            text += &format!(
                "{}\"k{index}\"{}:{} {value}{}{comma}",
                if index == 0 { "" } else { eol },
                gap(1),
                gap(2),
                gap(3)
            );
            text += gap(4);
        }
        text + "}"
    })
}

fn line_break_kind() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("\n"), Just("\r\n")]
}

/// A document whose `mcpServers` has at least one server, laid out in any way.
fn document_with_servers() -> impl Strategy<Value = String> {
    line_break_kind().prop_flat_map(|eol| {
        let scalar = prop_oneof![
            Just("1".to_owned()),
            Just("\"x, }\"".to_owned()),
            Just("[ 1 ]".to_owned()),
            Just("{}".to_owned())
        ];
        let servers =
            prop::collection::vec(scalar.clone(), 1..4).prop_flat_map(move |values| object(eol, values));
        let others = prop::collection::vec(scalar, 0..3);
        (servers, others, any::<prop::sample::Index>(), trivia(eol), trivia(eol)).prop_flat_map(
            move |(servers, mut others, at, before, after)| {
                let at = at.index(others.len() + 1);
                others.insert(at, servers);
                object(eol, others).prop_map(move |root| {
                    let root = root.replacen(&format!("\"k{at}\""), "\"mcpServers\"", 1);
                    format!("{before}{root}{after}")
                })
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn adding_then_removing_gives_the_original_bytes(original in document_with_servers()) {
        let before = Document::parse(JSONC, original.as_bytes());
        // The root's own members may be called like the servers' once one is renamed; those are other documents.
        prop_assume!(before.as_ref().is_ok_and(|document| !document.servers().is_empty()));
        let before = before.expect("was checked");
        let added = before.with("us", &entry()).expect("is added");
        prop_assert_eq!(added.server("us"), Some(&entry()));
        let back = added.without("us").expect("is removed");
        prop_assert_eq!(text(&back), original);
    }

    #[test]
    fn every_server_can_be_taken_out_without_harm(original in document_with_servers()) {
        let before = Document::parse(JSONC, original.as_bytes());
        prop_assume!(before.is_ok());
        let before = before.expect("was checked");
        for (name, _) in before.servers() {
            let rest = before.without(name).expect("is removed");
            prop_assert_eq!(rest.servers().len() + 1, before.servers().len());
        }
    }

    #[test]
    fn plain_json_as_programs_write_it_comes_back(value in any_json(), indent in 0..5_usize) {
        let value = json!({ "first": value, "mcpServers": { "other": { "command": "x" } }, "last": value });
        let original = match indent {
            0 => value.to_string(),
            n => {
                use serde::Serialize as _;
                let indent = " ".repeat(n);
                let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
                let mut bytes = Vec::new();
                value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).expect("writes");
                String::from_utf8(bytes).expect("UTF-8")
            }
        };
        let added = read(JSON, &original).with("us", &entry()).expect("is added");
        let parsed: Value = serde_json::from_slice(&added.bytes()).expect("JSON");
        prop_assert_eq!(&parsed["mcpServers"]["us"], &entry());
        prop_assert_eq!(text(&added.without("us").expect("is removed")), original);
    }

    #[test]
    fn no_input_is_a_panic(input in "[{}\\[\\]\",:/*a \\n\\r\\\\=.#'-]{0,60}") {
        for format in [JSON, JSONC, TOML] {
            if let Ok(document) = Document::parse(format, input.as_bytes()) {
                // Whether it can be added is another matter; what is given back can be read.
                if let Ok(added) = document.with("us", &entry()) {
                    prop_assert_eq!(added.server("us"), Some(&entry()));
                }
                document.masked();
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,5}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
