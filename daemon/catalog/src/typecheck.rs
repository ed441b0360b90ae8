//! Real Deno type-checks what this crate declares: it compiles, right calls pass, wrong calls fail.

use std::fs;
use std::process::Command;

use conductor_deno::testing::deno;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use crate::check::ArgumentChecker;
use crate::entry::ToolEntry;
use crate::observed::Observed;
use crate::render::{Detail, render_details};
use crate::testing::{all_tools, any_json, any_schema, tool};

/// Generated schemas of each kind that are compiled: one run of Deno takes seconds.
const N_GENERATED: usize = 150;

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

/// A schema and a value that it allows.
type Pair = (Value, Value);

fn named(pairs: &[(String, Pair)], part: fn(&Pair) -> &Value) -> Map<String, Value> {
    pairs.iter().map(|(name, pair)| (name.clone(), part(pair).clone())).collect()
}

/// An object with these properties, those with names before `m` required; optional ones may be absent from the value.
fn object(pairs: &[(String, Pair)], has_optional: bool) -> Pair {
    let required: Vec<&String> =
        pairs.iter().map(|(name, _)| name).filter(|name| name.as_str() < "m").collect();
    let schema = json!({"type": "object", "properties": named(pairs, |pair| &pair.0), "required": required});
    let mut value = named(pairs, |pair| &pair.1);
    value.retain(|name, _| has_optional || name.as_str() < "m");
    (schema, Value::Object(value))
}

fn merged(a: &Value, b: &Value) -> Value {
    let fields = [a, b].into_iter().filter_map(Value::as_object).flatten();
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Schemas of all the kinds that become types, each with a value.
fn any_pair(defs: Vec<Pair>) -> impl Strategy<Value = Pair> {
    let references =
        defs.into_iter().enumerate().map(|(n, (_, value))| (json!({"$ref": format!("#/$defs/D{n}")}), value));
    let plain = [
        ("string", json!("x")),
        ("number", json!(1.5)),
        ("integer", json!(2)),
        ("boolean", json!(true)),
        ("null", json!(null)),
    ];
    let mut leaves: Vec<Pair> = plain.into_iter().map(|(ty, value)| (json!({"type": ty}), value)).collect();
    leaves.extend(references);
    leaves.push((json!({}), json!({"any": [1, "x"]})));
    leaves.push((json!({"type": "object"}), json!({"any": 1})));
    leaves.push((json!({"type": ["string", "null"]}), json!(null)));
    leaves.push((json!({"type": "array"}), json!([1, "x"])));
    leaves.push((json!({"type": "string", "nullable": true}), json!("x")));
    let leaf = prop_oneof![
        4 => prop::sample::select(leaves),
        1 => any_json().prop_map(|value| (json!({"enum": ["other", value]}), value)),
        1 => any_json().prop_map(|value| (json!({"const": value}), value)),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        let properties = |letters: &'static str| prop::collection::btree_map(letters, inner.clone(), 0..4).prop_map(|it| it.into_iter().collect::<Vec<_>>());
        let objects = |letters| (properties(letters), any::<bool>()).prop_map(|(pairs, all)| object(&pairs, all));
        let several = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            3 => objects("[a-z]"),
            1 => (objects("[a-y]"), inner.clone()).prop_map(|((mut schema, mut value), (others, other))| {
                schema["additionalProperties"] = others;
                value["zz"] = other;
                (schema, value)
            }),
            1 => inner.clone().prop_map(|(schema, value)| (json!({"type": "object", "additionalProperties": schema}), json!({"k": value}))),
            1 => inner.clone().prop_map(|(schema, value)| (json!({"patternProperties": {"^k": schema}}), json!({"k1": value, "k2": value}))),
            1 => inner.clone().prop_map(|(schema, value)| (json!({"type": "array", "items": schema}), json!([value, value]))),
            1 => (several(), 0_usize..4).prop_map(|(pairs, least)| {
                let (schemas, mut values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
                let least = least.min(values.len());
                let schema = json!({"type": "array", "prefixItems": schemas, "items": false, "minItems": least});
                values.truncate(least.max(1));
                (schema, json!(values))
            }),
            2 => (several(), any::<prop::sample::Index>()).prop_map(|(pairs, which)| {
                let value = which.get(&pairs).1.clone();
                (json!({"anyOf": pairs.into_iter().map(|it| it.0).collect::<Vec<_>>()}), value)
            }),
            1 => (objects("[a-f]"), objects("[g-z]"))
                .prop_map(|(a, b)| (json!({"allOf": [a.0, b.0]}), merged(&a.1, &b.1))),
            1 => (objects("[a-f]"), objects("[g-o]"), objects("[p-z]")).prop_map(|(mut a, b, c)| {
                a.0["anyOf"] = json!([b.0, c.0]);
                (a.0, merged(&a.1, &c.1))
            }),
        ]
    })
}

/// A whole input schema with definitions, and arguments.
fn any_call() -> impl Strategy<Value = Pair> {
    let defs = prop::collection::vec(any_pair(Vec::new()), 1..3);
    let call = defs.prop_flat_map(|defs| {
        let properties = prop::collection::btree_map("[a-z]", any_pair(defs.clone()), 1..5);
        (Just(defs), properties, any::<bool>())
    });
    call.prop_map(|(defs, properties, all)| {
        let (mut schema, value) = object(&properties.into_iter().collect::<Vec<_>>(), all);
        let named = defs.into_iter().enumerate().map(|(n, (schema, _))| (format!("D{n}"), schema));
        schema["$defs"] = Value::Object(named.collect());
        (schema, value)
    })
}

/// What the schema allows, the type allows; only properties that the schema does not list may be refused.
#[test]
fn generated_calls_that_the_schema_allows_pass() {
    let mut runner = TestRunner::deterministic();
    let calls = any_call();
    let mut draw = || calls.new_tree(&mut runner).expect("a strategy gives a value").current();
    let module = |_| {
        let (mut tools, mut code) = (Vec::new(), String::new());
        for n in 0..10 {
            let (schema, arguments) = draw();
            let checked = ArgumentChecker::compile(&schema).check(&arguments);
            assert_eq!(checked, Ok(()), "{schema} and {arguments}");
            code.push_str(&format!("await mcp.made.t{n}({arguments});\n"));
            tools.push(tool("made", &format!("t{n}"), schema));
        }
        format!("{}{code}", details(&tools))
    };
    let modules: Vec<String> = (0..N_GENERATED / 10).map(module).collect();
    assert_eq!(complaints(&modules), "");
}
