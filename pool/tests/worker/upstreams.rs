//! What code sees of upstream servers: `mcpFactory`, `mcp` and the errors of both. The servers themselves are played here.

use conductor_pool::source::BoxFuture;
use conductor_pool::{Host, HostCalls, HostError, Job};
use serde_json::{Map, Value, json};

use crate::support::{Bench, job, json as json_of};

/// Tells what it was asked; the tool `fail` fails.
struct Echo;

impl HostCalls for Echo {
    fn call(&self, method: &str, params: Value) -> BoxFuture<'static, Result<Value, HostError>> {
        let answer = match (method, params["name"].as_str()) {
            ("listServers", _) => Ok(json!(["files", "my-git"])),
            ("load", _) => Ok(params["server"].clone()),
            (_, Some("fail")) => Err(HostError {
                name: "McpToolError".into(),
                message: "files.fail: no such file".into(),
                data: Map::from_iter([
                    ("code".into(), json!("tool_error")),
                    ("content".into(), json!([{ "type": "text", "text": "no such file" }])),
                ]),
            }),
            _ => Ok(json!([method, params])),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn with_upstreams(code: &str) -> Job {
    Job { host: Some(Host::new(Echo)), upstreams: Some(vec!["files".into(), "my-git".into()]), ..job(code) }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_call_a_tool_reaches_it() {
    let bench = Bench::new();
    let code = r#"
        const files = await mcpFactory.load("files");
        return await Promise.all([
            mcpFactory.listServers(),
            files.callTool("read", { path: "/a" }),
            files.callToolRaw("read", { path: "/a" }, { timeout: 5 }),
            files.listTools(), files.listResources(), files.listPrompts(),
            files.readResource("file:///a"), files.getPrompt("p", { x: "1" }),
            mcp.files.read({ path: "/b" }), mcp["my-git"].log(),
            mcp.git_hub.list({ n: 1 }, { timeout: 9 }),
        ]);"#;
    let value = json_of(bench.run_job(&bench.spec(), with_upstreams(code)).await);
    let call = |params: Value| json!(["callTool", params]);
    let on_files = |method: &str| json!([method, { "server": "files" }]);
    let expected = json!([
        ["files", "my-git"],
        call(json!({ "server": "files", "name": "read", "args": { "path": "/a" } })),
        call(json!({ "server": "files", "name": "read", "args": { "path": "/a" }, "timeout": 5, "raw": true })),
        on_files("listTools"),
        on_files("listResources"),
        on_files("listPrompts"),
        ["readResource", { "server": "files", "uri": "file:///a" }],
        ["getPrompt", { "server": "files", "name": "p", "args": { "x": "1" } }],
        call(json!({ "server": "files", "name": "read", "args": { "path": "/b" } })),
        call(json!({ "server": "my-git", "name": "log" })),
        call(json!({ "server": "git_hub", "name": "list", "args": { "n": 1 }, "timeout": 9 })),
    ]);
    assert_eq!(value, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_can_be_caught_and_tells_its_content_and_its_place() {
    let bench = Bench::new();
    let code = r#"
        try {
            await mcp.files.fail({});
        } catch (error) {
            const frame = error.stack.split("\n")[1];
            return [error instanceof McpToolError, error instanceof Error, error.name, error.message, error.code,
                    error.content[0].text, frame.includes("conductor:main.ts") && frame.includes(":5:"), Object.keys(error)];
        }"#;
    let value = json_of(bench.run_job(&bench.spec(), with_upstreams(code)).await);
    let message = "files.fail: no such file";
    assert_eq!(value, json!([true, true, "McpToolError", message, "tool_error", "no such file", true, []]));
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_are_no_json_reject_and_are_not_sent() {
    let bench = Bench::new();
    let code = r#"
        const cycle = {}; cycle.self = cycle;
        const tried = await Promise.allSettled([mcp.files.read(cycle), mcp.files.read({ n: 1n })]);
        return tried.map((it) => it.reason?.name);"#;
    let value = json_of(bench.run_job(&bench.spec(), with_upstreams(code)).await);
    assert_eq!(value, json!(["TypeError", "TypeError"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_objects_can_be_looked_at_awaited_and_not_changed() {
    let bench = Bench::new();
    let code = r#"
        const thrown = (change) => { try { "use strict"; change(); return "changed"; } catch (e) { return e.name; } };
        return [Object.keys(mcp), await mcp === mcp, typeof mcp.files.read, mcp.files.read === mcp.files.read,
                typeof Deno.inspect(mcp), typeof Deno.inspect(mcpFactory), mcpFactory.servers,
                thrown(() => { "use strict"; mcp.files = 1; }), thrown(() => { "use strict"; mcpFactory.load = 1; })];"#;
    let value = json_of(bench.run_job(&bench.spec(), with_upstreams(code)).await);
    let names = json!(["files", "my-git"]);
    assert_eq!(
        value,
        json!([names, true, "function", true, "string", "string", names, "TypeError", "TypeError"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_upstreams_there_is_no_way_to_them() {
    let bench = Bench::new();
    let value = bench.json("return [typeof mcp, typeof mcpFactory, typeof McpToolError];").await;
    assert_eq!(value, json!(["undefined", "undefined", "undefined"]));
}
