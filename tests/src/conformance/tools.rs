//! Tools: what is listed, and what a call of each does.

#![expect(deprecated, reason = "the scenarios of older revisions log")]

use std::time::Duration;

use rmcp::model::{CallToolRequestParams, CallToolResponse, ErrorData};
use serde_json::{Value, json};

use super::content::{PNG, WAV};
use super::{Context, Server, of, questions, result, tasks};

/// Between two steps of a tool that tells of them.
const STEP: Duration = Duration::from_millis(50);

/// Tools without arguments.
const PLAIN: [&str; 31] = [
    "confirm_delete",
    "failing_job",
    "multi_input",
    "protocol_error_job",
    "test_audio_content",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_embedded_resource",
    "test_error_handling",
    "test_image_content",
    "test_input_required_result_capabilities",
    "test_input_required_result_elicitation",
    "test_input_required_result_list_roots",
    "test_input_required_result_multi_round",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_request_state",
    "test_input_required_result_sampling",
    "test_input_required_result_tampered_state",
    "test_logging_tool",
    "test_missing_capability",
    "test_multiple_content_types",
    "test_reconnection",
    "test_restart",
    "test_simple_text",
    "test_streaming_elicitation",
    "test_tool_with_logging",
    "test_tool_with_progress",
    "test_tool_with_task",
    "test_trigger_prompt_change",
    "test_trigger_tool_change",
    "touch_watched_resource",
];

pub(super) fn listed(n_more: usize) -> Vec<Value> {
    let tool = |name: &str, schema: Value| json!({ "name": name, "description": format!("The tool {name}."), "inputSchema": schema });
    let with = |name: &str, argument: &str, schema: Value| {
        tool(name, json!({ "type": "object", "properties": { argument: schema }, "required": [argument] }))
    };
    let more: Vec<String> = (0..n_more).map(|n| format!("more_{n}")).collect();
    let plain = PLAIN.into_iter().chain(more.iter().map(String::as_str));
    let mut all: Vec<Value> =
        plain.map(|name| tool(name, json!({ "type": "object", "properties": {} }))).collect();
    all.extend([
        with("greet", "name", json!({ "type": "string" })),
        with("slow_compute", "seconds", json!({ "type": "number" })),
        with("test_custom_header", "region", json!({ "type": "string", "x-mcp-header": "Region" })),
        with("test_elicitation", "message", json!({ "type": "string" })),
        with("test_sampling", "prompt", json!({ "type": "string" })),
        tool("json_schema_2020_12_tool", json_schema_2020_12()),
    ]);
    all.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    all
}

fn json_schema_2020_12() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}

/// A result that is one text.
pub(super) fn text(text: &str) -> CallToolResponse {
    parts(json!([{ "type": "text", "text": text }]))
}

fn parts(content: Value) -> CallToolResponse {
    CallToolResponse::Complete(result(json!({ "content": content })))
}

pub(super) async fn call(
    server: &Server,
    request: &CallToolRequestParams,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    let argument =
        |name: &str| request.arguments.as_ref().and_then(|all| all.get(name)?.as_str()).unwrap_or_default();
    Ok(match &*request.name {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => parts(json!([{ "type": "image", "data": PNG, "mimeType": "image/png" }])),
        "test_audio_content" => parts(json!([{ "type": "audio", "data": WAV, "mimeType": "audio/wav" }])),
        "test_embedded_resource" => {
            let text = "This is an embedded resource content.";
            let resource =
                json!({ "uri": "test://embedded-resource", "mimeType": "text/plain", "text": text });
            parts(json!([{ "type": "resource", "resource": resource }]))
        }
        "test_multiple_content_types" => {
            let text = json!({ "test": "data", "value": 123 }).to_string();
            let resource = json!({ "uri": "test://mixed-content-resource", "mimeType": "application/json", "text": text });
            parts(json!([
                { "type": "text", "text": "Multiple content types test:" },
                { "type": "image", "data": PNG, "mimeType": "image/png" },
                { "type": "resource", "resource": resource },
            ]))
        }
        "test_error_handling" => {
            let content =
                json!([{ "type": "text", "text": "This tool intentionally returns an error for testing" }]);
            CallToolResponse::Complete(result(json!({ "content": content, "isError": true })))
        }
        "test_tool_with_logging" | "test_logging_tool" => logs(server, context).await,
        "test_tool_with_progress" => progress(context).await,
        "test_reconnection" => text("Reconnection is not needed here."),
        "test_custom_header" => text(&format!("The region is {}.", argument("region"))),
        "json_schema_2020_12_tool" => text("The schema is what counts."),
        "greet" => text(&format!("Hello, {}!", argument("name"))),
        "test_missing_capability" => {
            questions::needs(context, "sampling")?;
            text("The client can sample.")
        }
        "test_sampling" => questions::sample(request, context, argument("prompt")).await?,
        "test_elicitation" => {
            let field = |description: &str| json!({ "type": "string", "description": description });
            let properties =
                json!({ "username": field("User's response"), "email": field("User's email address") });
            let schema =
                json!({ "type": "object", "properties": properties, "required": ["username", "email"] });
            questions::elicit(request, context, argument("message"), schema, "User response").await?
        }
        "test_streaming_elicitation" => {
            let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
            questions::elicit(request, context, "Who are you?", schema, "Elicitation completed").await?
        }
        "test_elicitation_sep1034_defaults" => {
            questions::elicit(request, context, "Please check", defaults(), "Elicitation completed").await?
        }
        "test_elicitation_sep1330_enums" => {
            questions::elicit(request, context, "Please choose", enums(), "Elicitation completed").await?
        }
        "test_trigger_tool_change" => {
            server.more_tools(context).await;
            text("There is one more tool.")
        }
        "test_trigger_prompt_change" => {
            server.more_prompts(context).await;
            text("There is one more prompt.")
        }
        "touch_watched_resource" => {
            server.touch(context).await;
            text("It changed.")
        }
        #[expect(clippy::exit, reason = "to end is what the tool is for")]
        "test_restart" => std::process::exit(0),
        name => {
            if let Some(response) = questions::call(request, context)? {
                return Ok(response);
            }
            if let Some(response) = tasks::call(server, request, context).await? {
                return Ok(response);
            }
            return Err(ErrorData::invalid_params(format!("there is no tool {name}"), None));
        }
    })
}

async fn logs(server: &Server, context: &Context) -> CallToolResponse {
    for (n, message) in
        ["Tool execution started", "Tool processing data", "Tool execution completed"].into_iter().enumerate()
    {
        if n > 0 {
            tokio::time::sleep(STEP).await;
        }
        if server.wants_logs(context) {
            let message = of(json!({ "level": "info", "logger": "conformance", "data": message }));
            // client gone: so is whoever waits for the result
            context.peer.notify_logging_message(message).await.ok();
        }
    }
    text("Three messages were logged.")
}

async fn progress(context: &Context) -> CallToolResponse {
    for (n, progress) in [0, 50, 100].into_iter().enumerate() {
        if n > 0 {
            tokio::time::sleep(STEP).await;
        }
        if let Some(token) = context.meta.get_progress_token() {
            let told = of(json!({ "progressToken": token, "progress": progress, "total": 100 }));
            // client gone: so is whoever waits for the result
            context.peer.notify_progress(told).await.ok();
        }
    }
    text("It is done.")
}

fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "default": "John Doe" },
            "age": { "type": "integer", "default": 30 },
            "score": { "type": "number", "default": 95.5 },
            "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
            "verified": { "type": "boolean", "default": true },
        },
        "required": [],
    })
}

fn enums() -> Value {
    let options = ["option1", "option2", "option3"];
    let titled = |titles: [&str; 3]| {
        let values = ["value1", "value2", "value3"].iter().zip(titles);
        Value::from_iter(values.map(|(value, title)| json!({ "const": value, "title": title })))
    };
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": options },
            "titledSingle": { "type": "string", "oneOf": titled(["First Option", "Second Option", "Third Option"]) },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": { "type": "array", "items": { "type": "string", "enum": options } },
            "titledMulti": {
                "type": "array",
                "items": { "anyOf": titled(["First Choice", "Second Choice", "Third Choice"]) },
            },
        },
        "required": [],
    })
}
