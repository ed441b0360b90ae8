//! Chance that can be had again: everything random in a test comes from one number, which a failed test has printed.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::time::Duration;

/// Names the seed of a test that is run again.
const SEED_VARIABLE: &str = "CONDUCTOR_FAULTS_SEED";

/// A small generator (xorshift).
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// From a seed; zero, from which nothing comes, is taken as one.
    pub fn of(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// From the seed that the environment names, else from a new one. Prints it: cargo shows that when the test fails.
    ///
    /// # Panics
    /// The environment names no number.
    #[expect(clippy::print_stderr, reason = "a failed test tells how to have the same again")]
    pub fn seeded() -> Self {
        let named = std::env::var(SEED_VARIABLE).ok();
        let seed =
            named.map_or_else(|| RandomState::new().hash_one(0), |seed| seed.parse().expect("a number"));
        eprintln!("{SEED_VARIABLE}={seed}");
        Self::of(seed)
    }

    /// A generator of its own for another thread.
    pub fn split(&mut self) -> Self {
        Self::of(self.next())
    }

    #[expect(clippy::should_implement_trait, reason = "it never ends, so there is no Option to give")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number of the range, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    /// One of them, unless there is none.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let n = u64::try_from(from.len()).expect("a length fits");
        (n > 0).then(|| &from[usize::try_from(self.within(0..n)).expect("an index fits")])
    }

    pub fn milliseconds(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// Fewer than `most` bytes.
    pub fn bytes(&mut self, most: u64) -> Vec<u8> {
        let n = self.next() % most;
        (0..n).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}
