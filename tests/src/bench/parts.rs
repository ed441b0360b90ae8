//! Where the CPU time of a forked call goes, and what its worker being there already saves.
//!
//! As the kernel counts it, of the real programs: the template's own time is that of forking, and of the pages that it
//! writes to afterwards; a worker's is looked at while it waits for its job, told with the answer for its run, and counted
//! as its template's child's once it is gone. What is left between is its end: most of that is freeing memory.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::UsageWho;
use serde_json::Value;

use super::bed::{Bed, Way};
use super::cost::{cpu_of, number};
use super::proc::{Counts, cpu_of_main_thread};
use super::report::{Report, Timing, Unit};
use super::session::Session;
use crate::DEADLINE;

/// Gives its process.
const CODE: &str = "Deno.pid";

/// Between two calls; by then the next worker waits.
const PAUSE: Duration = Duration::from_millis(50);

/// Between two looks whether a worker is gone, which takes a few milliseconds.
const LOOK: Duration = Duration::from_micros(200);

/// Pages that are written to for the price of a fault: 64 MiB.
const PAGES: usize = 16 * 1024;
const PAGE: usize = 4096;

/// What is added up over all calls.
#[derive(Debug, Default)]
struct Sums {
    calls: usize,
    /// Workers that were looked at while they waited.
    waiting: usize,
    until_ready: Duration,
    faults_until_ready: u64,
    run: Duration,
}

pub(super) fn measure(bed: &Bed, samples: usize, report: &mut Report) {
    let mut session = bed.session_of(Way::Fork);
    session.call(CODE);
    bed.wait_until_quiet();
    let template = *bed.templates().first().expect("a profile forks its workers");
    let before = Looks::at(bed, &session, template);
    let mut sums = Sums::default();
    let mut gone = Vec::new();
    for _ in 0..samples {
        // Without asking the daemon, whose answer would be in what is measured.
        thread::sleep(PAUSE);
        sums.look_at_workers(bed, template);
        let (answer, took) = call_until_gone(&mut session);
        gone.push(took);
        sums.calls += 1;
        let compute = answer["timings"]["compute"].as_f64().expect("an answer tells its times");
        sums.run += Duration::from_secs_f64(compute / 1e3);
    }
    bed.wait_until_quiet();
    sums.tell(&before, &Looks::at(bed, &session, template), report);
    report.timing(&Timing::new("answer until the worker is gone", "fork", gone));
}

/// The answer, and the time from it until the process that gave it is no more.
fn call_until_gone(session: &mut Session) -> (Value, Duration) {
    let answer = session.structured(CODE);
    let answered = Instant::now();
    let pid = answer["returnValue"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
    while Counts::of(pid).is_some() {
        assert!(answered.elapsed() < DEADLINE, "the worker of {answer} does not end");
        thread::sleep(LOOK);
    }
    (answer, answered.elapsed())
}

/// CPU time that the processes of a forked call have taken so far.
struct Looks {
    shim: Duration,
    daemon: Duration,
    template: Duration,
    /// Of the template: its workers that have ended.
    workers: Duration,
    faults: u64,
    faults_of_template: u64,
}

impl Looks {
    fn at(bed: &Bed, session: &Session, template: i32) -> Self {
        let counts = |pid| Counts::of(pid).expect("it goes on");
        let of_template = counts(template);
        Self {
            shim: counts(session.pid()).cpu,
            daemon: counts(bed.daemon_pid()).cpu,
            template: cpu_of_main_thread(template).expect("it goes on"),
            workers: of_template.cpu_of_children,
            faults: of_template.faults_of_children,
            faults_of_template: of_template.faults,
        }
    }
}

impl Sums {
    /// Those that wait for a job.
    fn look_at_workers(&mut self, bed: &Bed, template: i32) {
        for pid in bed.workers(Way::Fork) {
            let (Some(counts), Some(cpu)) = (Counts::of(pid), cpu_of_main_thread(pid)) else { continue };
            if counts.parent == template {
                self.waiting += 1;
                self.until_ready += cpu;
                self.faults_until_ready += counts.faults;
            }
        }
    }

    fn tell(&self, before: &Looks, after: &Looks, report: &mut Report) {
        assert!(self.waiting > 0, "workers wait between calls");
        let of_calls = |sum: Duration| sum.as_secs_f64() * 1e3 / number(self.calls);
        let workers = of_calls(after.workers.saturating_sub(before.workers));
        let ready = self.until_ready.as_secs_f64() * 1e3 / number(self.waiting);
        let run = of_calls(self.run);
        let parts = [
            ("shim", of_calls(after.shim.saturating_sub(before.shim))),
            ("daemon", of_calls(after.daemon.saturating_sub(before.daemon))),
            ("template: fork() and its own copies", of_calls(after.template.saturating_sub(before.template))),
            ("worker: from the fork until it waits", ready),
            ("worker: run", run),
            ("worker: end", (workers - ready - run).max(0.0)),
        ];
        for (name, milliseconds) in parts {
            report.figure(name, CPU_OF, milliseconds, Unit::Milliseconds);
        }
        let all = parts.iter().map(|(_, milliseconds)| milliseconds).sum();
        report.figure("all of it", CPU_OF, all, Unit::Milliseconds);
        self.tell_faults(before, after, report);
    }

    fn tell_faults(&self, before: &Looks, after: &Looks, report: &mut Report) {
        let ready = count(self.faults_until_ready) / number(self.waiting);
        let all = count(after.faults - before.faults) / number(self.calls);
        let template = count(after.faults_of_template - before.faults_of_template) / number(self.calls);
        report.figure("template: fork() and its own copies", FAULTS, template, Unit::Count);
        report.figure("worker: from the fork until it waits", FAULTS, ready, Unit::Count);
        report.figure("worker: run", FAULTS, (all - ready).max(0.0), Unit::Count);
        report.figure("all of it", FAULTS, template + all, Unit::Count);
        report.figure(
            "a page fault of this machine, at least",
            CPU_OF,
            price_of_a_fault(),
            Unit::Microseconds,
        );
    }
}

const CPU_OF: &str = "CPU";
const FAULTS: &str = "page faults";

/// CPU time, in microseconds, for the kernel to give this process a page of zeros when it is first written to. A page that
/// is copied costs about as much.
fn price_of_a_fault() -> f64 {
    let mut memory = vec![0_u8; PAGES * PAGE];
    let before = cpu_of(UsageWho::RUSAGE_THREAD);
    for page in memory.chunks_mut(PAGE) {
        page[0] = 1;
    }
    let took = cpu_of(UsageWho::RUSAGE_THREAD).saturating_sub(before);
    assert_eq!(memory.iter().step_by(PAGE).map(|byte| usize::from(*byte)).sum::<usize>(), PAGES);
    took.as_secs_f64() * 1e6 / number(PAGES)
}

#[expect(clippy::cast_precision_loss, reason = "faults of a few seconds")]
fn count(faults: u64) -> f64 {
    faults as f64
}
