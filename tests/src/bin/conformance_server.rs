//! The server that the conformance suite asks for: `conformance-server stdio|http`.

use conductor_tests::conformance::Server;

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("http") => Server::default().serve_http().await,
        _ => Server::default().serve_stdio().await,
    }
}
