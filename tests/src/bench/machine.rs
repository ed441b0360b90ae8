//! What was measured on, and of what.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// All of it as text; what cannot be found out is empty.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Machine {
    pub(super) version: String,
    /// Of the source tree, marked where it has changes.
    pub(super) commit: String,
    /// How this program, and what it built, was built.
    pub(super) build: String,
    pub(super) cpu: String,
    pub(super) cpus: String,
    pub(super) memory: String,
    pub(super) kernel: String,
    pub(super) deno: String,
    pub(super) date: String,
}

impl Machine {
    pub(super) fn this(deno: &Path) -> Self {
        let build =
            if cfg!(debug_assertions) { "debug build, whose numbers mean little" } else { "release build" };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let deno = said(Command::new(deno).arg("--version"));
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let tree = ["describe", "--always", "--dirty", "--exclude=*"];
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: said(Command::new("git").args(tree).current_dir(env!("CARGO_MANIFEST_DIR"))),
            build: build.to_owned(),
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: cpus.to_string(),
            memory: memory(&field("/proc/meminfo", "MemTotal")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            deno: deno.lines().next().unwrap_or_default().to_owned(),
            date: date.split('T').next().unwrap_or_default().to_owned(),
        }
    }

    /// Its lines, with what they are.
    pub(super) fn lines(&self) -> [(&'static str, String); 6] {
        [
            ("conductor", format!("{}, commit {}, {}", self.version, self.commit, self.build)),
            ("CPU", format!("{}, {} of them", self.cpu, self.cpus)),
            ("memory", self.memory.clone()),
            ("kernel", format!("Linux {}", self.kernel)),
            ("Deno", self.deno.clone()),
            ("date", self.date.clone()),
        ]
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines().map(|(what, is)| format!("{what} {is}"));
        f.write_str(&lines.join("; "))
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first line of a file of `/proc` that begins so.
fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

fn memory(kibibytes: &str) -> String {
    let number = kibibytes.trim_end_matches("kB").trim().parse::<f64>();
    number.map(|number| format!("{:.1} GiB", number / (1024.0 * 1024.0))).unwrap_or_default()
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
