//! How much memory a run has taken, and when it is worth looking again. Pure, but for the clock.
//!
//! The kernel limits what a process may *reserve* (`RLIMIT_DATA`), and V8 reserves far more than it uses, so that limit alone
//! is several times what a run may have. Where no control group limits what is used, it is looked at. The limit cannot be
//! reached sooner than memory can be filled, so the next look is after what is left, divided by [`GROWTH`]: a run of some
//! tens of milliseconds is never looked at, one that waits a dozen times a second, one at its limit two hundred times. Between two looks a run can pass its limit
//! by what it fills in [`MIN_INTERVAL`], 40 MiB at that speed; whatever its speed, the kernel's limit ends it.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes that a process fills in a second, at most: twice the fastest that was measured, with all CPUs at it. The kernel has
/// to clear each page first, which keeps memory itself busy, so more CPUs do not make it much faster.
const GROWTH: u64 = 8 << 30;

/// The shortest time between two looks.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Memory {
    limit: u64,
    check_at: Instant,
}

impl Memory {
    /// `limit` in bytes. The first look is as far away as if nothing had been used before.
    pub(crate) fn new(limit: u64) -> Self {
        let mut memory = Self { limit, check_at: Instant::now() };
        memory.look_again_after(limit / 2);
        memory
    }

    /// When to ask [`is_used_up`](Self::is_used_up).
    pub(crate) fn check_at(&self) -> Instant {
        self.check_at
    }

    /// `resident` is what the process has in memory now, in bytes. If that is not too much, the next look is put off.
    pub(crate) fn is_used_up(&mut self, resident: u64) -> bool {
        self.look_again_after(self.limit.saturating_sub(resident));
        resident > self.limit
    }

    fn look_again_after(&mut self, left: u64) {
        let time = Duration::from_secs_f64(left as f64 / GROWTH as f64);
        self.check_at = Instant::now() + time.max(MIN_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A process that fills `speed` bytes a second: what it has when it is stopped, and after how many looks.
    async fn run(speed: u64, limit: u64) -> (u64, usize) {
        let started = Instant::now();
        let mut memory = Memory::new(limit);
        for looks in 1.. {
            tokio::time::sleep_until(memory.check_at()).await;
            let micros = u64::try_from(started.elapsed().as_micros()).expect("it is minutes");
            let resident = 40 * MIB + micros * speed / 1_000_000;
            if memory.is_used_up(resident) {
                return (resident, looks);
            }
            assert!(resident <= limit, "stopped at once");
        }
        unreachable!("the range has no end")
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_passed_by_little_at_any_speed() {
        let limit = 704 * MIB;
        for speed in [10 * MIB, 500 * MIB, 2 << 30, GROWTH] {
            let (resident, looks) = run(speed, limit).await;
            // What is filled in the shortest interval, and the millisecond to which the clock is exact.
            let most = limit + speed / 1000 * 6;
            assert!((limit + 1..=most).contains(&resident), "{speed}: {} MiB", resident / MIB);
            assert!(looks as u64 <= 2 + 200 * limit / speed, "{speed}: {looks} looks");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_uses_little_is_looked_at_seldom() {
        let (started, mut looks) = (Instant::now(), 0);
        let mut memory = Memory::new(704 * MIB);
        while started.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep_until(memory.check_at()).await;
            assert!(!memory.is_used_up(40 * MIB));
            looks += 1;
        }
        assert!(looks <= 60 * 13, "{looks} looks in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_run_is_not_looked_at() {
        assert!(Memory::new(704 * MIB).check_at() - Instant::now() >= Duration::from_millis(40));
    }
}
