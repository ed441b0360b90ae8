//! Proof of the jail, from the inside: a process puts itself into it and then tries what must not work.
//!
//! [`self_test`] sets a scene (a granted and a closed directory, listeners, a process to attack: its own), starts the
//! launcher as a *probe* and reads what became of each attempt. The probe is native code in the launcher's own executable
//! rather than script in a Deno with `--allow-ffi`: that tests what a process can do that Deno no longer controls, which
//! is what the jail is for; it needs no grant that a worker would not have; and it costs a millisecond, not a boot. That
//! Deno *works* in the jail, every boot shows.
//!
//! Attempts are harmless when they succeed: signal 0, a file without a program in it, arguments that are refused once the
//! call has arrived. A call that arrives is as good as done, so what counts is who refused: [`Probe::stopped_by`] names the
//! layers that stop an attempt, in the order in which the kernel asks them, each with its own error number. Attempts that
//! nothing stops are the *controls*, which must work: they tell a jail from a machine where nothing works.

mod attempt;
mod calls;
mod files;
mod network;
mod processes;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::libc;
use serde::{Deserialize, Serialize};

use crate::{Jail, Layer, Level, Report, State};
pub use attempt::Errno;
use attempt::Handles;

/// First argument that turns the launcher into a probe.
const ASK: &str = "__worker-probe";

/// Seconds after which a probe that hangs is killed by its own alarm.
const PATIENCE: libc::c_uint = 20;

/// What one attempt is, and what must become of it.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    pub name: &'static str,
    /// Layers that stop it, with the error that each gives, in the order in which the kernel asks. None: a control.
    pub stopped_by: &'static [(Layer, Errno)],
    attempt: Attempt,
}

#[derive(Clone, Copy, Debug)]
enum Attempt {
    /// The call of this number with arguments that no call takes: it arrives, and fails.
    Call(i64),
    Do(fn(&Scene, &Handles) -> Result<(), Errno>),
}

/// Everything that is tried, in order.
pub fn probes() -> impl Iterator<Item = Probe> {
    [files::PROBES, network::PROBES, processes::PROBES].into_iter().flatten().copied().chain(calls::probes())
}

impl Probe {
    /// The error it must end with where `active` layers hold; `None` where none of them stops it.
    pub fn expected(&self, active: impl Fn(Layer) -> bool) -> Option<Errno> {
        self.stopped_by.iter().find(|(layer, _)| active(*layer)).map(|(_, errno)| *errno)
    }

    /// Whether an attempt that ended like this got past every layer.
    pub fn got_through(&self, end: Option<Errno>) -> bool {
        end.is_none_or(|end| self.stopped_by.iter().all(|(_, errno)| *errno != end))
    }
}

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub probe: String,
    /// `None`: it was done.
    pub errno: Option<Errno>,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTest {
    /// What the jail says of itself.
    pub report: Report,
    /// One per element of [`probes`], in its order.
    pub findings: Vec<Finding>,
}

/// Why there is no result. The machine is then to be treated as one without a jail.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    #[error("cannot set up the jail's self-test")]
    Scene(#[source] io::Error),
    #[error("cannot start the jail's self-test")]
    Start(#[source] io::Error),
    #[error("the jail's self-test ended early ({status}): {stderr}")]
    Died { status: std::process::ExitStatus, stderr: String },
    #[error("the jail's self-test gave no result that is understood")]
    Garbled(#[source] serde_json::Error),
}

impl SelfTest {
    /// The claims that do not hold: for each layer that is active by its own report, attempts that it did not stop, and
    /// controls that failed. Empty is good. One line each, for people.
    pub fn broken(&self) -> Vec<String> {
        let active =
            |layer| matches!(self.report.layers.get(&layer), Some(State::Active | State::Partial(_)));
        probes()
            .zip(&self.findings)
            .filter_map(|(probe, finding)| {
                let expected = probe.expected(active);
                let holds = if probe.stopped_by.is_empty() {
                    finding.errno.is_none()
                } else {
                    // A read-only mount, such as `/proc` of some containers, refuses before any layer is asked.
                    expected.is_none() || expected == finding.errno || finding.errno == Some(libc::EROFS)
                };
                (!holds).then(|| format!("{}: {}, not {}", probe.name, told(finding.errno), told(expected)))
            })
            .collect()
    }
}

fn told(errno: Option<Errno>) -> String {
    errno.map_or_else(|| "it was done".to_owned(), |errno| io::Error::from_raw_os_error(errno).to_string())
}

/// Tries out a jail without grants with these `layers` and tells what holds. Takes some milliseconds, mostly for starting
/// `launcher`, a program whose `main` begins with [`run_if_asked`]. Its files live in a temporary directory meanwhile.
///
/// # Errors
/// When there is no result. That layers are missing or leak is part of the result.
pub fn self_test(
    launcher: &Path,
    layers: impl IntoIterator<Item = Layer>,
) -> Result<SelfTest, SelfTestError> {
    test(launcher, |jail| jail.layers = layers.into_iter().collect())
}

/// The same in a copy of a process that [forks](Jail::forks), with the copy's filter.
///
/// # Errors
/// There is no result. That the jail does not hold is part of one.
pub fn self_test_of_fork(
    launcher: &Path,
    layers: impl IntoIterator<Item = Layer>,
) -> Result<SelfTest, SelfTestError> {
    test(launcher, |jail| {
        jail.layers = layers.into_iter().collect();
        jail.forks = true;
    })
}

fn test(launcher: &Path, set: impl FnOnce(&mut Jail)) -> Result<SelfTest, SelfTestError> {
    let dir = tempfile::tempdir().map_err(SelfTestError::Scene)?;
    let (scene, _listeners) = Scene::set(dir.path()).map_err(SelfTestError::Scene)?;
    let mut jail = scene.jail(launcher);
    set(&mut jail);
    let output = Command::new(launcher)
        .args(scene.to_args())
        .args(jail.to_args())
        .stdin(Stdio::null())
        .output()
        .map_err(SelfTestError::Start)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        return Err(SelfTestError::Died { status: output.status, stderr });
    }
    serde_json::from_slice(&output.stdout).map_err(SelfTestError::Garbled)
}

/// Becomes a probe if the process was started as one, and then never returns. Call it where the launcher's own
/// `run_if_asked` is called: before a runtime, a thread or a logger exists.
pub fn run_if_asked() {
    let mut args = std::env::args_os().skip(1);
    if args.next().as_deref() != Some(OsStr::new(ASK)) {
        return;
    }
    let status = match probe(args) {
        Ok(()) => 0,
        Err(error) => {
            // Nobody is left to tell if this fails; the exit status says the rest.
            writeln!(io::stderr(), "{error}").ok();
            1
        }
    };
    #[expect(clippy::exit, reason = "this process was never more than a probe; nothing is there to unwind")]
    std::process::exit(status);
}

fn probe(mut args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let refused = || io::Error::other("the probe's arguments are not those of this version");
    let scene = Scene::from_args(&mut args).ok_or_else(refused)?;
    let jail = Jail::from_args(&mut args).ok_or_else(refused)?;
    attempt::prepare(PATIENCE);
    let handles = Handles::open(&scene)?;
    let report = jail.apply(Level::BestEffort, None).map_err(io::Error::other)?;
    if jail.forks {
        attempt::go_on_in_a_copy()?;
        attempt::prepare(PATIENCE);
        if let Some(filter) = jail.fork_filter()? {
            filter.install()?;
        }
    }
    let findings = probes()
        .map(|probe| Finding { probe: probe.name.to_owned(), errno: probe.run(&scene, &handles).err() })
        .collect();
    serde_json::to_writer(io::stdout(), &SelfTest { report, findings })?;
    io::stdout().flush()
}

impl Probe {
    fn run(&self, scene: &Scene, handles: &Handles) -> Result<(), Errno> {
        match self.attempt {
            Attempt::Call(number) => attempt::call(number, [usize::MAX; 6]).map(drop),
            Attempt::Do(attempt) => attempt(scene, handles),
        }
    }
}

/// What a probe acts on: a directory, listeners, and the process that started it.
#[derive(Debug)]
struct Scene {
    dir: PathBuf,
    tcp: u16,
    udp: u16,
}

/// Must live as long as the probe runs, so that connecting could succeed.
struct Listeners(
    #[expect(dead_code, reason = "held, not used")] (TcpListener, UdpSocket, UnixListener, UnixListener),
);

impl Scene {
    fn set(dir: &Path) -> io::Result<(Self, Listeners)> {
        let dir = dir.canonicalize()?;
        for name in ["granted", "granted/sub", "granted/empty", "closed"] {
            std::fs::create_dir(dir.join(name))?;
        }
        for name in
            ["granted/file", "granted/rename", "granted/remove", "granted/program", "closed/file", "sink"]
        {
            std::fs::write(dir.join(name), "content")?;
        }
        std::fs::write(dir.join("granted/locked"), "content")?;
        for (name, mode) in [("granted/program", 0o755), ("granted/locked", 0)] {
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode))?;
        }
        symlink("../closed/file", dir.join("granted/link"))?;
        symlink("closed", dir.join("trap"))?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let path = UnixListener::bind(dir.join("listener"))?;
        let name = UnixListener::bind_addr(&SocketAddr::from_abstract_name(dir.as_os_str().as_bytes())?)?;
        let scene = Self { tcp: tcp.local_addr()?.port(), udp: udp.local_addr()?.port(), dir };
        Ok((scene, Listeners((tcp, udp, path, name))))
    }

    fn jail(&self, launcher: &Path) -> Jail {
        let mut jail = Jail::new(launcher.to_owned());
        // The second is a link, as code could put in the place of what was granted: it must grant nothing.
        jail.read = vec![self.path("granted"), self.path("trap")];
        jail.limits.cpu_seconds = Some(60);
        jail
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn to_args(&self) -> [OsString; 4] {
        [ASK.into(), self.dir.clone().into(), self.tcp.to_string().into(), self.udp.to_string().into()]
    }

    fn from_args(args: &mut impl Iterator<Item = OsString>) -> Option<Self> {
        let dir = PathBuf::from(args.next()?);
        let mut port = || args.next()?.to_str()?.parse().ok();
        Some(Self { dir, tcp: port()?, udp: port()? })
    }
}
