//! Real Deno type-checks what this crate declares: it compiles, right calls pass, wrong calls fail.

use std::fs;
use std::process::Command;

use conductor_deno::testing::deno;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::json;

use crate::entry::ToolEntry;
use crate::observed::Observed;
use crate::render::{Detail, render_details};
use crate::testing::{all_tools, any_schema, tool};

/// Generated schemas that are compiled.
const N_GENERATED: usize = 300;

/// What `deno check` says of these modules; empty if it has nothing to say.
fn complaints(modules: &[String]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(&deno().path);
    command
        .args(["check", "--no-config", "--no-lock", "--no-remote", "--no-npm"])
        .current_dir(directory.path());
    command.env_clear().env("DENO_DIR", directory.path().join("deno")).env("NO_COLOR", "1");
    command.env("DENO_NO_UPDATE_CHECK", "1");
    for (at, module) in modules.iter().enumerate() {
        let name = format!("module_{at}.ts");
        fs::write(directory.path().join(&name), format!("{module}\nexport {{}};\n"))
            .expect("a module is written");
        command.arg(name);
    }
    let output = command.output().expect("Deno starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { String::new() } else { format!("failed:\n{text}") }
}

fn details(tools: &[ToolEntry]) -> String {
    render_details(&tools[0].server, tools, Detail::Declarations)
}

/// A server with the ways in which a call can be right or wrong.
fn sample() -> Vec<ToolEntry> {
    let issue = json!({
        "type": "object",
        "properties": {
            "owner": {"type": "string"}, "page": {"type": "integer"}, "state": {"enum": ["open", "closed"]},
            "labels": {"type": "array", "items": {"type": "string"}},
            "tree": {"$ref": "#/$defs/Node"}, "meta": {"type": "object", "additionalProperties": {"type": "number"}},
            "who": {"oneOf": [{"type": "object", "properties": {"kind": {"const": "user"}, "id": {"type": "number"}}, "required": ["kind", "id"]}, {"type": "object", "properties": {"kind": {"const": "team"}, "name": {"type": "string"}}, "required": ["kind", "name"]}]},
            "at": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}], "items": false, "minItems": 2},
        },
        "required": ["owner"],
        "$defs": {"Node": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}},
    });
    let mut list = tool("git-hub", "list", issue.clone());
    list.output_schema =
        Some(json!({"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}));
    let mut old = tool("git-hub", "get-old", json!({"type": "object", "properties": {}}));
    let mut observed = Observed::default();
    observed.learn(&json!([{"id": 1, "title": "x"}, {"id": 2}]));
    old.observed = Some(observed);
    vec![list, old]
}

const RIGHT: [&str; 10] = [
    r#"const { total } = await mcp["git-hub"].list({ owner: "a" }); const n: number = total;"#,
    r#"await mcp["git-hub"].list({ owner: "a", page: 1, state: "open", labels: ["x"] });"#,
    r#"await mcp["git-hub"].list({ owner: "a", tree: { children: [{ children: [{}] }] } });"#,
    r#"await mcp["git-hub"].list({ owner: "a", meta: { any: 1, name: 2 } });"#,
    r#"await mcp["git-hub"].list({ owner: "a", who: { kind: "user", id: 1 } });"#,
    r#"await mcp["git-hub"].list({ owner: "a", who: { kind: "team", name: "t" } });"#,
    r#"await mcp["git-hub"].list({ owner: "a", at: [1, 2] });"#,
    r#"await mcp["git-hub"]["get-old"]();"#,
    r#"await mcp["git-hub"]["get-old"]({});"#,
    r#"const [first] = await mcp["git-hub"]["get-old"](); const id: number = first.id; const title: string | undefined = first.title;"#,
];

const WRONG: [&str; 12] = [
    r#"await mcp["git-hub"].list();"#,
    r#"await mcp["git-hub"].list({});"#,
    r#"await mcp["git-hub"].list({ onwer: "a" });"#,
    r#"await mcp["git-hub"].list({ owner: "a", pages: 1 });"#,
    r#"await mcp["git-hub"].list({ owner: "a", page: "1" });"#,
    r#"await mcp["git-hub"].list({ owner: "a", state: "opened" });"#,
    r#"await mcp["git-hub"].list({ owner: "a", tree: { children: [{ children: 5 }] } });"#,
    r#"await mcp["git-hub"].list({ owner: "a", meta: { a: "x" } });"#,
    r#"await mcp["git-hub"].list({ owner: "a", who: { kind: "team", id: 1 } });"#,
    r#"await mcp["git-hub"].list({ owner: "a", at: [1] });"#,
    r#"const { totals } = await mcp["git-hub"].list({ owner: "a" });"#,
    r#"const title: string = (await mcp["git-hub"]["get-old"]())[0].title;"#,
];

#[test]
fn right_calls_pass_and_wrong_calls_fail() {
    let declarations = details(&sample());
    let block = |code: &str| format!("{{ {code} }}\n");
    // Deno complains of an expectation that is not met: one run proves every wrong call wrong.
    let expected: String =
        WRONG.iter().map(|code| format!("// @ts-expect-error: wrong\n{}", block(code))).collect();
    let right: String = RIGHT.iter().map(|code| block(code)).collect();
    assert_eq!(complaints(&[format!("{declarations}{right}"), format!("{declarations}{expected}")]), "");
    let said = complaints(&[format!("{declarations}{}", WRONG[2])]);
    assert!(said.contains("'onwer' does not exist in type"), "{said}");
}

#[test]
fn declarations_of_real_servers_compile() {
    let tools = all_tools();
    let modules: Vec<String> = tools.chunk_by(|a, b| a.server == b.server).map(details).collect();
    assert_eq!(modules.len(), 7);
    assert_eq!(complaints(&modules), "");
}

#[test]
fn declarations_of_generated_schemas_compile() {
    let mut runner = TestRunner::deterministic();
    let schemas = any_schema();
    let mut draw = || schemas.new_tree(&mut runner).expect("a strategy gives a value").current();
    let entry = |n: usize| {
        let mut entry = tool("made-up", &format!("tool_{n}"), draw());
        entry.output_schema = Some(draw());
        entry
    };
    let tools: Vec<ToolEntry> = (0..N_GENERATED).map(entry).collect();
    let modules: Vec<String> = tools.chunks(10).map(details).collect();
    assert_eq!(complaints(&modules), "");
}
