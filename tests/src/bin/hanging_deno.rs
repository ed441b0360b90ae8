//! A Deno that tells its version and then hangs: what a broken installation or a full disk can make of one.

#![expect(clippy::print_stdout, reason = "its answer")]

fn main() {
    if std::env::args().any(|argument| argument == "--version") {
        println!("deno {} (stable, release, test)\nv8 1.0.0\ntypescript 1.0.0", conductor_deno::PINNED);
        return;
    }
    loop {
        std::thread::park();
    }
}
