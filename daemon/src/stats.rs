//! What the daemon counts: executions, latencies, the last errors. Owns those numbers; everyone reports here, `status` reads.
//!
//! One short lock around plain numbers: nothing waits while holding it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conductor_pool::WorkerKind;
use conductor_protocol::status::{ErrorStatus, ExecutionTotals, LatencyStatus};
use conductor_upstream::secret::redact_known;
use hdrhistogram::Histogram;

/// Errors kept for `status`: enough to see a pattern, little enough to read.
const KEPT_ERRORS: usize = 20;

/// Longest text kept of one error, bytes; texts can hold model-written code.
const MAX_ERROR_BYTES: usize = 400;

/// Largest latency told apart, microseconds: an hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;

#[derive(Debug)]
pub struct Stats {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    totals: ExecutionTotals,
    errors: VecDeque<(Instant, &'static str, String)>,
    total: Histogram<u64>,
    queue: Histogram<u64>,
    run: Histogram<u64>,
}

/// Where an execution's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spans {
    pub total: Duration,
    pub queue: Duration,
    pub run: Duration,
}

impl Default for Stats {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_max(MAX_LATENCY_US, 2)
                .expect("the bounds are constants that the type accepts")
        };
        Self {
            inner: Mutex::new(Inner {
                totals: ExecutionTotals::default(),
                errors: VecDeque::with_capacity(KEPT_ERRORS),
                total: histogram(),
                queue: histogram(),
                run: histogram(),
            }),
        }
    }
}

impl Stats {
    pub fn execution_started(&self) {
        self.lock().totals.started += 1;
    }

    /// `error` is the error's type when the execution failed; `worker` is how its worker was made, if it had one.
    pub fn execution_ended(&self, spans: Spans, error: Option<&str>, worker: Option<WorkerKind>) {
        let mut inner = self.lock();
        if let Some(kind) = worker {
            *inner.totals.by_worker.entry(kind.name().to_owned()).or_default() += 1;
        }
        match error {
            None => inner.totals.succeeded += 1,
            Some(kind) => {
                inner.totals.failed += 1;
                *inner.totals.by_error.entry(kind.to_owned()).or_default() += 1;
            }
        }
        inner.total.saturating_record(micros(spans.total));
        inner.queue.saturating_record(micros(spans.queue));
        inner.run.saturating_record(micros(spans.run));
    }

    /// Keeps an error for `status`. `area` is the part that failed.
    pub fn error(&self, area: &'static str, text: impl Into<String>) {
        let mut text = redact_known(&text.into()).into_owned();
        if text.len() > MAX_ERROR_BYTES {
            text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
            text.push('…');
        }
        let mut inner = self.lock();
        if inner.errors.len() == KEPT_ERRORS {
            inner.errors.pop_front();
        }
        inner.errors.push_back((Instant::now(), area, text));
    }

    pub fn totals(&self) -> ExecutionTotals {
        self.lock().totals.clone()
    }

    pub fn last_errors(&self) -> Vec<ErrorStatus> {
        let status = |(at, area, text): &(Instant, &'static str, String)| ErrorStatus {
            ago_ms: u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX),
            area: (*area).to_owned(),
            text: text.clone(),
        };
        self.lock().errors.iter().map(status).collect()
    }

    pub fn latency(&self) -> Vec<LatencyStatus> {
        let inner = self.lock();
        BTreeMap::from([("total", &inner.total), ("queue", &inner.queue), ("run", &inner.run)])
            .into_iter()
            .map(|(name, histogram)| {
                let at = |quantile| millis(histogram.value_at_quantile(quantile));
                LatencyStatus {
                    name: name.to_owned(),
                    count: histogram.len(),
                    p50_ms: at(0.5),
                    p90_ms: at(0.9),
                    p99_ms: at(0.99),
                    max_ms: millis(histogram.max()),
                }
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Numbers stay numbers: a panic elsewhere while counting leaves nothing half-done that matters.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "at most an hour in microseconds, far below 2^53")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_executions_and_their_latency() {
        let stats = Stats::default();
        let (fork, spawn) = (Some(WorkerKind::Fork), Some(WorkerKind::Spawn));
        for (ms, error, worker) in
            [(1, None, fork), (2, None, fork), (2, None, None), (100, Some("timeout"), spawn)]
        {
            stats.execution_started();
            let total = Duration::from_millis(ms);
            stats.execution_ended(Spans { total, ..Spans::default() }, error, worker);
        }
        let totals = stats.totals();
        assert_eq!(totals.by_worker, [("fork".to_owned(), 2), ("spawn".to_owned(), 1)].into());
        assert_eq!((totals.started, totals.succeeded, totals.failed), (4, 3, 1));
        assert_eq!(totals.by_error["timeout"], 1);
        let latency = stats.latency();
        let total = latency.iter().find(|latency| latency.name == "total").expect("is measured");
        assert!((1.9..2.1).contains(&total.p50_ms) && (99.0..101.0).contains(&total.max_ms), "{total:?}");
    }

    #[test]
    fn keeps_the_newest_errors_and_cuts_long_ones() {
        let stats = Stats::default();
        for n in 0..50 {
            stats.error("execution", format!("{n}{}", "é".repeat(1000)));
        }
        let errors = stats.last_errors();
        assert_eq!(errors.len(), KEPT_ERRORS);
        assert!(errors[0].text.starts_with("30") && errors[19].text.starts_with("49"));
        assert!(errors.iter().all(|error| error.text.len() <= MAX_ERROR_BYTES + '…'.len_utf8()));
    }
}
