//! The directory of the socket: ours alone, or not used.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use conductor_protocol::endpoint::{self, Surroundings};

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{path} cannot be made", path = path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("{path} is a link or no directory", path = path.display())]
    NoDirectory { path: PathBuf },
    #[error("{path} belongs to user {theirs}, not to you (user {ours})", path = path.display())]
    Foreign { path: PathBuf, theirs: u32, ours: u32 },
    #[error("{path} can be written to by other users", path = path.display())]
    Open { path: PathBuf },
    #[error("no socket path is short enough")]
    NoCandidate,
}

/// Chooses the first candidate whose directory is ours or can be made, and gives the socket's path.
pub(super) fn prepare(at: &Surroundings) -> Result<PathBuf, DirectoryError> {
    let mut outcome = Err(DirectoryError::NoCandidate);
    for socket in endpoint::candidates(at) {
        let dir = socket.parent().unwrap_or(Path::new("/"));
        // The system makes a user's runtime directory at login; one that is not there must not be invented. Homes are ours.
        let is_home = at.home.as_ref().is_some_and(|home| dir.starts_with(home));
        let base_exists = dir.parent().is_some_and(Path::is_dir);
        if !(is_home || base_exists || at.explicit.is_some()) {
            continue;
        }
        match make(dir, at.uid) {
            Ok(()) => return Ok(socket),
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

/// Makes `dir` with mode 0700 if it is not there, and checks that it is the user's alone.
pub(super) fn make(dir: &Path, uid: u32) -> Result<(), DirectoryError> {
    let path = dir.to_owned();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    // A link, even one that dangles, shows in the metadata, not in what create says.
    let metadata = match (made, fs::symlink_metadata(dir)) {
        (_, Ok(metadata)) => metadata,
        (Err(source), _) | (Ok(()), Err(source)) => return Err(DirectoryError::Make { path, source }),
    };
    if !metadata.is_dir() {
        return Err(DirectoryError::NoDirectory { path });
    }
    if metadata.uid() != uid {
        return Err(DirectoryError::Foreign { path, theirs: metadata.uid(), ours: uid });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(DirectoryError::Open { path });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn ours() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    #[test]
    fn makes_a_private_directory_and_takes_it_again() {
        let root = tempfile::tempdir().expect("directory");
        let dir = root.path().join("a/b");
        for _ in 0..2 {
            make(&dir, ours()).expect("ours");
            assert_eq!(fs::metadata(&dir).expect("there").mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn refuses_links_other_owners_and_open_doors() {
        let root = tempfile::tempdir().expect("directory");
        let dir = root.path().join("dir");
        make(&dir, ours()).expect("ours");
        let link = root.path().join("link");
        symlink(&dir, &link).expect("links");
        assert!(matches!(make(&link, ours()), Err(DirectoryError::NoDirectory { .. })));
        let dangling = root.path().join("dangling");
        symlink(root.path().join("nowhere"), &dangling).expect("links");
        assert!(matches!(make(&dangling, ours()), Err(DirectoryError::NoDirectory { .. })));
        assert!(!root.path().join("nowhere").exists());
        assert!(matches!(make(&dir, ours() + 1), Err(DirectoryError::Foreign { .. })));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(matches!(make(&dir, ours()), Err(DirectoryError::Open { .. })));
    }

    #[test]
    fn invents_no_runtime_directory() {
        let root = tempfile::tempdir().expect("directory");
        let at = Surroundings {
            explicit: None,
            runtime_dir: Some(root.path().join("run")),
            uid: ours(),
            home: Some(root.path().join("home")),
        };
        // /run/user/<uid> may be there on the machine that runs this test; it is ours then.
        let expected = match Path::new(&format!("/run/user/{}", at.uid)).is_dir() {
            true => PathBuf::from(format!("/run/user/{}/conductor/conductord.sock", at.uid)),
            false => root.path().join("home/.local/state/conductor/conductord.sock"),
        };
        assert_eq!(prepare(&at).expect("a directory"), expected);
        assert!(!root.path().join("run").exists());
        fs::create_dir(root.path().join("run")).expect("directory");
        assert_eq!(prepare(&at).expect("a directory"), root.path().join("run/conductor/conductord.sock"));
    }
}
