//! Random schedules of a session's life, from seeds.
//!
//! [`end`] holds the pure rules of the end against a second, simpler account. [`whole`] runs a session as it is, connection,
//! frames, rmcp, rounds of questions and admission, between a client, calls and a daemon that do what the dice say, on a clock
//! of its own; only where tools come from is made up.
//!
//! A seed that breaks a promise is printed. `CONDUCTOR_SESSION_SEEDS=100000` runs that many schedules, and
//! `CONDUCTOR_SESSION_SEED=17` that one: many times over, because rmcp takes what is ready at one moment in an order of its own.

mod client;
mod end;
mod tools;
mod whole;

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
}

/// Runs `schedule` for each seed.
fn for_each_seed(usual: u64, schedule: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = match number("CONDUCTOR_SESSION_SEED") {
        Some(seed) => vec![seed; 100],
        None => (0..number("CONDUCTOR_SESSION_SEEDS").unwrap_or(usual)).collect(),
    };
    for seed in seeds {
        let _printed = PrintedOnPanic(seed);
        schedule(seed);
    }
}

struct PrintedOnPanic(u64);

impl Drop for PrintedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failing schedule: CONDUCTOR_SESSION_SEED={}", self.0);
        }
    }
}
