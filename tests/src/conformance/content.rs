//! Prompts and resources.

use rmcp::model::{ErrorData, GetPromptRequestParams, GetPromptResponse, ReadResourceResponse};
use serde_json::{Value, json};

use super::{Context, questions, result};

/// A PNG of one red pixel.
pub(super) const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";

/// A WAV without a sample.
pub(super) const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";

pub(super) const WATCHED: &str = "test://watched-resource";

pub(super) fn prompts(n_more: usize) -> Vec<Value> {
    let argument =
        |name: &str| json!({ "name": name, "description": format!("The {name}."), "required": true });
    let prompt = |name: &str, arguments: Vec<Value>| json!({ "name": name, "description": format!("The prompt {name}."), "arguments": arguments });
    let mut all = vec![
        prompt("test_simple_prompt", vec![]),
        prompt("test_prompt_with_arguments", vec![argument("arg1"), argument("arg2")]),
        prompt("test_prompt_with_embedded_resource", vec![argument("resourceUri")]),
        prompt("test_prompt_with_image", vec![]),
        prompt("test_input_required_result_prompt", vec![]),
    ];
    all.extend((0..n_more).map(|n| prompt(&format!("more_{n}"), vec![])));
    all
}

pub(super) fn prompt(
    request: &GetPromptRequestParams,
    context: &Context,
) -> Result<GetPromptResponse, ErrorData> {
    let argument = |name: &str| {
        let value = request.arguments.as_ref().and_then(|all| all.get(name)).and_then(Value::as_str);
        value.ok_or_else(|| ErrorData::invalid_params(format!("`{name}` is missing"), None))
    };
    let said = |content: Value| json!({ "role": "user", "content": content });
    let text = |text: &str| said(json!({ "type": "text", "text": text }));
    let messages = match &*request.name {
        "test_simple_prompt" => vec![text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (one, two) = (argument("arg1")?, argument("arg2")?);
            vec![text(&format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let uri = argument("resourceUri")?;
            let embedded = json!({ "uri": uri, "mimeType": "text/plain", "text": "Embedded resource content for testing." });
            vec![
                said(json!({ "type": "resource", "resource": embedded })),
                text("Please process the embedded resource above."),
            ]
        }
        "test_prompt_with_image" => vec![
            said(json!({ "type": "image", "data": PNG, "mimeType": "image/png" })),
            text("Please analyze the image above."),
        ],
        "test_input_required_result_prompt" => {
            let answered = request.input_responses.as_ref().and_then(|all| all.get("user_context"));
            let Some(context) = answered.and_then(|answer| answer["content"]["context"].as_str()) else {
                questions::needs(context, "elicitation")?;
                let form = questions::form("What context should the prompt use?", "context", "string");
                return Ok(questions::asks(json!({ "user_context": form }), None).into());
            };
            vec![text(&format!("Use this context: {context}"))]
        }
        other => return Err(ErrorData::invalid_params(format!("there is no prompt {other}"), None)),
    };
    Ok(GetPromptResponse::Complete(result(json!({ "messages": messages }))))
}

pub(super) fn resources() -> Value {
    let resource = |uri: &str, name: &str, kind: &str| json!({ "uri": uri, "name": name, "description": format!("The {name}."), "mimeType": kind });
    json!([
        resource("test://static-text", "static text", "text/plain"),
        resource("test://static-binary", "static binary", "image/png"),
        resource(WATCHED, "watched resource", "text/plain"),
    ])
}

pub(super) fn templates() -> Value {
    json!([{
        "uriTemplate": "test://template/{id}/data",
        "name": "data",
        "description": "Data by its id.",
        "mimeType": "application/json",
    }])
}

pub(super) fn read(uri: &str) -> Result<ReadResourceResponse, ErrorData> {
    let mut content = match uri {
        "test://static-text" => {
            json!({ "mimeType": "text/plain", "text": "This is the content of the static text resource." })
        }
        "test://static-binary" => json!({ "mimeType": "image/png", "blob": PNG }),
        WATCHED => json!({ "mimeType": "text/plain", "text": "It may change." }),
        _ => {
            let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
            let Some(id) = id else {
                return Err(ErrorData::resource_not_found("Resource not found", Some(json!({ "uri": uri }))));
            };
            let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            json!({ "mimeType": "application/json", "text": data.to_string() })
        }
    };
    content["uri"] = json!(uri);
    Ok(ReadResourceResponse::Complete(result(json!({ "contents": [content] }))))
}
