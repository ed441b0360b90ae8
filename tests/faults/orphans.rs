//! Nothing lives on that nobody waits for: what a dead daemon has started, and a worker whose call is over, have ended 50 ms
//! later. The kernel ends processes no sooner than it has time for them, so a machine that is slow to end a plain Deno is
//! allowed to be as slow here.

use std::fs;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_tests::ends::{Watched, wait_for_ends};
use conductor_tests::{DEADLINE, Daemon, Home, Process, binaries, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{bed, tell};

/// How long what was killed may live on.
const SOON: Duration = Duration::from_millis(50);

/// How much longer than as many plain Denos, on a machine that has no time to end those so soon.
const SLOWER: u32 = 2;

/// What the slowest may take. It may meet a moment in which the machine does something else, but not one of the daemon's own
/// waits: those before it asks a second time, or kills, are longer than this.
const SLOWEST: Duration = Duration::from_secs(1);

/// After this it is no end.
pub(crate) const END_TIME: Duration = Duration::from_secs(5);

/// Times that a worker's call ends, for each way to end.
const ROUNDS: usize = 12;

/// Of a call that is to end at its limit: mostly enough for a loaded machine to find its worker, milliseconds.
const TIMEOUT_MS: u64 = 800;

/// How long ends took, each with the end of as many plain Denos at about the same time.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    own: Vec<Duration>,
    plain: Vec<Duration>,
}

impl Ends {
    pub(crate) fn add(&mut self, own: Duration, plain: Duration) {
        self.own.push(own);
        self.plain.push(plain);
    }

    /// # Panics
    /// They came too late.
    #[track_caller]
    pub(crate) fn came_soon(mut self, what: &str) {
        self.own.sort_unstable();
        self.plain.sort_unstable();
        let middle_and_last = |of: &[Duration]| (of[of.len() / 2], *of.last().expect("some ended"));
        let (own, last_own) = middle_and_last(&self.own);
        let (plain, last_plain) = middle_and_last(&self.plain);
        let told = format!(
            "{what}: all had ended after {own:?}, {last_own:?} at most; plain Denos after {plain:?}, {last_plain:?} at most"
        );
        tell(&told);
        assert!(own <= SOON.max(SLOWER * plain), "{told}");
        assert!(last_own <= SLOWEST.max(SLOWER * last_plain), "{told}");
    }
}

/// How long the machine needs just now until so many plain Denos, as nice as workers are, have ended after they were killed.
pub(crate) fn plain_end(count: usize) -> Duration {
    let mut denos: Vec<Child> = (0..count).map(|_| plain_deno()).collect();
    // Each says when it has booted.
    denos.iter_mut().for_each(|deno| {
        let said = deno.stdout.as_mut().expect("is piped").read_exact(&mut [0]);
        said.expect("a plain Deno boots");
    });
    let watched = denos.iter().filter_map(|deno| Watched::new(Process::get(deno.id().cast_signed())?));
    let watched: Vec<_> = watched.collect();
    let since = Instant::now();
    denos.iter_mut().for_each(|deno| deno.kill().expect("it is a child"));
    let took = wait_for_ends(watched, since, END_TIME);
    for mut deno in denos {
        deno.wait().expect("it is a child");
    }
    took
}

fn plain_deno() -> Child {
    let mut command = Command::new("nice");
    command.args(["-n", "5"]).arg(binaries::deno());
    command.args(["eval", "--quiet", "console.log('booted'); setInterval(() => {}, 1_000_000)"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("nice and Deno start")
}

/// How a call comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Answered,
    TimedOut,
    Cancelled,
    /// Its client is killed.
    Deserted,
}

#[test]
fn a_worker_ends_with_its_call() {
    let home = bed::home(2);
    let _daemon = Daemon::start(&home);
    for way in [Way::Answered, Way::TimedOut, Way::Cancelled, Way::Deserted] {
        let mut ends = Ends::default();
        let mut attempts = 0..;
        for _ in 0..ROUNDS {
            let end = attempts.find_map(|attempt| {
                let end = end_of_worker(&home, way, attempt);
                assert!(end.is_some() || way == Way::TimedOut, "a worker whose call has not ended lives");
                end
            });
            ends.add(end.expect("there is no last attempt"), plain_end(1));
        }
        ends.came_soon(&format!("workers whose calls were {way:?}"));
    }
}

/// How long the worker of a call lives on after what ends the call; `None` when the call was over before anybody knew its worker.
fn end_of_worker(home: &Arc<Home>, way: Way, attempt: usize) -> Option<Duration> {
    let file = |name: &str| home.workspace().join(format!("{name}-{way:?}-{attempt}"));
    let (mark, go) = (file("mark"), file("go"));
    let shim = bed::session(home, |command| {
        let workspace = home.workspace().display().to_string();
        command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-read={workspace},allow-write={workspace}"));
    });
    let code = "Deno.writeTextFileSync(mark, `${Deno.pid} `);\n\
                const goes = () => { try { return Deno.statSync(go).isFile } catch { return false } };\n\
                while (!goes()) await new Promise((done) => setTimeout(done, 5));";
    let timeout = if way == Way::TimedOut { TIMEOUT_MS } else { 60_000 };
    let globals = json!({ "mark": mark, "go": go });
    let id = shim.start_call(json!({ "deno_code": code, "globals": globals, "timeout": timeout }));
    let pid = wait_for("code says which process it runs in", DEADLINE, || {
        let is_over = shim.answers(id) > 0;
        let said = fs::read_to_string(&mark).unwrap_or_default();
        match said.strip_suffix(' ').and_then(|pid| pid.parse().ok()) {
            None if !is_over => Err(said),
            pid => Ok(pid),
        }
    })?;
    let worker = Process::get(pid).and_then(Watched::new)?;
    let before = Instant::now();
    let since = match way {
        Way::Answered => {
            fs::write(&go, "").expect("writes a file");
            assert_eq!(shim.answer(id).structured()["status"], "success");
            Instant::now()
        }
        Way::TimedOut => {
            assert_eq!(shim.answer(id).error_type(), "timeout");
            Instant::now()
        }
        Way::Cancelled => {
            shim.notify("notifications/cancelled", json!({ "requestId": id }));
            before
        }
        Way::Deserted => {
            shim.signal(Signal::SIGKILL);
            before
        }
    };
    Some(wait_for_ends(vec![worker], since, END_TIME))
}
