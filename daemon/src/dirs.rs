//! Where the daemon keeps things. Pure: no directory is made here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The daemon's own directories. Code never gets a grant on any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    pub home: PathBuf,
    /// `config.toml`.
    pub config: PathBuf,
    /// Fetched Deno executables.
    pub data: PathBuf,
    /// Logs.
    pub state: PathBuf,
    /// The workers' read-only DENO_DIR and harness; may be deleted at any time.
    pub cache: PathBuf,
}

/// No home directory, so there is no place for anything.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the user has no home directory\nhint: set HOME to a directory that you can write")]
pub struct NoHome;

impl Dirs {
    /// Follows the XDG base directory rules; relative values are ignored, as the rules say.
    ///
    /// # Errors
    /// [`NoHome`].
    pub fn from_env(env: &BTreeMap<String, String>, home: Option<PathBuf>) -> Result<Self, NoHome> {
        let home = home.filter(|home| home.is_absolute()).ok_or(NoHome)?;
        let base = |variable: &str, fallback: &str| {
            let set = env.get(variable).map(PathBuf::from).filter(|path| path.is_absolute());
            set.unwrap_or_else(|| home.join(fallback)).join("conductor")
        };
        Ok(Self {
            config: base("XDG_CONFIG_HOME", ".config"),
            data: base("XDG_DATA_HOME", ".local/share"),
            state: base("XDG_STATE_HOME", ".local/state"),
            cache: base("XDG_CACHE_HOME", ".cache"),
            home,
        })
    }

    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// What a session gets as workspace when it names none.
    pub fn default_workspace(&self) -> PathBuf {
        self.home.join(".mcp-conductor/workspace")
    }

    /// Directories that no grant may name or open.
    pub fn protected(&self) -> [&Path; 4] {
        [&self.config, &self.data, &self.state, &self.cache]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_xdg_and_ignores_relative_values() {
        let env = BTreeMap::from([
            ("XDG_CONFIG_HOME".to_owned(), "/etc/me".to_owned()),
            ("XDG_DATA_HOME".to_owned(), "relative".to_owned()),
        ]);
        let dirs = Dirs::from_env(&env, Some("/home/a".into())).expect("has a home");
        assert_eq!(dirs.config_file(), Path::new("/etc/me/conductor/config.toml"));
        assert_eq!(dirs.data, Path::new("/home/a/.local/share/conductor"));
        assert!(Dirs::from_env(&env, None).is_err());
    }
}
