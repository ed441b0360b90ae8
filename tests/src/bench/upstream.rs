//! What a call of an upstream server costs when code makes it through the daemon, against a client that talks to the same
//! server itself.
//!
//! The server is server-everything over stdio; its `echo` does next to nothing. Both sides have a process of it of their own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use conductor_deno::testing::packages;
use serde_json::{Value, json};

use super::bed::Bed;
use super::report::{Budget, Report, Timing, Unit};
use super::session::Session;
use crate::wait::wait_for;
use crate::{DEADLINE, Process};

const MANIFEST: [(&str, &str); 2] = [
    ("package.json", include_str!("../../../daemon/upstream/tests/servers/npm/package.json")),
    ("package-lock.json", include_str!("../../../daemon/upstream/tests/servers/npm/package-lock.json")),
];

/// Calls of one run, and of the direct client in its turn: more than a program makes one after the other, and so few that
/// both sides see the same load of the machine.
const TURN: usize = 10;

/// Calls that are made at once.
const AT_ONCE: usize = 3;

/// Sessions that share the server.
const SESSIONS: usize = 5;

/// Marks the processes of one server among all others.
const MARK: &str = "CONDUCTOR_BENCH_SERVER";

/// The server, and a configuration that names it twice: as one that stays, and as one that ends as soon as it is idle.
#[derive(Debug)]
struct Servers {
    program: PathBuf,
    config: PathBuf,
}

/// Everything about upstream calls; nothing, after a loud notice, where the server cannot be had.
pub(super) fn calls(bed: &Bed, samples: usize, report: &mut Report) {
    let Some(servers) = Servers::new(bed) else { return };
    one_at_a_time(bed, &servers, samples, report);
    at_once(bed, &servers, samples, report);
    shared(bed, &servers, samples, report);
    after_idle(bed, &servers, samples.div_ceil(5), report);
}

/// The first call of a run finds code that has never run in this process; the later ones show what the way costs.
fn one_at_a_time(bed: &Bed, servers: &Servers, samples: usize, report: &mut Report) {
    let mut session = bed.session_with_servers(&servers.config);
    let mut client = servers.client();
    let code = timed("await server.callTool('echo', message)", TURN);
    session.value(&code);
    let (mut direct, mut first, mut later) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..samples {
        bed.wait_until_quiet();
        direct.extend((0..TURN).map(|_| client.echo(1)));
        let mut times = durations(&session.value(&code));
        later.extend(times.split_off(1));
        first.extend(times);
    }
    let direct = Timing::new("direct call of an MCP server", "", direct);
    let first = Timing::new("mcpFactory call, first of its run", "", first);
    let later = Timing::new("mcpFactory call, later ones", "", later);
    let more = |percent| later.percentile_ms(percent) - direct.percentile_ms(percent);
    report.timing(&direct);
    report.timing(&first);
    report.timing(&later);
    report.budgeted(
        "later mcpFactory call - direct call, p50",
        "",
        more(50),
        Unit::Milliseconds,
        Budget::AtMost(1.0),
    );
    report.figure("later mcpFactory call - direct call, p99", "", more(99), Unit::Milliseconds);
    report.figure(
        "later mcpFactory call / direct call, p50",
        "",
        later.percentile_ms(50) / direct.percentile_ms(50),
        Unit::Times,
    );
    report.figure(
        "first mcpFactory call - direct call, p50",
        "",
        first.percentile_ms(50) - direct.percentile_ms(50),
        Unit::Milliseconds,
    );
}

fn at_once(bed: &Bed, servers: &Servers, samples: usize, report: &mut Report) {
    let mut session = bed.session_with_servers(&servers.config);
    let mut client = servers.client();
    let all = format!(
        "await Promise.all(Array.from({{ length: {AT_ONCE} }}, () => server.callTool('echo', message)))"
    );
    let code = timed(&all, TURN);
    session.value(&code);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        bed.wait_until_quiet();
        direct.extend((0..TURN).map(|_| client.echo(AT_ONCE)));
        through.extend(durations(&session.value(&code)));
    }
    report.timing(&Timing::new(format!("direct calls, {AT_ONCE} at once, all"), "", direct));
    report.timing(&Timing::new(format!("mcpFactory calls, {AT_ONCE} at once, all"), "", through));
}

/// Sessions that call at the same time, all through one process.
fn shared(bed: &Bed, servers: &Servers, samples: usize, report: &mut Report) {
    let mut sessions: Vec<Session> =
        (0..SESSIONS).map(|_| bed.session_with_servers(&servers.config)).collect();
    let code = timed("await server.callTool('echo', message)", TURN);
    let mut times = Vec::new();
    for _ in 0..samples {
        bed.wait_until_quiet();
        thread::scope(|scope| {
            let call = |session| {
                let code = &code;
                scope.spawn(move || durations(&Session::value(session, code)))
            };
            let runs: Vec<_> = sessions.iter_mut().map(call).collect();
            times.extend(runs.into_iter().flat_map(|run| run.join().expect("a run ends well")));
        });
    }
    report.timing(&Timing::new(format!("mcpFactory call, {SESSIONS} sessions calling"), "", times));
    let name = format!("processes of a server, {SESSIONS} sessions");
    report.budgeted(&name, "", processes("stays"), Unit::Count, Budget::AtMost(1.0));
}

/// The call that starts the server anew, against a client that starts it.
fn after_idle(bed: &Bed, servers: &Servers, samples: usize, report: &mut Report) {
    let mut session = bed.session_with_servers(&servers.config);
    let code = "const started = performance.now();\n\
                await mcp.ends.echo({ message: 'hello' });\n\
                [performance.now() - started]";
    session.value(code);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let started = Instant::now();
        servers.client().echo(1);
        direct.push(started.elapsed());
        wait_for("the idle server ends", DEADLINE, || match processes("ends") {
            0.0 => Ok(()),
            running => Err(format!("{running} run")),
        });
        bed.wait_until_quiet();
        through.extend(durations(&session.value(code)));
    }
    report.timing(&Timing::new("direct call, its server's start with it", "", direct));
    report.timing(&Timing::new("mcpFactory call after an idle stop", "", through));
}

impl Servers {
    fn new(bed: &Bed) -> Option<Self> {
        let program =
            packages::npm("upstream-npm", &MANIFEST)?.join("node_modules/.bin/mcp-server-everything");
        let path = env::var("PATH").expect("a PATH");
        let entry = |name: &str, idle_timeout: &str| {
            let env = json!({ "PATH": path, MARK: name });
            json!({ "command": program, "args": ["stdio"], "env": env, "idle_timeout": idle_timeout })
        };
        let servers = json!({ "stays": entry("stays", "never"), "ends": entry("ends", "50ms") });
        let config = bed.home.path("servers.json");
        fs::write(&config, json!({ "mcpServers": servers }).to_string()).expect("writes the configuration");
        Some(Self { program, config })
    }

    /// A client with a server of its own, ready for calls.
    fn client(&self) -> Session {
        Session::open(Command::new(&self.program).arg("stdio").stderr(Stdio::null())).0
    }
}

/// Code that gives the milliseconds of each of `times` repetitions of `call`.
fn timed(call: &str, times: usize) -> String {
    format!(
        "const server = await mcpFactory.load('stays');\n\
         const [message, times] = [{{ message: 'hello' }}, []];\n\
         for (let i = 0; i < {times}; i++) {{\n\
           const started = performance.now();\n\
           {call};\n\
           times.push(performance.now() - started);\n\
         }}\n\
         times"
    )
}

fn durations(times: &Value) -> Vec<Duration> {
    let times = times.as_array().expect("code gave its times");
    times.iter().map(|ms| Duration::from_secs_f64(ms.as_f64().expect("a number") / 1e3)).collect()
}

/// How many processes the daemon has of a server of the configuration.
fn processes(name: &str) -> f64 {
    let mark = format!("{MARK}={name}");
    let running = Process::all().into_iter().filter(|process| process.names(Path::new(&mark)));
    f64::from(u32::try_from(running.count()).expect("a few"))
}
