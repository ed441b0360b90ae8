//! Programs of npm and PyPI that tests drive, fetched once into `<target>/conductor-test/clients` and run from there.
//!
//! The committed manifest (npm's lock, pip's requirements) names every package with its version. It stays beside what was
//! installed from it, and only an installation whose copy equals the committed one is used. Installing happens in a staging
//! directory that is renamed once it is complete, under a lock that other test processes wait for.
//!
//! Where there is no package tool or no registry answers, a test says so loudly and passes: a machine without network can
//! still test the rest. Any other failure of an installer is a failure of the test.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::testing::target_dir;

/// Signs in an installer's output that the network is at fault: npm's error codes, and exceptions of pip's HTTP library.
const UNREACHABLE: [&str; 14] = [
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "ETIMEDOUT",
    "ERR_SOCKET_TIMEOUT",
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "Temporary failure in name resolution",
];

const STAGING: &str = "staging-";

/// The directory in which `name` is installed by its `package.json` and `package-lock.json`. `None`, after a loud notice,
/// where it cannot be had.
///
/// # Panics
/// The installer fails for another reason than a missing tool or network.
pub fn npm(name: &str, manifest: &[(&str, &str)]) -> Option<PathBuf> {
    installed(name, manifest, npm_ci)
}

/// The directory in which `name` is installed by its `requirements.txt`, as `packages` below it. `None`, after a loud
/// notice, where it cannot be had.
///
/// # Panics
/// The installer fails for another reason than a missing tool or network.
pub fn pip(name: &str, manifest: &[(&str, &str)]) -> Option<PathBuf> {
    installed(name, manifest, pip_install)
}

fn npm_ci(staging: &Path) -> Command {
    let mut command = Command::new("npm");
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--logs-max=0"]);
    command.args(["--no-update-notifier", "--engine-strict=false", "--cache"]).arg(staging.join("cache"));
    // Its defaults wait minutes before they admit that there is no network.
    command.args(["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]);
    command
}

fn pip_install(staging: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--requirement", "requirements.txt"]);
    // A directory of packages: unlike a virtual environment it can be renamed, and needs no further system package.
    command.arg("--target").arg(staging.join("packages"));
    command.args([
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
        "--progress-bar=off",
        "--retries=2",
    ]);
    command.args(["--disable-pip-version-check", "--timeout=60"]).env("PIP_REQUIRE_VIRTUALENV", "false");
    command
}

/// The directory in which `name` is installed by its manifest: files with their content.
fn installed(name: &str, manifest: &[(&str, &str)], installer: fn(&Path) -> Command) -> Option<PathBuf> {
    let clients = target_dir().join("conductor-test/clients");
    fs::create_dir_all(&clients).expect("the build directory can be written");
    let lock = File::create(clients.join(".lock")).expect("the build directory can be written");
    lock.lock().expect("the build directory can hold locks");
    let directory = clients.join(name);
    let holds =
        |&(file, text): &(&str, &str)| fs::read_to_string(directory.join(file)).is_ok_and(|is| is == text);
    if manifest.iter().all(holds) {
        return Some(directory);
    }
    remove_leftovers(&clients);
    let staging = tempfile::Builder::new().prefix(STAGING).tempdir_in(&clients).expect("a directory");
    for (file, text) in manifest {
        fs::write(staging.path().join(file), text).expect("the build directory can be written");
    }
    if let Err(why) = run(installer(staging.path()).current_dir(staging.path())) {
        // Not by a macro: the output of those is shown for failed tests only.
        let notice = format!("\n*** NOT TESTED: {name} cannot be fetched here: {why}\n\n");
        io::stderr().write_all(notice.as_bytes()).expect("stderr is open");
        return None;
    }
    put_in_place(staging, &directory).expect("the build directory can be written");
    Some(directory)
}

/// What a killed test process was installing.
fn remove_leftovers(clients: &Path) {
    for entry in fs::read_dir(clients).expect("it was just made").flatten() {
        if entry.file_name().to_string_lossy().starts_with(STAGING) {
            fs::remove_dir_all(entry.path()).expect("the build directory can be written");
        }
    }
}

/// Runs an installer; an error says why nothing can be fetched on this machine.
///
/// # Panics
/// It failed for any other reason than a missing tool or network.
fn run(command: &mut Command) -> Result<(), String> {
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("{} is not installed", command.get_program().display()));
        }
        other => other.expect("the installer starts"),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if said.contains("No module named pip") {
        return Err("python3 has no pip".to_owned());
    }
    let is_sign = |line: &&str| UNREACHABLE.iter().any(|sign| line.contains(sign));
    match said.lines().find(is_sign) {
        Some(line) => Err(format!("no registry answers: {}", line.trim())),
        None => panic!("the installer failed: {command:?}: {}\n{said}", output.status),
    }
}

fn put_in_place(staging: TempDir, directory: &Path) -> io::Result<()> {
    let cache = staging.path().join("cache");
    if cache.exists() {
        fs::remove_dir_all(cache)?;
    }
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::rename(staging.keep(), directory)
}
