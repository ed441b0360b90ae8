//! What upstream servers ask of the client behind a session, and what they log to it: in each era of the protocol, from
//! code and answered by a real client, or by nobody.

#![expect(
    deprecated,
    reason = "sampling and roots are on their way out of MCP (SEP-2577); servers of today use them"
)]

use std::sync::{Arc, Mutex};

use conductor_tests::{Answer, DEADLINE, Shim, binaries, wait_for};
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, CreateMessageRequestParams, CreateMessageResult,
    ElicitRequestParams, ElicitResult, ElicitationAction, ErrorData, Implementation, ListRootsResult,
    ProtocolVersion, Root, SamplingMessage,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext, RunningService};
use rmcp::transport::TokioChildProcess;
use rmcp::{ClientHandler, RoleClient};
use serde_json::{Value, json};

use crate::servers::{Bed, everything, mirror, newer, session_that_offers};

/// A client whose user says yes.
#[derive(Clone, Debug, Default)]
struct Agreeable {
    asked: Arc<Mutex<Vec<&'static str>>>,
}

impl Agreeable {
    fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().expect("no test panics with it").clone()
    }

    fn note(&self, what: &'static str) {
        self.asked.lock().expect("no test panics with it").push(what);
    }
}

impl ClientHandler for Agreeable {
    fn get_info(&self) -> ClientConfig {
        let all = json!({ "elicitation": { "form": {} }, "sampling": {}, "roots": {} });
        let all: ClientCapabilities = serde_json::from_value(all).expect("capabilities");
        ClientConfig::new(all, Implementation::new("agreeable", "1"))
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.note("elicitation");
        let content = json!({ "name": "Ada", "check": true });
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content))
    }

    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        self.note("sampling");
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text("a poem"), "no-model".to_owned()))
    }

    async fn list_roots(&self, _context: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        self.note("roots");
        Ok(ListRootsResult::new(vec![Root::new("file:///somewhere").with_name("Somewhere")]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_asked_while_its_code_runs_by_requests_of_servers() {
    a_client_answers_its_code(ClientLifecycleMode::Initialize).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_asked_while_its_code_runs_by_results_that_want_input() {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    a_client_answers_its_code(ClientLifecycleMode::Discover { preferred_versions }).await;
}

/// The reference server asks for everything that it can, within one run of code.
async fn a_client_answers_its_code(lifecycle: ClientLifecycleMode) {
    let Some(everything) = everything(json!({ "scope": "session" })) else { return };
    let bed = Bed::new(|_| json!({ "everything": everything }));
    let client = Agreeable::default();
    let session = connect(&bed, client.clone(), lifecycle).await;
    let code = "const server = await mcpFactory.load('everything');\n\
                const text = async (tool, args = {}) => (await server.callToolRaw(tool, args)).content.map((it) => it.text).join(' ');\n\
                const roots = await text('get-roots-list');\n\
                const form = await text('trigger-elicitation-request');\n\
                const poem = await text('trigger-sampling-request', { prompt: 'a poem' });\n\
                ({ form, poem, roots })";
    let result = session.call_tool(code_call(code)).await.expect("an answer");
    let structured = result.structured_content.expect("a structured result");
    let value = &structured["returnValue"];
    let says =
        |key: &str, text: &str| assert!(value[key].to_string().contains(text), "{key}: {structured:#}");
    says("form", "Name: Ada");
    says("poem", "a poem");
    says("roots", "file:///somewhere");
    let mut asked = client.asked();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked, ["elicitation", "roots", "sampling"]);
    session.cancel().await.expect("the session ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_questions_of_one_run_are_all_answered() {
    for lifecycle in [
        ClientLifecycleMode::Initialize,
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
    ] {
        let bed = Bed::new(|home| json!({ "mirror": mirror(home, json!({})) }));
        let client = Agreeable::default();
        let session = connect(&bed, client.clone(), lifecycle).await;
        let code = "const one = () => mcp.mirror.ask({ method: 'elicitation/create', params: { message: 'Who?', requestedSchema: { type: 'object', properties: {} } } });\n\
                    const together = await Promise.all([one(), one(), one()]);\n\
                    [...together, await one()].map((it) => it.result.content.name)";
        let result = session.call_tool(code_call(code)).await.expect("an answer");
        let structured = result.structured_content.expect("a structured result");
        assert_eq!(structured["returnValue"], json!(["Ada", "Ada", "Ada", "Ada"]), "{structured:#}");
        assert_eq!(client.asked(), ["elicitation"; 4]);
        session.cancel().await.expect("the session ends");
    }
}

#[test]
fn a_client_that_offers_nothing_is_not_asked() {
    let bed = Bed::new(|home| json!({ "mirror": mirror(home, json!({ "scope": "session" })) }));
    let shim = Shim::session(&bed.home);
    let ask = |method: &str| {
        let code = format!("(await mcp.mirror.ask({{ method: '{method}', params: {{}} }}))");
        shim.call(&code).value().clone()
    };
    assert_eq!(ask("elicitation/create"), json!({ "result": { "action": "decline" } }));
    let why = ask("sampling/createMessage");
    assert_eq!(why["error"]["message"], "the client does not offer sampling", "{why}");
    assert_eq!(ask("roots/list")["error"]["message"], "the client does not offer roots");
    let asked = |message: &&Value| message.get("method").is_some() && message.get("id").is_some();
    assert_eq!(shim.messages().iter().filter(asked).count(), 0, "nothing was asked");
}

#[test]
fn a_question_is_withdrawn_when_nobody_waits_for_its_answer() {
    let bed = Bed::new(|home| json!({ "mirror": mirror(home, json!({})) }));
    let shim = session_that_offers(&bed, json!({ "elicitation": {} }));
    let id = shim.start_call(json!({ "deno_code": asking("elicitation/create") }));
    let question =
        shim.wait_for_message("the question", DEADLINE, |message| message["method"] == "elicitation/create");
    assert_eq!(question["params"]["message"], "Who?");
    shim.notify("notifications/cancelled", json!({ "requestId": id }));
    shim.wait_for_message("the withdrawal", DEADLINE, |message| {
        message["method"] == "notifications/cancelled" && message["params"]["requestId"] == question["id"]
    });
    assert_eq!(shim.call("'still here'").value(), "still here");
}

#[test]
fn a_question_to_several_sessions_at_once_reaches_none() {
    let bed = Bed::new(|home| json!({ "mirror": mirror(home, json!({})) }));
    let shims = [(); 2].map(|()| session_that_offers(&bed, json!({ "sampling": {} })));
    let waiting = shims[0].start_call(json!({ "deno_code": "await mcp.mirror.endless({})" }));
    wait_for("the first session has a call there", DEADLINE, || {
        if bed.notes().contains("endless") { Ok(()) } else { Err(bed.notes()) }
    });
    let answer = shims[1].call(&asking("sampling/createMessage"));
    let why = answer.value()["error"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("scope = \"session\""), "{}", answer.value());
    shims[0].notify("notifications/cancelled", json!({ "requestId": waiting }));
    wait_for("its call is over", DEADLINE, || {
        if bed.notes().contains("cancelled") { Ok(()) } else { Err(bed.notes()) }
    });
}

#[test]
fn a_server_of_ones_own_logs_to_its_client_at_the_level_that_was_asked_for() {
    let bed = Bed::new(
        |home| json!({ "own": mirror(home, json!({ "scope": "session" })), "shared": mirror(home, json!({})) }),
    );
    let [loud, quiet] = [(); 2].map(|()| Shim::session(&bed.home));
    loud.ask("logging/setLevel", json!({ "level": "warning" }));
    quiet.ask("logging/setLevel", json!({ "level": "emergency" }));
    let code = "for (const server of [mcp.shared, mcp.own]) {\n\
                  for (const level of ['info', 'error', 'warning']) await server.log({ level, data: { level } });\n\
                }\n0";
    for shim in [&loud, &quiet] {
        assert_eq!(shim.call(code).value(), 0);
    }
    loud.wait_for_message("the last log message", DEADLINE, |message| {
        message["params"]["level"] == "warning"
    });
    let told = |shim: &Shim| shim.notifications("notifications/message");
    let levels: Vec<_> = told(&loud).iter().map(|told| told["data"]["level"].clone()).collect();
    assert_eq!(levels, ["error", "warning"], "in order, and none of the shared server's");
    assert_eq!(told(&loud)[0]["logger"], "own/part");
    assert_eq!(told(&quiet), [Value::Null; 0]);
}

/// A client of the newer revision that drives the rounds itself.
#[test]
fn a_suspended_call_goes_on_once_and_only_for_the_same_request() {
    let bed = Bed::new(|home| json!({ "mirror": mirror(home, json!({})) }));
    let shim = Shim::spawn(&bed.home);
    let code = asking("elicitation/create");
    // The last call ends by its own limit, well before the test gives up.
    let call = |code: &str, more: Value| {
        let arguments = json!({ "deno_code": code, "timeout": 10_000 });
        let mut params = json!({ "name": "run_deno_code", "arguments": arguments, "_meta": newer() });
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        shim.ask("tools/call", params)
    };
    let answered = |first: &Answer, content: Value| {
        let responses = json!({ "elicitation-1": { "action": "accept", "content": content } });
        json!({ "inputResponses": responses, "requestState": first.result()["requestState"] })
    };
    let first = call(&code, json!({}));
    assert_eq!(first.result()["resultType"], "input_required", "{first:?}");
    let question = &first.result()["inputRequests"]["elicitation-1"];
    assert_eq!(question["method"], "elicitation/create");
    let running = bed.daemon.status();
    assert_eq!(running.sessions[0].in_flight, 1, "the call waits: {running:#?}");

    let retry = answered(&first, json!({ "name": "Grace" }));
    let last = call(&code, retry.clone());
    assert_eq!(
        last.result()["structuredContent"]["returnValue"]["result"]["content"]["name"],
        "Grace",
        "{last:?}"
    );
    let again = call(&code, retry);
    assert!(again.is_rpc_error() && again.message.to_string().contains("over"), "{again:?}");

    let first = call(&code, json!({}));
    let other = call("'another program'", answered(&first, json!({})));
    assert!(other.is_rpc_error(), "a state is for its own request: {other:?}");
    bed.daemon
        .wait_for_status("the call that was given up is over", |status| status.sessions[0].in_flight == 0);
}

#[test]
fn the_daemon_goes_down_at_once_although_a_call_waits_for_its_client() {
    let mut bed = Bed::new(|home| json!({ "mirror": mirror(home, json!({})) }));
    let shim = session_that_offers(&bed, json!({ "elicitation": {} }));
    let id = shim.start_call(json!({ "deno_code": asking("elicitation/create") }));
    shim.wait_for_message("the question", DEADLINE, |message| message["method"] == "elicitation/create");
    bed.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let answer = shim.answer(id);
    assert_eq!(answer.value(), &json!({ "result": { "action": "decline" } }));
    assert!(bed.daemon.wait().success());
}

fn asking(method: &str) -> String {
    format!(
        "await mcp.mirror.ask({{ method: '{method}', params: {{ message: 'Who?', requestedSchema: {{ type: 'object', properties: {{}} }} }} }})"
    )
}

fn code_call(code: &str) -> CallToolRequestParams {
    let arguments = json!({ "deno_code": code, "timeout": 60_000 });
    CallToolRequestParams::new("run_deno_code")
        .with_arguments(serde_json::from_value(arguments).expect("an object"))
}

async fn connect(
    bed: &Bed,
    client: Agreeable,
    lifecycle: ClientLifecycleMode,
) -> RunningService<RoleClient, Agreeable> {
    let mut command = bed.home.command(&binaries::shim());
    command.env("CONDUCTOR_SOCKET", bed.home.socket()).env("CONDUCTOR_NO_AUTOSTART", "1");
    let transport = TokioChildProcess::new(tokio::process::Command::from(command)).expect("the shim starts");
    let connecting = client.serve_with_lifecycle(transport, lifecycle);
    tokio::time::timeout(DEADLINE, connecting).await.expect("an answer in time").expect("a session")
}
