//! rmcp's client over a child process and over HTTP, in each lifecycle it knows.

use conductor_tests::http::HttpBed;
use conductor_tests::{DEADLINE, Daemon, binaries};
use rmcp::RoleClient;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientConfig, ClientRequest, JsonObject, ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, PeerRequestOptions, RequestHandle, RunningService,
    ServiceError,
};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{IntoTransport, StreamableHttpClientTransport, TokioChildProcess};
use serde_json::{Value, json};

/// Longer than any wait of these tests: a call that ends sooner was cancelled.
const TIMEOUT_MS: u64 = 120_000;

type Client = RunningService<RoleClient, ClientConfig>;

#[tokio::test(flavor = "multi_thread")]
async fn initialize() {
    let daemon = Daemon::new();
    let client = connect(shim(&daemon), ClientLifecycleMode::Initialize).await;
    check(&daemon, client, ProtocolVersion::LATEST_WITH_INITIALIZE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discover() {
    let daemon = Daemon::new();
    let client = connect(shim(&daemon), auto()).await;
    check(&daemon, client, ProtocolVersion::V_2026_07_28).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn initialize_over_http() {
    let bed = tokio::task::block_in_place(|| HttpBed::new(""));
    let client = connect(http(&bed), ClientLifecycleMode::Initialize).await;
    check(&bed.daemon, client, ProtocolVersion::LATEST_WITH_INITIALIZE).await;
    // It has said so: with the client's end its session is over.
    tokio::task::block_in_place(|| {
        bed.daemon.wait_for_status("no session", |status| status.sessions.is_empty())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn discover_over_http() {
    let bed = tokio::task::block_in_place(|| HttpBed::new(""));
    let client = connect(http(&bed), auto()).await;
    check(&bed.daemon, client, ProtocolVersion::V_2026_07_28).await;
}

fn auto() -> ClientLifecycleMode {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    ClientLifecycleMode::Auto { preferred_versions, legacy_version: None }
}

/// Lists the tools, makes twenty calls at once, and cancels one that would never end.
async fn check(daemon: &Daemon, client: Client, version: ProtocolVersion) {
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

fn shim(daemon: &Daemon) -> TokioChildProcess {
    let home = daemon.home();
    let mut command = home.command(&binaries::shim());
    command.env("CONDUCTOR_SOCKET", home.socket()).env("CONDUCTOR_NO_AUTOSTART", "1");
    TokioChildProcess::new(tokio::process::Command::from(command)).expect("the shim starts")
}

fn http(bed: &HttpBed) -> StreamableHttpClientTransport<reqwest::Client> {
    // Nothing is encrypted here, but there is no client without a provider. Another test may have installed it.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let config = StreamableHttpClientTransportConfig::with_uri(format!("http://{}/mcp", bed.client.address));
    StreamableHttpClientTransport::from_config(config.auth_header(bed.client.token.clone()))
}

async fn connect<E, A>(
    transport: impl IntoTransport<RoleClient, E, A>,
    lifecycle: ClientLifecycleMode,
) -> Client
where
    E: std::error::Error + Send + Sync + 'static,
{
    let connecting = ClientConfig::default().serve_with_lifecycle(transport, lifecycle);
    tokio::time::timeout(DEADLINE, connecting).await.expect("an answer in time").expect("a session")
}

fn code(code: &str) -> CallToolRequestParams {
    let mut arguments = JsonObject::new();
    arguments.insert("deno_code".to_owned(), Value::from(code));
    arguments.insert("timeout".to_owned(), Value::from(TIMEOUT_MS));
    CallToolRequestParams::new("run_deno_code").with_arguments(arguments)
}
