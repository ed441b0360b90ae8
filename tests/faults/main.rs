//! Faults on real processes: what is killed, stopped, cut off or out of something breaks nothing but itself, and everything
//! works again as soon as the fault is gone, without a restart of the daemon.
//!
//! ```text
//! bed       a home with servers that can be made to misbehave
//! calls     what callers ask for without a pause, and what each answer must be
//! storm     thousands of calls while workers, servers and shims die: nobody else notices, and nothing piles up
//! deaths    the daemon itself is killed under load, again and again
//! orphans   how soon processes end that nobody waits for any more
//! disk      the disk is full, from the start or while calls run
//! shortage  descriptors, processes, files, the socket, Deno are taken away, and given back
//! starts    there is no memory for a process that is to be started
//! peers     clients that are slow, silent, mad or many
//! ```
//!
//! `CONDUCTOR_FAULTS_SIZE` makes the numbers other than a commit's; `CONDUCTOR_FAULTS_SEED` repeats a failed run.

#![cfg(target_os = "linux")]

mod bed;
mod calls;
mod deaths;
mod disk;
mod orphans;
mod peers;
mod shortage;
mod starts;
mod storm;

/// How much of everything is done.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Rounds of the storm after its first calls, each of [`storm::ROUND`] calls.
    rounds: usize,
    daemon_kills: usize,
    bad_frames: usize,
}

impl Size {
    /// What the environment asks for; enough for a commit if it does not.
    fn asked() -> Self {
        match std::env::var("CONDUCTOR_FAULTS_SIZE").as_deref() {
            Ok("small") => Self { rounds: 0, daemon_kills: 3, bad_frames: 1000 },
            Err(_) | Ok("commit") => Self { rounds: 1, daemon_kills: 10, bad_frames: 10_000 },
            Ok("nightly") => Self { rounds: 31, daemon_kills: 200, bad_frames: 1_000_000 },
            Ok("release") => Self { rounds: 625, daemon_kills: 500, bad_frames: 10_000_000 },
            Ok(other) => panic!("CONDUCTOR_FAULTS_SIZE is small, commit, nightly or release, not {other}"),
        }
    }
}

/// Said to whoever looks on: cargo shows it with `--nocapture`, and when the test fails.
#[expect(clippy::print_stderr, reason = "tests have no other way to tell figures")]
fn tell(figures: impl std::fmt::Display) {
    eprintln!("{figures}");
}
