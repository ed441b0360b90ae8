//! The Deno that tests run, and other programs that they fetch.

pub mod packages;

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::fetch::FetchOptions;
use crate::probe::DenoBinary;
use crate::search::{Search, find_or_fetch};

/// The machine's Deno, or the pinned one, fetched once for all tests into the target directory.
///
/// # Panics
/// There is none and none can be fetched.
pub fn deno() -> &'static DenoBinary {
    static DENO: OnceLock<DenoBinary> = OnceLock::new();
    DENO.get_or_init(|| {
        let search = Search::from_env(target_dir().join("conductor-test/data"));
        match find_or_fetch(&search, &FetchOptions::default(), |_| {}) {
            Ok(found) => found.deno,
            Err(error) => panic!("the tests need Deno: {}\nhint: {}", chain(&error), error.hint()),
        }
    })
}

/// The target directory of the build that the running executable comes from.
///
/// Cargo puts tests into `TARGET/PROFILE/deps`, programs into `TARGET/PROFILE`, examples into `TARGET/PROFILE/examples`; with
/// `--target` there is one level more, which does no harm.
///
/// # Panics
/// The executable does not lie in a target directory, and `CARGO_TARGET_DIR` names none.
pub fn target_dir() -> PathBuf {
    let executable = env::current_exe().expect("a running program has an executable");
    let built_into = executable.ancestors().find(|dir| dir.join(".fingerprint").is_dir());
    built_into
        .and_then(|profile| profile.parent())
        .map(PathBuf::from)
        .or_else(|| env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute()))
        .expect("tests run from a directory that cargo built into, or CARGO_TARGET_DIR names the target directory")
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
