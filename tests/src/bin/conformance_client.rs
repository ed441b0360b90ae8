//! The client that the conformance suite drives: `conformance-client URL`.

#[tokio::main]
async fn main() -> Result<(), String> {
    let url = std::env::args().nth(1).unwrap_or_default();
    conductor_tests::conformance::client::run(&url).await
}
