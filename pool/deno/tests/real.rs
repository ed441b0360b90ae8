//! The real registry, the real tools, the real executable.
//!
//! Where the registry cannot be reached these tests say so loudly and pass: a machine without network can still build.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;

use conductor_deno::{
    AttemptError, DenoBinary, FetchError, FetchOptions, Installer, Origin, PINNED, Phase, Progress, fetch,
    testing,
};

/// Fetches with one installer alone; `None` where its registry cannot be reached.
fn fetch_with(installer: Installer) -> Option<(DenoBinary, Vec<Progress>, tempfile::TempDir)> {
    let dir = tempfile::tempdir_in(testing::target_dir()).unwrap();
    let options = FetchOptions { installers: vec![installer], ..FetchOptions::default() };
    let mut seen = Vec::new();
    match fetch(&dir.path().join("data"), &options, |progress| seen.push(progress)) {
        Ok(deno) => Some((deno, seen, dir)),
        Err(error) if is_unreachable(&error) => {
            // Not by a macro: the output of those is shown for failed tests only.
            let message = format!("\n*** NOT TESTED: {installer} could not fetch Deno here: {error}\n\n");
            io::stderr().write_all(message.as_bytes()).unwrap();
            None
        }
        Err(error) => panic!("{error} ({})", error.hint()),
    }
}

/// True where the tool is missing, or hangs, or says that there is no network; any other failure is one of this crate.
fn is_unreachable(error: &FetchError) -> bool {
    const SIGNS: [&str; 9] = [
        "ENOTFOUND",
        "EAI_AGAIN",
        "ECONNREFUSED",
        "ECONNRESET",
        "ETIMEDOUT",
        "ENETUNREACH",
        "NewConnectionError",
        "Temporary failure in name resolution",
        "Connection refused",
    ];
    match error {
        FetchError::NoInstaller { .. } | FetchError::TimedOut { .. } => true,
        FetchError::AllFailed { attempts, .. } => attempts.iter().all(|attempt| match &attempt.error {
            AttemptError::Failed { output, .. } => SIGNS.iter().any(|sign| output.contains(sign)),
            _ => false,
        }),
        _ => false,
    }
}

fn check(installer: Installer) {
    let Some((deno, seen, dir)) = fetch_with(installer) else { return };
    assert_eq!((deno.version, deno.origin), (PINNED, Origin::Managed));
    assert!(deno.v8.starts_with(|c: char| c.is_ascii_digit()), "{}", deno.v8);
    assert!(!deno.update_wanted() && !deno.was_replaced());

    let data = dir.path().join("data").canonicalize().unwrap();
    assert_eq!(deno.path, data.join(format!("deno/{PINNED}/deno")));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&deno.path), 0o755);
    let mut left: Vec<_> =
        fs::read_dir(data.join("deno")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".lock", PINNED.to_string().as_str()], "nothing else is left");

    assert!(seen.iter().all(|progress| progress.bytes <= progress.total));
    let mut phases: Vec<Phase> = seen.iter().map(|progress| progress.phase).collect();
    phases.dedup();
    assert_eq!(phases, [Phase::Downloading(installer), Phase::Unpacking, Phase::Verifying]);
    let downloaded =
        seen.iter().filter(|progress| progress.phase == phases[0]).map(|progress| progress.bytes).max();
    assert!(downloaded.unwrap() > 1_000_000, "the download is seen while it runs: {downloaded:?}");
}

#[test]
fn npm_fetches_the_pinned_deno() {
    check(Installer::Npm);
}

#[test]
fn pip_fetches_the_pinned_deno() {
    check(Installer::Pip);
}

#[test]
fn tests_get_a_deno_that_runs_typescript() {
    let deno = testing::deno();
    assert!(std::ptr::eq(deno, testing::deno()), "one for all");
    let output = std::process::Command::new(&deno.path)
        .args(["eval", "--no-config", "--ext=ts", "const n: number = 6; console.log(n * 7)"])
        .env("DENO_DIR", testing::target_dir().join("conductor-test/deno-dir"))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "42",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
