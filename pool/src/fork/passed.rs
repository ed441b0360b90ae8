//! Which Denos have passed the [trial](super::trial), noted on disk, so that a daemon that starts again need not try.
//!
//! A note is a file that says word for word of what it holds: the executable's content, our harness and library, the kernel,
//! how much was tried. It is believed if it is this user's, closed to others, and says what would be written now; whatever
//! else is there counts for nothing, and the trial is run again. It promises nothing about isolation: what a fork must not be
//! able to do, the [self-test](super::self_test) looks at for each template.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::limits::TrialLimits;

/// A note is shorter.
const MAX_NOTE: u64 = 4096;

#[derive(Debug)]
pub(super) struct Passed {
    path: PathBuf,
    note: String,
}

impl Passed {
    /// `deno` is the hash of the executable's content; `harness` and `library` are what is put into it.
    ///
    /// # Errors
    /// The kernel does not say which one it is.
    pub(super) fn new(
        directory: &Path,
        deno: &str,
        harness: &[u8],
        library: &[u8],
        limits: &TrialLimits,
    ) -> io::Result<Self> {
        let note = [
            ("conductor", env!("CARGO_PKG_VERSION").to_owned()),
            ("deno", deno.to_owned()),
            ("harness", hash_of(harness)),
            ("library", hash_of(library)),
            ("kernel", fs::read_to_string("/proc/version")?.trim().to_owned()),
            ("processor", std::env::consts::ARCH.to_owned()),
            ("forks", format!("{} at once, {}", limits.crowd, limits.many)),
        ]
        .map(|(name, value)| format!("{name}: {value}\n"))
        .concat();
        Ok(Self { path: directory.join(&hash_of(note.as_bytes())[..16]), note })
    }

    /// Whether it is noted.
    pub(super) fn is_noted(&self) -> bool {
        read_own(&self.path).is_ok_and(|found| found == self.note.as_bytes())
    }

    /// # Errors
    /// As writing does. Whoever asks next tries again.
    pub(super) fn note(&self) -> io::Result<()> {
        conductor_files::replace(&self.path, self.note.as_bytes())
    }
}

/// The content of a file that only this user can have written.
fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut content = Vec::new();
    file.take(MAX_NOTE).read_to_end(&mut content)?;
    Ok(content)
}

/// The hash of a file's content. Blocks: an executable has a hundred megabytes.
pub(super) fn hash_of_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

fn hash_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    const LIMITS: TrialLimits = TrialLimits { crowd: 64, many: 1000, passed: None };

    fn passed(directory: &Path) -> Passed {
        Passed::new(directory, "deno", b"harness", b"library", &LIMITS).unwrap()
    }

    #[test]
    fn what_is_noted_holds_for_exactly_what_was_tried() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        passed(at).note().unwrap();
        assert!(passed(at).is_noted());
        assert_eq!(passed(at).path.metadata().unwrap().mode() & 0o777, 0o600);
        let more = TrialLimits { many: 2000, ..LIMITS };
        for other in [
            Passed::new(at, "Deno", b"harness", b"library", &LIMITS),
            Passed::new(at, "deno", b"Harness", b"library", &LIMITS),
            Passed::new(at, "deno", b"harness", b"Library", &LIMITS),
            Passed::new(at, "deno", b"harness", b"library", &more),
        ] {
            let other = other.unwrap();
            assert!(!other.is_noted(), "{}", other.note);
        }
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert!(passed(at).note.contains(kernel.trim()));
    }

    #[test]
    fn what_another_may_have_written_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let passed = passed(directory.path());
        let is_believed_after = |change: &dyn Fn(&Path)| {
            passed.note().unwrap();
            assert!(passed.is_noted());
            change(&passed.path);
            let is_noted = passed.is_noted();
            fs::remove_dir(&passed.path).or_else(|_| fs::remove_file(&passed.path)).ok();
            is_noted
        };
        assert!(is_believed_after(&|_| {}));
        assert!(!is_believed_after(&|path| fs::write(path, "damaged").unwrap()));
        assert!(!is_believed_after(&|path| fs::write(path, &passed.note[1..]).unwrap()));
        assert!(!is_believed_after(&|path| fs::write(path, format!("{}x", passed.note)).unwrap()));
        assert!(
            !is_believed_after(&|path| fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap())
        );
        assert!(
            !is_believed_after(&|path| fs::set_permissions(path, Permissions::from_mode(0o620)).unwrap())
        );
        assert!(!is_believed_after(&|path| {
            fs::rename(path, path.with_extension("away")).unwrap();
            symlink(path.with_extension("away"), path).unwrap();
        }));
        assert!(!is_believed_after(&|path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }));
        if rustix::process::geteuid().is_root() {
            assert!(!is_believed_after(&|path| chown(path, Some(12345), None).unwrap()));
        }
    }
}
