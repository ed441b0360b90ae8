//! What can be learned of packages from their files, without running them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{DENO_DIR, LockedPackage};
use crate::lockfile::{Lockfile, name_of, version_in};
use crate::specifier::{Package, Registry};
use crate::tree;

/// File name endings that an import may leave out, in the order in which they are tried.
const ENDINGS: [&str; 5] = [".js", ".mjs", ".cjs", ".json", "/index.js"];

/// Describes the packages that code can import.
pub(crate) fn inspect(
    layer: &Path,
    lock: &Lockfile,
    spelled: &BTreeSet<Package>,
) -> io::Result<Vec<LockedPackage>> {
    let directories = npm_directories(&layer.join(DENO_DIR).join("npm"))?;
    let native = native_packages(lock, &directories)?;
    let exports = jsr_exports(layer, lock)?;
    let described = spelled.iter().filter_map(|package| {
        let id = lock.id_of(package)?;
        let directory = directories.iter().find(|directory| directory.is_of(&id));
        let directory = directory.and_then(|directory| directory.path.strip_prefix(layer).ok());
        Some(LockedPackage {
            key: package.key(),
            spelling: package.to_string(),
            version: lock.version_of(package)?.to_owned(),
            native: needs_native(lock, &native, &id),
            directory: directory.map(Path::to_owned),
            exports: exports
                .iter()
                .find(|(of, _)| *of == id)
                .map(|(_, exports)| exports.clone())
                .unwrap_or_default(),
        })
    });
    Ok(described.collect())
}

/// The directory of one version of one npm package.
#[derive(Debug)]
struct NpmDirectory {
    path: PathBuf,
    name: String,
    version: String,
}

impl NpmDirectory {
    fn is_of(&self, id: &str) -> bool {
        id.strip_prefix(Registry::Npm.scheme())
            .is_some_and(|id| name_of(id) == self.name && version_in(id) == self.version)
    }
}

/// Finds `<registry>/<name>/<version>/package.json`, however many parts the registry's address and the name have.
fn npm_directories(root: &Path) -> io::Result<Vec<NpmDirectory>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        if let Some(package) = npm_directory(&directory) {
            found.push(package);
            continue;
        }
        open.extend(tree::children(&directory)?.into_iter().filter(|path| path.is_dir()));
    }
    Ok(found)
}

fn npm_directory(directory: &Path) -> Option<NpmDirectory> {
    #[derive(Deserialize)]
    struct PackageJson {
        name: Option<String>,
    }
    let text = fs::read(directory.join("package.json")).ok()?;
    let json: Option<PackageJson> = serde_json::from_slice(&text).ok();
    // A second copy of a version is in `1.2.3_1`.
    let version = directory.file_name()?.to_str()?;
    let version = version.split_once('_').map_or(version, |(version, _)| version);
    // The archive's own word for its name is not to be trusted with more than a fallback.
    let parent = directory.parent()?;
    let last = parent.file_name()?.to_str()?;
    let scope =
        parent.parent().and_then(|above| above.file_name()?.to_str()).filter(|above| above.starts_with('@'));
    let by_path = scope.map_or_else(|| last.to_owned(), |scope| format!("{scope}/{last}"));
    let name =
        if last.starts_with('_') { json.and_then(|json| json.name).unwrap_or(by_path) } else { by_path };
    Some(NpmDirectory { path: directory.to_owned(), name, version: version.to_owned() })
}

/// The packages with native code in themselves: built (`.node`), or to be built when installed (`binding.gyp`).
fn native_packages(lock: &Lockfile, directories: &[NpmDirectory]) -> io::Result<BTreeSet<String>> {
    let mut native = BTreeSet::new();
    for directory in directories {
        let mut is_native = false;
        tree::walk(&directory.path, &mut |path, meta| {
            let is_binding = path.file_name().is_some_and(|name| name == "binding.gyp");
            let is_addon = path.extension().is_some_and(|extension| extension == "node");
            is_native |= meta.is_file() && (is_binding || is_addon);
            Ok(())
        })?;
        if is_native {
            native.extend(lock.packages().filter(|(id, _)| directory.is_of(id)).map(|(id, _)| id.to_owned()));
        }
    }
    Ok(native)
}

/// The key of a package with native code without which `id` does not work. What it merely can use does not count, except
/// the binaries of its own that it chooses from by platform.
fn needs_native(lock: &Lockfile, native: &BTreeSet<String>, id: &str) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        if native.contains(id) {
            return Some(key_of(id));
        }
        let Some(node) = lock.node(id) else { continue };
        let is_its_binary = |other: &&String| {
            native.contains(*other)
                && lock.node(other).is_some_and(|node| node.is_platform_specific)
                && key_of(other) != "npm:fsevents"
        };
        if node.can_use.iter().any(|other| is_its_binary(&other)) {
            return Some(key_of(id));
        }
        open.extend(node.needs.iter().map(String::as_str));
    }
    None
}

fn key_of(id: &str) -> String {
    let (scheme, rest) = id.split_once(':').unwrap_or(("npm", id));
    format!("{scheme}:{}", name_of(rest))
}

/// The subpaths of every locked jsr package. Deno caches each version's description; the lock's integrity is its hash, by
/// which it is found whatever the cache's layout is.
pub(crate) fn jsr_exports(layer: &Path, lock: &Lockfile) -> io::Result<Vec<(String, Vec<String>)>> {
    #[derive(Deserialize)]
    struct Description {
        exports: serde_json::Map<String, serde_json::Value>,
    }
    let wanted: Vec<(&str, &str)> = lock
        .packages()
        .filter(|(id, _)| id.starts_with(Registry::Jsr.scheme()))
        .map(|(id, node)| (id, node.integrity.as_str()))
        .collect();
    let remote = layer.join(DENO_DIR).join("remote");
    let mut found = Vec::new();
    if wanted.is_empty() || !remote.try_exists()? {
        return Ok(found);
    }
    tree::walk(&remote, &mut |path, meta| {
        if !meta.is_file() {
            return Ok(());
        }
        let content = fs::read(path)?;
        let content = without_metadata(&content);
        let hash = tree::sha256(content);
        let Some((id, _)) = wanted.iter().find(|(_, integrity)| *integrity == hash) else { return Ok(()) };
        if let Ok(description) = serde_json::from_slice::<Description>(content) {
            let names = description.exports.into_iter().map(|(name, _)| name);
            let subpaths = names.filter_map(|name| Some(name.strip_prefix("./")?.to_owned()));
            found.push(((*id).to_owned(), subpaths.collect()));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Deno appends a comment with headers and time to what it caches.
fn without_metadata(content: &[u8]) -> &[u8] {
    const MARK: &[u8] = b"\n// denoCacheMetadata=";
    let at = content.windows(MARK.len()).rposition(|window| window == MARK);
    at.map_or(content, |at| &content[..at])
}

/// The file of an npm package that an import of `subpath` means, or the files there are. Where the package says itself
/// what can be imported (`exports`), Deno decides by that.
pub(super) fn npm_file(directory: &Path, subpath: &str) -> Result<String, Vec<String>> {
    let package = fs::read(directory.join("package.json")).unwrap_or_default();
    let package: serde_json::Value = serde_json::from_slice(&package).unwrap_or_default();
    if package.get("exports").is_some_and(|exports| !exports.is_null()) || directory.join(subpath).is_file() {
        return Ok(subpath.to_owned());
    }
    let mut candidates = ENDINGS.iter().map(|ending| format!("{subpath}{ending}"));
    candidates
        .find(|candidate| directory.join(candidate).is_file())
        .ok_or_else(|| names_beside(directory, subpath))
}

/// What there is in the directory that `subpath` points into, as an import would write it.
fn names_beside(directory: &Path, subpath: &str) -> Vec<String> {
    let folder = subpath.rsplit_once('/').map(|(folder, _)| folder);
    let children =
        tree::children(&folder.map_or_else(|| directory.to_owned(), |folder| directory.join(folder)));
    let names = children.unwrap_or_default().into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        let name = name.strip_suffix(".js").unwrap_or(name);
        Some(folder.map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}")))
    });
    names.collect()
}

/// The same for a jsr package, whose description lists all that can be imported.
pub(super) fn jsr_file(exports: &[String], subpath: &str) -> Result<String, Vec<String>> {
    if exports.iter().any(|export| export == subpath) {
        Ok(subpath.to_owned())
    } else {
        Err(exports.to_vec())
    }
}
