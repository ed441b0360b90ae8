//! Real tools, and made-up JSON, for the tests of this crate.

use oxc_allocator::Allocator;
use oxc_parser::Parser;
use oxc_span::SourceType;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::entry::ToolEntry;

/// What seven published servers answer to `tools/list` (MIT and Apache-2.0; names, descriptions and schemas only).
const LISTED: [&str; 7] = [
    include_str!("../tests/data/everything.json"),
    include_str!("../tests/data/filesystem.json"),
    include_str!("../tests/data/git.json"),
    include_str!("../tests/data/github.json"),
    include_str!("../tests/data/memory.json"),
    include_str!("../tests/data/sequential-thinking.json"),
    include_str!("../tests/data/time.json"),
];

/// All tools of the published servers.
pub(crate) fn all_tools() -> Vec<ToolEntry> {
    let mut tools = Vec::new();
    for text in LISTED {
        let listed: Value = serde_json::from_str(text).expect("the fixture is JSON");
        let server = listed["server"].as_str().expect("a server has a name");
        let entries = listed["tools"].as_array().expect("tools are a list");
        tools.extend(
            entries.iter().map(|tool| ToolEntry::from_listed(server, tool).expect("a tool has a name")),
        );
    }
    assert!(tools.len() > 70, "{}", tools.len());
    tools
}

/// One published tool.
pub(crate) fn real_tool(server: &str, name: &str) -> ToolEntry {
    let found = all_tools().into_iter().find(|tool| tool.server == server && tool.name == name);
    found.expect("the tool is in the fixtures")
}

/// A tool with this input schema and nothing else.
pub(crate) fn tool(server: &str, name: &str, schema: Value) -> ToolEntry {
    ToolEntry::from_listed(server, &json!({"name": name, "inputSchema": schema})).expect("it has a name")
}

/// Fails unless `source` is TypeScript.
pub(crate) fn assert_parses(source: &str) {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, source, SourceType::ts().with_module(true)).parse();
    let errors: Vec<String> = parsed.diagnostics.errors().map(|error| format!("{error:?}")).collect();
    assert!(errors.is_empty() && !parsed.panicked, "{errors:?} in:\n{source}");
}

/// Any JSON of a few levels.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c*/]{0,3}|\\PC{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-d]{1,2}|\\PC{0,4}", inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Schemas as a careless or hostile server could write them: all keywords, references to anywhere, wrong types.
pub(crate) fn any_schema() -> impl Strategy<Value = Value> {
    let reference = prop_oneof![
        Just("#".to_owned()),
        "#/\\$defs/[a-c]",
        Just("https://example.com/s".to_owned()),
        Just("#nowhere".to_owned()),
    ];
    let name = "[a-c]|[a-z_]{1,6}|\\PC{0,6}|constructor|__proto__|new|\\*/";
    let leaf = prop_oneof![
        6 => prop::sample::select(vec!["string", "number", "integer", "boolean", "null", "object", "array", "odd */"])
            .prop_map(|ty| json!({"type": ty})),
        1 => any::<bool>().prop_map(Value::from),
        2 => reference.prop_map(|to| json!({"$ref": to})),
        1 => any_json().prop_map(|value| json!({"const": value})),
        2 => prop::collection::vec(any_json(), 0..5).prop_map(|values| json!({"enum": values})),
        1 => any_json(),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        let list = || prop::collection::vec(inner.clone(), 0..4);
        let fields = || prop::collection::vec((name, inner.clone()), 0..5).prop_map(|it| it.into_iter().collect::<Map<_, _>>());
        let combined = (prop::sample::select(vec!["anyOf", "oneOf", "allOf", "prefixItems", "items"]), list());
        prop_oneof![
            (fields(), prop::collection::vec(name, 0..3), prop::option::of(inner.clone()), "\\PC{0,12}|\\*/").prop_map(
                |(properties, required, others, doc)| {
                    let mut schema = json!({"type": "object", "properties": properties, "required": required, "description": doc});
                    others.into_iter().for_each(|others| schema["additionalProperties"] = others);
                    schema
                }
            ),
            (combined, fields()).prop_map(|((key, list), defs)| json!({key: list, "$defs": defs})),
            (inner.clone(), any::<bool>()).prop_map(|(items, nullable)| json!({"type": ["array", "null"], "items": items, "nullable": nullable})),
            fields().prop_map(|patterns| json!({"patternProperties": patterns})),
            (inner.clone(), "[a-c]").prop_map(|(def, name)| json!({"$ref": format!("#/$defs/{name}"), "$defs": {name: def}})),
        ]
    })
}
