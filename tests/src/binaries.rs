//! Where the binaries under test are, and programs that tests make.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Makes a file that can be executed, by a process of its own: one that another test starts just then would hold a file of this
/// process open for writing, and Linux executes no such file.
///
/// # Panics
/// It cannot be written.
pub fn write_program(path: &Path, text: &str) {
    let mut write = Command::new("/bin/sh");
    write.args(["-c", "printf %s \"$1\" > \"$0\" && chmod 700 \"$0\""]).arg(path).arg(text);
    assert!(write.status().expect("a shell starts").success(), "{} cannot be written", path.display());
}

/// Puts a copy of an executable in its place in one step, for the same reason by a process of its own.
///
/// # Panics
/// It cannot be copied.
pub fn install(program: &Path, path: &Path) {
    let staged = path.with_extension("staged");
    let copied = Command::new("install").arg("--mode=755").arg(program).arg(&staged).status();
    assert!(copied.expect("install starts").success(), "{} cannot be copied", program.display());
    std::fs::rename(staged, path).expect("puts it in place");
}

/// `CARGO_BIN_EXE_*` exists while an integration test is compiled, not for this library; it names the same files.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has an executable");
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not beside {}; build the package's bins", test.display()))
}
