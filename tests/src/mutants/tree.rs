//! A copy of the checkout that may be broken.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::Mutation;

pub(super) struct Tree {
    root: PathBuf,
}

/// A file with a mistake in it; dropping this takes the mistake back.
pub(super) struct Mutated {
    path: PathBuf,
    original: String,
}

impl Drop for Mutated {
    fn drop(&mut self) {
        fs::write(&self.path, &self.original).expect("the copy is writable");
    }
}

impl Tree {
    /// Brings `root` up to date with the files of `repository` that git tracks or would. Files that did not change are not
    /// written, so that a build of the copy goes on from the one before.
    pub(super) fn copy(repository: &Path, root: PathBuf) -> Self {
        let files = files(repository);
        for file in &files {
            let content = fs::read(repository.join(file)).expect("git has listed it");
            let copy = root.join(file);
            if fs::read(&copy).ok().as_ref() != Some(&content) {
                fs::create_dir_all(copy.parent().expect("it lies below the root"))
                    .expect("the target directory is writable");
                fs::write(&copy, content).expect("the target directory is writable");
            }
        }
        remove_others(&root, &root, &files);
        Self { root }
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    /// The file of a mutation and its text; an error unless the text to replace is there exactly once.
    pub(super) fn find(&self, mutation: &Mutation) -> Result<(PathBuf, String), String> {
        let path = self.root.join(mutation.file);
        let Ok(text) = fs::read_to_string(&path) else {
            return Err(format!("{}: there is no {}", mutation.name, mutation.file));
        };
        match text.matches(mutation.find).count() {
            1 => Ok((path, text)),
            n => Err(format!(
                "{}: {} has its text {n} times, not once: {}",
                mutation.name, mutation.file, mutation.find
            )),
        }
    }

    pub(super) fn mutate(&self, mutation: &Mutation) -> Result<Mutated, String> {
        let (path, original) = self.find(mutation)?;
        fs::write(&path, original.replace(mutation.find, mutation.replace)).expect("the copy is writable");
        Ok(Mutated { path, original })
    }
}

fn files(repository: &Path) -> BTreeSet<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository)
        .output()
        .expect("git is installed");
    assert!(listed.status.success(), "git lists no files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    // A file that is deleted but not yet committed is still listed.
    names.split_terminator('\0').map(PathBuf::from).filter(|name| repository.join(name).is_file()).collect()
}

/// Removes what an earlier copy has left behind.
fn remove_others(root: &Path, directory: &Path, keep: &BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the copy is readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_others(root, &path, keep);
        } else if path.strip_prefix(root).is_ok_and(|name| !keep.contains(name)) {
            fs::remove_file(&path).expect("the copy is writable");
        }
    }
}
