use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::search::search;
use crate::testing::{all_tools, any_schema, assert_parses, tool};

fn of_server(server: &str) -> Vec<ToolEntry> {
    all_tools().into_iter().filter(|tool| tool.server == server).collect()
}

fn summary_of<'a>(name: &'a str, tools: &'a [ToolEntry]) -> ServerSummary<'a> {
    ServerSummary {
        name,
        description: Some("What it is"),
        instructions: None,
        state: "running",
        tools,
        n_resources: 1,
        n_prompts: 0,
    }
}

#[test]
fn servers_are_listed_with_samples() {
    let tools = of_server("time");
    let mut summary = summary_of("time", &tools);
    summary.instructions = Some("Use\nIANA names.");
    assert_eq!(
        render_servers(&[summary]),
        "Call tools in run_deno_code: `await mcp.SERVER.TOOL({ … })`. Types: get_tool_details. Search: search_tools.\n\
         \n\
         time (running): 2 tools, 1 resource\n\
         \x20 What it is\n\
         \x20 Instructions: Use IANA names.\n\
         \x20 mcp.time.get_current_time(args: { timezone: string }): Promise<{ timezone: string; datetime: string; day_of_week: string; is_dst: boolean }>\n\
         \x20 mcp.time.convert_time(args: { source_timezone: string; time: string; target_timezone: string }): Promise<{ source: { timezone: string; datetime: string; day_of_week: string; is_dst: boolean }; target: { timezone: string; datetime: string; day_of_week: string; is_dst: boolean }; time_difference: string }>\n"
    );
    assert_eq!(render_servers(&[]), "No MCP servers are configured.");
}

#[test]
fn many_servers_are_counted_not_forgotten() {
    let tools = of_server("github");
    let names: Vec<String> = (0..3_000).map(|n| format!("server-{n}")).collect();
    let servers: Vec<_> = names.iter().map(|name| summary_of(name, &tools)).collect();
    let text = render_servers(&servers);
    assert!(text.len() <= MAX_TEXT_BYTES + 200, "{}", text.len());
    let shown = names.iter().filter(|name| text.contains(&format!("\n{name} (running)"))).count();
    assert!(text.contains(&format!("… and {} more servers", 3_000 - shown)), "{shown}");
}

#[test]
fn details_of_real_servers_are_whole_programs() {
    for server in ["everything", "filesystem", "git", "github", "memory", "sequential-thinking", "time"] {
        let tools = of_server(server);
        for detail in [Detail::Declarations, Detail::Schemas] {
            let text = render_details(server, &tools, detail);
            assert_parses(&text);
            assert!(text.len() <= MAX_TEXT_BYTES + 4_000, "{server}: {}", text.len());
            assert!(tools.iter().all(|tool| text.contains(&tool.name)), "{text}");
            assert!(detail == Detail::Schemas || !text.contains("Left out"), "{text}");
        }
    }
    let text = render_details("time", &of_server("time")[..1], Detail::Schemas);
    assert!(
        text.starts_with(
            "// Call in run_deno_code: await mcp.time.TOOL({ … })\ninterface Time {\n  /** Get current time"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "\ndeclare const mcp: { time: Time };\n// inputSchema of \"get_current_time\": {\"properties\":"
        ),
        "{text}"
    );
}

#[test]
fn types_of_the_same_name_stay_apart() {
    let with = |name: &str, ty: &str| {
        let schema = json!({"properties": {"e": {"$ref": "#/$defs/Entry"}}, "$defs": {"Entry": {"properties": {"v": {"type": ty}}}}});
        tool("notes", name, schema)
    };
    let tools =
        [with("read", "string"), with("write", "string"), with("count", "number"), with("c-ount", "boolean")];
    let text = render_details("notes", &tools, Detail::Declarations);
    assert_parses(&text);
    assert_eq!(text.matches("interface Entry ").count(), 1, "{text}");
    assert!(
        text.contains("interface CountEntry { v?: number }")
            && text.contains("interface COuntEntry { v?: boolean }"),
        "{text}"
    );
}

#[test]
fn what_does_not_fit_is_said() {
    let fields: Map<String, Value> = (0..60)
        .map(|n| (format!("p{n}"), json!({"type": "string", "description": "x".repeat(60)})))
        .collect();
    let tools: Vec<_> = (0..400)
        .map(|n| tool("big", &format!("tool_{n}"), json!({"type": "object", "properties": fields})))
        .collect();
    let text = render_details("big", &tools, Detail::Declarations);
    assert_parses(&text);
    assert!(text.len() <= MAX_TEXT_BYTES + 4_000, "{}", text.len());
    assert!(
        text.contains("// Without docs: the last ") && text.contains("// Left out, ask for them by name: "),
        "{text}"
    );
    let schemas = render_details(
        "big",
        &[tool("big", "s", json!({"enum": vec!["a\u{2028}"; 20_000]}))],
        Detail::Schemas,
    );
    assert_parses(&schemas);
    assert!(schemas.contains(" … cut: "), "the cut is said");
}

#[test]
fn findings_name_the_call() {
    let tools = all_tools();
    let found = search(&tools, "add numbers sum", 1);
    assert_eq!(
        render_found("sum", &found),
        "mcp.everything[\"get-sum\"](args: { a: number; b: number }): Promise<unknown>\n  Returns the sum of two numbers\n"
    );
    assert_eq!(
        render_found("a \"b\"\n", &[]),
        "No tool matches \"a \\\"b\\\"\". Try other words, or list_mcp_servers."
    );
}

proptest! {
    #[test]
    fn details_of_any_tools_parse(schemas in prop::collection::vec(("\\PC{0,6}|[a-c]", any_schema()), 0..5), server in "[a-c]|\\PC{0,6}") {
        let tools: Vec<_> = schemas.into_iter().map(|(name, schema)| tool(&server, &name, schema)).collect();
        assert_parses(&render_details(&server, &tools, Detail::Schemas));
    }
}
