//! The files below conductor's cache directory that workers use but cannot change.
//!
//! ```text
//! <cache>/harness/<hash>.js        the harness, written from this binary, compared with it at every boot
//! <cache>/harness/<hash>.so        the library that templates load, likewise
//! <cache>/empty/                   working directory of workers that may not read their workspace
//! <cache>/deno-dir/.lock           held while one of these is made
//! <cache>/deno-dir/<key>/deno/     DENO_DIR: filled once by a rehearsal, then read-only
//! <cache>/deno-dir/<key>/manifest  its files and their hashes
//! ```
//!
//! `DENO_DIR` is read-only because user code can reach the databases that Deno keeps open in it: without any permission
//! it can adopt their descriptors and write. Opened read-only, they refuse. It also gives `localStorage` and `caches`
//! no place to keep anything for the next run. Modes bind a worker of root, too: the launcher took its capabilities.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::spec::Packages;

pub(crate) const HARNESS: &str = include_str!("../harness/harness.js");

const HARNESS_DIR: &str = "harness";

/// The directories, existing and private.
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    harness: PathBuf,
    empty: PathBuf,
    deno_dirs: PathBuf,
}

impl Directories {
    /// Makes what is missing and restores a harness file that is not the one in this binary. A few system calls when
    /// all is well, so it runs at every boot.
    pub(crate) fn install(cache_dir: &Path) -> io::Result<Self> {
        let harness_dir = cache_dir.join(HARNESS_DIR);
        let directories = Self {
            harness: harness_in(cache_dir),
            empty: cache_dir.join("empty"),
            deno_dirs: cache_dir.join("deno-dir"),
        };
        for directory in [cache_dir, &harness_dir, &directories.empty, &directories.deno_dirs] {
            private_directory(directory)?;
        }
        install_file(&directories.harness, HARNESS.as_bytes())?;
        Ok(directories)
    }

    /// Makes sure that the library is there and unchanged; tells where.
    pub(crate) fn install_library(&self, library: &[u8]) -> io::Result<PathBuf> {
        let path = self.harness.with_file_name(format!("{}.so", short_hash(&[library])));
        install_file(&path, library)?;
        Ok(path)
    }

    pub(crate) fn harness(&self) -> &Path {
        &self.harness
    }

    pub(crate) fn empty(&self) -> &PathBuf {
        &self.empty
    }
}

/// Where the harness of this build is, once it is installed.
pub(crate) fn harness_in(cache_dir: &Path) -> PathBuf {
    cache_dir.join(HARNESS_DIR).join(format!("{}.js", short_hash(&[HARNESS.as_bytes()])))
}

/// A sealed `DENO_DIR`.
#[derive(Clone, Debug)]
pub(crate) struct DenoDir {
    root: PathBuf,
    path: PathBuf,
}

impl DenoDir {
    fn new(root: PathBuf) -> Self {
        Self { path: root.join("deno"), root }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was filled by the executable that is at this path now.
    pub(crate) fn is_for(&self, deno: &Path) -> bool {
        key(deno).is_ok_and(|key| self.root.file_name() == Some(key.as_ref()))
    }

    /// A quick look whether it is still there and nothing in it can be written; its content was checked when this value
    /// was made, and cannot have changed since if that is so.
    pub(crate) fn is_sealed(&self) -> bool {
        let mut read_only = true;
        let walked = walk(&self.path, &mut |_, meta| {
            // A symbolic link has no mode of its own; the directory that holds it has.
            read_only &= meta.is_symlink() || meta.mode() & 0o222 == 0;
            Ok(())
        });
        walked.is_ok() && read_only
    }

    fn manifest(&self) -> PathBuf {
        self.root.join("manifest")
    }

    /// True when every file is as it was sealed and nothing can be written.
    fn is_intact(&self) -> bool {
        let sealed = fs::read(self.manifest()).ok();
        self.is_sealed()
            && sealed.is_some_and(|sealed| manifest_of(&self.path).is_ok_and(|now| now.as_bytes() == sealed))
    }
}

/// What [`stage`] found.
#[derive(Debug)]
pub(crate) enum Staged {
    Ready(DenoDir),
    Empty(Staging),
}

/// A `DENO_DIR` being filled, under the lock. Dropped without [`Staging::seal`] it is removed.
#[derive(Debug)]
pub(crate) struct Staging {
    directory: TempDir,
    path: PathBuf,
    target: DenoDir,
    lock: Flock<File>,
}

/// Waits for the lock, then finds the sealed directory for this Deno or makes an empty one to fill.
pub(crate) async fn stage(directories: &Directories, deno: &Path) -> io::Result<Staged> {
    let root = directories.deno_dirs.clone();
    let deno = deno.to_owned();
    blocking(move || {
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(root.join(".lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let target = DenoDir::new(root.join(key(&deno)?));
        if target.is_intact() {
            return Ok(Staged::Ready(target));
        }
        remove(&target.root)?;
        let directory = tempfile::Builder::new().prefix(".staging-").tempdir_in(&root)?;
        let path = directory.path().join("deno");
        private_directory(&path)?;
        Ok(Staged::Empty(Staging { directory, path, target, lock }))
    })
    .await
}

impl Staging {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all write permission away, records what is there, and puts it in its place in one rename.
    pub(crate) async fn seal(self) -> io::Result<DenoDir> {
        blocking(move || {
            let Self { directory, path, target, lock } = self;
            make_read_only(&path)?;
            let mut manifest = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o400)
                .open(directory.path().join("manifest"))?;
            manifest.write_all(manifest_of(&path)?.as_bytes())?;
            manifest.sync_all()?;
            fs::rename(directory.path(), &target.root)?;
            // The directory has a new name; nothing is left to remove under the old one.
            drop(directory.keep());
            drop(lock);
            Ok(target)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// What a process is made from, as it was then.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    deno: PathBuf,
    /// See [`key`].
    key: String,
    /// Its own; those of packages belong to their layer.
    deno_dir: Option<DenoDir>,
    /// What the packages' layer consists of, and [`identity`] of each that is there.
    layer: Vec<(PathBuf, Option<String>)>,
}

impl Origin {
    pub(crate) fn of(deno: &Path, deno_dir: Option<DenoDir>) -> io::Result<Self> {
        Ok(Self { deno: deno.to_owned(), key: key(deno)?, deno_dir, layer: Vec::new() })
    }

    /// From these packages as well. A layer that was made anew in the place of another is another.
    pub(crate) fn with_layer(mut self, packages: Option<&Packages>) -> Self {
        let paths = packages.into_iter().flat_map(|packages| [&packages.deno_dir, &packages.lock]);
        self.layer.extend(paths.map(|path| (path.clone(), identity_at(path))));
        self
    }

    /// Names the executable and the harness.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// False when a process that is started now would be made from something else.
    pub(crate) fn is_current(&self) -> bool {
        key(&self.deno).is_ok_and(|key| key == self.key)
            && self.deno_dir.as_ref().is_none_or(DenoDir::is_sealed)
            && self.layer.iter().all(|(path, was)| identity_at(path) == *was)
    }
}

/// Names the `DENO_DIR` for one Deno executable and one harness: Deno's caches hold compiled code of both.
fn key(deno: &Path) -> io::Result<String> {
    let path = deno.canonicalize()?;
    let meta = path.metadata()?;
    let deno = short_hash(&[path.as_os_str().as_bytes(), b"\0", identity(&meta).as_bytes()]);
    Ok(format!("{deno}-{}", short_hash(&[HARNESS.as_bytes()])))
}

fn identity_at(path: &Path) -> Option<String> {
    path.metadata().ok().map(|meta| identity(&meta))
}

/// Another file or directory in its place, or another content, has another.
fn identity(meta: &fs::Metadata) -> String {
    format!("{} {} {} {}", meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}

fn short_hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hex(&hash.finalize()[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a directory with mode 0700, or checks that the one there is nobody else's.
fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("{} is no directory of this user", path.display())));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn read_no_follow(path: &Path) -> io::Result<Vec<u8>> {
    let flags = nix::libc::O_NOFOLLOW;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut OpenOptions::new().read(true).custom_flags(flags).open(path)?, &mut bytes)?;
    Ok(bytes)
}

/// Makes the file what it must be, if it is not. One that is right is never replaced: a worker's jail lets in this very file,
/// which its Deno is about to open, and not another of its name.
fn install_file(target: &Path, content: &[u8]) -> io::Result<()> {
    let is_right = || read_no_follow(target).is_ok_and(|found| found == content);
    if is_right() {
        return Ok(());
    }
    let directory = target.parent().expect("it lies in a directory of the cache");
    let mut file =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o400)).tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    // Workers that boot at the same time all find it missing; the first one's stays.
    let Err(refused) = file.persist_noclobber(target) else { return Ok(()) };
    if refused.error.kind() == io::ErrorKind::AlreadyExists && is_right() {
        return Ok(());
    }
    refused.file.persist(target)?;
    Ok(())
}

/// One line per file or symbolic link, `hash path`, sorted.
fn manifest_of(root: &Path) -> io::Result<String> {
    let mut files = BTreeMap::new();
    walk(root, &mut |path, meta| {
        let content = if meta.is_symlink() {
            fs::read_link(path)?.into_os_string().into_encoded_bytes()
        } else if meta.is_file() {
            fs::read(path)?
        } else {
            return Ok(());
        };
        let relative = path.strip_prefix(root).expect("walk stays below root");
        files.insert(relative.to_string_lossy().into_owned(), hex(&Sha256::digest(content)));
        Ok(())
    })?;
    Ok(files.iter().map(|(path, hash)| format!("{hash} {path}\n")).collect())
}

fn make_read_only(root: &Path) -> io::Result<()> {
    walk(root, &mut |path, meta| {
        // Following a link would change a file elsewhere, such as Deno itself.
        if meta.is_symlink() {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(meta.mode() & 0o555))
    })
}

/// Removes a tree that may be read-only.
fn remove(root: &Path) -> io::Result<()> {
    if !root.try_exists()? {
        return Ok(());
    }
    walk_down(root, &mut |path| fs::set_permissions(path, Permissions::from_mode(0o700)))?;
    fs::remove_dir_all(root)
}

/// Visits files before the directories that hold them, and `root` last, so that a visitor may lock what it leaves.
fn walk(root: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata) -> io::Result<()>) -> io::Result<()> {
    let meta = fs::symlink_metadata(root)?;
    if meta.is_dir() {
        for entry in fs::read_dir(root)? {
            walk(&entry?.path(), visit)?;
        }
    }
    visit(root, &meta)
}

/// Visits directories before what they hold, so that a visitor may unlock what it enters.
fn walk_down(root: &Path, visit: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if fs::symlink_metadata(root)?.is_dir() {
        visit(root)?;
        for entry in fs::read_dir(root)? {
            walk_down(&entry?.path(), visit)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn of_many_who_find_a_file_missing_one_makes_it() {
        for _ in 0..50 {
            let directory = tempfile::tempdir().expect("a directory");
            let (path, start) = (directory.path().join("harness.js"), Barrier::new(4));
            let install = || {
                start.wait();
                install_file(&path, b"right").expect("installs");
                path.metadata().expect("is there").ino()
            };
            let seen: Vec<u64> = thread::scope(|scope| {
                let threads = [(); 4].map(|()| scope.spawn(install));
                threads.into_iter().map(|thread| thread.join().expect("ends")).collect()
            });
            assert!(seen.iter().all(|file| *file == seen[0]), "{seen:?}");
        }
    }

    #[test]
    fn a_file_that_says_something_else_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("harness.js");
        fs::write(&path, "wrong").expect("writes");
        install_file(&path, b"right").expect("installs");
        assert_eq!(fs::read(&path).expect("reads"), b"right");
    }
}
