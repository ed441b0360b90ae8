//! The configuration in use, and what becomes of it when its file changes. Reads the file; the supervisor owns what comes out.
//!
//! A file that is wrong changes nothing. Nor does one that is gone or empty, unless an operator asks: an editor may be half way
//! through writing it, and what an administrator has forbidden must not be allowed by a slip.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::{Config, ConfigError, read_trusted};
use crate::error_chain;
use crate::supervisor::Command;
use crate::watched::WatchedFiles;

/// How long a file is left alone after it has changed: an editor writes it in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// How long changes without a pause are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The configuration and where it came from.
#[derive(Debug)]
pub struct ConfigInUse {
    /// Counts reloads.
    pub generation: u64,
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// Why the file cannot be used, when it never could since the daemon started; every call then answers with this.
    pub config: Result<Config, Arc<str>>,
    /// Why the last reload was not taken; the configuration before it stays in use.
    pub reload_error: Option<String>,
}

/// Why the file is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// An operator or a signal asks.
    Asked,
    /// The file may have changed.
    Noticed,
}

/// Where the file is, and whether it has to be there.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    required: bool,
}

impl ConfigFile {
    pub(crate) fn new(named: Option<&Path>, default: PathBuf) -> Self {
        Self { path: named.map_or(default, Path::to_owned), required: named.is_some() }
    }

    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.path, self.required)
    }

    /// What a daemon that starts begins with.
    pub(crate) fn first(&self) -> ConfigInUse {
        let config = self.load().map_err(|error| Arc::from(error_chain(&error)));
        ConfigInUse { generation: 0, path: self.existing(), config, reload_error: None }
    }

    /// What the file says now; `None` if that is in use already and nobody asked.
    ///
    /// # Errors
    /// Why it is not to be used.
    pub(crate) fn again(&self, in_use: &ConfigInUse, trigger: Trigger) -> Result<Option<Config>, String> {
        let text = match read_trusted(&self.path) {
            Ok(text) => text,
            Err(error) if error.is_absent() && !self.required => String::new(),
            Err(error) => return Err(error_chain(&error)),
        };
        if trigger == Trigger::Noticed && text.trim().is_empty() && !in_use.is_default() {
            return Err(self.emptied());
        }
        let config = Config::parse(&text, &self.path).map_err(|error| error_chain(&error))?;
        let is_new = trigger == Trigger::Asked || in_use.config.as_ref() != Ok(&config);
        Ok(is_new.then_some(config))
    }

    pub(crate) fn existing(&self) -> Option<PathBuf> {
        self.path.exists().then(|| self.path.clone())
    }

    fn emptied(&self) -> String {
        let what = if self.path.exists() { "empty" } else { "gone" };
        format!(
            "the configuration {} is {what}; what it said stays in force\nhint: put it back, or go on with the built-in \
             defaults: conductorctl reload",
            self.path.display()
        )
    }

    /// Tells the supervisor whenever the file may have changed, and once at first: it was read before it was watched.
    pub(crate) async fn follow(self, commands: mpsc::Sender<Command>) {
        let files = WatchedFiles::default();
        let mut changes = files.changes();
        loop {
            // Each time: directories on the way come and go.
            files.watch(&self.path);
            if commands.send(Command::FileChanged).await.is_err() {
                return;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            settled(&mut changes).await;
        }
    }
}

impl ConfigInUse {
    fn is_default(&self) -> bool {
        self.config.as_ref() == Ok(&Config::default())
    }
}

/// Ready when nothing has changed for a moment.
async fn settled(changes: &mut watch::Receiver<u64>) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end
        && timeout_at(end.min(Instant::now() + SETTLE), changes.changed()).await.is_ok()
    {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, ConfigFile) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).expect("writes");
        (dir, ConfigFile { path, required: false })
    }

    #[test]
    fn a_change_is_taken_and_the_same_again_is_not() {
        let (_dir, file) = file("[pool]\nmax-idle = 1\n");
        let in_use = file.first();
        assert_eq!(file.again(&in_use, Trigger::Noticed), Ok(None));
        assert!(file.again(&in_use, Trigger::Asked).expect("is right").is_some());
        std::fs::write(&file.path, "# a comment\n[pool]\nmax-idle = 1\n").expect("writes");
        assert_eq!(file.again(&in_use, Trigger::Noticed), Ok(None), "means the same");
        std::fs::write(&file.path, "[pool]\nmax-idle = 2\n").expect("writes");
        let config = file.again(&in_use, Trigger::Noticed).expect("is right").expect("is new");
        assert_eq!(config.pool.max_idle, Some(2));
        std::fs::write(&file.path, "[pool]\nmax-idle = x\n").expect("writes");
        assert!(file.again(&in_use, Trigger::Noticed).expect_err("is wrong").contains("config.toml:2:"));
    }

    #[test]
    fn what_is_gone_or_empty_forbids_as_before_until_somebody_asks() {
        let (_dir, file) = file("[policy]\nnet = []\n");
        let in_use = file.first();
        std::fs::write(&file.path, "\n").expect("writes");
        assert!(
            file.again(&in_use, Trigger::Noticed).expect_err("is empty").contains("is empty; what it said")
        );
        std::fs::remove_file(&file.path).expect("removes");
        let error = file.again(&in_use, Trigger::Noticed).expect_err("is gone");
        assert!(error.contains("is gone") && error.contains("conductorctl reload"), "{error}");
        assert_eq!(file.again(&in_use, Trigger::Asked), Ok(Some(Config::default())));
        let named = ConfigFile { required: true, ..file.clone() };
        assert!(named.again(&in_use, Trigger::Asked).is_err(), "one that was named has to be there");
        assert_eq!(file.again(&file.first(), Trigger::Noticed), Ok(None), "there never was one");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_without_a_pause_are_not_waited_for_without_end() {
        let changes = watch::Sender::new(0_u64);
        let mut seen = changes.subscribe();
        let sender = changes.clone();
        let writing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                sender.send_modify(|count| *count += 1);
            }
        });
        let started = Instant::now();
        settled(&mut seen).await;
        assert!(started.elapsed() >= PATIENCE && started.elapsed() < PATIENCE + SETTLE);
        writing.abort();
        seen.mark_unchanged();
        let started = Instant::now();
        settled(&mut seen).await;
        assert_eq!(started.elapsed(), SETTLE);
    }
}
