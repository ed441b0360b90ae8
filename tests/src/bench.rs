//! The benchmark: what a call costs through the real programs, against a `deno run` of the same code in the same minute.
//!
//! ```text
//! Bed        one daemon with default settings in a home of its own; its shims; the command line of its workers
//! Session    one shim, driven with blocking reads and writes, so that the client adds nothing to what is measured
//! Cold       the same code with the same flags in a fresh `deno run`: what there is without conductor
//! latency    calls with pauses, back to back, in bursts, with output, of a new profile; a shim's first answers
//! upstream   calls that code makes of an MCP server, against those of a client of its own
//! cost       CPU time and calls per second at saturation; memory and size
//! Report     the results, beside the budgets they are held against
//! ```
//!
//! Warm and cold are measured in turns, so that a noisy machine is noisy for both. It is no test: a budget that is missed is
//! printed as missed, and only `--check` makes it the program's exit code.

mod bed;
mod cold;
mod cost;
mod latency;
mod report;
mod session;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use bed::Bed;
use report::Report;

/// Measures conductor on this machine, against `deno run` without it.
///
/// Builds the programs like itself: use `cargo run --release -p conductor-tests --bin bench`. Takes about two minutes once they
/// are built. Leave the machine alone meanwhile; ratios are robust against load, times are not.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// A fifth of the samples: about 20 seconds, and p99 is close to the worst sample
    #[arg(long)]
    quick: bool,
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
    /// Exit with 1 when a budget is missed
    #[arg(long)]
    check: bool,
    /// Measure the conductord and the conductor-shim in this directory, and build none
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

impl Options {
    /// How many samples to take where the full run takes `full`.
    fn samples(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(5) } else { full }
    }
}

/// What the program does; `main` only calls this.
pub fn main_impl() -> ExitCode {
    let options = Options::parse();
    let bed = Bed::new(options.programs.as_deref());
    let started = Instant::now();
    let mut report = Report::default();
    let announce = |what: &str| progress(&format!("{what} ..."));
    announce("memory at rest");
    cost::memory(&bed, &mut report);
    announce("calls with pauses");
    latency::paused(&bed, options.samples(150), &mut report);
    announce("calls back to back");
    latency::back_to_back(&bed, options.samples(200), &mut report);
    announce("bursts");
    latency::bursts(&bed, options.samples(20), &mut report);
    announce("calls with output");
    latency::output(&bed, options.samples(50), &mut report);
    announce("first calls of new profiles");
    latency::new_profiles(&bed, options.samples(20), &mut report);
    announce("first answers of a shim");
    latency::first_answers(&bed, options.samples(50), &mut report);
    announce("calls of an upstream server");
    upstream::calls(&bed, options.samples(50), &mut report);
    announce("saturation");
    cost::saturation(&bed, options.samples(10), &mut report);
    cost::after(&bed, &mut report);
    report.took = started.elapsed();
    print(&if options.json { format!("{:#}\n", report.json()) } else { report.text() });
    if options.check && report.misses() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[expect(clippy::print_stderr, reason = "whoever waits wants to know for what")]
fn progress(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the results are this program's output")]
fn print(text: &str) {
    print!("{text}");
}
