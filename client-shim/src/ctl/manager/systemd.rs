//! systemd's manager of one user, through systemctl and journalctl.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::service::LogOptions;
use super::{MARK, ManagerError, check_ours, io_at, program, remove, run, search_path, show, text_of, write};
use crate::autostart::systemctl;

const TOOL: &str = "systemctl";

const SERVICE: &str = "conductor.service";
const SOCKET: &str = "conductor.socket";

/// What is installed: as the repository and packages have it.
const UNITS: [(&str, &str); 3] = [
    (SERVICE, include_str!("../../../../systemd/conductor.service")),
    (SOCKET, include_str!("../../../../systemd/conductor.socket")),
    ("conductor.slice", include_str!("../../../../systemd/conductor.slice")),
];

/// See the module.
#[derive(Debug)]
pub(in crate::ctl) struct Systemd {
    /// Where the user's own units lie.
    units: PathBuf,
}

impl Systemd {
    /// # Errors
    /// There is no home directory.
    pub(in crate::ctl) fn of_this_user() -> Result<Self, ManagerError> {
        let absolute = |path: &PathBuf| path.is_absolute();
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute);
        let home = || Some(std::env::home_dir().filter(absolute)?.join(".config"));
        let config = config.or_else(home).ok_or(ManagerError::NoHome)?;
        Ok(Self { units: config.join("systemd/user") })
    }

    /// Writes the units and makes the manager read them.
    pub(in crate::ctl) fn write(&self) -> Result<Vec<PathBuf>, ManagerError> {
        self.check_runs()?;
        let (program, search) = (program()?, search_path());
        let files: Vec<_> = UNITS.iter().map(|(name, text)| (self.units.join(name), *text)).collect();
        // Nothing is written before all of it may be.
        for (path, _) in &files {
            check_ours(path)?;
        }
        std::fs::create_dir_all(&self.units).map_err(io_at("make", &self.units))?;
        for (path, text) in &files {
            let text = if path.ends_with(SERVICE) {
                service(text, &program, search.as_deref())?
            } else {
                (*text).to_owned()
            };
            write(
                path,
                &format!("# {MARK}, which replaces it. Changes go to `systemctl --user edit`.\n#\n{text}"),
            )?;
        }
        self.tell(&["daemon-reload"])?;
        Ok(files.into_iter().map(|(path, _)| path).collect())
    }

    /// Listens from now and from each login on; a daemon that runs already is replaced.
    pub(in crate::ctl) fn enable(&self) -> Result<(), ManagerError> {
        self.tell(&["enable", "--now", SOCKET])?;
        self.tell(&["try-restart", SERVICE])
    }

    /// True when the service's socket is the one that clients reach.
    pub(in crate::ctl) fn is_listening(&self) -> Result<bool, ManagerError> {
        match self.tell(&["is-active", "--quiet", SOCKET]) {
            Ok(()) => Ok(true),
            Err(ManagerError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stops the service and removes its units, also where no manager runs; gives the files that were there.
    pub(in crate::ctl) fn remove(&self) -> Result<Vec<PathBuf>, ManagerError> {
        let paths = UNITS.map(|(name, _)| self.units.join(name));
        let mut is_there = false;
        for path in &paths {
            is_there |= check_ours(path)?;
        }
        if !is_there {
            return Ok(Vec::new());
        }
        let runs = match self.check_runs() {
            Ok(()) => true,
            Err(ManagerError::Absent { .. } | ManagerError::NoTool { .. }) => false,
            Err(error) => return Err(error),
        };
        if runs {
            self.tell(&["disable", "--now", SOCKET, SERVICE])?;
        }
        let mut removed = Vec::new();
        for path in paths {
            if remove(&path)? {
                removed.push(path);
            }
        }
        // What `enable` made; `disable` has removed it where it could be asked.
        let wanted = self.units.join("sockets.target.wants").join(SOCKET);
        if wanted.is_symlink() {
            std::fs::remove_file(&wanted).map_err(io_at("remove", &wanted))?;
        }
        if runs {
            self.tell(&["daemon-reload"])?;
            // A failure would be shown for a unit that is not there any more. None to forget is an error, too.
            self.tell(&["reset-failed", SOCKET, SERVICE]).ok();
        }
        Ok(removed)
    }

    pub(in crate::ctl) fn start(&self) -> Result<String, ManagerError> {
        self.check_installed()?;
        self.tell(&["start", SOCKET, SERVICE])?;
        Ok("conductord runs".into())
    }

    pub(in crate::ctl) fn stop(&self) -> Result<String, ManagerError> {
        self.check_installed()?;
        // The socket too: the next connection would start the daemon again.
        self.tell(&["stop", SOCKET, SERVICE])?;
        Ok("conductord has stopped; clients that need it start it again, unless CONDUCTOR_NO_AUTOSTART is set for them".into())
    }

    pub(in crate::ctl) fn restart(&self) -> Result<String, ManagerError> {
        self.check_installed()?;
        self.tell(&["start", SOCKET])?;
        self.tell(&["restart", SERVICE])?;
        Ok("conductord was replaced".into())
    }

    pub(in crate::ctl) fn status(&self) -> Result<bool, ManagerError> {
        self.check_installed()?;
        let mut command = systemctl();
        command.args(["--no-pager", "--full", "status", SOCKET, SERVICE]);
        show(command, TOOL)
    }

    pub(in crate::ctl) fn logs(&self, options: LogOptions) -> Result<bool, ManagerError> {
        let mut command = Command::new("journalctl");
        // Not `--user --unit`: that looks only into journals of the user's own, which volatile journals do not have.
        command.args(["--no-pager", "--user-unit", SERVICE, "--lines"]).arg(options.lines.to_string());
        if options.follow {
            command.arg("--follow");
        }
        show(command, "journalctl")
    }

    fn check_runs(&self) -> Result<(), ManagerError> {
        let mut command = systemctl();
        // Any question will do; this one has an answer also from a manager with failed units.
        command.args(["show", "--property=Version"]).stdout(Stdio::null());
        match run(command, TOOL) {
            Ok(_) => Ok(()),
            Err(ManagerError::Failed { words, .. }) => Err(ManagerError::Absent { words }),
            Err(error) => Err(error),
        }
    }

    /// Packages install units elsewhere, so the manager is asked.
    fn check_installed(&self) -> Result<(), ManagerError> {
        self.check_runs()?;
        let mut command = systemctl();
        command.args(["show", "--property=LoadState", "--value", SOCKET]);
        let output = run(command, TOOL)?;
        if output.stdout.starts_with(b"loaded") { Ok(()) } else { Err(ManagerError::NotInstalled) }
    }

    fn tell<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<(), ManagerError> {
        let mut command = systemctl();
        command.args(args);
        run(command, TOOL).map(drop)
    }
}

/// The service's unit for this program and search path.
fn service(unit: &str, program: &Path, search: Option<&Path>) -> Result<String, ManagerError> {
    let start = format!("ExecStart=\"{}\"", quoted(text_of(program)?).replace('$', "$$"));
    let mut lines: Vec<_> = unit.lines().map(str::to_owned).collect();
    for line in lines.iter_mut().filter(|line| line.starts_with("ExecStart=")) {
        line.clone_from(&start);
        if let Some(search) = search {
            let search = quoted(text_of(search)?);
            let why = "# That of the shell that installed it: upstream servers are started by name, like npx and uvx.";
            line.push_str(&format!("\n{why}\nEnvironment=\"PATH={search}\""));
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// In double quotes: what systemd.syntax(7) unquotes and systemd.unit(5) expands.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_gets_the_program_and_the_search_path() {
        let unit = "[Service]\nExecStart=/usr/bin/conductord\nRestart=on-failure\n";
        let text =
            service(unit, Path::new("/opt/a b/100%/$x\"\\d"), Some(Path::new("/bin:/o%"))).expect("is text");
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "[Service]",
            r#"ExecStart="/opt/a b/100%%/$$x\"\\d""#,
            r#"Environment="PATH=/bin:/o%%""#,
            "Restart=on-failure",
        ];
        assert_eq!(lines, expected);
        assert!(service(unit, Path::new("/a\nUser=root"), None).is_err());
    }

    #[test]
    fn every_directive_has_its_reason_above_it() {
        for (name, text) in UNITS {
            let mut explained = false;
            for line in text.lines() {
                match line {
                    "" => explained = false,
                    line if line.starts_with('#') => explained = true,
                    line if line.starts_with('[') || line.starts_with("Description=") => {}
                    line => assert!(explained, "{name}: {line}"),
                }
            }
        }
    }
}
