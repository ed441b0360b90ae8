//! Where the socket is: one rule for the daemon and its clients. Pure: no path is touched here.
//!
//! Clients are often started without `XDG_RUNTIME_DIR` (Codex and the TypeScript SDK's default environment drop it), so a
//! client tries every candidate in order, and the daemon listens on the first one whose parent directory it can make.

use std::path::{Path, PathBuf};

/// Overrides the socket path, for daemon and clients.
pub const SOCKET_VARIABLE: &str = "CONDUCTOR_SOCKET";

/// Longest socket path, bytes: `sun_path` holds 104 on macOS and 108 on Linux, with the final NUL.
pub const MAX_SOCKET_PATH_BYTES: usize = 103;

const FILE_NAME: &str = "conductord.sock";

/// What the rule looks at.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `--socket` or [`SOCKET_VARIABLE`]; when given there is no other candidate.
    pub explicit: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// The user's id.
    pub uid: u32,
    /// The user's home directory.
    pub home: Option<PathBuf>,
}

/// Socket paths in order of preference.
pub fn candidates(at: &Surroundings) -> Vec<PathBuf> {
    if let Some(path) = &at.explicit {
        return vec![path.clone()];
    }
    let system = Path::new("/run/user").join(at.uid.to_string());
    let mut bases = Vec::new();
    bases.extend(at.runtime_dir.iter().filter(|dir| dir.is_absolute()).cloned());
    bases.push(system);
    bases.extend(at.home.iter().map(|home| home.join(".local/state")));
    let mut paths: Vec<PathBuf> = bases
        .into_iter()
        .map(|base| base.join("conductor").join(FILE_NAME))
        .filter(|path| fits(path))
        .collect();
    paths.dedup();
    paths
}

/// True when the operating system can hold the path in a socket address.
pub fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(at: &Surroundings) -> Vec<String> {
        candidates(at).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn follows_the_order() {
        let at = Surroundings {
            explicit: None,
            runtime_dir: Some("/run/user/7".into()),
            uid: 7,
            home: Some("/home/a".into()),
        };
        assert_eq!(
            paths(&at),
            ["/run/user/7/conductor/conductord.sock", "/home/a/.local/state/conductor/conductord.sock"]
        );
        let without_xdg = Surroundings { runtime_dir: None, ..at.clone() };
        assert_eq!(paths(&without_xdg), paths(&at), "a client without XDG variables finds the same socket");
        let explicit = Surroundings { explicit: Some("/x/y.sock".into()), ..at.clone() };
        assert_eq!(paths(&explicit), ["/x/y.sock"]);
        let relative = Surroundings { runtime_dir: Some("run".into()), ..at };
        assert_eq!(paths(&relative).len(), 2, "a relative runtime directory is ignored");
    }

    #[test]
    fn leaves_out_what_does_not_fit_an_address() {
        let home = PathBuf::from(format!("/{}", "h".repeat(100)));
        let at = Surroundings { home: Some(home), uid: 1, ..Surroundings::default() };
        assert_eq!(paths(&at), ["/run/user/1/conductor/conductord.sock"]);
    }
}
