//! Waiting for a condition.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between two looks at something that nobody announces.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Looks until there is a value. `look` gives the value, or the state it saw instead.
///
/// # Panics
/// The deadline is over; the text tells what was waited for and the last state.
#[track_caller]
pub fn wait_for<T, S: Display>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, S>) -> T {
    let until = Instant::now() + deadline;
    loop {
        match look() {
            Ok(value) => return value,
            Err(state) if Instant::now() >= until => {
                panic!("{what}: not within {deadline:?}; last seen: {state}")
            }
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}
