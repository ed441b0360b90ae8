//! Where the binaries under test are.

use std::path::PathBuf;

/// `conductord-under-test`, built from the same sources as the test.
///
/// # Panics
/// It was not built: cargo builds it with the tests of this package.
pub fn conductord() -> PathBuf {
    binary("conductord-under-test")
}

/// `conductor-shim-under-test`; see [`conductord`].
pub fn shim() -> PathBuf {
    binary("conductor-shim-under-test")
}

/// `conductorctl-under-test`; see [`conductord`].
pub fn conductorctl() -> PathBuf {
    binary("conductorctl-under-test")
}

/// A Deno that tells its version and then hangs; see [`conductord`].
pub fn hanging_deno() -> PathBuf {
    binary("hanging-deno")
}

/// The server that the conformance suite asks for; see [`conductord`].
pub fn conformance_server() -> PathBuf {
    binary("conformance-server")
}

/// The client that the conformance suite drives; see [`conductord`].
pub fn conformance_client() -> PathBuf {
    binary("conformance-client")
}

/// The Deno executable that all tests use.
pub fn deno() -> PathBuf {
    conductor_deno::testing::deno().path.clone()
}

/// `CARGO_BIN_EXE_*` exists while an integration test is compiled, not for this library; it names the same files.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has an executable");
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not beside {}; build the package's bins", test.display()))
}
