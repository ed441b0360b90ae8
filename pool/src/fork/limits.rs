//! When templates are built, tried, replaced and given up. Pure data; the defaults are the product's.

use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The life of templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkLimits {
    /// Workers of a spec that chooses by itself above which a template pays: it costs a boot and the self-test, some ten times
    /// what a spawned worker does, and holds memory. Counted anew once nobody has wanted one for `unused_after`. Default 16.
    pub worth_it: u32,
    /// Forks of one template from which on it has a successor built: they share an address layout. Those until the successor
    /// is ready come on top. Default 10,000.
    pub max_forks: u32,
    /// Age from which on, for the same reason. Default 30 min, as long as an idle worker may live.
    pub max_age: Duration,
    /// Bytes of its own that a template may have more than when it was built. Its memory is copied at each write of a child,
    /// so one that grows makes every fork dearer. Default 4 MiB, a quarter of what an idle worker holds: 10,000 forks were
    /// measured to leave nothing behind, so this is a leak.
    pub max_growth: u64,
    /// A template that nobody has wanted a worker of for this long goes. Default 10 min.
    pub unused_after: Duration,
    /// How often age, memory and use are looked at. Default 15 s.
    pub round: Duration,
    /// How long a template may take to get down to one thread: Deno's idle ones end after ten seconds. Default 30 s.
    pub settled_within: Duration,
    /// After a failure the next template is tried after this long, default 1 min, and after twice as long each time.
    pub retry_after: Duration,
    /// At most this long after a failure. Default 1 h.
    pub retry_after_at_most: Duration,
    pub trial: TrialLimits,
}

/// How thoroughly a Deno is tried before it is forked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialLimits {
    /// Children that live at one time. Default 64.
    pub crowd: usize,
    /// Children that come and go, some at a time; two milliseconds of CPU time each. Default 1000.
    pub many: usize,
    /// Where it is noted which Denos have passed. Default `trials` in the cache directory.
    pub passed: Option<PathBuf>,
}

impl Default for ForkLimits {
    fn default() -> Self {
        Self {
            worth_it: 16,
            max_forks: 10_000,
            max_age: 30 * MINUTE,
            max_growth: 4 << 20,
            unused_after: 10 * MINUTE,
            round: 15 * SECOND,
            settled_within: 30 * SECOND,
            retry_after: MINUTE,
            retry_after_at_most: 60 * MINUTE,
            trial: TrialLimits { crowd: 64, many: 1000, passed: None },
        }
    }
}
