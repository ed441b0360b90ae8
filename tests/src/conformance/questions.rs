//! Tools that ask the client: by requests in the older era, by results that want input in the newer.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientResult, CustomRequest, ErrorData, InputRequiredResult,
    ServerRequest,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tools::text;
use super::{Context, is_older, of};

/// Makes a state of our own from one that somebody made up.
const SECRET: &str = "known to this server alone";

/// A result that asks instead of answering.
pub(super) fn asks(requests: Value, state: Option<&str>) -> InputRequiredResult {
    let mut result = json!({ "resultType": "input_required", "inputRequests": requests });
    if let Some(state) = state {
        result["requestState"] = json!(sealed(state));
    }
    of(result)
}

/// A form with one field.
pub(super) fn form(message: &str, field: &str, kind: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { field: { "type": kind } }, "required": [field] });
    json!({ "method": "elicitation/create", "params": { "message": message, "requestedSchema": schema } })
}

fn sampling(prompt: &str, max_tokens: u32) -> Value {
    let message = json!({ "role": "user", "content": { "type": "text", "text": prompt } });
    json!({ "method": "sampling/createMessage", "params": { "messages": [message], "maxTokens": max_tokens } })
}

fn roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}

/// Refuses a request whose client did not declare a capability.
pub(super) fn needs(context: &Context, capability: &str) -> Result<(), ErrorData> {
    if has(context, capability) {
        return Ok(());
    }
    Err(ErrorData::missing_required_client_capability(of(json!({ capability: {} }))))
}

fn has(context: &Context, capability: &str) -> bool {
    let declared = json!(context.client_capabilities().unwrap_or_default());
    declared.get(capability).is_some_and(|it| !it.is_null())
}

fn sealed(state: &str) -> String {
    let seal: String =
        Sha256::digest(format!("{SECRET}{state}")).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{state}.{seal}")
}

/// The state of a retry, if there is one.
fn state(request: &CallToolRequestParams) -> Result<Option<&str>, ErrorData> {
    let Some(given) = &request.request_state else { return Ok(None) };
    match given.rsplit_once('.') {
        Some((state, _)) if sealed(state) == *given => Ok(Some(state)),
        _ => Err(ErrorData::invalid_params("requestState is not one of this server", None)),
    }
}

/// Calls one of the tools that ask in the newer era; `None` if it is none of those.
pub(super) fn call(
    request: &CallToolRequestParams,
    context: &Context,
) -> Result<Option<CallToolResponse>, ErrorData> {
    let answer = |key: &str| request.input_responses.as_ref().and_then(|all| all.get(key));
    let named = |key: &str, field: &str| answer(key)?["content"][field].as_str().map(str::to_owned);
    let name = || form("What is your name?", "name", "string");
    let state = state(request)?;
    let response = match request.name.strip_prefix("test_input_required_result_").unwrap_or_default() {
        "elicitation" => match named("user_name", "name") {
            Some(name) => text(&format!("Hello, {name}!")),
            None => {
                needs(context, "elicitation")?;
                asks(json!({ "user_name": name() }), None).into()
            }
        },
        "sampling" => {
            match answer("capital_question").and_then(|answer| answer["content"]["text"].as_str()) {
                Some(said) => text(&format!("It said: {said}")),
                None => {
                    needs(context, "sampling")?;
                    asks(json!({ "capital_question": sampling("What is the capital of France?", 100) }), None)
                        .into()
                }
            }
        }
        "list_roots" => match answer("client_roots").and_then(|answer| answer["roots"].as_array()) {
            Some(roots) => text(&format!("Roots: {}", json!(roots))),
            None => {
                needs(context, "roots")?;
                asks(json!({ "client_roots": roots() }), None).into()
            }
        },
        "request_state" => match (state, answer("confirm")) {
            (Some("confirm"), Some(_)) => text("state-ok"),
            _ => asks(json!({ "confirm": form("Please confirm", "ok", "boolean") }), Some("confirm")).into(),
        },
        "multiple_inputs" => {
            let keys = ["user_name", "greeting", "client_roots"];
            if state == Some("all") && keys.iter().all(|key| answer(key).is_some()) {
                text("all three are there")
            } else {
                let greeting = sampling("Generate a greeting", 50);
                let all = json!({ "user_name": name(), "greeting": greeting, "client_roots": roots() });
                asks(all, Some("all")).into()
            }
        }
        "multi_round" => multi_round(state, named("step1", "name"), named("step2", "color")),
        "tampered_state" => match state {
            Some(_) => text("the state is as it was"),
            None => {
                asks(json!({ "confirm": form("Please confirm", "ok", "boolean") }), Some("round-1")).into()
            }
        },
        "capabilities" => capabilities(request, context),
        _ => return Ok(None),
    };
    Ok(Some(response))
}

fn multi_round(state: Option<&str>, name: Option<String>, color: Option<String>) -> CallToolResponse {
    let first = || form("Step 1: What is your name?", "name", "string");
    let second = || form("Step 2: What is your favorite color?", "color", "string");
    match (state, name, color) {
        (Some("one"), Some(name), _) => {
            asks(json!({ "step2": second() }), Some(&format!("two:{name}"))).into()
        }
        (Some(state), _, Some(color)) => match state.strip_prefix("two:") {
            Some(name) => text(&format!("{name} likes {color}")),
            None => asks(json!({ "step1": first() }), Some("one")).into(),
        },
        _ => asks(json!({ "step1": first() }), Some("one")).into(),
    }
}

/// Asks for what the client declared, and for nothing else.
fn capabilities(request: &CallToolRequestParams, context: &Context) -> CallToolResponse {
    if request.input_responses.as_ref().is_some_and(|all| !all.is_empty()) {
        return text("that will do");
    }
    let possible = [
        ("elicitation", form("What is your name?", "name", "string")),
        ("sampling", sampling("Say something", 50)),
        ("roots", roots()),
    ];
    let requests: serde_json::Map<String, Value> = possible
        .into_iter()
        .filter(|(capability, _)| has(context, capability))
        .map(|(capability, request)| (format!("ask_{capability}"), request))
        .collect();
    if requests.is_empty() { text("nobody can be asked") } else { asks(Value::Object(requests), None).into() }
}

/// Asks the client by a request in the older era, and by a result in the newer; gives the answer when it is there.
async fn ask(
    request: &CallToolRequestParams,
    context: &Context,
    capability: &str,
    question: Value,
) -> Result<Result<Value, CallToolResponse>, ErrorData> {
    needs(context, capability)?;
    if !is_older(context) {
        let answered = request.input_responses.as_ref().and_then(|all| all.get("question")).cloned();
        return Ok(answered.ok_or_else(|| asks(json!({ "question": question }), None).into()));
    }
    let method = question["method"].as_str().unwrap_or_default().to_owned();
    let sent = CustomRequest::new(method, Some(question["params"].clone()));
    let answer = context.peer.send_request(ServerRequest::CustomRequest(sent)).await;
    match answer {
        Ok(ClientResult::CustomResult(result)) => Ok(Ok(result.0)),
        Ok(result) => Ok(Ok(json!(result))),
        Err(error) => Err(ErrorData::internal_error(error.to_string(), None)),
    }
}

/// The tool `test_sampling`.
pub(super) async fn sample(
    request: &CallToolRequestParams,
    context: &Context,
    prompt: &str,
) -> Result<CallToolResponse, ErrorData> {
    let answer = ask(request, context, "sampling", sampling(prompt, 100)).await?;
    Ok(answer.map_or_else(
        |asks| asks,
        |said| text(&format!("LLM response: {}", said["content"]["text"].as_str().unwrap_or_default())),
    ))
}

/// The tools that show the client a form.
pub(super) async fn elicit(
    request: &CallToolRequestParams,
    context: &Context,
    message: &str,
    schema: Value,
    says: &str,
) -> Result<CallToolResponse, ErrorData> {
    let question = json!({ "method": "elicitation/create", "params": { "message": message, "requestedSchema": schema } });
    let answer = ask(request, context, "elicitation", question).await?;
    Ok(answer.map_or_else(
        |asks| asks,
        |answer| {
            let (action, content) = (answer["action"].as_str().unwrap_or_default(), &answer["content"]);
            text(&format!("{says}: action={action}, content={content}"))
        },
    ))
}
