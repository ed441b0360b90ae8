//! Which configuration files are looked after, and that one of them has changed. Reads none of them.
//!
//! Editors replace files, so directories are watched; where a file's directory is not there yet, the nearest one above it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

/// The files that were asked for so far: a few, one for each configuration that sessions named.
type Files = Arc<Mutex<BTreeSet<PathBuf>>>;

#[derive(Debug)]
pub(crate) struct WatchedFiles {
    files: Files,
    /// Counts changes.
    changes: watch::Sender<u64>,
    /// `None` where the system has no means for it; files are then read again at a reload.
    watcher: Mutex<Option<RecommendedWatcher>>,
}

impl Default for WatchedFiles {
    fn default() -> Self {
        let (files, changes) = (Files::default(), watch::Sender::new(0));
        let watcher = Mutex::new(watcher(files.clone(), changes.clone()));
        Self { files, changes, watcher }
    }
}

impl WatchedFiles {
    /// Changes whenever a file does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Looks after a file from now on. To be called each time it is read: directories come and go.
    pub(crate) fn watch(&self, file: &Path) {
        self.watch_at(file);
        // Asked when the link's own directory is watched: a link that is made later is noticed there.
        if let Some(target) = file.canonicalize().ok().filter(|target| target != file) {
            self.watch_at(&target);
        }
    }

    fn watch_at(&self, file: &Path) {
        // First, so that no change that is told counts as another file's.
        lock(&self.files).insert(file.to_owned());
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watcher) = watcher.as_mut() else { return };
        let mut watched = None;
        // Again until it stays: a directory that was made while the one above was not watched yet is told by nobody.
        while let Some(directory) = nearest_directory(file).filter(|nearest| watched != Some(*nearest)) {
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::debug!(directory = %directory.display(), %error, "changes are not noticed");
            }
            watched = Some(directory);
        }
    }
}

/// The directory of a file, or the nearest one above it that is there.
fn nearest_directory(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|above| above.is_dir())
}

fn watcher(files: Files, changes: watch::Sender<u64>) -> Option<RecommendedWatcher> {
    let changed = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let is_ours = |path: &PathBuf| concerns(&lock(&files), path);
        if !event.kind.is_access() && (event.need_rescan() || event.paths.iter().any(is_ours)) {
            changes.send_modify(|count| *count += 1);
        }
    };
    notify::recommended_watcher(changed)
        .inspect_err(|error| tracing::warn!(%error, "changes of configurations are not noticed; `conductorctl reload` reads them"))
        .ok()
}

/// Whether `path` is one of the files, or a directory above one.
fn concerns(files: &BTreeSet<PathBuf>, path: &Path) -> bool {
    files.iter().any(|file| file.starts_with(path))
}

fn lock(files: &Files) -> MutexGuard<'_, BTreeSet<PathBuf>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    /// Longest wait for the kernel to tell.
    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_file_is_seen_to_come_to_be_replaced_and_to_go() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().canonicalize().expect("is there");
        let file = root.join("not/there/yet/c.json");
        let files = WatchedFiles::default();
        let mut changes = files.changes();
        let seen = async |what: &str, changes: &mut watch::Receiver<u64>| {
            tokio::time::timeout(DEADLINE, changes.changed()).await.expect(what).expect("the sender lives");
        };
        files.watch(&file);
        fs::create_dir_all(file.parent().expect("has one")).expect("makes");
        seen("a directory above it", &mut changes).await;
        files.watch(&file);
        fs::write(file.with_file_name("staged"), "1").expect("writes");
        fs::rename(file.with_file_name("staged"), &file).expect("renames");
        seen("the file", &mut changes).await;
        fs::remove_file(&file).expect("removes");
        seen("its end", &mut changes).await;
    }

    #[test]
    fn neighbours_do_not_count() {
        let files = BTreeSet::from([PathBuf::from("/h/.c/c.json")]);
        for (path, expected) in
            [("/h/.c/c.json", true), ("/h/.c", true), ("/h/.c/d", false), ("/h/.cc", false)]
        {
            assert_eq!(concerns(&files, Path::new(path)), expected, "{path}");
        }
    }
}
