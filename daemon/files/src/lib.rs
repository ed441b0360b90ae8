//! Files that hold what must not be lost: there as a whole or not at all, and for their user's eyes only. Owns no state.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// Replaces `path` by a file of mode 0600 with `content`, in one step: a reader finds the old content or the new one, and
/// so does who comes after a loss of power. Directories on the way are made, of mode 0700. Blocks until the disk has it.
///
/// # Errors
/// As creating, writing and renaming files does; `path` is then as it was, and nothing is left beside it.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut staged = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    staged.write_all(content)?;
    staged.as_file().sync_all()?;
    staged.persist(path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_made_with_its_directories_and_replaced_for_its_user_alone() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("not/there/yet");
        replace(&path, b"one").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("sets its mode");
        replace(&path, b"two").expect("replaced");
        assert_eq!(fs::read(&path).expect("reads"), b"two");
        assert_eq!((mode(&path), mode(path.parent().expect("has one"))), (0o600, 0o700));
    }

    #[test]
    fn what_fails_changes_nothing_and_leaves_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("taken");
        fs::create_dir(&path).expect("makes");
        replace(&path, b"content").expect_err("a directory is in its place");
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(root.path()).expect("reads").count(), 1);
    }
}
