//! Takes the executable, and nothing else, out of a package, and hashes it on the way.
//!
//! No other entry is looked at and no name from the archive becomes a path here.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::child::{GivenUp, Until};
use crate::pin::Pin;
use crate::search::executable_name;

use super::{Installer, Phase, Progress};

/// Bytes per step: the deadline and cancellation are looked at between two.
const CHUNK: usize = 256 * 1024;

pub(super) enum UnpackError {
    /// The archive cannot be read, or the executable is not in it.
    Archive(io::Error),
    /// The executable cannot be written.
    Write(io::Error),
    WrongHash {
        found: String,
    },
    GivenUp(GivenUp),
}

/// Writes the executable in `archive` to `to`, a new file that is on disk and executable afterwards.
pub(super) fn unpack(
    installer: Installer,
    archive: &Path,
    pin: &Pin,
    to: &Path,
    until: Until<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), UnpackError> {
    let archive = BufReader::new(File::open(archive).map_err(UnpackError::Archive)?);
    let mut file = OpenOptions::new().write(true).create_new(true).open(to).map_err(UnpackError::Write)?;
    let found = match installer {
        Installer::Npm => {
            let mut tarball = tar::Archive::new(GzDecoder::new(archive));
            let entry = entry_of_tarball(&mut tarball).map_err(UnpackError::Archive)?;
            copy(entry, &mut file, pin.size, until, progress)?
        }
        Installer::Pip => {
            let name = format!("deno-{}.data/scripts/{}", pin.version, executable_name());
            let mut wheel = ZipArchive::new(archive).map_err(|error| UnpackError::Archive(error.into()))?;
            let entry = wheel.by_name(&name).map_err(|error| UnpackError::Archive(error.into()))?;
            copy(entry, &mut file, pin.size, until, progress)?
        }
    };
    if found != pin.sha256 {
        return Err(UnpackError::WrongHash { found });
    }
    make_executable(&file).and_then(|()| file.sync_all()).map_err(UnpackError::Write)
}

/// The first regular file named `package/deno`.
fn entry_of_tarball<R: Read>(tarball: &mut tar::Archive<R>) -> io::Result<impl Read> {
    let name = format!("package/{}", executable_name());
    for entry in tarball.entries()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() && *entry.path_bytes() == *name.as_bytes() {
            return Ok(entry);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no {name} in it")))
}

/// Copies the executable and returns its SHA-256.
fn copy(
    from: impl Read,
    to: &mut impl Write,
    size: u64,
    until: Until<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<String, UnpackError> {
    // One byte more than there may be is enough to make the hash wrong, whatever the archive claims to hold.
    let mut from = from.take(size + 1);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        until.check().map_err(UnpackError::GivenUp)?;
        let count = from.read(&mut chunk).map_err(UnpackError::Archive)?;
        if count == 0 {
            return Ok(format!("{:x}", hash.finalize()));
        }
        hash.update(&chunk[..count]);
        to.write_all(&chunk[..count]).map_err(UnpackError::Write)?;
        bytes += count as u64;
        progress(Progress { phase: Phase::Unpacking, bytes: bytes.min(size), total: size });
    }
}

#[cfg(unix)]
fn make_executable(file: &File) -> io::Result<()> {
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    fn copy_to(to: &mut impl Write, cancel: &AtomicBool) -> Result<String, UnpackError> {
        let until = Until { deadline: Instant::now() + Duration::from_secs(60), cancel };
        copy(&b"abc"[..], to, 3, until, &mut |_| {})
    }

    #[test]
    fn hashes_what_it_copies() {
        let mut to = Vec::new();
        let found = copy_to(&mut to, &AtomicBool::new(false));
        assert_eq!(to, b"abc");
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(matches!(found, Ok(found) if found == expected));
    }

    #[test]
    fn a_full_disk_is_a_failure_to_write() {
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let Err(UnpackError::Write(error)) = copy_to(&mut full, &AtomicBool::new(false)) else { panic!() };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn cancelling_stops_it() {
        let outcome = copy_to(&mut Vec::new(), &AtomicBool::new(true));
        assert!(matches!(outcome, Err(UnpackError::GivenUp(GivenUp::Cancelled))));
    }
}
