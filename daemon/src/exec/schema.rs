//! The JSON Schemas and the description of `run_deno_code`, as clients and models read them. Pure.

use std::sync::Arc;

use conductor_packages::{Allowlist, Package};
use conductor_pool::Grants;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use super::result::ErrorType;
use crate::profile::Profile;
use crate::upstreams::Servers;

pub(crate) const TOOL_NAME: &str = "run_deno_code";

/// The tool as a session sees it. Without a profile (its configuration is wrong) the tool is still listed: the first call
/// tells the error by name.
pub(crate) fn run_deno_code(profile: Option<&Profile>, servers: &Servers) -> Tool {
    let names = servers.registration().map_or(&[][..], |registration| &registration.names);
    let grants = profile.map(|profile| &profile.grants);
    let unsandboxed = grants.is_some_and(Grants::is_unsandboxed);
    let writes = grants.is_some_and(|grants| !grants.write.is_none());
    let connects = grants.is_some_and(|grants| !grants.net.is_none());
    let annotations = ToolAnnotations::new()
        .destructive(writes || unsandboxed || !names.is_empty())
        .open_world(connects || unsandboxed || !names.is_empty());
    Tool::new(TOOL_NAME, description(profile, names), object(input_schema()))
        .with_title("Run TypeScript")
        .with_raw_output_schema(object(output_schema()))
        .with_annotations(annotations)
}

fn object(schema: Value) -> Arc<JsonObject> {
    match schema {
        Value::Object(object) => Arc::new(object),
        _ => unreachable!("every schema here is written as an object"),
    }
}

/// Under 2 KB: some clients cut longer ones.
fn description(profile: Option<&Profile>, servers: &[String]) -> String {
    let mut text = String::from(
        "Run TypeScript or JavaScript in a fresh, isolated Deno process, used for this call only. The value of the last \
         expression (or of a top-level `return`) comes back as returnValue; console output comes back as stdout and \
         stderr. Top-level await, static and dynamic imports of `node:` modules, and all web APIs work. No state is kept \
         between calls.\n",
    );
    if let Some(profile) = profile {
        let grants = shortened(&profile.grants_in_words(), 300);
        text.push_str(&format!(
            "\nPermissions: {grants}. Not allowed: everything else. Only an administrator can change this.\n"
        ));
        text.push_str(&format!(
            "Workspace: {} (also as WORKSPACE_DIR).\n",
            shortened(&profile.workspace.display().to_string(), 200)
        ));
        text.push_str(&format!(
            "Time limit: {} ms by default, at most {} ms.\n",
            profile.default_timeout.as_millis(),
            profile.max_timeout.as_millis()
        ));
        text.push_str(&packages(&profile.packages.allowed));
    }
    if !servers.is_empty() {
        text.push_str(&format!(
            "MCP servers: {}. Call their tools as `await mcp.SERVER.TOOL({{...}})`, several at once with Promise.all; \
             signatures: search_tools, get_tool_details.\n",
            shortened(&servers.join(", "), 250)
        ));
    }
    text.push_str(
        "\nExample:\nconst rows = [3, 1, 2].toSorted();\nconsole.log(`sorted ${rows.length} rows`);\n({ first: rows[0], \
         total: rows.reduce((a, b) => a + b) })",
    );
    text
}

fn packages(allowed: &Allowlist) -> String {
    if allowed.allows_any() {
        return "Packages: any of npm and jsr, as `import x from \"npm:NAME\"`.\n".to_owned();
    }
    let names: Vec<String> = allowed.packages().map(Package::key).collect();
    if names.is_empty() {
        return "Packages: none.\n".to_owned();
    }
    format!(
        "Packages: {} (`import x from \"npm:NAME\"`, without a version).\n",
        shortened(&names.join(" "), 350)
    )
}

fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        text.to_owned()
    } else {
        format!("{}…", &text[..text.floor_char_boundary(limit)])
    }
}

fn input_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "deno_code": {
                "type": "string",
                "description": "TypeScript or JavaScript to run as a module. End with an expression, or `return` a value."
            },
            "timeout": {
                "type": "number",
                "exclusiveMinimum": 0,
                "description": "Wall time limit in milliseconds; cut to the maximum."
            },
            "globals": {
                "type": "object",
                "description": "Values to define as global variables, by name."
            },
            "dependencies": {
                "type": "array",
                "items": { "type": "string" },
                "description": "Allowed packages that the code imports under a computed name, like npm:zod. What it imports by a literal name need not be listed."
            }
        },
        "required": ["deno_code"],
        "additionalProperties": false
    })
}

fn output_schema() -> Value {
    let position =
        json!({ "type": "integer", "minimum": 1, "description": "1-based, in deno_code as sent." });
    let excerpt = json!({
        "type": "object",
        "properties": {
            "totalBytes": { "type": "integer" },
            "omittedBytes": { "type": "integer" },
            "omittedLines": { "type": "integer" },
            "resource": { "type": "string", "description": "The uri of the whole; absent when it could not be kept." }
        },
        "required": ["totalBytes", "omittedBytes", "omittedLines"]
    });
    json!({
        "type": "object",
        "properties": {
            "status": { "type": "string", "enum": ["success", "error"] },
            "returnValue": { "description": "The value of the code; absent when there is none." },
            "returnValueFormat": {
                "type": "string",
                "enum": ["json", "inspect", "preview", "media", "none"],
                "description": "json: returnValue is the value. inspect: a string showing a value that JSON cannot hold. preview: a string with the beginning and end of a value too large for an answer, see resources. media: images, sounds or files, which are content of the answer. none: there is no value."
            },
            "stdout": { "type": "string" },
            "stderr": { "type": "string" },
            "error": {
                "type": "object",
                "properties": {
                    "type": { "type": "string", "enum": ErrorType::ALL.map(ErrorType::name) },
                    "message": { "type": "string" },
                    "line": position,
                    "column": position,
                    "codeFrame": { "type": "string", "description": "The lines around the error." },
                    "stack": { "type": "string", "description": "Frames of deno_code only." },
                    "cause": { "type": "array", "items": { "type": "string" } },
                    "hint": { "type": "string", "description": "The usual cure." }
                },
                "required": ["type", "message"]
            },
            "executionId": { "type": "string" },
            "worker": { "type": "string", "enum": ["spawn", "fork"] },
            "timings": {
                "type": "object",
                "description": "Milliseconds. total: receipt to answer; prepare: reading the code; queue: waiting for a worker; run: wall time in the worker; compute: its CPU time, all threads; waiting: the part of run in which the code waited for calls through conductor.",
                "properties": {
                    "total": { "type": "number" },
                    "prepare": { "type": "number" },
                    "queue": { "type": "number" },
                    "run": { "type": "number" },
                    "compute": { "type": "number" },
                    "waiting": { "type": "number" }
                },
                "required": ["total", "prepare", "queue", "run", "compute", "waiting"]
            },
            "media": {
                "type": "array",
                "description": "What the code returned as images, sounds or files; their data is content of the answer.",
                "items": {
                    "type": "object",
                    "properties": {
                        "kind": { "type": "string", "enum": ["image", "audio", "file"] },
                        "mimeType": { "type": "string" },
                        "name": { "type": "string" },
                        "bytes": { "type": "integer" }
                    },
                    "required": ["kind", "mimeType", "bytes"]
                }
            },
            "truncated": {
                "type": "object",
                "description": "What is not in this answer; each field that was cut.",
                "properties": { "returnValue": excerpt, "stdout": excerpt, "stderr": excerpt }
            },
            "resources": {
                "type": "array",
                "description": "Where what was cut can be read whole: resources/read with the uri, or conductor.result(id) in a later call.",
                "items": {
                    "type": "object",
                    "properties": {
                        "uri": { "type": "string" },
                        "id": { "type": "string" },
                        "name": { "type": "string" },
                        "mimeType": { "type": "string" },
                        "bytes": { "type": "integer" }
                    },
                    "required": ["uri", "id", "name", "mimeType", "bytes"]
                }
            },
            "notes": { "type": "array", "items": { "type": "string" } }
        },
        "required": ["status", "returnValueFormat", "stdout", "stderr", "executionId", "timings"]
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{config::Config, dirs::Dirs, profile};

    /// Claude Code cuts descriptions behind 2 KB.
    #[test]
    fn the_description_fits_every_client_and_tells_what_code_may_do() {
        let dirs = Dirs::from_env(&BTreeMap::new(), Some("/h".into())).expect("has a home");
        let hosts: Vec<String> = (0..200).map(|n| format!("host{n}.example.org")).collect();
        let env = BTreeMap::from([
            ("MCP_CONDUCTOR_WORKSPACE".to_owned(), format!("/{}", "ü".repeat(1000))),
            ("MCP_CONDUCTOR_RUN_ARGS".to_owned(), format!("allow-net={}", hosts.join(","))),
        ]);
        let profile = profile::resolve(&Config::default(), &env, "/", &dirs).expect("is right");
        let servers: Vec<String> = (0..100).map(|n| format!("server-number-{n}")).collect();
        let text = description(Some(&profile), &servers);
        assert!(
            text.contains("Permissions: net host0.example.org") && text.contains("30000 ms by default"),
            "{text}"
        );
        assert!(text.contains("npm:axios") && text.contains("server-number-0"), "{text}");
        assert!(text.len() < 2048 && description(None, &[]).len() < 2048, "{} bytes", text.len());
    }
}
