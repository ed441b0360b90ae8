//! How much CPU time a run has used, and when it is worth looking again. Pure, but for the clock.
//!
//! Nothing tells when a process has used a given CPU time, so it is asked for. The limit cannot be reached sooner than if
//! all CPUs were busy with this process alone, so the next look is after what is left, divided by their number. Code that
//! keeps one of `n` CPUs busy is looked at about `n` times while what is left shrinks to a third; code that waits, hardly ever.

use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two looks. Near the limit what is left shrinks towards nothing; a run may pass its limit by
/// what all CPUs do in this time.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// CPUs that this process, and so its workers, may use. Asked for once: the answer is read from half a dozen files.
static CPUS: LazyLock<u32> = LazyLock::new(|| {
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    u32::try_from(cpus).unwrap_or(u32::MAX)
});

#[derive(Debug)]
pub(crate) struct Compute {
    limit: Duration,
    /// What the process had used when the run began.
    before: Duration,
    /// CPU seconds that can pass in one second.
    cpus: u32,
    check_at: Instant,
}

impl Compute {
    pub(crate) fn new(limit: Duration, before: Duration) -> Self {
        Self::on(*CPUS, limit, before)
    }

    fn on(cpus: u32, limit: Duration, before: Duration) -> Self {
        let mut compute = Self { limit, before, cpus, check_at: Instant::now() };
        compute.look_again_after(limit);
        compute
    }

    /// When to ask [`is_used_up`](Self::is_used_up).
    pub(crate) fn check_at(&self) -> Instant {
        self.check_at
    }

    /// `cpu` is what the process has used since it was started.
    pub(crate) fn used(&self, cpu: Duration) -> Duration {
        cpu.saturating_sub(self.before)
    }

    /// If it is not, the next look is put off.
    pub(crate) fn is_used_up(&mut self, cpu: Duration) -> bool {
        let left = self.limit.saturating_sub(self.used(cpu));
        self.look_again_after(left);
        left.is_zero()
    }

    fn look_again_after(&mut self, left: Duration) {
        self.check_at = Instant::now() + (left / self.cpus).max(MIN_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that keeps `busy` of `cpus` CPUs busy: when it is stopped and after how many looks.
    async fn run(cpus: u32, busy: u32, limit: Duration) -> (Duration, usize) {
        let before = Duration::from_millis(17);
        let started = Instant::now();
        let mut compute = Compute::on(cpus, limit, before);
        for looks in 1.. {
            tokio::time::sleep_until(compute.check_at()).await;
            let cpu = before + started.elapsed() * busy;
            if compute.is_used_up(cpu) {
                return (compute.used(cpu), looks);
            }
            assert!(compute.used(cpu) < limit, "stopped at once");
        }
        unreachable!("the range has no end")
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_met_with_few_looks() {
        let limit = Duration::from_secs(300);
        for (cpus, busy) in [(1, 1), (2, 1), (2, 2), (16, 1), (16, 4), (16, 16)] {
            let (used, looks) = run(cpus, busy, limit).await;
            let most = limit + (MIN_INTERVAL + Duration::from_millis(2)) * busy;
            assert!((limit..=most).contains(&used), "{busy} of {cpus}: {used:?}");
            assert!(looks <= 200, "{busy} of {cpus}: {looks} looks");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_looked_at_seldom() {
        let mut compute = Compute::on(4, Duration::from_secs(300), Duration::ZERO);
        let (started, mut looks) = (Instant::now(), 0);
        while started.elapsed() < Duration::from_secs(3600) {
            tokio::time::sleep_until(compute.check_at()).await;
            assert!(!compute.is_used_up(Duration::from_millis(5)));
            looks += 1;
        }
        assert!(looks <= 49, "{looks} looks in an hour");
    }
}
