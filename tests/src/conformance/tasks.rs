//! Tasks that calls are made into (the extension `io.modelcontextprotocol/tasks`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, CreateTaskResult, DetailedTask, ErrorData,
    GetTaskResult, InputResponses, JsonObject, Task, TaskPayload, TaskStatus,
};
use serde_json::{Value, json};

use super::tools::text;
use super::{Context, Server, lock, of, questions};

/// How long a task is kept, in milliseconds; nothing here runs longer.
const TTL_MS: u64 = 300_000;

const POLL_INTERVAL_MS: u64 = 50;

#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<HashMap<String, Entry>>);

#[derive(Debug)]
struct Entry {
    task: Task,
    payload: TaskPayload,
    answers: HashMap<String, Value>,
}

impl Tasks {
    fn add(&self, payload: TaskPayload) -> Task {
        let mut all = lock(&self.0);
        let now = now();
        let mut task = Task::new(format!("task-{}", all.len() + 1), payload.status(), now.clone(), now);
        (task.ttl_ms, task.poll_interval_ms) = (Some(TTL_MS), Some(POLL_INTERVAL_MS));
        all.insert(task.task_id.clone(), Entry { task: task.clone(), payload, answers: HashMap::new() });
        task
    }

    /// Ends a task, unless it has ended.
    fn end(&self, id: &str, payload: TaskPayload) {
        if let Some(entry) = lock(&self.0).get_mut(id).filter(|entry| !entry.payload.status().is_terminal()) {
            entry.task.last_updated_at = now();
            entry.payload = payload;
        }
    }

    pub(super) fn get(&self, id: &str) -> Result<GetTaskResult, ErrorData> {
        let all = lock(&self.0);
        let entry = all.get(id).ok_or_else(|| unknown(id))?;
        Ok(GetTaskResult::new(DetailedTask::new(entry.task.clone(), entry.payload.clone())))
    }

    pub(super) fn cancel(&self, id: &str) -> Result<(), ErrorData> {
        self.get(id)?;
        self.end(id, TaskPayload::Cancelled);
        Ok(())
    }

    pub(super) fn update(&self, id: &str, responses: InputResponses) -> Result<(), ErrorData> {
        let mut all = lock(&self.0);
        let entry = all.get_mut(id).ok_or_else(|| unknown(id))?;
        let TaskPayload::InputRequired { input_requests } = &mut entry.payload else { return Ok(()) };
        for (key, response) in responses {
            if input_requests.remove(&key).is_some() {
                entry.answers.insert(key, response);
            }
        }
        if input_requests.is_empty() {
            let answers = json!(entry.answers);
            entry.payload =
                completed(json!({ "content": [{ "type": "text", "text": format!("answers: {answers}") }] }));
        }
        entry.task.last_updated_at = now();
        Ok(())
    }
}

fn unknown(id: &str) -> ErrorData {
    ErrorData::invalid_params(format!("there is no task {id}"), None)
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn completed(result: Value) -> TaskPayload {
    TaskPayload::Completed { result: of::<JsonObject>(result) }
}

/// Calls one of the tools that become tasks; `None` if it is none of those.
pub(super) async fn call(
    server: &Server,
    request: &CallToolRequestParams,
    context: &Context,
) -> Result<Option<CallToolResponse>, ErrorData> {
    let has_tasks = context.client_capabilities().is_some_and(|declared| declared.supports_tasks());
    let argument = |name: &str| request.arguments.as_ref().and_then(|all| all.get(name));
    let seconds = argument("seconds").and_then(Value::as_f64).unwrap_or_default().clamp(0.0, 60.0);
    let asks = |keys: &[&str]| {
        let forms = keys.iter().map(|key| ((*key).to_owned(), questions::form("Sure?", "ok", "boolean")));
        TaskPayload::InputRequired { input_requests: of(Value::Object(forms.collect())) }
    };
    let said = |text: &str| json!({ "content": [{ "type": "text", "text": text }] });
    let task = match &*request.name {
        "slow_compute" if !has_tasks => {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            return Ok(Some(text("computed")));
        }
        "slow_compute" => later(server, seconds, completed(said("computed"))),
        "confirm_delete" | "multi_input" if !has_tasks => return Ok(Some(text("nothing was done"))),
        "failing_job" | "protocol_error_job" | "test_tool_with_task" if !has_tasks => {
            let required = ClientCapabilities::builder().enable_tasks().build();
            return Err(ErrorData::missing_required_client_capability(required));
        }
        "failing_job" => {
            let mut failed = said("it failed");
            failed["isError"] = json!(true);
            later(server, 0.5, completed(failed))
        }
        "protocol_error_job" => {
            let error = of(json!({ "code": -32_603, "message": "it broke" }));
            later(server, 0.1, TaskPayload::Failed { error })
        }
        "confirm_delete" => server.0.tasks.add(asks(&["confirm"])),
        "multi_input" => server.0.tasks.add(asks(&["first", "second"])),
        "test_tool_with_task" => {
            let answer = request.input_responses.as_ref().and_then(|all| all.get("user_name"));
            let Some(name) = answer.and_then(|answer| answer["content"]["name"].as_str()) else {
                let form = questions::form("What is your name?", "name", "string");
                return Ok(Some(questions::asks(json!({ "user_name": form }), Some("task")).into()));
            };
            later(server, 0.1, completed(said(&format!("Hello, {name}!"))))
        }
        _ => return Ok(None),
    };
    debug_assert!(task.status != TaskStatus::Completed);
    Ok(Some(CallToolResponse::Task(CreateTaskResult::new(task))))
}

/// A task that ends in this way after some time.
fn later(server: &Server, seconds: f64, end: TaskPayload) -> Task {
    let task = server.0.tasks.add(TaskPayload::Working);
    let (state, id) = (Arc::clone(&server.0), task.task_id.clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        state.tasks.end(&id, end);
    });
    task
}
