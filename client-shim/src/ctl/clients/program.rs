//! Finds the shim that clients are to start, as this program finds the others it was installed with.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::registration::{Program, SHIM};

/// Why there is no command to give to a client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("{SHIM}, which clients start, is neither beside conductorctl nor on PATH")]
    Missing,
    #[error("{} cannot be written into a configuration file: it is not UTF-8", path.display())]
    NotText { path: PathBuf },
}

impl ProgramError {
    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Missing => {
                format!("install {SHIM} into the directory of conductorctl; both are of one package")
            }
            Self::NotText { .. } => "install conductor, or put the socket, below another directory".into(),
        }
    }
}

/// The shim beside this program, else the first on the search path, by its absolute path. A socket that was named on the
/// command line goes into its arguments: the client's environment will not name it.
pub(super) fn of_this_installation(socket: Option<&Path>) -> Result<Program, ProgramError> {
    let here = std::env::current_exe().ok();
    let beside = here.as_deref().and_then(Path::parent);
    let search = std::env::var_os("PATH").unwrap_or_default();
    let command = text(find(beside, &search).ok_or(ProgramError::Missing)?)?;
    let socket = socket.map(|socket| text(std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned())));
    let args = socket.transpose()?.map(|socket| vec!["--socket".to_owned(), socket]);
    Ok(Program { command, args })
}

fn find(beside: Option<&Path>, search: &OsStr) -> Option<PathBuf> {
    let on_path = std::env::split_paths(search).filter(|dir| dir.is_absolute());
    let mut places = beside.map(Path::to_owned).into_iter().chain(on_path);
    places.find_map(|dir| Some(dir.join(format!("{SHIM}{EXE_SUFFIX}"))).filter(|path| is_program(path)))
}

fn is_program(path: &Path) -> bool {
    access(path, AccessFlags::X_OK).is_ok() && path.is_file()
}

fn text(path: PathBuf) -> Result<String, ProgramError> {
    path.into_os_string().into_string().map_err(|path| ProgramError::NotText { path: path.into() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStringExt as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_shim_beside_us_goes_before_one_on_the_path() {
        let dir = tempfile::tempdir().expect("directory");
        let install = |name: &str| {
            let path = dir.path().join(name).join(SHIM);
            fs::create_dir(path.parent().expect("a parent")).expect("directory");
            fs::write(&path, "").expect("writes");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("is ours");
            path
        };
        let (beside, search) = (dir.path().join("beside"), dir.path().join("path"));
        assert_eq!(find(Some(&beside), search.as_os_str()), None);
        assert_eq!(find(Some(&beside), OsStr::new("path")), None, "a relative place is not searched");
        let on_path = install("path");
        assert_eq!(find(Some(&beside), search.as_os_str()), Some(on_path));
        let found = install("beside");
        assert_eq!(find(Some(&beside), search.as_os_str()), Some(found));
    }

    #[test]
    fn a_path_that_is_no_text_is_refused() {
        let path = PathBuf::from(std::ffi::OsString::from_vec(b"/caf\xe9".to_vec()));
        assert_eq!(text(path.clone()), Err(ProgramError::NotText { path }));
    }
}
