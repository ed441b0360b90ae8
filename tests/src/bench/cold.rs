//! A call without conductor: `deno run` with a worker's flags and environment, started, run, and waited for.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::home::Home;

/// How to start Deno the way a worker is started.
#[derive(Debug)]
pub(super) struct Cold {
    program: PathBuf,
    /// Up to the script.
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    /// Scripts, and a `DENO_DIR` that Deno may fill.
    directory: PathBuf,
}

impl Cold {
    /// Takes the command line and the environment of a running worker; its last argument is the script.
    pub(super) fn like_worker(home: &Home, program: PathBuf, pid: i32) -> Self {
        let directory = home.path("cold");
        fs::create_dir_all(directory.join("deno-dir")).expect("a directory");
        let mut args = nul_separated(pid, "cmdline");
        assert_eq!(
            args.get(1).and_then(|arg| arg.to_str()),
            Some("run"),
            "a worker runs `deno run`: {args:?}"
        );
        args.pop();
        let env = nul_separated(pid, "environ").into_iter().filter_map(|entry| {
            let (name, value) = entry.to_str()?.split_once('=')?;
            Some((name.into(), value.into()))
        });
        let env = env.filter(|(name, _): &(OsString, OsString)| name != "DENO_DIR").collect();
        Self { program, args: args.split_off(1), env, directory }
    }

    /// A script with this content. It has been run, so Deno's caches are filled.
    pub(super) fn script(&self, name: &str, code: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, code).expect("writes a script");
        for _ in 0..2 {
            self.run(&path);
        }
        path
    }

    /// The time of one run.
    pub(super) fn run(&self, script: &PathBuf) -> Duration {
        let started = Instant::now();
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("DENO_DIR", self.directory.join("deno-dir"));
        let output = command.args(&self.args).arg(script).stdin(Stdio::null()).output().expect("Deno starts");
        let took = started.elapsed();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        took
    }
}

fn nul_separated(pid: i32, file: &str) -> Vec<OsString> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).expect("the worker is there");
    bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}
