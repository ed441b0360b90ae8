//! The task and the leases over fake workers, on a clock that moves when everything waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{PoolGone, PoolHandle, ReconfigureError, pool};
use crate::config::PoolConfig;
use crate::job::{Job, RunLimits, RunReport, Settled, Verdict};
use crate::lease::{Lease, LeaseError};
use crate::spec::{Grants, WorkerSpec};
use crate::state::RetireReason;
use crate::status::{BreakerStatus, PoolStatus, ProfileStatus};
use crate::testing::FakeSource;

const MS: Duration = Duration::from_millis(1);

struct Fixture {
    pool: PoolHandle,
    source: FakeSource,
    task: JoinHandle<()>,
}

fn config() -> PoolConfig {
    PoolConfig { max_workers: 6, max_idle: 4, parallel_boots: 2, ..PoolConfig::for_cpus(2) }
}

fn start(config: PoolConfig) -> Fixture {
    let source = FakeSource::default();
    let (pool, task) = pool(config, Arc::new(source.clone())).unwrap();
    Fixture { pool, source, task: tokio::spawn(task.run()) }
}

impl Fixture {
    /// Waits for a status, at most ten seconds of the test's clock.
    async fn until(&self, what: &str, wanted: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
        let mut status = self.pool.watch().await.unwrap();
        let seen = timeout(10_000 * MS, status.wait_for(wanted)).await.map(|seen| seen.unwrap().clone());
        match seen {
            Ok(seen) => seen,
            Err(_) => panic!("never {what}: {:#?}", *status.borrow()),
        }
    }

    async fn warm(&self, idle: usize) {
        self.until("warm", |status| status.idle == idle && status.workers == idle).await;
    }

    async fn profile(&self) -> ProfileStatus {
        self.pool.status().await.unwrap().profiles.remove(0)
    }

    /// Drops the handle; the task must end and leave nothing behind.
    async fn end(self) {
        drop(self.pool);
        timeout(10_000 * MS, self.task).await.expect("the task ends").unwrap();
        assert_eq!(self.source.alive(), Vec::<i32>::new());
    }
}

fn spec(name: &str) -> Arc<WorkerSpec> {
    Arc::new(WorkerSpec {
        deno: PathBuf::from("deno"),
        workspace: PathBuf::from(name),
        grants: Grants::default(),
        heap_mib: 64,
        max_memory_mib: 512,
        max_wall: Duration::from_secs(3600),
        env: Default::default(),
        worker: Default::default(),
        packages: None,
        protected: Default::default(),
    })
}

fn job(milliseconds: u64, nonce: u64) -> Job {
    let limits = RunLimits {
        wall: Duration::from_secs(30),
        compute: Duration::from_secs(60),
        linger: Duration::from_secs(5),
        max_output_bytes: 1 << 20,
        max_result_bytes: 1 << 20,
        max_media_bytes: 1 << 16,
        max_calls: 10_000,
        max_calls_in_flight: 64,
    };
    let globals = Map::from_iter([("nonce".to_owned(), Value::from(nonce))]);
    Job {
        execution_id: format!("run-{nonce}"),
        code: milliseconds.to_string(),
        api_name: String::new(),
        globals,
        imports: Default::default(),
        upstreams: None,
        permissions: serde_json::Value::Null,
        host: None,
        limits,
    }
}

async fn run(lease: Lease, milliseconds: u64, nonce: u64) -> RunReport {
    lease.run(job(milliseconds, nonce), None, CancellationToken::new()).await
}

fn nonce_of(report: &RunReport) -> u64 {
    match &report.verdict {
        Verdict::Settled { settled: Settled::Json { value }, .. } => value["nonce"].as_u64().unwrap(),
        other => panic!("no value: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_leased_at_once_and_replaced_after_the_run() {
    let f = start(config());
    let _registration = f.pool.prepare(spec("a")).await.unwrap();
    f.warm(2).await;

    let begun = Instant::now();
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let pid = lease.worker().pid;
    let report = run(lease, 0, 7).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "no boot and no reaping stands in the way");
    assert_eq!(nonce_of(&report), 7);
    assert_eq!(report.worker.pid, pid);

    let busy = f.profile().await;
    assert_eq!(
        (busy.idle, busy.busy, busy.booting),
        (1, 1, 0),
        "busy until reaped, refill not begun: {busy:?}"
    );
    f.warm(2).await;
    assert!(begun.elapsed() >= 20 * MS, "the place was refilled by a boot");
    assert!(!f.source.alive().contains(&pid));
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_run_gets_its_place_refilled_meanwhile() {
    let f = start(config());
    let _registration = f.pool.prepare(spec("a")).await.unwrap();
    f.warm(2).await;
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let running = tokio::spawn(run(lease, 1_000, 1));
    sleep(99 * MS).await;
    assert_eq!(f.source.boots(), 2);
    f.until("refilled", |status| status.idle == 2 && status.workers == 3).await;
    assert_eq!(nonce_of(&running.await.unwrap()), 1);
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_sessions_gets_one_distinct_worker_per_call() {
    let f = start(config());
    let mut calls = Vec::new();
    for nonce in 0..200 {
        let pool = f.pool.clone();
        calls.push(tokio::spawn(async move {
            let lease = pool.lease(spec("a"), nonce % 20, None).await.unwrap();
            let report = run(lease, 3, nonce).await;
            assert_eq!(nonce_of(&report), nonce);
            report.worker
        }));
    }
    let mut used = std::collections::HashSet::new();
    for call in calls {
        assert!(used.insert(call.await.unwrap()), "a worker ran two jobs");
    }
    assert!(f.source.most_alive() <= 6, "{} processes", f.source.most_alive());
    assert_eq!(f.pool.status().await.unwrap().totals.leased, 200);
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn boot_failures_open_the_breaker_and_a_probe_closes_it() {
    let f = start(config());
    // Two pairs, and the probe.
    f.source.fail_boots(5);
    let error = f.pool.lease(spec("a"), 1, None).await.unwrap_err();
    let LeaseError::Broken { source, retry_in } = error else { panic!("{error:?}") };
    assert_eq!(crate::error_chain(&source), "cannot start Deno: told to fail");
    assert!(retry_in >= 1_000 * MS && retry_in <= 2_000 * MS, "{retry_in:?}");

    let begun = Instant::now();
    let again = f.pool.lease(spec("a"), 1, None).await.unwrap_err();
    assert!(matches!(again, LeaseError::Broken { .. }), "{again:?}");
    assert_eq!(begun.elapsed(), Duration::ZERO, "refused at once while open");
    let broken = f.profile().await;
    assert!(matches!(broken.breaker, BreakerStatus::Open { .. }), "{broken:?}");
    assert_eq!(broken.last_boot_error.as_deref(), Some("cannot start Deno: told to fail"));

    f.source.fail_boots(0);
    f.warm(2).await;
    let healed = f.profile().await;
    assert_eq!((healed.breaker, healed.boot_failures_in_a_row), (BreakerStatus::Closed, 0));
    assert!(f.pool.lease(spec("a"), 1, None).await.is_ok());
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_outlasts_boots_that_fail_only_for_a_while() {
    let f = start(config());
    // Two pairs: the third failure opens the breaker.
    f.source.fail_boots(4);
    let begun = Instant::now();
    f.pool.lease(spec("a"), 1, None).await.unwrap();
    assert!(begun.elapsed() >= 500 * MS, "the breaker was open: {:?}", begun.elapsed());
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_boot_that_hangs_is_killed_at_its_timeout_and_tried_again() {
    let f = start(PoolConfig { idle_per_profile: 0, boot_timeout: 500 * MS, ..config() });
    f.source.hang_boots(1);
    let begun = Instant::now();
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    assert!(begun.elapsed() >= 550 * MS, "{:?}", begun.elapsed());
    assert_eq!(f.source.alive(), [lease.worker().pid], "the hanging boot is dead");
    let error = f.profile().await.last_boot_error.unwrap();
    assert_eq!(error, "the worker was not ready within 500ms");
    drop(lease);
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_that_dies_is_replaced() {
    let f = start(config());
    let _registration = f.pool.prepare(spec("a")).await.unwrap();
    f.warm(2).await;
    let victim = f.source.alive()[0];
    f.source.kill(victim);
    f.until("replaced", |status| status.totals.booted == 3 && status.workers == 2).await;
    assert!(!f.source.alive().contains(&victim));
    assert_eq!(f.profile().await.totals.retired(RetireReason::Died), 1);
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_killed_in_its_run_costs_one_call_and_never_the_breaker() {
    let f = start(config());
    let _registration = f.pool.prepare(spec("a")).await.unwrap();
    for nonce in 0..100 {
        f.warm(2).await;
        let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
        let pid = lease.worker().pid;
        let running = tokio::spawn(run(lease, 50, nonce));
        sleep(MS).await;
        f.source.kill(pid);
        let report = running.await.unwrap();
        assert!(matches!(report.verdict, Verdict::Exited { signal: Some(9), .. }), "{report:?}");
    }
    f.warm(2).await;
    assert_eq!(f.profile().await.breaker, BreakerStatus::Closed);
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_frees_the_place_in_the_queue() {
    let f = start(PoolConfig { max_workers: 2, queue_capacity: 1, ..config() });
    let held = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let other = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let pool = f.pool.clone();
    let queued = tokio::spawn(async move { pool.lease(spec("a"), 2, None).await });
    f.until("queued", |status| status.queued == 1).await;
    let full = f.pool.lease(spec("a"), 3, None).await.unwrap_err();
    assert!(matches!(full, LeaseError::Busy { queued: 1, waited: Duration::ZERO }), "{full:?}");

    queued.abort();
    f.until("free", |status| status.queued == 0).await;
    let begun = Instant::now();
    let late = f.pool.lease(spec("a"), 3, Some(70 * MS)).await.unwrap_err();
    assert!(matches!(late, LeaseError::Busy { queued: 0, waited } if waited >= 70 * MS), "{late:?}");
    assert!(begun.elapsed() < 75 * MS);
    drop((held, other));
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_finds_nobody_serves_the_next_caller() {
    let f = start(PoolConfig { idle_per_profile: 1, ..config() });
    let _registration = f.pool.prepare(spec("a")).await.unwrap();
    f.warm(1).await;
    let pid = f.source.alive()[0];
    {
        let mut leaving = std::pin::pin!(f.pool.lease(spec("a"), 1, None));
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(leaving.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        // The task grants the worker before this caller looks again, and this caller never does.
        f.pool.status().await.unwrap();
    }
    let lease = f.pool.lease(spec("a"), 2, None).await.unwrap();
    assert_eq!(lease.worker().pid, pid);
    assert_eq!(f.profile().await.totals.leased, 1);
    drop(lease);
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_unused_lease_retires_its_worker() {
    let f = start(PoolConfig { idle_per_profile: 1, ..config() });
    let _registration = f.pool.prepare(spec("a")).await.unwrap();
    f.warm(1).await;
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let pid = lease.worker().pid;
    drop(lease);
    f.until("replaced", |status| status.totals.booted == 2 && status.workers == 1).await;
    assert!(!f.source.alive().contains(&pid));
    assert_eq!(f.profile().await.totals.retired(RetireReason::LeaseDropped), 1);
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_is_killed_and_reaped() {
    let f = start(PoolConfig { idle_per_profile: 0, ..config() });
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let running = tokio::spawn(run(lease, 60_000, 1));
    f.until("running", |status| status.profiles[0].busy == 1).await;
    running.abort();
    f.until("reaped", |status| status.workers == 0).await;
    assert_eq!(f.source.alive(), Vec::<i32>::new());
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_reports_it() {
    let f = start(PoolConfig { idle_per_profile: 0, ..config() });
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(lease.run(job(60_000, 1), None, cancel.clone()));
    cancel.cancel();
    assert!(matches!(running.await.unwrap().verdict, Verdict::Cancelled));
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn new_settings_replace_idle_and_booting_workers_but_no_running_one() {
    let f = start(config());
    let _registration = f.pool.prepare(spec("a")).await.unwrap();
    f.warm(2).await;
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let running = tokio::spawn(run(lease, 110, 1));
    // The replacement of the long run is booting when the settings change.
    f.until("booting", |status| status.profiles[0].booting == 1).await;
    let old = f.source.alive();
    f.pool.reconfigure(PoolConfig { idle_per_profile: 1, ..config() }).await.unwrap();
    assert_eq!(nonce_of(&running.await.unwrap()), 1);
    f.warm(1).await;
    let new = f.source.alive();
    assert!(new.iter().all(|pid| !old.contains(pid)), "{old:?} {new:?}");
    assert_eq!(f.profile().await.totals.retired(RetireReason::Reconfigured), 2);

    f.pool.retire_idle(RetireReason::DenoReplaced).await.unwrap();
    f.until("replaced", |status| status.totals.retired(RetireReason::DenoReplaced) == 1).await;
    f.warm(1).await;
    let bad = f.pool.reconfigure(PoolConfig { max_workers: 0, ..config() }).await.unwrap_err();
    assert!(matches!(bad, ReconfigureError::Config(_)), "{bad:?}");
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn draining_lets_a_job_end_in_time() {
    let f = start(config());
    let _registration = f.pool.prepare(spec("a")).await.unwrap();
    f.warm(2).await;
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let running = tokio::spawn(run(lease, 300, 5));
    let begun = Instant::now();
    let pool = f.pool.clone();
    let drained = tokio::spawn(async move { pool.drain(10_000 * MS).await });
    f.until("draining", |status| status.draining).await;
    let refused = f.pool.lease(spec("a"), 1, None).await.unwrap_err();
    assert!(matches!(refused, LeaseError::Draining), "{refused:?}");
    drained.await.unwrap().unwrap();
    assert!(begun.elapsed() >= 304 * MS && begun.elapsed() < 400 * MS, "{:?}", begun.elapsed());
    assert_eq!(nonce_of(&running.await.unwrap()), 5);
    assert_eq!(f.source.alive(), Vec::<i32>::new());
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn draining_kills_at_the_deadline_what_runs_boots_or_waits() {
    let f = start(PoolConfig { max_workers: 2, idle_per_profile: 0, ..config() });
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let running = tokio::spawn(run(lease, 60_000, 5));
    f.source.hang_boots(1);
    let pool = f.pool.clone();
    let waiting = tokio::spawn(async move { pool.lease(spec("b"), 1, None).await });
    f.until("booting", |status| status.queued == 1 && status.workers == 2).await;
    let begun = Instant::now();
    f.pool.drain(200 * MS).await.unwrap();
    assert!(begun.elapsed() < 250 * MS, "{:?}", begun.elapsed());
    assert!(matches!(running.await.unwrap().verdict, Verdict::Cancelled));
    assert!(matches!(waiting.await.unwrap().unwrap_err(), LeaseError::Draining));
    assert_eq!(f.source.alive(), Vec::<i32>::new());
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_everything_with_it() {
    let f = start(config());
    let _registration = f.pool.prepare(spec("a")).await.unwrap();
    f.warm(2).await;
    let lease = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let running = tokio::spawn(run(lease, 60_000, 5));
    f.until("running", |status| status.profiles[0].busy == 1).await;
    f.end().await;
    assert!(matches!(running.await.unwrap().verdict, Verdict::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_gone_is_told_apart() {
    let f = start(config());
    f.task.abort();
    assert!(f.task.await.unwrap_err().is_cancelled());
    assert!(matches!(f.pool.lease(spec("a"), 1, None).await.unwrap_err(), LeaseError::Gone));
    assert_eq!(f.pool.drain(MS).await, Err(PoolGone));
    assert_eq!(f.source.alive(), Vec::<i32>::new());
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_no_session_holds_loses_its_workers_in_time() {
    let f = start(PoolConfig { unused_after: 2_000 * MS, ..config() });
    let registration = f.pool.prepare(spec("a")).await.unwrap();
    f.warm(2).await;
    sleep(5_000 * MS).await;
    assert_eq!(f.profile().await.idle, 2, "a session holds it");
    drop(registration);
    let begun = Instant::now();
    f.until("forgotten", |status| status.profiles.is_empty()).await;
    assert!(begun.elapsed() >= 2_000 * MS);
    assert_eq!(f.source.alive(), Vec::<i32>::new());
    assert_eq!(f.pool.status().await.unwrap().totals.retired(RetireReason::Unused), 2);
    f.end().await;
}

#[tokio::test(start_paused = true)]
async fn more_waiters_than_a_tasks_budget_do_not_keep_it_from_working() {
    let f = start(PoolConfig { max_workers: 2, queue_capacity: 4_096, ..config() });
    let held = f.pool.lease(spec("a"), 1, None).await.unwrap();
    let calls: Vec<_> = (0..1_000)
        .map(|nonce| {
            let pool = f.pool.clone();
            tokio::spawn(async move { pool.lease(spec("a"), nonce, Some(30_000 * MS)).await.map(drop) })
        })
        .collect();
    f.until("queued", |status| status.queued > 900).await;
    drop(held);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    f.end().await;
}
