//! Starts server processes from the one thread that may: its end is theirs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setsid};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::process::guard;
use crate::process::tree::MARK;

/// Starts that may wait for the thread. More callers than this wait in `run`.
const QUEUE: usize = 64;

/// A server to start: exactly these arguments, exactly this environment and the mark.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: BTreeMap<OsString, OsString>,
    pub(crate) directory: PathBuf,
    pub(crate) mark: String,
}

struct Request {
    launch: Launch,
    runtime: Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

impl Launch {
    /// # Cancel safety
    /// A process that nobody waits for any more is killed by its own drop.
    pub(crate) async fn run(self) -> io::Result<Child> {
        let (answer, started) = oneshot::channel();
        let request = Request { launch: self, runtime: Handle::current(), answer };
        thread()?.send(request).await.map_err(|_| thread_gone())?;
        started.await.map_err(|_| thread_gone())?
    }

    fn run_here(&self, runtime: &Handle) -> io::Result<Child> {
        guard::ensure()?;
        let _entered = runtime.enter();
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .env(MARK, &self.mark)
            .current_dir(&self.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        die_with_us(&mut command);
        command.spawn()
    }
}

/// A new mark for one server process.
pub(crate) fn new_mark() -> String {
    format!("{}-{:x}", guard::daemon_mark(), fastrand::u64(..))
}

/// Makes `command` the leader of a session of its own, without a terminal, that dies with the thread that starts it.
fn die_with_us(command: &mut Command) {
    let parent = Pid::this();
    let prepare = move || {
        setsid()?;
        #[cfg(target_os = "linux")]
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the request to die with it was armed.
        if getppid() != parent {
            return Err(io::Error::from(io::ErrorKind::NotConnected));
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "std has no safe way to make a session and to die with the parent")]
    // SAFETY: between fork and exec only system calls are made that are async-signal-safe (setsid, prctl, getppid), and
    // nothing is allocated: errors carry a number or a kind.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Makes `command` the leader of a session of its own, without a terminal.
pub(crate) fn new_session(command: &mut std::process::Command) {
    #[expect(unsafe_code, reason = "std has no safe way to make a session")]
    // SAFETY: setsid is async-signal-safe and nothing is allocated.
    unsafe {
        command.pre_exec(|| setsid().map(drop).map_err(io::Error::from));
    }
}

fn thread_gone() -> io::Error {
    io::Error::other("the thread that starts servers has ended")
}

/// `PR_SET_PDEATHSIG` fires when the starting *thread* ends (prctl(2)), so the thread belongs to the process: started once,
/// never ended.
fn thread() -> io::Result<mpsc::Sender<Request>> {
    // A failure is not kept: the machine may have a thread to spare the next time.
    static THREAD: Mutex<Option<mpsc::Sender<Request>>> = Mutex::new(None);
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = &*thread {
        return Ok(sender.clone());
    }
    let (sender, mut requests) = mpsc::channel::<Request>(QUEUE);
    let body = move || {
        while let Some(Request { launch, runtime, answer }) = requests.blocking_recv() {
            // Receiver gone: the caller gave up, and dropping the answer kills the process.
            answer.send(launch.run_here(&runtime)).ok();
        }
    };
    std::thread::Builder::new().name("upstream-start".to_owned()).spawn(body)?;
    *thread = Some(sender.clone());
    Ok(sender)
}
