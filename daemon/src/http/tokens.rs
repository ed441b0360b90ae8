//! Who may call over HTTP: bearer tokens, each with a name and a profile.
//!
//! Owns the file that lists them, for the user's eyes only. The file holds hashes: a token is told once, to the operator who
//! adds it, and can be read nowhere afterwards. A token is 256 random bits, so a hash without salt or stretching gives
//! nothing away. Those who serve hear of changes, so that a token ends with all that it began.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

/// Begins every token, so that tools that look for leaked secrets can find one.
pub(crate) const PREFIX: &str = "cnd_";

/// The profile of the daemon's own user.
pub(crate) const DEFAULT_PROFILE: &str = "default";

/// Tokens at most: every request is compared with each of them.
const MAX_TOKENS: usize = 256;

/// Longest name, so that a line of `conductorctl status` holds it.
const MAX_NAME_BYTES: usize = 64;

/// Larger than any list of tokens.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The list of tokens; a cheap handle.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    /// Held while the file is changed.
    writing: Mutex<()>,
    list: watch::Sender<Arc<[Arc<Token>]>>,
    /// Why the file cannot be used.
    trouble: Mutex<Option<String>>,
}

/// A token, but for its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub name: String,
    /// The named profile that its sessions have.
    pub profile: String,
    #[serde(with = "hexadecimal")]
    sha256: [u8; 32],
    /// Seconds since 1970.
    pub created_at: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    tokens: Vec<Token>,
}

/// Why the list cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot use the list of tokens {}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the list of tokens {} {why}\nhint: {hint}", .path.display())]
    Untrusted { path: PathBuf, why: &'static str, hint: String },
    #[error("the list of tokens {} makes no sense: {why}\nhint: move it away and add the tokens anew", .path.display())]
    Malformed { path: PathBuf, why: String },
    #[error(
        "`{name}` is no name for a token\nhint: take up to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, `.`, `_` and `-`"
    )]
    Name { name: String },
    #[error(
        "there is a token `{name}` already\nhint: take another name, or `conductorctl token revoke {name}` first"
    )]
    Exists { name: String },
    #[error("there is no token `{name}`\nhint: `conductorctl token list` shows them")]
    Unknown { name: String },
    #[error("there are {MAX_TOKENS} tokens, as many as there may be\nhint: revoke those that nobody uses")]
    TooMany,
    #[error("the system has no randomness for a token")]
    Randomness(#[source] io::Error),
}

impl Token {
    /// Whether two are the same: one that was added again under the same name is another.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }

    /// The user that it is for, unless that is the daemon's own.
    pub(crate) fn tenant(&self) -> Option<&str> {
        Some(self.profile.as_str()).filter(|profile| *profile != DEFAULT_PROFILE)
    }

    /// Stands for it where a short text is needed, and tells nothing of its value.
    pub(crate) fn key(&self) -> [u8; 32] {
        self.sha256
    }
}

impl Tokens {
    /// The list in `file`, empty if there is none.
    pub fn open(file: PathBuf) -> (Self, Result<(), TokenError>) {
        let list = watch::Sender::new(Arc::from([]));
        let tokens =
            Self(Arc::new(Inner { file, writing: Mutex::default(), list, trouble: Mutex::default() }));
        let read = tokens.read_again();
        (tokens, read)
    }

    /// Reads the file anew. When it cannot be used there are no tokens: better nobody than somebody who was revoked.
    ///
    /// # Errors
    /// The file is unreadable, malformed, or others can read it.
    pub fn read_again(&self) -> Result<(), TokenError> {
        let (tokens, outcome) = match read(&self.0.file) {
            Ok(document) => (document.tokens, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        self.note(outcome.as_ref().err());
        self.publish(tokens);
        outcome
    }

    /// The file that lists them.
    pub(crate) fn file(&self) -> &Path {
        &self.0.file
    }

    /// Why the file cannot be used, and so nobody is let in.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: Option<&TokenError>) {
        let trouble = error.map(|error| crate::error_chain(error));
        *self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Makes a token. The result is its value, which is kept nowhere.
    ///
    /// # Errors
    /// The name cannot be had, there are too many, or the file cannot be written.
    pub fn add(&self, name: &str, profile: &str) -> Result<String, TokenError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
            return Err(TokenError::Name { name: name.to_owned() });
        }
        let value = format!(
            "{PREFIX}{}",
            URL_SAFE_NO_PAD.encode(crate::random::bytes::<32>().map_err(TokenError::Randomness)?)
        );
        let token = Token {
            name: name.to_owned(),
            profile: profile.to_owned(),
            sha256: Sha256::digest(&value).into(),
            created_at: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
        };
        self.change(|tokens| {
            if tokens.iter().any(|token| token.name == name) {
                return Err(TokenError::Exists { name: name.to_owned() });
            }
            if tokens.len() >= MAX_TOKENS {
                return Err(TokenError::TooMany);
            }
            tokens.push(token);
            tokens.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(())
        })?;
        Ok(value)
    }

    /// Ends a token, and with it the sessions that it has.
    ///
    /// # Errors
    /// There is none of that name, or the file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        self.change(|tokens| {
            let before = tokens.len();
            tokens.retain(|token| token.name != name);
            if tokens.len() == before { Err(TokenError::Unknown { name: name.to_owned() }) } else { Ok(()) }
        })
    }

    pub fn list(&self) -> Arc<[Arc<Token>]> {
        self.0.list.borrow().clone()
    }

    /// Whether a profile is that of a user beside the daemon's own.
    pub(crate) fn is_tenant(&self, profile: &str) -> bool {
        self.list().iter().any(|token| token.tenant() == Some(profile))
    }

    pub fn changes(&self) -> watch::Receiver<Arc<[Arc<Token>]>> {
        self.0.list.subscribe()
    }

    /// The token with this value. Takes as long whichever it is, and whether there is one.
    pub(crate) fn find(&self, value: &[u8]) -> Option<Arc<Token>> {
        let digest: [u8; 32] = Sha256::digest(value).into();
        let mut found = None;
        for token in self.list().iter() {
            if bool::from(token.sha256.ct_eq(&digest)) {
                found = Some(token.clone());
            }
        }
        found
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Token>) -> Result<(), TokenError>,
    ) -> Result<(), TokenError> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut document = read(&self.0.file)?;
        change(&mut document.tokens)?;
        write(&self.0.file, &document)?;
        self.note(None);
        self.publish(document.tokens);
        Ok(())
    }

    fn publish(&self, tokens: Vec<Token>) {
        let tokens: Arc<[Arc<Token>]> = tokens.into_iter().map(Arc::new).collect();
        self.0.list.send_if_modified(|list| {
            let changed = **list != *tokens;
            *list = tokens;
            changed
        });
    }
}

fn read(path: &Path) -> Result<Document, TokenError> {
    let failed = |source| TokenError::File { path: path.to_owned(), source };
    let untrusted = |why, hint| TokenError::Untrusted { path: path.to_owned(), why, hint };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Document::default()),
        Err(error) => return Err(failed(error)),
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() || meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(untrusted("is no file of yours", "move it away and add the tokens anew".into()));
    }
    if meta.mode() & 0o077 != 0 {
        let hint = format!("chmod 600 {}, then `conductorctl reload`", path.display());
        return Err(untrusted("can be read or written by others", hint));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    serde_json::from_str(&text)
        .map_err(|error| TokenError::Malformed { path: path.to_owned(), why: error.to_string() })
}

fn write(path: &Path, document: &Document) -> Result<(), TokenError> {
    let text = serde_json::to_string_pretty(document).expect("strings and numbers always encode");
    conductor_files::replace(path, text.as_bytes())
        .map_err(|source| TokenError::File { path: path.to_owned(), source })
}

mod hexadecimal {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let digits = text.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        let bytes: Option<Vec<u8>> = digits.collect();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| D::Error::custom("a hash is 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn open(dir: &tempfile::TempDir) -> Tokens {
        let (tokens, read) = Tokens::open(dir.path().join("http/tokens.json"));
        read.expect("can be read");
        tokens
    }

    #[test]
    fn a_token_is_found_by_its_value_until_it_is_revoked() {
        let dir = tempfile::tempdir().expect("a directory");
        let tokens = open(&dir);
        let (a, b) = (tokens.add("a", "default").expect("is added"), tokens.add("b", "p").expect("is added"));
        let name = |value: &str| tokens.find(value.as_bytes()).map(|token| token.name.clone());
        assert_eq!((name(&a).as_deref(), name(&b).as_deref()), (Some("a"), Some("b")));
        for wrong in ["", "cnd_", &a[1..], &a.to_uppercase(), &format!("{a} ")] {
            assert_eq!(name(wrong), None, "{wrong:?}");
        }
        assert!(matches!(tokens.add("a", "default"), Err(TokenError::Exists { .. })));
        tokens.revoke("a").expect("is there");
        assert_eq!((name(&a), name(&b).as_deref()), (None, Some("b")));
        assert!(matches!(tokens.revoke("a"), Err(TokenError::Unknown { .. })));
        let again = tokens.add("a", "default").expect("the name is free");
        assert_ne!(a, again);
    }

    #[test]
    fn values_have_256_bits_and_are_kept_nowhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let tokens = open(&dir);
        let value = tokens.add("a", "default").expect("is added");
        let bits = URL_SAFE_NO_PAD.decode(value.strip_prefix(PREFIX).expect("begins so")).expect("is base64");
        assert_eq!(bits.len() * 8, 256);
        let path = dir.path().join("http/tokens.json");
        assert!(!fs::read_to_string(&path).expect("is written").contains(&value[8..]));
        let mode = |path: &Path| path.metadata().expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("has one"))), (0o600, 0o700));
        assert_eq!(open(&dir).find(value.as_bytes()).expect("is read again").name, "a");
    }

    #[test]
    fn names_are_plain() {
        let dir = tempfile::tempdir().expect("a directory");
        let tokens = open(&dir);
        for name in ["", "a b", "a/b", "ü", "\u{1b}[2J", &"x".repeat(65)] {
            assert!(matches!(tokens.add(name, "default"), Err(TokenError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_lets_nobody_in() {
        let dir = tempfile::tempdir().expect("a directory");
        let tokens = open(&dir);
        let value = tokens.add("a", "default").expect("is added");
        let path = dir.path().join("http/tokens.json");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("sets the mode");
        let error = tokens.read_again().expect_err("others can read it").to_string();
        assert!(error.contains("hint: chmod 600"), "{error}");
        assert!(tokens.find(value.as_bytes()).is_none());
        fs::write(&path, "[]").expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("sets the mode");
        assert!(matches!(tokens.read_again(), Err(TokenError::Malformed { .. })));
    }
}
