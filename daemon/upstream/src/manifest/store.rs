//! Manifests on disk: one file each, for their user's eyes only, replaced whole. A file that nobody reads any more, because
//! the configuration that it belongs to is gone, is removed in the end.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::manifest::Manifest;

/// Changes when what is kept means something else; other files count as none.
const FORMAT: u32 = 1;

/// Largest file that is read, in bytes: more than four full lists.
const MAX_BYTES: u64 = 80 * 1024 * 1024;

/// A file that was not read for so long is of a configuration that is gone: who comes back after a longer leave waits for
/// the first start of a server once.
const MAX_AGE: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// Files that are kept, the newest: edits of a configuration with secrets in it leave one each.
const MAX_FILES: usize = 512;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    manifest: &'a Manifest,
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    manifest: Manifest,
}

pub(crate) fn load(file: &Path) -> Option<Manifest> {
    let mut text = String::new();
    let read = File::open(file).and_then(|file| {
        (&file).take(MAX_BYTES).read_to_string(&mut text)?;
        // That it is in use is what its age says; if it cannot be said, it is fetched anew some day.
        file.set_modified(SystemTime::now()).ok();
        Ok(())
    });
    match read {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "a kept list of tools cannot be read");
            return None;
        }
    }
    match serde_json::from_str::<Read>(&text) {
        Ok(Read { format: FORMAT, manifest }) => Some(manifest),
        _ => {
            tracing::info!(file = %file.display(), "a kept list of tools is of another format and not used");
            None
        }
    }
}

pub(crate) fn save(file: &Path, manifest: &Manifest) -> io::Result<()> {
    conductor_files::replace(file, &serde_json::to_vec(&Written { format: FORMAT, manifest })?)
}

/// Removes what nobody reads any more from a directory of manifests; gives how many files that were.
pub(crate) fn prune(directory: &Path, now: SystemTime) -> io::Result<usize> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let read_at = entry.metadata()?.modified()?;
            // One that is to come was read by a clock that was ahead.
            files.push((read_at.min(now), path));
        }
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    let is_old = |read_at: SystemTime| now.duration_since(read_at).is_ok_and(|age| age > MAX_AGE);
    let outdated = files.iter().enumerate().filter(|(n, (read_at, _))| *n >= MAX_FILES || is_old(*read_at));
    let mut n_removed = 0;
    for (_, (_, file)) in outdated {
        fs::remove_file(file)?;
        n_removed += 1;
    }
    Ok(n_removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_costs_a_question() {
        const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("read.json");
        let now = SystemTime::now();
        let read_at = |at: SystemTime| File::create(&file).expect("writes").set_modified(at).expect("ages");
        let left = |now: SystemTime| {
            prune(directory.path(), now).expect("prunes");
            file.exists()
        };
        read_at(now);
        assert!(left(now - YEARS), "back");
        assert!(left(now), "and forth again");
        assert!(!left(now + YEARS), "ahead: the server is asked once more");
        read_at(now + YEARS);
        assert!(left(now), "the clock was ahead when it was read");
        assert!(left(now + MAX_AGE * 2), "and is not there yet");
        for n in 0..MAX_FILES {
            File::create(directory.path().join(format!("{n:03}.json"))).expect("writes");
        }
        assert_eq!(
            prune(directory.path(), now).expect("prunes"),
            1,
            "their number is bounded whatever the clock says"
        );
    }

    #[test]
    fn files_that_nobody_reads_go_and_the_newest_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, age: Duration| {
            let path = directory.path().join(name);
            let file = File::create(&path).expect("writes");
            file.set_modified(SystemTime::now() - age).expect("ages");
            path
        };
        let (old, young) =
            (write("old.json", MAX_AGE + Duration::from_secs(60)), write("young.json", Duration::ZERO));
        let read = write("read.json", MAX_AGE * 2);
        let other = write("other.txt", MAX_AGE * 2);
        assert!(load(&read).is_none(), "it holds nothing");
        assert_eq!(prune(directory.path(), SystemTime::now()).expect("prunes"), 1);
        assert!(!old.exists() && young.exists() && read.exists() && other.exists());
        for n in 0..MAX_FILES {
            write(&format!("{n}.json"), Duration::from_secs(3600 + n as u64));
        }
        assert_eq!(prune(directory.path(), SystemTime::now()).expect("prunes"), 2);
        assert!(young.exists() && directory.path().join("0.json").exists());
        assert!(!directory.path().join(format!("{}.json", MAX_FILES - 1)).exists());
    }
}
