//! rmcp's client over a child process, in each lifecycle it knows.

use conductor_tests::{DEADLINE, Daemon, binaries};
use rmcp::RoleClient;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientConfig, ClientRequest, JsonObject, ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, PeerRequestOptions, RequestHandle, RunningService,
    ServiceError,
};
use rmcp::transport::TokioChildProcess;
use serde_json::{Value, json};

/// Longer than any wait of these tests: a call that ends sooner was cancelled.
const TIMEOUT_MS: u64 = 120_000;

type Client = RunningService<RoleClient, ClientConfig>;

#[tokio::test(flavor = "multi_thread")]
async fn initialize() {
    let daemon = Daemon::new();
    check(&daemon, ClientLifecycleMode::Initialize, ProtocolVersion::LATEST_WITH_INITIALIZE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discover() {
    let daemon = Daemon::new();
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    let auto = ClientLifecycleMode::Auto { preferred_versions, legacy_version: None };
    check(&daemon, auto, ProtocolVersion::V_2026_07_28).await;
}

/// Opens a session, lists the tools, makes twenty calls at once, and cancels one that would never end.
async fn check(daemon: &Daemon, lifecycle: ClientLifecycleMode, version: ProtocolVersion) {
    let client = connect(daemon, lifecycle).await;
    let server = client.peer_info().expect("the server has introduced itself");
    assert_eq!(server.protocol_version, version);
    let tools = client.list_all_tools().await.expect("a list of tools");
    assert_eq!(tools.iter().map(|tool| tool.name.as_ref()).collect::<Vec<_>>(), ["run_deno_code"]);

    let mut calls = tokio::task::JoinSet::new();
    for n in 0..20 {
        let peer = client.peer().clone();
        calls.spawn(async move {
            let result = peer.call_tool(code(&format!("{n} ** 2"))).await.expect("an answer");
            (n, result.structured_content.expect("a structured result")["returnValue"].clone())
        });
    }
    let mut values = calls.join_all().await;
    values.sort_by_key(|(n, _)| *n);
    assert_eq!(values, (0..20).map(|n| (n, json!(n * n))).collect::<Vec<_>>());

    cancel_one(daemon, &client).await;
    let after = client.call_tool(code("'still here'")).await.expect("an answer");
    assert_eq!(after.structured_content.expect("a structured result")["returnValue"], "still here");
    client.cancel().await.expect("the session ends");
}

/// The worker of a cancelled call is killed, long before the call's own time limit.
async fn cancel_one(daemon: &Daemon, client: &Client) {
    let endless = start(client, code("for (;;) {}")).await.expect("the request is sent");
    let busy = |count| {
        move |status: &conductor_protocol::status::StatusReport| {
            status.pool.profiles.iter().map(|profile| profile.busy).sum::<u64>() == count
        }
    };
    tokio::task::block_in_place(|| daemon.wait_for_status("the call runs", busy(1)));
    endless.cancel(Some("no longer wanted".to_owned())).await.expect("the cancellation is sent");
    tokio::task::block_in_place(|| daemon.wait_for_status("its worker is gone", busy(0)));
}

async fn start(
    client: &Client,
    params: CallToolRequestParams,
) -> Result<RequestHandle<RoleClient>, ServiceError> {
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
    client.send_cancellable_request(request, PeerRequestOptions::no_options()).await
}

async fn connect(daemon: &Daemon, lifecycle: ClientLifecycleMode) -> Client {
    let home = daemon.home();
    let mut command = home.command(&binaries::shim());
    command.env("CONDUCTOR_SOCKET", home.socket()).env("CONDUCTOR_NO_AUTOSTART", "1");
    let transport = TokioChildProcess::new(tokio::process::Command::from(command)).expect("the shim starts");
    let connecting = ClientConfig::default().serve_with_lifecycle(transport, lifecycle);
    tokio::time::timeout(DEADLINE, connecting).await.expect("an answer in time").expect("a session")
}

fn code(code: &str) -> CallToolRequestParams {
    let mut arguments = JsonObject::new();
    arguments.insert("deno_code".to_owned(), Value::from(code));
    arguments.insert("timeout".to_owned(), Value::from(TIMEOUT_MS));
    CallToolRequestParams::new("run_deno_code").with_arguments(arguments)
}
