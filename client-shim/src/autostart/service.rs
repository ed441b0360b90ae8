//! The user's service manager, if conductor's unit is installed there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where user units can be. Only whether the file is there is looked at.
pub(super) fn directories(config: Option<PathBuf>, data: Option<PathBuf>) -> Vec<PathBuf> {
    let own = config.into_iter().chain(data).map(|dir| dir.join("systemd/user"));
    let system =
        ["/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"].map(PathBuf::from);
    own.chain(system).collect()
}

/// The unit to start: the socket if there is one, since systemd then listens at once.
pub(super) fn installed(directories: &[PathBuf]) -> Option<&'static str> {
    let is_there = |unit: &&str| directories.iter().any(|dir| dir.join(unit).is_file());
    ["conductor.socket", "conductor.service"].into_iter().find(is_there)
}

/// Asks for the unit to be started; false when there is no service manager to ask, as in a container.
#[cfg(not(target_os = "macos"))]
pub(super) fn start(unit: &str) -> bool {
    let mut command = systemctl();
    command.args(["--no-block", "start", unit]).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

/// systemctl, for this user's manager.
#[cfg(not(target_os = "macos"))]
pub(crate) fn systemctl() -> Command {
    let mut command = Command::new("systemctl");
    command.arg("--user");
    let runtime = format!("/run/user/{}", nix::unistd::geteuid());
    // IDEs often pass no XDG variables; systemctl finds the user's manager by this one.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() && Path::new(&runtime).is_dir() {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    command
}

/// Not built or tested here.
#[cfg(target_os = "macos")]
pub(super) fn start(_unit: &str) -> bool {
    let target = format!("gui/{}/dev.conductor.conductord", nix::unistd::geteuid());
    Command::new("launchctl")
        .args(["kickstart", &target])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefers_the_socket_unit() {
        let dir = tempfile::tempdir().expect("directory");
        let dirs = vec![dir.path().join("none"), dir.path().to_owned()];
        assert_eq!(installed(&dirs), None);
        std::fs::write(dir.path().join("conductor.service"), "").expect("writes");
        assert_eq!(installed(&dirs), Some("conductor.service"));
        std::fs::write(dir.path().join("conductor.socket"), "").expect("writes");
        assert_eq!(installed(&dirs), Some("conductor.socket"));
    }
}
