use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::observed::Observed;
use crate::testing::{all_tools, any_schema, assert_parses, real_tool, tool};

/// The type of a schema, short.
fn check(schema: Value, ty: &str) {
    assert_eq!(expected(&schema, &schema), ty, "{schema}");
}

fn whole(declaration: &Declaration) -> String {
    let types: String = declaration.types.iter().map(|(_, text)| format!("{text}\n")).collect();
    format!("{types}interface T {{\n  {}\n}}\n", declaration.method)
}

/// Both forms of a tool parse and are of bounded size.
fn assert_sound(tool: &ToolEntry) -> (String, Declaration) {
    let signature = signature(tool);
    assert!(signature.len() <= MAX_SIGNATURE_BYTES + 2 * MAX_TOOL_NAME_CHARS * 6, "{}", signature.len());
    assert!(!signature.contains('\n'), "{signature}");
    assert_parses(&format!("interface T {{ {signature}; }}"));
    let declaration = declare(tool, "");
    let text = whole(&declaration);
    assert!(text.len() <= MAX_DECLARATION_BYTES + 4_000, "{}", text.len());
    assert_parses(&text);
    (signature, declaration)
}

#[test]
fn plain_types() {
    check(json!({"type": "string"}), "string");
    check(json!({"type": "integer", "format": "int32"}), "number");
    check(json!({"type": ["string", "null"]}), "string | null");
    check(json!({"type": "string", "nullable": true}), "string | null");
    check(json!({"enum": ["a", 1, true, null]}), r#""a" | 1 | true | null"#);
    check(json!({"const": {"a": [1, "x"]}}), r#"{ a: [1, "x"] }"#);
    check(json!({"type": "string", "enum": ["it's \"x\""]}), r#""it's \"x\"""#);
    check(json!(true), "unknown");
    check(json!(false), "never");
    check(json!({}), "unknown");
    check(json!("nonsense"), "unknown");
    check(json!({"not": {"type": "string"}}), "unknown");
}

#[test]
fn objects_and_maps() {
    check(
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b-c": {}}, "required": ["a"]}),
        r#"{ a: string; "b-c"?: unknown }"#,
    );
    check(json!({"type": "object"}), "Record<string, unknown>");
    check(json!({"type": "object", "properties": {}}), "{}");
    check(json!({"type": "object", "additionalProperties": false}), "{}");
    check(json!({"type": "object", "additionalProperties": {"type": "number"}}), "Record<string, number>");
    check(
        json!({"patternProperties": {"^x": {"type": "number"}, "^y": {"type": "string"}}, "additionalProperties": false}),
        "Record<string, number | string>",
    );
    check(
        json!({"properties": {"a": {"type": "number"}}, "additionalProperties": {"type": "string"}}),
        "{ a?: number; [key: string]: unknown /* string */ }",
    );
    check(
        json!({"properties": {"a": {"type": "number"}}, "additionalProperties": true}),
        "{ a?: number; [key: string]: unknown }",
    );
    check(json!({"type": "object", "required": ["x"]}), "{ x: unknown; [key: string]: unknown }");
    check(
        json!({"properties": {"__proto__": {"type": "null"}, "constructor": {"type": "null"}}}),
        "{ __proto__?: null; constructor?: null }",
    );
}

#[test]
fn arrays_and_tuples() {
    check(json!({"type": "array"}), "unknown[]");
    check(json!({"items": {"enum": ["a", "b"]}}), r#"("a" | "b")[]"#);
    check(
        json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}], "items": false, "minItems": 1}),
        "[string, (number)?]",
    );
    check(
        json!({"type": "array", "items": [{"type": "string"}], "additionalItems": {"type": "number"}}),
        "[(string)?, ...number[]]",
    );
    check(json!({"type": "array", "prefixItems": [{}], "maxItems": 1, "minItems": 1}), "[unknown]");
}

#[test]
fn combinations() {
    check(json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), "string | null");
    check(json!({"oneOf": [{"const": "a"}, {"const": "b", "description": "B"}]}), r#""a" | "b""#);
    check(
        json!({"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "number"}}}], "required": ["b"]}),
        "{ a?: string; b: number }",
    );
    check(
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
        "{ a?: string; b?: string }",
    );
    check(
        json!({"type": "object", "oneOf": [{"properties": {"k": {"const": 1}}}, {"properties": {"k": {"const": 2}}}]}),
        "{ k?: 1 } | { k?: 2 }",
    );
    check(json!({"type": "string", "anyOf": [{"minLength": 1}, {"pattern": "x"}]}), "string");
    check(json!({"anyOf": [{"type": "string"}, true]}), "unknown");
    check(json!({"allOf": [{"type": "string"}, false]}), "never");
}

#[test]
fn references() {
    let schema = json!({"$defs": {"Id": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/Id"}, "b": {"type": "array", "items": {"$ref": "#/$defs/Id"}}}});
    check(schema, "{ a?: string; b?: string[] }");
    check(
        json!({"$ref": "https://example.com/x.json"}),
        "unknown /* $ref https://example.com/x.json: in another document */",
    );
    check(json!({"$ref": "#/none"}), "unknown /* $ref #/none: nothing there */");
    check(json!({"$ref": "#"}), "unknown /* defined by itself */");
    check(
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}}),
        "unknown /* defined by itself */",
    );
}

#[test]
fn recursive_types_are_interfaces() {
    let schema = json!({
        "definitions": {
            "tree-node": {"type": "object", "description": "A node.", "properties": {"value": {"type": "number"}, "children": {"type": "array", "items": {"$ref": "#/definitions/tree-node"}}}, "required": ["value"]},
            "json": {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"$ref": "#/definitions/json"}}]},
            "Promise": {"type": "string"},
        },
        "properties": {"root": {"$ref": "#/definitions/tree-node"}, "extra": {"$ref": "#/definitions/json"}, "p": {"$ref": "#/definitions/Promise"}},
        "required": ["root"],
    });
    let (signature, declaration) = assert_sound(&tool("s", "grow", schema));
    assert_eq!(
        signature,
        "grow(args: { root: { value: number; children?: unknown /* TreeNode */[] }; extra?: string | Record<string, unknown /* Json */>; p?: string }): Promise<unknown>"
    );
    assert_eq!(
        whole(&declaration),
        "/** A node. */\ninterface TreeNode { value: number; children?: TreeNode[] }\n\
         type Json = string | { [key: string]: Json };\n\
         type Promise2 = string;\n\
         interface T {\n  grow(args: { root: TreeNode; extra?: Json; p?: Promise2 }): Promise<unknown>;\n}\n"
    );
}

#[test]
fn a_real_tool_reads_well() {
    let (signature, declaration) = assert_sound(&real_tool("github", "list_issues"));
    assert_eq!(
        signature,
        "list_issues(args: { owner: string; repo: string; direction?: \"asc\" | \"desc\"; labels?: string[]; page?: number; per_page?: number; since?: string; sort?: \"created\" | \"updated\" | \"comments\"; state?: \"open\" | \"closed\" | \"all\" }): Promise<unknown>"
    );
    assert!(!declaration.is_cut);
    let (signature, _) = assert_sound(&real_tool("time", "get_current_time"));
    assert_eq!(
        signature,
        "get_current_time(args: { timezone: string }): Promise<{ timezone: string; datetime: string; day_of_week: string; is_dst: boolean }>"
    );
    let (_, declaration) = assert_sound(&real_tool("everything", "get-sum"));
    assert_eq!(
        declaration.method,
        "/** Returns the sum of two numbers */\n  \"get-sum\"(args: {\n    /** First number */\n    a: number;\n    /** Second number */\n    b: number;\n  }): Promise<unknown>;"
    );
}

#[test]
fn all_real_tools_parse_and_fit() {
    for tool in all_tools() {
        let (_, declaration) = assert_sound(&tool);
        assert!(!declaration.is_cut, "{}: {declaration:?}", tool.name);
    }
}

#[test]
fn observed_answers_are_marked() {
    let mut entry = tool("s", "new", json!({"type": "object", "properties": {}}));
    let mut observed = Observed::default();
    observed.learn(&json!([{"id": 1, "title": "x"}, {"id": 2}]));
    entry.observed = Some(observed);
    assert_eq!(
        assert_sound(&entry).0,
        "\"new\"(args?: {}): Promise</** observed */ { id: number; title?: string }[]>"
    );
    entry.output_schema = Some(json!({"type": "object", "properties": {"n": {"type": "number"}}}));
    assert_eq!(assert_sound(&entry).0, "\"new\"(args?: {}): Promise<{ n?: number }>");
}

#[test]
fn texts_cannot_leave_their_comments_or_strings() {
    let evil = "*/ }; evil(); /* \u{2028} `${x}` \" ' \\ \n // */";
    let mut entry = tool(
        evil,
        evil,
        json!({
            "type": "object", "description": evil,
            "properties": {evil: {"description": evil, "default": evil, "pattern": evil, "format": evil, "enum": [evil]}, "r": {"$ref": evil}, "t": {"type": evil}},
            "additionalProperties": {"const": evil},
            "$defs": {evil: {"type": "object", "properties": {"x": {"$ref": "#"}}}},
        }),
    );
    entry.description = Some(evil.to_owned());
    let (signature, declaration) = assert_sound(&entry);
    for text in [signature, whole(&declaration)] {
        let allocator = oxc_allocator::Allocator::default();
        let source = format!("interface T {{ {text} }}");
        let source = if text.contains("interface T") { &text } else { &source };
        let program = oxc_parser::Parser::new(&allocator, source, oxc_span::SourceType::ts()).parse().program;
        let only_types = program.body.iter().all(|it| format!("{it:?}").starts_with("TS"));
        assert!(only_types, "{text}");
    }
}

#[test]
fn hostile_sizes_are_cut_and_say_so() {
    // JSON that was parsed has at most 127 levels.
    let mut deep = json!({"type": "string"});
    (0..126).for_each(|_| deep = json!({"type": "array", "items": deep}));
    assert!(assert_sound(&tool("s", "deep", deep)).1.method.contains("nested too deeply"));

    let wide: Map<String, Value> = (0..20_000)
        .map(|n| (format!("property_{n}"), json!({"type": "string", "description": "d"})))
        .collect();
    let wide =
        tool("s", "wide", json!({"type": "object", "properties": wide, "required": ["property_19999"]}));
    let (signature, declaration) = assert_sound(&wide);
    assert!(
        signature.contains("property_19999: string") && signature.contains("more properties"),
        "{signature}"
    );
    assert!(declaration.is_cut && declaration.method.contains("more properties"));

    let names: Vec<String> = (0..50_000).map(|n| format!("value_{n}")).collect();
    let (signature, declaration) =
        assert_sound(&tool("s", "e", json!({"properties": {"e": {"enum": names}}})));
    assert!(
        signature.contains("| string /* 49988 more */")
            && declaration.method.contains("| string /* 49900 more */"),
        "{signature}"
    );

    let laughs: Map<String, Value> = (0..60)
        .map(|n| {
            let next = json!({"$ref": format!("#/$defs/l{}", n + 1)});
            (format!("l{n}"), json!({"type": "object", "properties": {"a": next, "b": next}}))
        })
        .collect();
    assert_sound(&tool("s", "laughs", json!({"$ref": "#/$defs/l0", "$defs": laughs})));

    let crowd: Map<String, Value> =
        (0..5_000).map(|n| (format!("p{n}"), json!({"$ref": format!("#a{n}")}))).collect();
    assert_sound(&tool("s", "crowd", json!({"properties": crowd})));
    assert_sound(&tool("s", &"n".repeat(100_000), json!({"description": "x ".repeat(1_000_000)})));
}

#[test]
fn names_of_types_take_the_prefix() {
    let schema = json!({"$ref": "#/$defs/Entry", "$defs": {"Entry": {"type": "object", "properties": {"a": {"type": "string"}}}}});
    let declaration = declare(&tool("s", "list", schema), &type_prefix("list-all"));
    assert_eq!(declaration.types[0].0, "ListAllEntry");
    assert_eq!(declaration.method, "list(args?: ListAllEntry): Promise<unknown>;");
    assert_eq!(type_prefix("2nd"), "T2nd");
    assert_eq!(type_prefix("größe"), "GrE");
    assert_eq!(type_prefix("日本"), "T");
}

proptest! {
    #[test]
    fn any_schema_gives_typescript(input in any_schema(), output in prop::option::of(any_schema()), name in "[a-z_-]{1,8}|\\PC{0,8}") {
        let mut entry = tool("s", &name, input);
        entry.output_schema = output;
        assert_sound(&entry);
    }
}
