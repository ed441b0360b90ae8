//! The configuration file: its types, defaults and checks. Owns nothing; [`crate::supervisor`] holds the one in use.
//!
//! In: the text of `config.toml`. Out: a [`Config`], or everything that is wrong with the text, each with its place. The file
//! is optional. Unknown keys are errors that name the nearest known one, every value has bounds, and a file that others can
//! write is refused: whoever writes it decides what code may do.
//!
//! [`types`] declares each key once; [`schema`], [`check`] and the reference follow from it.

mod check;
mod document;
pub(crate) mod duration;
pub(crate) mod http;
pub(crate) mod in_use;
mod meaning;
#[cfg(test)]
mod reference;
pub(crate) mod report;
pub mod schema;
mod trust;
mod types;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use document::Document;
pub use document::Problem;
pub use http::HttpSection;
pub use in_use::ConfigInUse;
pub(crate) use trust::read_trusted;
pub use types::*;

/// Why a configuration file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {} is not trusted: {} {why}\nhint: {hint}", .path.display(), .at.display())]
    Untrusted {
        path: PathBuf,
        /// The file itself, or a directory on the way to it.
        at: PathBuf,
        why: &'static str,
        hint: String,
    },
    #[error("the configuration {} is wrong\n{}", .path.display(), listed(.problems, .path))]
    Wrong { path: PathBuf, problems: Vec<Problem> },
}

impl ConfigError {
    /// Whether there is no file.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

impl Config {
    /// Reads `path`. A missing file is the default configuration unless `required`.
    ///
    /// # Errors
    /// A file that cannot be read, that others can write, or that says something wrong.
    pub fn load(path: &Path, required: bool) -> Result<Self, ConfigError> {
        match read_trusted(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.is_absent() && !required => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Reads the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`], with everything that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        read(text)
            .map(|(config, _)| config)
            .map_err(|problems| ConfigError::Wrong { path: path.to_owned(), problems })
    }
}

/// A text as configuration, with the places of its keys.
///
/// # Errors
/// Everything that is wrong, in the order of the text. What a schema cannot say is looked for when the rest is right.
pub(crate) fn read(text: &str) -> Result<(Config, Document<'_>), Vec<Problem>> {
    let document = Document::parse(text)?;
    let problems = check::problems(&document);
    if !problems.is_empty() {
        return Err(problems);
    }
    let config: Config = toml::from_str(text).map_err(|error| {
        vec![document.problem(error.span().unwrap_or_default(), &[], error.message(), None)]
    })?;
    let problems = meaning::problems(&config, &document);
    if problems.is_empty() { Ok((config, document)) } else { Err(problems) }
}

fn listed(problems: &[Problem], path: &Path) -> String {
    let mut text = String::new();
    for problem in problems {
        // Writing to a String cannot fail.
        let _written = writeln!(text, "{}", problem.text(path));
    }
    text.push_str("hint: repair it; `conductorctl config check` says whether it is right");
    text
}

#[cfg(test)]
mod tests;
