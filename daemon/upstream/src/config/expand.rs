//! References in configured values: `${env:NAME}`, `${NAME}`, `${NAME:-default}`, `${HOME}`, `${userHome}`,
//! `${workspaceFolder}`, `${file:PATH}`, `${keyring:SERVICE/ACCOUNT}`, and `~` at the start.
//!
//! What a reference gives is taken as it is: it is not expanded again. Values of `file` and `keyring` references are
//! secrets wherever they stand.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::keyring::{Keyring, KeyringError};
use crate::secret::{Secret, is_secret_variable};

/// Largest secret file, in bytes: keys and tokens are far smaller, anything larger is the wrong file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Where references take their values from.
#[derive(Clone, Copy)]
pub struct Expansion<'a> {
    /// The environment of the session that the configuration belongs to; never the daemon's own.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub home: &'a Path,
    pub workspace: Option<&'a Path>,
    pub keyring: &'a dyn Keyring,
}

/// A value after expansion, and what in it is secret.
#[derive(Debug, Default)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    pub(crate) secrets: Vec<Secret>,
}

/// Why a reference gives no value.
#[derive(Debug, Error)]
pub(crate) enum ExpandError {
    #[error(
        "environment variable {0} is not set\nhint: set it where the IDE is started, or write ${{{0}:-DEFAULT}}"
    )]
    Unset(String),
    #[error("${{{0}}} has no end")]
    Open(String),
    #[error(
        "${{{0}}} is not known here\nhint: use ${{env:NAME}}, ${{HOME}}, ${{workspaceFolder}}, ${{file:PATH}} or ${{keyring:SERVICE/ACCOUNT}}"
    )]
    Unknown(String),
    #[error("cannot read the secret in {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the secret in {0} is longer than 64 KiB")]
    TooLong(PathBuf),
    #[error("${{keyring:{0}}} must name SERVICE/ACCOUNT")]
    KeyringName(String),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("${{workspaceFolder}} is not known: no workspace is configured")]
    NoWorkspace,
}

impl Expansion<'_> {
    pub(crate) fn expand(&self, text: &str) -> Result<Expanded, ExpandError> {
        let mut out = Expanded::default();
        let mut rest = text;
        if let Some(below) = text.strip_prefix('~').filter(|below| below.is_empty() || below.starts_with('/'))
        {
            out.text.push_str(&self.home.to_string_lossy());
            rest = below;
        }
        while let Some((before, reference)) = rest.split_once("${") {
            out.text.push_str(before);
            let Some((name, after)) = reference.split_once('}') else {
                return Err(ExpandError::Open(reference.to_owned()));
            };
            self.resolve(name, &mut out)?;
            rest = after;
        }
        out.text.push_str(rest);
        Ok(out)
    }

    fn resolve(&self, reference: &str, out: &mut Expanded) -> Result<(), ExpandError> {
        let value = match reference.split_once(':') {
            Some(("env", name)) => self.variable(name, None, out)?,
            Some(("file", path)) => secret(self.file(path)?, out),
            Some(("keyring", name)) => {
                let (service, account) =
                    name.split_once('/').ok_or_else(|| ExpandError::KeyringName(name.to_owned()))?;
                secret(self.keyring.get(service, account)?, out)
            }
            Some((name, default)) if default.starts_with('-') && is_variable(name) => {
                self.variable(name, Some(&default[1..]), out)?
            }
            None if matches!(reference, "HOME" | "userHome") => self.home.to_string_lossy().into_owned(),
            None if matches!(reference, "workspaceFolder" | "workspaceRoot") => {
                self.workspace.ok_or(ExpandError::NoWorkspace)?.to_string_lossy().into_owned()
            }
            None if reference == "pathSeparator" || reference == "/" => "/".to_owned(),
            None if is_variable(reference) => self.variable(reference, None, out)?,
            _ => return Err(ExpandError::Unknown(reference.to_owned())),
        };
        out.text.push_str(&value);
        Ok(())
    }

    fn variable(&self, name: &str, default: Option<&str>, out: &mut Expanded) -> Result<String, ExpandError> {
        let Some(value) = (self.env)(name) else {
            return default.map(str::to_owned).ok_or_else(|| ExpandError::Unset(name.to_owned()));
        };
        if is_secret_variable(name, &value) {
            out.secrets.push(Secret::new(value.as_str()));
        }
        Ok(value)
    }

    fn file(&self, path: &str) -> Result<String, ExpandError> {
        let path = match path.strip_prefix("~/") {
            Some(below) => self.home.join(below),
            None => self.workspace.unwrap_or(self.home).join(path),
        };
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
        match read {
            Ok(n_bytes) if n_bytes as u64 > MAX_FILE_BYTES => Err(ExpandError::TooLong(path)),
            Ok(_) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(source) => Err(ExpandError::File { path, source }),
        }
    }
}

impl fmt::Debug for Expansion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expansion")
            .field("home", &self.home)
            .field("workspace", &self.workspace)
            .finish_non_exhaustive()
    }
}

fn secret(value: String, out: &mut Expanded) -> String {
    out.secrets.push(Secret::new(value.as_str()));
    value
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::NoKeyring;

    fn with<T>(work: impl FnOnce(Expansion<'_>) -> T) -> T {
        let env = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "MY_TOKEN" => Some("s3cret".to_owned()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        let workspace = Path::new("/ws");
        work(Expansion {
            env: &env,
            home: Path::new("/home/u"),
            workspace: Some(workspace),
            keyring: &NoKeyring,
        })
    }

    #[test]
    fn references_are_replaced_once() {
        for (text, expected) in [
            ("plain $A {x}", "plain $A {x}"),
            ("${env:A}-${A}", "1-1"),
            ("${NONE:-fall back}", "fall back"),
            ("${A:-2}", "1"),
            ("~/x ~", "/home/u/x ~"),
            ("~", "/home/u"),
            ("~user/x", "~user/x"),
            ("${HOME}/${userHome}", "/home/u//home/u"),
            ("${workspaceFolder}/a", "/ws/a"),
            ("${NESTED}", "${A}"),
        ] {
            assert_eq!(with(|e| e.expand(text).expect("expands").text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_says_why() {
        for (text, part) in [
            ("${env:NONE}", "environment variable NONE is not set"),
            ("${NONE}", "${NONE:-DEFAULT}"),
            ("${input:token}", "${input:token} is not known here"),
            ("${A", "has no end"),
            ("${file:/nonexistent/x}", "cannot read the secret in /nonexistent/x"),
            ("${keyring:x}", "must name SERVICE/ACCOUNT"),
            ("${keyring:a/b}", "no keyring"),
            ("${}", "is not known"),
        ] {
            let error = with(|e| e.expand(text).expect_err(text)).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn values_of_files_and_of_secret_variables_are_secrets() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "from file\n").expect("written");
        let text = format!("${{file:{}}} ${{MY_TOKEN}} ${{A}}", file.path().display());
        let expanded = with(|e| e.expand(&text).expect("expands"));
        assert_eq!(expanded.text, "from file s3cret 1");
        assert_eq!(expanded.secrets, [Secret::new("from file"), Secret::new("s3cret")]);
    }
}
