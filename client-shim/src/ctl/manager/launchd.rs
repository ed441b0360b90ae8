//! launchd's manager of one user, through launchctl. Not built or tested here.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::service::LogOptions;
use super::{MARK, ManagerError, check_ours, io_at, program, remove, run, search_path, show, text_of, write};
use crate::connect;

const TOOL: &str = "launchctl";

const LABEL: &str = "dev.conductor.conductord";

const AGENT: &str = include_str!("../../../../systemd/dev.conductor.conductord.plist");

/// See the module.
#[derive(Debug)]
pub(in crate::ctl) struct Launchd {
    home: PathBuf,
}

impl Launchd {
    /// # Errors
    /// There is no home directory.
    pub(in crate::ctl) fn of_this_user() -> Result<Self, ManagerError> {
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        Ok(Self { home: home.ok_or(ManagerError::NoHome)? })
    }

    fn agent(&self) -> PathBuf {
        self.home.join("Library/LaunchAgents").join(format!("{LABEL}.plist"))
    }

    fn log(&self) -> PathBuf {
        self.home.join("Library/Logs/conductord.log")
    }

    /// Writes the agent's file.
    pub(in crate::ctl) fn write(&self) -> Result<Vec<PathBuf>, ManagerError> {
        let path = self.agent();
        check_ours(&path)?;
        // launchd expands nothing, so the socket is where clients look when no variable says otherwise.
        let socket = self.home.join(".local/state/conductor/conductord.sock");
        for (file, mode) in [(&path, 0o755), (&socket, 0o700), (&self.log(), 0o755)] {
            use std::os::unix::fs::DirBuilderExt as _;
            let dir = file.parent().unwrap_or(Path::new("/"));
            std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(io_at("make", dir))?;
        }
        let search = search_path().unwrap_or_else(|| "/usr/bin:/bin".into());
        let mut text = AGENT.replacen('\n', &format!("\n<!-- {MARK}, which replaces it. -->\n"), 1);
        for (place, value) in [
            ("@CONDUCTORD@", &program()?),
            ("@SOCKET@", &socket),
            ("@LOG@", &self.log()),
            ("@PATH@", &search),
        ] {
            text = text.replace(place, &escaped(text_of(value)?));
        }
        write(&path, &text)?;
        Ok(vec![path])
    }

    pub(in crate::ctl) fn enable(&self) -> Result<(), ManagerError> {
        // An older one is replaced; none is no failure.
        self.tell(&["bootout", &self.target()]).ok();
        self.tell(&["bootstrap", &self.domain(), text_of(&self.agent())?])
    }

    pub(in crate::ctl) fn is_listening(&self) -> Result<bool, ManagerError> {
        match self.tell(&["print", &self.target()]) {
            Ok(()) => Ok(true),
            Err(ManagerError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(in crate::ctl) fn remove(&self) -> Result<Vec<PathBuf>, ManagerError> {
        let path = self.agent();
        if !check_ours(&path)? {
            return Ok(Vec::new());
        }
        // Not loaded is no failure.
        self.tell(&["bootout", &self.target()]).ok();
        remove(&path)?;
        Ok(vec![path])
    }

    pub(in crate::ctl) fn start(&self) -> Result<String, ManagerError> {
        self.check_installed()?;
        if !self.is_listening()? {
            self.enable()?;
        }
        self.tell(&["kickstart", &self.target()])?;
        Ok("conductord runs".into())
    }

    pub(in crate::ctl) fn stop(&self) -> Result<String, ManagerError> {
        self.check_installed()?;
        self.tell(&["bootout", &self.target()])?;
        Ok("conductord has stopped; clients that need it start it again".into())
    }

    pub(in crate::ctl) fn restart(&self) -> Result<String, ManagerError> {
        self.check_installed()?;
        self.tell(&["kickstart", "-k", &self.target()])?;
        Ok("conductord was replaced".into())
    }

    pub(in crate::ctl) fn status(&self) -> Result<bool, ManagerError> {
        self.check_installed()?;
        let mut command = Command::new(TOOL);
        command.args(["print", &self.target()]);
        show(command, TOOL)
    }

    pub(in crate::ctl) fn logs(&self, options: LogOptions) -> Result<bool, ManagerError> {
        let mut command = Command::new("tail");
        command.arg("-n").arg(options.lines.to_string()).args(options.follow.then_some("-F")).arg(self.log());
        show(command, "tail")
    }

    fn check_installed(&self) -> Result<(), ManagerError> {
        if check_ours(&self.agent())? { Ok(()) } else { Err(ManagerError::NotInstalled) }
    }

    fn domain(&self) -> String {
        format!("gui/{}", connect::surroundings(None).uid)
    }

    fn target(&self) -> String {
        format!("{}/{LABEL}", self.domain())
    }

    fn tell(&self, args: &[&str]) -> Result<(), ManagerError> {
        let mut command = Command::new(TOOL);
        command.args(args);
        run(command, TOOL).map(drop)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
