//! Directory trees that are sealed: walked, made read-only, recorded, compared and removed.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// One file as it was sealed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) sha256: String,
    pub(crate) size: u64,
    pub(crate) mtime_ns: i128,
    pub(crate) path: String,
}

/// The files of a sealed tree in the order of their paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest(pub(crate) Vec<Entry>);

impl Manifest {
    /// Hashes every file below the `parts` of `root`.
    pub(crate) fn of(root: &Path, parts: &[&str]) -> io::Result<Self> {
        let mut entries = Vec::new();
        for (path, meta) in files(root, parts)? {
            let sha256 = hash_entry(&root.join(&path), &meta)?;
            entries.push(Entry { sha256, size: meta.len(), mtime_ns: mtime_ns(&meta), path });
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self(entries))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|entry| entry.size).sum()
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(File::create_new(path)?);
        for Entry { sha256, size, mtime_ns, path } in &self.0 {
            writeln!(file, "{sha256} {size} {mtime_ns} {path}")?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let entries = text.lines().map(|line| {
            let mut parts = line.splitn(4, ' ');
            Some(Entry {
                sha256: parts.next()?.to_owned(),
                size: parts.next()?.parse().ok()?,
                mtime_ns: parts.next()?.parse().ok()?,
                path: parts.next()?.to_owned(),
            })
        });
        entries.collect::<Option<_>>().map(Self)
    }

    /// The first difference in names, sizes, times or modes between this and what is there; `None` when there is none.
    pub(crate) fn quick_difference(&self, root: &Path, parts: &[&str]) -> io::Result<Option<String>> {
        let mut found = files(root, parts)?;
        found.sort_by(|a, b| a.0.cmp(&b.0));
        for (entry, (path, meta)) in self.0.iter().zip(&found) {
            if entry.path != *path {
                return Ok(Some(format!("`{}` is missing or `{path}` was added", entry.path)));
            }
            if (entry.size, entry.mtime_ns) != (meta.len(), mtime_ns(meta)) {
                return Ok(Some(format!("`{path}` was written to")));
            }
            // A link has no mode of its own; the directory that holds it has.
            if !meta.is_symlink() && meta.mode() & 0o222 != 0 {
                return Ok(Some(format!("`{path}` can be written to")));
            }
        }
        Ok(match self.0.len().cmp(&found.len()) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Less => Some(format!("`{}` was added", found[self.0.len()].0)),
            std::cmp::Ordering::Greater => Some(format!("`{}` is missing", self.0[found.len()].path)),
        })
    }

    /// Like [`Manifest::quick_difference`], and with every byte.
    pub(crate) fn full_difference(&self, root: &Path, parts: &[&str]) -> io::Result<Option<String>> {
        if let Some(difference) = self.quick_difference(root, parts)? {
            return Ok(Some(difference));
        }
        for entry in &self.0 {
            let path = root.join(&entry.path);
            if hash_entry(&path, &fs::symlink_metadata(&path)?)? != entry.sha256 {
                return Ok(Some(format!("`{}` has other content", entry.path)));
            }
        }
        Ok(None)
    }
}

/// The files and links below the `parts` of `root`, with paths relative to `root`. Anything else but directories is an error:
/// Deno makes nothing else.
fn files(root: &Path, parts: &[&str]) -> io::Result<Vec<(String, Metadata)>> {
    let mut found = Vec::new();
    for part in parts {
        let start = root.join(part);
        if !start.try_exists()? {
            continue;
        }
        walk(&start, &mut |path, meta| {
            let relative = path.strip_prefix(root).expect("a walk stays below its root");
            let relative = relative.to_str().filter(|path| !path.contains('\n'));
            let relative = relative.ok_or_else(|| io::Error::other("a file has no proper name"))?;
            if meta.is_file() || meta.is_symlink() {
                found.push((relative.to_owned(), meta.clone()));
            } else if !meta.is_dir() {
                return Err(io::Error::other(format!("`{relative}` is no file, link or directory")));
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Takes write permission from everything and lets everybody who can reach it read: archives bring modes of their own,
/// and some files in them nobody but their owner may read.
pub(crate) fn make_read_only(root: &Path) -> io::Result<()> {
    walk(root, &mut |path, meta| {
        let executable = meta.mode() & 0o100 != 0;
        let mode = if meta.is_dir() || executable { 0o555 } else { 0o444 };
        if meta.is_symlink() { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(mode)) }
    })
}

/// Removes a tree that may be read-only.
pub(crate) fn remove(root: &Path) -> io::Result<()> {
    unlock(root)?;
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn unlock(directory: &Path) -> io::Result<()> {
    match fs::symlink_metadata(directory) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

/// Visits files before the directories that hold them, and `root` last.
pub(crate) fn walk(root: &Path, visit: &mut dyn FnMut(&Path, &Metadata) -> io::Result<()>) -> io::Result<()> {
    let meta = fs::symlink_metadata(root)?;
    if meta.is_dir() {
        for entry in fs::read_dir(root)? {
            walk(&entry?.path(), visit)?;
        }
    }
    visit(root, &meta)
}

/// Writes everything of the file system of `root` to the disk: one call instead of one per file, of which there can be
/// tens of thousands.
pub(crate) fn sync(root: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return nix::unistd::syncfs(File::open(root)?).map_err(io::Error::from);
    #[cfg(not(target_os = "linux"))]
    return File::open(root)?.sync_all();
}

/// The hash of a file's content, or of where a link leads.
fn hash_entry(path: &Path, meta: &Metadata) -> io::Result<String> {
    if meta.is_symlink() { Ok(sha256(fs::read_link(path)?.as_os_str().as_bytes())) } else { hash_file(path) }
}

pub(crate) fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&chunk[..count]),
        }
    }
}

/// The hash of `parts`, told apart by their lengths.
pub(crate) fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mtime_ns(meta: &Metadata) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}

/// The directories and files directly in `directory`; none when it is not there.
pub(crate) fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_sealed_tree_is_a_difference() {
        type Change = fn(&Path);
        let unlock: Change = |path| unlock(path).unwrap();
        let table: [(&str, Change); 7] = [
            ("`a/file` was written to", |root| fs::write(root.join("a/file"), "longer than before").unwrap()),
            ("`a/file` is missing or `a/link` was added", |root| {
                fs::remove_file(root.join("a/file")).unwrap()
            }),
            ("`a/file` is missing or `a/added` was added", |root| {
                fs::write(root.join("a/added"), "").unwrap()
            }),
            ("`a/x` was added", |root| fs::write(root.join("a/x"), "").unwrap()),
            ("`a/file` can be written to", |root| {
                fs::set_permissions(root.join("a/file"), Permissions::from_mode(0o644)).unwrap();
            }),
            ("`a/link` is missing", |root| fs::remove_file(root.join("a/link")).unwrap()),
            ("`a/link` was written to", |root| {
                fs::remove_file(root.join("a/link")).unwrap();
                std::os::unix::fs::symlink("elsewhere", root.join("a/link")).unwrap();
            }),
        ];
        for (expected, change) in table {
            let root = tempfile::tempdir().unwrap();
            let root = root.path();
            fs::create_dir(root.join("a")).unwrap();
            fs::write(root.join("a/file"), "content").unwrap();
            std::os::unix::fs::symlink("/somewhere", root.join("a/link")).unwrap();
            make_read_only(&root.join("a")).unwrap();
            let manifest = Manifest::of(root, &["a", "absent"]).unwrap();
            manifest.write(&root.join("manifest")).unwrap();
            let read = Manifest::parse(&fs::read_to_string(root.join("manifest")).unwrap()).unwrap();
            assert_eq!((read.full_difference(root, &["a"]).unwrap(), &read), (None, &manifest));
            unlock(&root.join("a"));
            fs::set_permissions(root.join("a/file"), Permissions::from_mode(0o644)).unwrap();
            change(root);
            if !expected.contains("can be written to") && root.join("a/file").exists() {
                fs::set_permissions(root.join("a/file"), Permissions::from_mode(0o444)).unwrap();
            }
            assert_eq!(read.full_difference(root, &["a"]).unwrap().as_deref(), Some(expected));
        }
        assert_eq!(Manifest::parse("abc 12"), None);
    }
}
