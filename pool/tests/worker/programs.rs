//! Programs under a `run` grant: all of them end with their run, whatever they do to outlive it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_jail::cgroup::Delegation;
use conductor_jail::{Layer, Level, State};
use conductor_pool::launcher::Unproved;
use conductor_pool::spawn::Cgroups;
use conductor_pool::{
    DenoSpawn, Grants, RunReport, SpawnConfig, SpawnError, Verdict, WorkerSource as _, WorkerSpec,
};
use serde_json::json;

use crate::support::{Bench, config, json as json_of, only};

/// A source whose workers have control groups, in a branch of a process that stands for the daemon.
struct Grouped {
    bench: Bench,
    daemon: Child,
}

impl Grouped {
    /// `None` where this machine has no tree that the tests may divide, and then says so.
    fn new() -> Option<Self> {
        let delegation = match Delegation::of_this_process() {
            Ok(delegation) => delegation,
            Err(error) => {
                #[expect(
                    clippy::explicit_write,
                    reason = "the test harness swallows what passing tests print by macro"
                )]
                writeln!(std::io::stderr(), "NOT CHECKED: workers in control groups: {error}").unwrap();
                return None;
            }
        };
        let daemon =
            Command::new("sleep").arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let branch = delegation.settle(daemon.id()).unwrap();
        let mut bench = Bench::new();
        let config = SpawnConfig { cgroups: Cgroups::of(branch), ..config(bench.dir.path()) };
        bench.source = DenoSpawn::new(config);
        Some(Self { bench, daemon })
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        // The branch goes with the source, and wants its daemon back where it came from.
        self.bench.source = DenoSpawn::new(config(self.bench.dir.path()));
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

fn shell(code: &str, mark: &str) -> (Grants, String) {
    let grants = Grants { run: only("/bin/sh"), ..Grants::default() };
    // A worker has no PATH. The pattern is written so that it does not find the program that looks for it.
    let code = format!(
        r#"const prelude = 'export PATH=/usr/bin:/bin; count() {{ cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" "\\n" | grep -cx "PATTERN"; }}; '
             + 'wait_for() {{ until [ $(count) -ge $1 ]; do :; done; }}; ';
         const options = (script) => ({{ args: ['-c', prelude + script], stdin: 'null', stdout: 'null', stderr: 'null' }});
         const sh = (script) => new Deno.Command('/bin/sh', options(script)).outputSync().code;
         {code}"#
    );
    (grants, code.replace("PATTERN", &mark.replace('.', "[.]")).replace("MARK", mark))
}

/// Runs it and tells how many processes with `mark` among their arguments are left behind. All have been killed when the worker
/// is reaped; one that is in a session of its own may not have had the time to die.
async fn left_behind(bench: &Bench, code: &str, mark: &str) -> (RunReport, usize) {
    let (grants, code) = shell(code, mark);
    let report = bench.run_with(grants, &code).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while marked(mark) > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (report, marked(mark))
}

fn marked(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands.filter(|command| command.split(|byte| *byte == 0).any(|arg| arg == mark.as_bytes())).count()
}

/// Argument of `sleep` that nothing else on this machine has.
fn mark(number: u32) -> String {
    format!("98{}.{number}", std::process::id())
}

/// A bomb, and programs in sessions of their own whose parents have ended. Both wait until all are there.
const CODE: [&str; 2] = [
    "return sh('n=0; while [ $n -lt 40 ]; do sleep MARK & n=$((n+1)); done; wait_for 40');",
    r#"return sh('for n in 1 2 3; do setsid -f sleep MARK; (setsid sh -c "setsid -f sleep MARK; sleep MARK" &); done; wait_for 9');"#,
];

#[tokio::test]
async fn programs_end_with_their_run() {
    let bench = Bench::new();
    for (number, code) in (1..).zip(CODE) {
        let (report, left) = left_behind(&bench, code, &mark(number)).await;
        assert_eq!((json_of(report), left), (json!(0), 0), "{code}");
    }
    // A run that is cut off, while they go on making more.
    let code = "new Deno.Command('/bin/sh', options('while :; do setsid -f sleep MARK; done')).spawn();
                sh('wait_for 5'); for (;;) console.log('x'.repeat(1 << 16));";
    let (report, left) = left_behind(&bench, code, &mark(3)).await;
    assert!(matches!(report.verdict, Verdict::OutputLimit), "{:?}", report.verdict);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn in_a_control_group_they_end_even_if_the_worker_has_ended_before() {
    let Some(grouped) = Grouped::new() else { return };
    for (number, code) in (10..).zip(CODE) {
        let (report, left) = left_behind(&grouped.bench, code, &mark(number)).await;
        assert_eq!((json_of(report), left), (json!(0), 0), "{code}");
    }
    let code = "sh('setsid -f sleep MARK; wait_for 1'); process.kill(process.pid, 'SIGKILL'); for (;;);";
    let (report, left) = left_behind(&grouped.bench, code, &mark(20)).await;
    assert!(matches!(report.verdict, Verdict::Exited { signal: Some(9), .. }), "{:?}", report.verdict);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_worker_has_a_control_group_where_that_holds_it_to_something() {
    let Some(grouped) = Grouped::new() else { return };
    let source = &grouped.bench.source;
    let leaf = format!("/conductor-{}-0/worker-", grouped.daemon.id());
    let programs = WorkerSpec { grants: shell("", "").0, ..grouped.bench.spec() };
    let plain = grouped.bench.spec();
    let cases =
        [("no proof of the jail", &plain, false), ("programs", &programs, true), ("neither", &plain, true)];
    for (case, spec, is_proved) in cases {
        if is_proved {
            source.proof().await;
        }
        let limits = match source.config().cgroups.state() {
            State::Partial(reason) => !reason.contains("memory and pids"),
            state => state == State::Active,
        };
        // A template would have proved the jail.
        let worker = source.boot(Arc::new(spec.clone())).await.unwrap();
        let own = group(worker.identity().pid.to_string());
        assert_eq!(own.contains(&leaf), case != "neither" || limits, "{case}: {own}");
        worker.retire().await;
        assert_eq!(path_of(&own).exists(), !own.contains(&leaf), "{case}: its leaf goes with it");
    }
    let daemon = group(grouped.daemon.id().to_string());
    assert!(daemon.ends_with("/daemon"), "{daemon}");
}

/// The control group of a process, below the top of the tree.
fn group(pid: String) -> String {
    let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    membership.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

fn path_of(group: &str) -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    PathBuf::from(format!("{}{group}", mount.split(' ').nth(4).unwrap()))
}

#[tokio::test]
async fn strict_starts_no_worker_that_may_start_programs_without_a_control_group() {
    let mut bench = Bench::new();
    let config = SpawnConfig {
        level: Level::Strict,
        cgroups: Cgroups::none("there is no tree"),
        ..config(bench.dir.path())
    };
    bench.source = DenoSpawn::new(config);
    for grants in
        [Grants { run: only("/bin/sh"), ..Grants::default() }, Grants { all: true, ..Grants::default() }]
    {
        let error = bench.boot(&WorkerSpec { grants, ..bench.spec() }).await.err().unwrap();
        let SpawnError::Jail(refused @ Unproved::Ungrouped { .. }) = error else { panic!("{error:?}") };
        let text = refused.to_string();
        assert!(text.contains("there is no tree") && text.contains("conductorctl service install"), "{text}");
    }
    assert_eq!(bench.json("return 42;").await, 42, "others are not concerned");
}

#[tokio::test]
async fn what_cannot_be_limited_is_told() {
    let Some(grouped) = Grouped::new() else { return };
    match grouped.bench.source.config().cgroups.state() {
        State::Active => {}
        State::Partial(reason) => assert!(reason.contains("memory") || reason.contains("pids"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(grouped.bench.source.config().layers.contains(&Layer::Seccomp));
}
