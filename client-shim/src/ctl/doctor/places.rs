//! The directories of conductor: there, ours, closed to others, with space left. Nothing is made or changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access, geteuid};

use super::super::paint::size;
use super::Check;

/// What a fetched Deno takes, unpacked beside its archive.
const DATA_BYTES: u64 = 250 << 20;

/// What logs and caches take.
const OTHER_BYTES: u64 = 50 << 20;

/// A directory that is used, by the XDG base directory rules.
struct Place {
    name: &'static str,
    variable: &'static str,
    fallback: &'static str,
    needs_bytes: u64,
}

const CONFIG: Place =
    Place { name: "config dir", variable: "XDG_CONFIG_HOME", fallback: ".config", needs_bytes: 0 };
const DATA: Place =
    Place { name: "data dir", variable: "XDG_DATA_HOME", fallback: ".local/share", needs_bytes: DATA_BYTES };
const STATE: Place = Place {
    name: "state dir",
    variable: "XDG_STATE_HOME",
    fallback: ".local/state",
    needs_bytes: OTHER_BYTES,
};
const CACHE: Place =
    Place { name: "cache dir", variable: "XDG_CACHE_HOME", fallback: ".cache", needs_bytes: OTHER_BYTES };

impl Place {
    fn path(&self) -> Option<PathBuf> {
        let absolute = |path: &PathBuf| path.is_absolute();
        let set = std::env::var_os(self.variable).map(PathBuf::from).filter(absolute);
        let home = || Some(std::env::home_dir().filter(absolute)?.join(self.fallback));
        Some(set.or_else(home)?.join("conductor"))
    }
}

/// Where a fetched Deno lies.
pub(in crate::ctl) fn data_dir() -> Option<PathBuf> {
    DATA.path()
}

pub(in crate::ctl) fn config_file() -> Option<PathBuf> {
    Some(CONFIG.path()?.join("config.toml"))
}

pub(super) fn checks() -> Vec<Check> {
    [CONFIG, DATA, STATE, CACHE].iter().map(check).collect()
}

fn check(place: &Place) -> Check {
    match place.path() {
        Some(path) => directory(place.name, &path, place.needs_bytes),
        None => Check::fail(
            place.name,
            "you have no home directory",
            "set HOME to a directory that you can write",
        ),
    }
}

/// Looks at a directory that is made when it is needed.
pub(super) fn directory(name: &'static str, path: &Path, needs_bytes: u64) -> Check {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return missing(name, path),
        Err(error) => {
            let fix = format!("see who owns {shown} and the directories above it");
            return Check::fail(name, format!("cannot look at {shown}: {error}"), fix);
        }
    };
    let uid = geteuid().as_raw();
    if !metadata.is_dir() {
        return Check::fail(name, format!("{shown} is no directory"), format!("move {shown} away"));
    }
    if metadata.uid() != uid {
        let text = format!("{shown} belongs to user {}, not to you (user {uid})", metadata.uid());
        return Check::fail(name, text, format!("chown -R {uid} {shown}"));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        let text = format!("{shown} (mode {mode:03o}) can be written to by other users");
        return Check::fail(name, text, format!("chmod go-w {shown}"));
    }
    if access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        return Check::fail(name, format!("you cannot write to {shown}"), format!("chmod u+rwx {shown}"));
    }
    let text = format!("{shown}, yours, mode {mode:03o}");
    match free_bytes(path) {
        Some(free) if free < needs_bytes => {
            let text = format!("{text}, only {} free", size(free));
            Check::warn(name, text, format!("make room for {}", size(needs_bytes)))
        }
        Some(free) if needs_bytes > 0 => Check::ok(name, format!("{text}, {} free", size(free))),
        _ => Check::ok(name, text),
    }
}

/// A directory that is not there must be one that can be made.
fn missing(name: &'static str, path: &Path) -> Check {
    let shown = path.display();
    match path.ancestors().find(|above| above.exists()) {
        Some(above) if access(above, AccessFlags::W_OK | AccessFlags::X_OK).is_ok() => {
            Check::ok(name, format!("{shown}, not there yet; it is made when it is needed"))
        }
        above => {
            let above = above.unwrap_or(Path::new("/")).display();
            let text = format!("{shown} is not there and cannot be made: you cannot write to {above}");
            Check::fail(
                name,
                text,
                format!("make {shown} yours, or set HOME or the XDG variables to other places"),
            )
        }
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let space = statvfs(path).ok()?;
    Some(space.blocks_available().saturating_mul(space.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_directory_must_be_ours_alone() {
        let root = tempfile::tempdir().expect("directory");
        let dir = root.path().join("conductor");
        assert_eq!(directory("x", &dir, 0).verdict, Verdict::Ok);
        fs::create_dir(&dir).expect("makes");
        for (mode, verdict) in [(0o700, Verdict::Ok), (0o770, Verdict::Fail), (0o707, Verdict::Fail)] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("chmod");
            let check = directory("x", &dir, 0);
            assert_eq!(check.verdict, verdict, "{mode:o}: {check:?}");
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("chmod");
        assert_eq!(directory("x", &dir, u64::MAX).verdict, Verdict::Warn, "too little space");
        fs::write(root.path().join("file"), "").expect("writes");
        assert_eq!(directory("x", &root.path().join("file"), 0).verdict, Verdict::Fail);
    }
}
