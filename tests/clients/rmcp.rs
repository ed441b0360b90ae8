//! rmcp's client over a child process and over HTTP, in each lifecycle it knows.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use conductor_tests::http::HttpBed;
use conductor_tests::{DEADLINE, Daemon, binaries, wait_for};
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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

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
    let client = connect(http(bed.client.address, &bed.client.token), ClientLifecycleMode::Initialize).await;
    check(&bed.daemon, client, ProtocolVersion::LATEST_WITH_INITIALIZE).await;
    // It has said so: with the client's end its session is over.
    tokio::task::block_in_place(|| {
        bed.daemon.wait_for_status("no session", |status| status.sessions.is_empty())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn discover_over_http() {
    let bed = tokio::task::block_in_place(|| HttpBed::new(""));
    let client = connect(http(bed.client.address, &bed.client.token), auto()).await;
    check(&bed.daemon, client, ProtocolVersion::V_2026_07_28).await;
}

/// A connection that breaks in the middle of a call costs nothing: rmcp goes on with the stream, and gets its answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_costs_nothing() {
    let profile = "[profiles.b]\npackages = []\nrun-args = \"allow-read=.,allow-write=.\"\n";
    let bed = tokio::task::block_in_place(|| HttpBed::new(profile));
    let bob = tokio::task::block_in_place(|| bed.another("bob", "b"));
    let way = Way::to(bob.address).await;
    let client = connect(http(way.address, &bob.token), ClientLifecycleMode::Initialize).await;
    let gated = "await Deno.writeTextFile('ran', 'x', { append: true });
        while (!(await Deno.stat('gate').catch(() => null))) await new Promise((r) => setTimeout(r, 20));
        'done'";
    let peer = client.peer().clone();
    let call = tokio::spawn(async move { peer.call_tool(code(gated)).await });
    // The answer is a stream by now, which can be resumed.
    tokio::task::block_in_place(|| {
        wait_for("two streams, this one and what is said unasked", DEADLINE, || match way.n_streams() {
            2.. => Ok(()),
            n => Err(format!("{n}")),
        });
    });
    let workspace = bed.home.home().join(".mcp-conductor/workspaces/b");
    tokio::task::block_in_place(|| {
        wait_for("the code runs", DEADLINE, || {
            if workspace.join("ran").exists() { Ok(()) } else { Err("not yet") }
        });
    });
    way.cut();
    std::fs::write(workspace.join("gate"), "").expect("writes");
    let answer =
        tokio::time::timeout(DEADLINE, call).await.expect("in time").expect("no panic").expect("an answer");
    assert_eq!(answer.structured_content.expect("a structured result")["returnValue"], "done");
    assert_eq!(std::fs::read_to_string(workspace.join("ran")).expect("it ran"), "x", "once");
    client.cancel().await.expect("the session ends");
}

/// A way to the daemon that can break.
struct Way {
    address: SocketAddr,
    connections: Arc<Mutex<JoinSet<()>>>,
    n_streams: Arc<AtomicUsize>,
}

impl Way {
    async fn to(daemon: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (connections, n_streams) = (Arc::new(Mutex::new(JoinSet::new())), Arc::new(AtomicUsize::new(0)));
        let way = Self { address, connections: connections.clone(), n_streams: n_streams.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let carry = carry(stream, daemon, n_streams.clone());
                connections.lock().expect("no panic").spawn(carry);
            }
        });
        way
    }

    /// How many streams of events have begun.
    fn n_streams(&self) -> usize {
        self.n_streams.load(Ordering::SeqCst)
    }

    fn cut(&self) {
        self.connections.lock().expect("no panic").abort_all();
    }
}

/// Carries bytes both ways until one end is closed, and counts the streams that come back.
async fn carry(client: TcpStream, daemon: SocketAddr, n_streams: Arc<AtomicUsize>) {
    let daemon = TcpStream::connect(daemon).await.expect("the daemon listens");
    let (mut requests, mut answered) = client.into_split();
    let (mut answers, mut requested) = daemon.into_split();
    let there = tokio::io::copy(&mut requests, &mut requested);
    let back = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(n @ 1..) = answers.read(&mut bytes).await {
            n_streams.fetch_add(
                String::from_utf8_lossy(&bytes[..n]).matches("text/event-stream").count(),
                Ordering::SeqCst,
            );
            if answered.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    };
    // Cancel-safe enough: with either end gone the connection is over.
    tokio::select! {
        _ = there => {}
        () = back => {}
    }
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

fn http(address: SocketAddr, token: &str) -> StreamableHttpClientTransport<reqwest::Client> {
    // Nothing is encrypted here, but there is no client without a provider. Another test may have installed it.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let config = StreamableHttpClientTransportConfig::with_uri(format!("http://{address}/mcp"));
    StreamableHttpClientTransport::from_config(config.auth_header(token))
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
