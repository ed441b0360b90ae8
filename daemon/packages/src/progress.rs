//! How far a layer is, for a progress bar.

use std::fmt;

/// What a build is doing. `Display` is the text for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Other builds go first.
    #[default]
    Queued,
    /// Asking registries which versions there are; `seen` packages so far.
    Resolving { seen: u32 },
    /// Downloading. `of` counts the packages resolved, which may be more than are downloaded.
    Fetching { package: String, done: u32, of: u32 },
    /// Another process finishes a layer of the same packages.
    Waiting,
    /// Filling Deno's caches with compiled code.
    Warming,
    /// Making it read-only and recording what is in it.
    Sealing,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queued => f.write_str("waiting for another package layer"),
            Self::Resolving { seen: 0 } => f.write_str("resolving"),
            Self::Resolving { seen } => write!(f, "resolving ({seen} packages)"),
            Self::Fetching { package, done, of } => write!(f, "fetching {package} ({done} of {of})"),
            Self::Waiting => f.write_str("waiting for another process that builds the same"),
            Self::Warming => f.write_str("compiling"),
            Self::Sealing => f.write_str("sealing"),
        }
    }
}
