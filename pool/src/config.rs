//! The pool's settings, with their bounds and the reason for each default. Pure data; checked once, when a pool starts or
//! is reconfigured.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Most workers any configuration may ask for: at 25 MB each, more than a workstation's memory. It also sizes the
/// channel on which leases end, so that every worker has a slot there.
pub const MAX_WORKERS: usize = 512;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many workers there are, how long they live and who waits for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Idle workers kept for each profile. 0 to 64; default the number of CPUs, but 2 to 4: two cover the call that comes
    /// while the first worker is being replaced; above four, each profile pays 25 MB per worker for bursts that the CPUs
    /// cannot run at once anyway.
    pub idle_per_profile: usize,
    /// Idle workers over all profiles; beyond it the least recently used profile loses its own first. 0 to
    /// [`MAX_WORKERS`]; default four profiles' worth, about 200 MB on two CPUs. `max_workers` binds idle workers, too.
    pub max_idle: usize,
    /// Processes over all profiles, from the start of their boot until they are reaped. 1 to [`MAX_WORKERS`]; default
    /// eight per CPU: runs that wait for I/O use little CPU, and memory for more is not a given.
    pub max_workers: usize,
    /// Boots at one time. 1 to 64; default the number of CPUs, since a boot is pure CPU time.
    pub parallel_boots: usize,
    /// Calls that may wait for a worker. 1 to 4096; default 512, which two CPUs work off in about five seconds. A call that
    /// finds the queue full is refused at once.
    pub queue_capacity: usize,
    /// How long a call waits for a worker before it is refused. 10 ms to 10 min; default 30 s, below the time limits that
    /// MCP clients set for a call.
    pub queue_wait: Duration,
    /// How long a boot may take. 100 ms to 5 min; default 10 s: a boot takes 20 ms, on a cold disk a second or two.
    pub boot_timeout: Duration,
    /// An idle worker older than this is replaced, one at a time. 1 s to a week; default 30 min, so that no address layout
    /// or hash seed serves for long.
    pub max_idle_age: Duration,
    /// A profile that no session holds and nobody used for this long loses its workers. 1 s to a week; default 10 min.
    pub unused_after: Duration,
    /// How long after the end of a run its worker's place is refilled. 0 to 1 s; default 5 ms: the answer leaves before a
    /// boot competes with it for the CPU.
    pub refill_delay: Duration,
    /// A run that is still going after this long gets its place refilled meanwhile. 0 to 1 min; default 100 ms: most runs
    /// are shorter and keep the CPU for themselves.
    pub refill_patience: Duration,
    /// Boot failures in a row that open a profile's breaker. 1 to 100; default 3: one failure is chance, three are a cause.
    pub breaker_failures: u32,
    /// How long the breaker stays open the first time; doubles each time a probe fails. 10 ms to 1 h; default 1 s.
    pub breaker_backoff_min: Duration,
    /// The longest the breaker stays open. `breaker_backoff_min` to 1 day; default 1 min: whoever repairs Deno does not want
    /// to wait longer to see it work.
    pub breaker_backoff_max: Duration,
}

/// A setting that the pool cannot work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("pool setting `{key}` is {value}; it must be from {least} to {most}")]
    OutOfRange { key: &'static str, value: String, least: String, most: String },
    #[error("pool setting `breaker-backoff-min` ({min:?}) is above `breaker-backoff-max` ({max:?})")]
    Backoff { min: Duration, max: Duration },
}

impl Default for PoolConfig {
    /// Defaults for the CPUs of this machine.
    fn default() -> Self {
        Self::for_cpus(std::thread::available_parallelism().map_or(2, usize::from))
    }
}

impl PoolConfig {
    pub fn for_cpus(cpus: usize) -> Self {
        let idle_per_profile = cpus.clamp(2, 4);
        Self {
            idle_per_profile,
            max_idle: 4 * idle_per_profile,
            max_workers: cpus.saturating_mul(8).clamp(16, MAX_WORKERS),
            parallel_boots: cpus.clamp(1, 64),
            queue_capacity: 512,
            queue_wait: 30 * SECOND,
            boot_timeout: 10 * SECOND,
            max_idle_age: 30 * MINUTE,
            unused_after: 10 * MINUTE,
            refill_delay: 5 * MILLISECOND,
            refill_patience: 100 * MILLISECOND,
            breaker_failures: 3,
            breaker_backoff_min: SECOND,
            breaker_backoff_max: MINUTE,
        }
    }

    /// # Errors
    /// The first setting that is out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        within("idle-per-profile", self.idle_per_profile, 0..=64)?;
        within("max-idle", self.max_idle, 0..=MAX_WORKERS)?;
        within("max-workers", self.max_workers, 1..=MAX_WORKERS)?;
        within("parallel-boots", self.parallel_boots, 1..=64)?;
        within("queue-capacity", self.queue_capacity, 1..=4096)?;
        within("queue-wait", self.queue_wait, 10 * MILLISECOND..=10 * MINUTE)?;
        within("boot-timeout", self.boot_timeout, 100 * MILLISECOND..=5 * MINUTE)?;
        within("max-idle-age", self.max_idle_age, SECOND..=WEEK)?;
        within("unused-after", self.unused_after, SECOND..=WEEK)?;
        within("refill-delay", self.refill_delay, Duration::ZERO..=SECOND)?;
        within("refill-patience", self.refill_patience, Duration::ZERO..=MINUTE)?;
        within("breaker-failures", self.breaker_failures, 1..=100)?;
        within("breaker-backoff-min", self.breaker_backoff_min, 10 * MILLISECOND..=60 * MINUTE)?;
        within("breaker-backoff-max", self.breaker_backoff_max, 10 * MILLISECOND..=24 * 60 * MINUTE)?;
        if self.breaker_backoff_min > self.breaker_backoff_max {
            return Err(ConfigError::Backoff {
                min: self.breaker_backoff_min,
                max: self.breaker_backoff_max,
            });
        }
        Ok(())
    }
}

fn within<T: PartialOrd + Debug>(
    key: &'static str,
    value: T,
    bounds: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let (least, most) = bounds.into_inner();
    Err(ConfigError::OutOfRange {
        key,
        value: format!("{value:?}"),
        least: format!("{least:?}"),
        most: format!("{most:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_on_any_machine() {
        for cpus in [0, 1, 2, 3, 8, 64, 4096] {
            PoolConfig::for_cpus(cpus).validate().unwrap();
        }
        assert_eq!(PoolConfig::for_cpus(2).idle_per_profile, 2);
        assert_eq!(PoolConfig::for_cpus(1).idle_per_profile, 2);
        assert_eq!(PoolConfig::for_cpus(32).idle_per_profile, 4);
    }

    #[test]
    fn a_setting_out_of_bounds_is_named_with_its_bounds() {
        let check = |change: fn(&mut PoolConfig), message: &str| {
            let mut config = PoolConfig::for_cpus(2);
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        };
        check(|c| c.max_workers = 0, "pool setting `max-workers` is 0; it must be from 1 to 512");
        check(|c| c.queue_capacity = 0, "pool setting `queue-capacity` is 0; it must be from 1 to 4096");
        check(
            |c| c.queue_wait = Duration::ZERO,
            "pool setting `queue-wait` is 0ns; it must be from 10ms to 600s",
        );
        check(|c| c.max_idle = 513, "pool setting `max-idle` is 513; it must be from 0 to 512");
        check(
            |c| c.breaker_backoff_min = 2 * MINUTE,
            "pool setting `breaker-backoff-min` (120s) is above `breaker-backoff-max` (60s)",
        );
    }
}
