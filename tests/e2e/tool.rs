//! What `run_deno_code` promises a client.

use conductor_tests::{Daemon, Shim};

#[test]
fn a_value_comes_back() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    assert_eq!(shim.call("1 + 1").value(), 2);
}
