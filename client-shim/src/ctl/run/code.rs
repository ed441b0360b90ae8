//! Reads the code to run, and says what is wrong with it before a daemon is bothered.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use conductor_protocol::MAX_MESSAGE_BYTES;

use super::super::exit_code;

/// Why there is no code to run.
#[derive(Debug, thiserror::Error)]
pub(in crate::ctl) enum CodeError {
    #[error("no code was given")]
    NotNamed,
    #[error("there is no file {}", path.display())]
    Missing { path: PathBuf },
    #[error("{} is a directory", path.display())]
    Directory { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not UTF-8 text: byte {at} cannot be read", path.display())]
    NotText { path: PathBuf, at: usize },
    #[error("{} is longer than the limit of {MAX_MESSAGE_BYTES} bytes", path.display())]
    TooLong { path: PathBuf },
}

impl CodeError {
    pub(in crate::ctl) fn hint(&self) -> String {
        match self {
            Self::NotNamed => "name a file, or give the code with -e, or pipe it in".into(),
            Self::Missing { .. } => {
                "give the path of a TypeScript or JavaScript file, or code with -e".into()
            }
            Self::Directory { .. } => "give the path of a file in it".into(),
            Self::Read { .. } => "check its permissions".into(),
            Self::NotText { .. } => "save the file as UTF-8".into(),
            Self::TooLong { .. } => "put large data into a file in the workspace and read that".into(),
        }
    }

    pub(in crate::ctl) fn exit_code(&self) -> u8 {
        match self {
            Self::NotNamed => exit_code::USAGE,
            Self::Missing { .. }
            | Self::Directory { .. }
            | Self::Read { .. }
            | Self::NotText { .. }
            | Self::TooLong { .. } => exit_code::NO_INPUT,
        }
    }
}

pub(super) fn from_file(path: &Path) -> Result<String, CodeError> {
    let owned = path.to_owned();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CodeError::Missing { path: owned });
        }
        Err(source) => return Err(CodeError::Read { path: owned, source }),
    };
    read(file, path)
}

pub(super) fn from_stdin() -> Result<String, CodeError> {
    read(io::stdin().lock(), Path::new("stdin"))
}

/// Never more than what can be sent: `path` may be a device without end.
fn read(from: impl Read, path: &Path) -> Result<String, CodeError> {
    let path = path.to_owned();
    let mut bytes = Vec::new();
    match from.take(MAX_MESSAGE_BYTES as u64 + 1).read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            return Err(CodeError::Directory { path });
        }
        Err(source) => return Err(CodeError::Read { path, source }),
        Ok(n) if n > MAX_MESSAGE_BYTES => return Err(CodeError::TooLong { path }),
        Ok(_) => {}
    }
    String::from_utf8(bytes)
        .map_err(|error| CodeError::NotText { path, at: error.utf8_error().valid_up_to() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let dir = tempfile::tempdir().expect("directory");
        assert!(matches!(from_file(dir.path()), Err(CodeError::Directory { .. })));
        assert!(matches!(from_file(&dir.path().join("x")), Err(CodeError::Missing { .. })));
        let file = dir.path().join("latin1.ts");
        std::fs::write(&file, b"'caf\xe9'").expect("writes");
        assert!(matches!(from_file(&file), Err(CodeError::NotText { at: 4, .. })));
        std::fs::write(&file, "'café'").expect("writes");
        assert_eq!(from_file(&file).expect("text"), "'café'");
    }

    #[test]
    fn stops_reading_where_nothing_could_be_sent() {
        assert!(matches!(read(io::repeat(b' '), Path::new("stdin")), Err(CodeError::TooLong { .. })));
    }
}
