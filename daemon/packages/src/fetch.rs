//! The one step with network: Deno resolves packages and fetches them into a staging directory.
//!
//! In: specifiers, the user's environment for fetching. Out: a `DENO_DIR` with the packages and a `deno.lock`. Deno is told
//! to cache a module that imports them, never to run anything: no code of a package runs here, and no lifecycle script.
//! The process can write in the staging directory alone, where the kernel knows how to hold it to that.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::environment::FetchEnvironment;
use crate::error::LayerError;
use crate::progress::Progress;
use crate::specifier::Package;

mod output;
mod process;

use output::Output;

/// A Deno executable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deno {
    pub path: PathBuf,
    /// As Deno prints it: `2.9.6`. Layers of another version are not used, since their caches hold compiled code.
    pub version: String,
}

/// Where one build works.
#[derive(Debug)]
pub(crate) struct Workplace {
    /// Everything that the step may write is below this directory.
    pub(crate) staging: PathBuf,
    pub(crate) deno_dir: PathBuf,
    pub(crate) lock: PathBuf,
}

impl Workplace {
    pub(crate) fn home(&self) -> PathBuf {
        self.staging.join("home")
    }

    fn entry(&self) -> PathBuf {
        self.staging.join("entry")
    }
}

/// How to fetch.
#[derive(Debug)]
pub(crate) struct Fetch<'a> {
    pub(crate) deno: &'a Deno,
    pub(crate) environment: &'a FetchEnvironment,
    pub(crate) place: &'a Workplace,
    /// Refuse what is not in the lock.
    pub(crate) frozen: bool,
    pub(crate) timeout: Duration,
}

impl Fetch<'_> {
    /// Makes the directories that Deno uses. The user's `.npmrc` is linked, not copied: no token is written anywhere.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        for directory in [&self.place.deno_dir, &self.place.home(), &self.place.entry()] {
            std::fs::create_dir_all(directory)?;
        }
        match self.environment.npmrc() {
            Some(npmrc) => std::os::unix::fs::symlink(npmrc, self.place.home().join(".npmrc")),
            None => Ok(()),
        }
    }

    /// Removes what only this step needed.
    pub(crate) fn clean(&self) -> io::Result<()> {
        std::fs::remove_dir_all(self.place.home())?;
        std::fs::remove_dir_all(self.place.entry())
    }

    /// Resolves and fetches `specifiers` with all that they need.
    ///
    /// # Cancel safety
    /// Dropping the future kills Deno and everything it started.
    pub(crate) async fn run(
        &self,
        specifiers: &[String],
        progress: &Arc<watch::Sender<Progress>>,
    ) -> Result<(), LayerError> {
        let module = self.place.entry().join("main.js");
        let imports: String = specifiers.iter().map(|specifier| format!("import {specifier:?};\n")).collect();
        std::fs::write(&module, imports).map_err(LayerError::io("write the list of packages"))?;
        let mut command = self.command("cache");
        if self.frozen {
            command.arg("--frozen");
        }
        command.args(["--no-config", "--node-modules-dir=none"]).arg(module);
        self.finish(command, progress).await
    }

    /// Resolves packages into the lock and downloads none of them.
    ///
    /// # Cancel safety
    /// As [`Fetch::run`].
    pub(crate) async fn resolve(
        &self,
        packages: &BTreeSet<Package>,
        progress: &Arc<watch::Sender<Progress>>,
    ) -> Result<(), LayerError> {
        let file = self.place.entry().join("deno.json");
        let imports: BTreeMap<String, String> = packages
            .iter()
            .enumerate()
            .map(|(number, package)| (number.to_string(), package.to_string()))
            .collect();
        let config = serde_json::json!({ "imports": imports, "nodeModulesDir": "none" });
        std::fs::write(&file, config.to_string()).map_err(LayerError::io("write the list of packages"))?;
        let mut command = self.command("install");
        command.args(["--lockfile-only", "--config"]).arg(file);
        self.finish(command, progress).await
    }

    async fn finish(
        &self,
        command: Command,
        progress: &Arc<watch::Sender<Progress>>,
    ) -> Result<(), LayerError> {
        let mut output = Output::new(Arc::clone(progress));
        let running = process::run(command, &self.place.staging, |line| output.line(line));
        let finished = timeout(self.timeout, running).await;
        let status =
            finished.map_err(|_| LayerError::TimedOut { after: self.timeout })?.map_err(deno_missing)?;
        if status.success() { Ok(()) } else { Err(output.failure(status, &self.place.staging)) }
    }

    /// Deno with what every subcommand gets.
    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.deno.path);
        let mut lock = OsString::from("--lock=");
        lock.push(&self.place.lock);
        let import = format!("--allow-import={}", self.environment.registries().jsr_host());
        command.arg(subcommand).arg(lock).arg(import).current_dir(self.place.entry());
        command.env_clear().envs(self.environment.vars());
        command.env("DENO_DIR", &self.place.deno_dir).env("HOME", self.place.home());
        command.env("NO_COLOR", "1").env("DENO_NO_UPDATE_CHECK", "1");
        command.env_remove("NPM_CONFIG_USERCONFIG").env_remove("npm_config_userconfig");
        command
    }
}

fn deno_missing(error: io::Error) -> LayerError {
    LayerError::DenoMissing(Arc::new(error))
}
