//! The server over Streamable HTTP, on rmcp's own transport.

use std::io::Write as _;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;

use super::Server;

/// See [`Server::serve_http`].
pub(super) async fn serve(server: Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let origins = ["http://localhost:*", "http://127.0.0.1:*"].map(str::to_owned);
    let config = StreamableHttpServerConfig::default().with_allowed_origins(origins);
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(server.clone()), sessions, config);
    // stdout is how a test learns the port; nobody reads it otherwise.
    writeln!(std::io::stdout(), "http://{address}/mcp").expect("stdout is open");
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let service = TowerToHyperService::new(service.clone());
        // An error is a client that went away.
        tokio::spawn(async move {
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok()
        });
    }
}
