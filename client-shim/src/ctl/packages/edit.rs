//! Adds packages to a profile of the configuration file; everything else in it stays as it was written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table, Value};

use super::super::doctor::places;

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub(in crate::ctl) enum EditError {
    #[error("you have no home directory, so there is no place for a configuration\nhint: set HOME")]
    NoHome,
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is wrong, and is left as it is\n{source}\nhint: repair it; `conductord --check` says whether it is right", .path.display())]
    Syntax { path: PathBuf, source: Box<toml_edit::TomlError> },
    #[error("{key} in {} is no {expected}, and is left as it is", .path.display())]
    Shape { path: PathBuf, key: String, expected: &'static str },
    #[error("`{0}` names no package\nhint: write npm:NAME@RANGE or jsr:@SCOPE/NAME@RANGE, like npm:zod@^4")]
    NoPackage(String),
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Added {
    path: PathBuf,
    profile: String,
    packages: Vec<String>,
    /// The file says what is allowed now, and the default list does not count any more.
    replaces_default: bool,
}

impl Added {
    pub(super) fn text(&self) -> String {
        let Self { path, profile, packages, replaces_default } = self;
        let path = path.display();
        let packages = packages.join(", ");
        let note = match replaces_default {
            true => {
                "\nnote: the default list does not count for this profile any more; add what you need of it"
            }
            false => "",
        };
        format!("profile {profile} allows {packages} now ({path}){note}")
    }
}

/// Adds `packages` to `profile`, in place of older entries for the same packages.
pub(super) fn add(profile: &str, packages: &[String]) -> Result<Added, EditError> {
    let path = places::config_file().ok_or(EditError::NoHome)?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(EditError::Read { path, source }),
    };
    let (edited, replaces_default) = edited(&text, &path, profile, packages)?;
    write(&path, &edited).map_err(|source| EditError::Write { path: path.clone(), source })?;
    Ok(Added { path, profile: profile.to_owned(), packages: packages.to_vec(), replaces_default })
}

fn edited(text: &str, path: &Path, profile: &str, packages: &[String]) -> Result<(String, bool), EditError> {
    let syntax = |source| EditError::Syntax { path: path.to_owned(), source: Box::new(source) };
    let mut document: DocumentMut = text.parse().map_err(syntax)?;
    let shape =
        |key: &str, expected| EditError::Shape { path: path.to_owned(), key: key.to_owned(), expected };

    let mut implicit = Table::new();
    implicit.set_implicit(true);
    let profiles = document.entry("profiles").or_insert(Item::Table(implicit));
    let profiles = profiles.as_table_like_mut().ok_or_else(|| shape("profiles", "table"))?;
    let section = profiles.entry(profile).or_insert(Item::Table(Table::new()));
    let section =
        section.as_table_like_mut().ok_or_else(|| shape(&format!("profiles.{profile}"), "table"))?;
    let is_new = !section.contains_key("packages");
    let list = section.entry("packages").or_insert(Item::Value(Value::Array(Array::new())));
    let key = format!("profiles.{profile}.packages");
    let list = list.as_array_mut().ok_or_else(|| shape(&key, "list"))?;
    for package in packages {
        let name = name_of(package).ok_or_else(|| EditError::NoPackage(package.clone()))?;
        let place = list.iter().position(|entry| entry.as_str().and_then(name_of) == Some(name));
        match place {
            // Keeps the comments and the white space around it.
            Some(index) => drop(list.replace(index, package.as_str())),
            None => list.push(package.as_str()),
        }
    }
    Ok((document.to_string(), is_new))
}

/// The package without its version; the daemon checks the rest.
fn name_of(entry: &str) -> Option<&str> {
    let (registry, rest) = entry.split_once(':')?;
    let is_package =
        matches!(registry, "npm" | "jsr") && !rest.is_empty() && !rest.contains(char::is_whitespace);
    let version = entry.rfind('@').filter(|at| *at > registry.len() + 1);
    is_package.then(|| version.map_or(entry, |at| &entry[..at]))
}

/// In one step, for the owner alone: the file decides what code may do.
fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    // A link stays one: people keep such files in repositories of their own.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let staged = path.with_extension(format!("toml.{}", std::process::id()));
    let mode =
        fs::metadata(&path).map(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode.unwrap_or(0o600)).open(&staged)?;
    let written = io::Write::write_all(&mut file, text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&staged, &path));
    if written.is_err() {
        // The error tells more than a file left behind.
        let _removed = fs::remove_file(&staged);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(text: &str, profile: &str, packages: &[&str]) -> Result<String, String> {
        let packages: Vec<String> = packages.iter().map(|&package| package.to_owned()).collect();
        let edited =
            edited(text, Path::new("c.toml"), profile, &packages).map_err(|error| error.to_string())?;
        Ok(edited.0)
    }

    #[test]
    fn adds_to_a_file_that_is_not_there_yet() {
        let text = edit("", "default", &["npm:zod@^4", "jsr:@std/path"]).expect("is right");
        assert_eq!(text, "[profiles.default]\npackages = [\"npm:zod@^4\", \"jsr:@std/path\"]\n");
    }

    #[test]
    fn keeps_what_it_does_not_change_and_replaces_an_older_range() {
        let before = "# mine\n[pool]\nmax-idle = 3 # few\n\n[profiles.web]\nrun-args = \"allow-net\"\npackages = [\n  \"npm:axios@^0.27\", # http\n  \"npm:@a/b@1\",\n]\n";
        let after = edit(before, "web", &["npm:axios@^1", "npm:zod"]).expect("is right");
        assert!(after.contains("\"npm:axios@^1\", # http"), "{after}");
        assert!(after.contains("\"npm:zod\"") && after.contains("npm:@a/b@1"), "{after}");
        assert!(
            after.starts_with("# mine\n[pool]\nmax-idle = 3 # few\n\n[profiles.web]\nrun-args"),
            "{after}"
        );
        let again = edit(&after, "web", &["npm:axios@^1", "npm:zod"]).expect("is right");
        assert_eq!(again, after);
    }

    #[test]
    fn what_cannot_be_edited_is_left_and_named() {
        for (text, package, says) in [
            ("[profiles", "npm:zod", "is wrong"),
            ("profiles = 1", "npm:zod", "profiles in c.toml is no table"),
            ("[profiles.default]\npackages = \"npm:zod\"", "npm:zod", "is no list"),
            ("", "zod", "names no package"),
            ("", "npm:", "names no package"),
            ("", "https://x", "names no package"),
        ] {
            let error = edit(text, "default", &[package]).expect_err(text);
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
