//! A temporary home directory: everything a daemon and its clients read, write and listen on.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries;
use crate::forks;
use crate::process::Process;

/// How long processes may take to end after the last fixture has been dropped.
const END_TIME: Duration = Duration::from_secs(10);

/// How much of a log a failed test prints, bytes.
const PRINTED_LOG_BYTES: usize = 64 * 1024;

/// A home directory of its own. When the last handle is dropped, no process that names it may be left.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

impl Home {
    pub fn new() -> Arc<Self> {
        let dir = tempfile::Builder::new().prefix("cnd-").tempdir().expect("a temporary directory");
        let home = Self { dir };
        for dir in [home.path("home/.config/conductor"), home.path("run"), home.path("ws")] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).expect("a directory");
        }
        if forks::are_wanted() {
            home.configure("");
        }
        Arc::new(home)
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory that is `$HOME`.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Short enough for a socket address.
    pub fn socket(&self) -> PathBuf {
        self.path("run/d.sock")
    }

    /// An existing directory for the code's files.
    pub fn workspace(&self) -> PathBuf {
        self.path("ws")
    }

    /// The Deno that daemons of this home are given: its own, if it has one.
    pub fn deno(&self) -> PathBuf {
        Some(self.own_deno()).filter(|own| own.exists()).unwrap_or_else(binaries::deno)
    }

    /// Where a Deno can be put that the test may take away.
    pub fn own_deno(&self) -> PathBuf {
        self.path("bin/deno")
    }

    pub fn config_file(&self) -> PathBuf {
        self.path("home/.config/conductor/config.toml")
    }

    /// What every daemon of this home logs, as JSON lines.
    pub fn log_file(&self) -> PathBuf {
        self.path("log")
    }

    /// Replaces the configuration file, in one step as most editors do: what is seen of it while it is written is a mistake.
    pub fn configure(&self, text: &str) {
        let staged = self.config_file().with_file_name("staged");
        let text = if forks::are_wanted() { forks::asked_for(text) } else { text.to_owned() };
        fs::write(&staged, text).expect("writes the configuration");
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).expect("sets its mode");
        fs::rename(staged, self.config_file()).expect("puts it in place");
    }

    /// A program that sees this home and nothing of the test's own environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(self.dir.path());
        command
    }

    fn environment(&self) -> [(&'static str, OsString); 6] {
        [
            ("HOME", self.home().into()),
            ("XDG_RUNTIME_DIR", self.path("run").into()),
            ("TMPDIR", self.dir.path().into()),
            ("PATH", "/usr/local/bin:/usr/bin:/bin".into()),
            ("RUST_BACKTRACE", "1".into()),
            // Fetching the default packages takes a registry and a minute; tests that need packages name theirs.
            ("MCP_CONDUCTOR_ALLOWED_PACKAGES", "none".into()),
        ]
    }

    /// All processes whose command line or environment names this home: daemons, shims, workers.
    pub fn processes(&self) -> Vec<Process> {
        Process::all().into_iter().filter(|process| process.names(self.dir.path())).collect()
    }

    /// The workers among them, whichever daemon started them and whether it still lives.
    pub fn workers(&self) -> Vec<Process> {
        // A server of a test may be a Deno too, with a cache of its own elsewhere.
        let workers = Process::all().into_iter();
        workers.filter(|process| process.is_worker_below(&self.home())).collect()
    }

    /// The daemons among them, also those that a shim has started. What a daemon starts has its command line for a moment, and
    /// what tries the jail out has its program.
    pub fn daemons(&self) -> Vec<Process> {
        let mut daemons = self.processes();
        daemons.retain(|process| process.command.contains("conductord"));
        let pids: BTreeSet<i32> = daemons.iter().map(|process| process.pid).collect();
        daemons.retain(|process| !process.command.contains(" __worker-") && !pids.contains(&process.parent));
        daemons
    }

    /// The log as JSON; a line that is still being written is left out.
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Fields of the log lines with this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let fields = self.log().into_iter().map(|line| line["fields"].clone());
        fields.filter(|fields| fields["message"] == message).collect()
    }

    #[expect(clippy::print_stderr, reason = "a failed test tells what its daemon said")]
    fn print_log(&self) {
        for name in ["log", "stderr", "shim-stderr"] {
            let text = fs::read(self.path(name)).unwrap_or_default();
            let tail = &text[text.len().saturating_sub(PRINTED_LOG_BYTES)..];
            if !tail.is_empty() {
                eprintln!("---- {} ----\n{}", self.path(name).display(), String::from_utf8_lossy(tail));
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_log();
        }
        let until = Instant::now() + END_TIME;
        while !self.processes().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = self.processes();
        for process in &left {
            process.signal(Signal::SIGKILL);
        }
        make_removable(self.dir.path());
        if !left.is_empty() && !std::thread::panicking() {
            panic!("processes were left running: {left:#?}");
        }
    }
}

/// Gives back what was taken from directories that workers must not write to: only root could remove those.
fn make_removable(dir: &Path) {
    // What cannot be changed or read stays behind; the test has had its result.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).ok();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.for_each(|entry| make_removable(&entry.path()));
}
