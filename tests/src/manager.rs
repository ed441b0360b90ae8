//! A service manager, as far as one daemon can tell: systemd's protocols of activation, readiness and watchdog.

use std::fs::{DirBuilder, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::binaries;
use crate::daemon::Daemon;
use crate::home::Home;

/// Listens for the daemon, and hears what it has to say.
#[derive(Debug)]
pub struct Manager {
    home: Arc<Home>,
    listener: UnixListener,
    news_at: PathBuf,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    /// Listens at the home's socket; no daemon runs yet.
    pub fn new(home: &Arc<Home>) -> Self {
        let socket = home.socket();
        let directory = socket.parent().expect("it has one");
        DirBuilder::new().recursive(true).mode(0o700).create(directory).expect("a directory");
        let news_at = home.path("notify");
        let news = UnixDatagram::bind(&news_at).expect("binds");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        // Ends with the test's process: nothing else of it outlives the fixture.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = news.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
                into.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        });
        Self { home: home.clone(), listener: UnixListener::bind(&socket).expect("binds"), news_at, heard }
    }

    /// Starts a daemon and waits until it answers.
    pub fn start(&self, watchdog: Option<Duration>) -> Daemon {
        self.start_with_deno(watchdog, &binaries::deno())
    }

    /// The same, with another Deno.
    pub fn start_with_deno(&self, watchdog: Option<Duration>, deno: &Path) -> Daemon {
        Daemon::start_with(&self.home, |command| *command = self.activated(command, watchdog, deno))
    }

    /// The command line of a fixture's daemon, as a manager starts it: descriptor 3 is the socket, and the variables name the
    /// process.
    pub fn activated(&self, program: &Command, watchdog: Option<Duration>, deno: &Path) -> Command {
        // The shell becomes the program, so its pid is the one that the protocol wants.
        const SCRIPT: &str = "exec 3<&0 </dev/null\n\
             export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=conductord WATCHDOG_PID=$$\n\
             exec \"$@\"";
        let mut command = self.home.command(Path::new("/bin/sh"));
        command.args(["-c", SCRIPT, "sh"]).arg(program.get_program());
        let usual = binaries::deno();
        command.args(program.get_args().map(|arg| if arg == usual { deno.as_os_str() } else { arg }));
        for (name, value) in program.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.env("NOTIFY_SOCKET", &self.news_at);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        let socket: OwnedFd = self.listener.try_clone().expect("a descriptor").into();
        let stderr =
            OpenOptions::new().create(true).append(true).open(self.home.path("stderr")).expect("a file");
        command.stdin(Stdio::from(socket)).stdout(Stdio::null()).stderr(stderr);
        command
    }

    /// The socket that daemons are given.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Everything that was told so far, in order.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a line was told so far.
    pub fn count(&self, line: &str) -> usize {
        self.heard().iter().filter(|news| news.lines().any(|told| told == line)).count()
    }
}
