//! Conductor in front of the suite's server, reachable without a token: the suite cannot send one, so a forwarder on this
//! machine adds it to each request and changes nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use conductor_tests::{DEADLINE, Daemon, Home, Shim, binaries, wait_for};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

pub(crate) struct Front {
    pub(crate) home: Arc<Home>,
    pub(crate) url: String,
    _daemon: Daemon,
    _runtime: Runtime,
}

impl Front {
    /// `server`: the entry of the suite's server. Each session has its own, so that log messages can be told.
    pub(crate) fn start(mut server: Value) -> Self {
        server["expose"] = json!(["tools", "resources", "prompts"]);
        server["scope"] = json!("session");
        let home = Home::new();
        home.configure("[http]\nenabled = true\nlisten = [\"127.0.0.1:0\"]\n");
        let directory = home.home().join(".mcp-conductor");
        std::fs::create_dir_all(&directory).expect("makes the directory");
        let servers = json!({ "mcpServers": { "suite": server } }).to_string();
        std::fs::write(directory.join("mcp-config.json"), servers).expect("writes the configuration");
        let daemon = Daemon::start(&home);
        let status = daemon.wait_for_status("it listens", |status| !status.http.urls.is_empty());
        let url = &status.http.urls[0];
        let address = url.trim_start_matches("http://").split('/').next().expect("there is a first part");
        let address: SocketAddr = address.parse().expect("an address");

        // Lists do not wait for a server that never ran.
        let shim = Shim::session(&home);
        wait_for("the server's tools are known", DEADLINE, || {
            let names: Vec<Value> = shim.tools().iter().map(|tool| tool["name"].clone()).collect();
            if names.contains(&json!("test_simple_text")) { Ok(()) } else { Err(format!("{names:?}")) }
        });
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("it is bound"));
        runtime.spawn(forward_all(listener, address, token(&home)));
        Self { home, url, _daemon: daemon, _runtime: runtime }
    }
}

fn token(home: &Home) -> HeaderValue {
    let mut command = home.command(&binaries::conductorctl());
    command.arg("--socket").arg(home.socket()).args(["token", "add", "suite"]);
    let output = command.output().expect("conductorctl starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).expect("text");
    HeaderValue::try_from(format!("Bearer {}", token.trim())).expect("a header")
}

async fn forward_all(listener: TcpListener, to: SocketAddr, token: HeaderValue) {
    while let Ok((stream, _)) = listener.accept().await {
        let token = token.clone();
        let service = service_fn(move |request| forward(request, to, token.clone()));
        tokio::spawn(async move {
            // An error is a client that went away.
            server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

async fn forward(
    mut request: Request<Incoming>,
    to: SocketAddr,
    token: HeaderValue,
) -> Result<Response<Incoming>, Infallible> {
    request.headers_mut().insert(AUTHORIZATION, token);
    let stream = TcpStream::connect(to).await.expect("the daemon listens");
    let (mut sender, connection) =
        client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    // It ends with the answer's body, or when nobody reads that any more.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await.expect("the daemon answers"))
}
