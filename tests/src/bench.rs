//! The benchmark: what a call costs through the real programs, in spawned and in forked workers, against a `deno run` of the
//! same code in the same minute.
//!
//! ```text
//! Bed        one daemon with default settings in a home of its own; its shims; the command line of its workers
//! Session    one shim, driven with blocking reads and writes, so that the client adds nothing to what is measured
//! Cold       the same code with the same flags in a fresh `deno run`: what there is without conductor
//! latency    calls with pauses, back to back, in bursts, with output, of a new profile; a shim's first answers
//! load       calls of 1 to 64 callers at once
//! cost       CPU time and calls per second at saturation
//! memory     sizes of programs and of idle workers
//! template   what it takes to have something to fork
//! parts      where the CPU time of a forked call goes
//! packages   imports in the call
//! upstream   calls that code makes of an MCP server, against those of a client of its own
//! Report     the results, beside the budgets they are held against; as text, JSON, Markdown and plots
//! ```
//!
//! The ways are measured in turns, so that a noisy machine is noisy for all of them. It is no test: a budget that is missed is
//! printed as missed, and only `--check` makes it the program's exit code.

mod bed;
mod cold;
mod cost;
pub mod document;
mod latency;
mod load;
mod machine;
mod memory;
mod packages;
mod parts;
mod plot;
mod plots;
mod proc;
mod report;
mod session;
mod template;
mod text;
mod upstream;

use std::iter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use bed::Bed;
use machine::Machine;
use report::Report;

/// Measures conductor on this machine, against `deno run` without it.
///
/// Builds the programs like itself: use `cargo run --release -p conductor-tests --bin bench`. Takes about five minutes once
/// they are built. Leave the machine alone meanwhile; ratios are robust against load, times are not.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// A fifth of the samples: about two minutes, and p99 is close to the worst sample
    #[arg(long)]
    quick: bool,
    /// Print one JSON document, with all samples, instead of tables
    #[arg(long)]
    json: bool,
    /// Exit with 1 when a budget is missed
    #[arg(long)]
    check: bool,
    /// Measure the conductord and the conductor-shim in this directory, and build none
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Measure only what belongs to this section of docs/BENCHMARKS.md: cost, latency, load, ...; may be repeated
    #[arg(long, value_name = "SECTION", conflicts_with = "write")]
    only: Vec<String>,
    /// Write the results into the documents of the source tree: samples, plots, docs/BENCHMARKS.md, the table in README.md
    #[arg(long)]
    write: bool,
}

impl Options {
    /// How many samples to take where the full run takes `full`.
    fn samples(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(5) } else { full }
    }

    fn asks_for(&self, section: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == section)
    }
}

/// What the program does; `main` only calls this.
pub fn main_impl() -> ExitCode {
    let options = Options::parse();
    let bed = Bed::new(options.programs.as_deref());
    let report = measured(&bed, &options);
    drop(bed);
    let json = document::json(&report);
    print(&if options.json { json.clone() } else { text::text(&report) });
    if options.write {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is part of the repository");
        if let Err(error) = document::write(root, &json) {
            progress(&format!("error: the documents cannot be written: {error}"));
            return ExitCode::FAILURE;
        }
    }
    if options.check && report.misses() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

type Measurement = fn(&Bed, usize, &mut Report);

/// Names of sections, what is measured in them, and how many samples are taken of it. Nothing has been forked before the first
/// template; what looks at templates comes before ten thousand forks, after which they are replaced.
const MEASUREMENTS: [(&str, &str, Measurement, usize); 16] = [
    ("template", "the first template", |bed, _, report| template::first(bed, report), 1),
    ("memory", "memory at rest", |bed, _, report| memory::at_rest(bed, report), 1),
    ("latency", "calls with pauses", latency::paused, 120),
    ("latency", "calls back to back", latency::back_to_back, 200),
    ("latency", "bursts", latency::bursts, 5),
    ("latency", "calls with output", latency::output, 30),
    ("latency", "boots", |bed, _, report| latency::boots(bed, report), 1),
    ("parts", "parts of a forked call", parts::measure, 150),
    ("template", "another template", |bed, _, report| template::another(bed, report), 1),
    ("packages", "imports in the call", packages::imports, 20),
    ("cost", "saturation", cost::saturation, 10),
    ("load", "callers at once", load::measure, 3),
    ("start", "first calls of new profiles", latency::new_profiles, 10),
    ("start", "first answers of a shim", latency::first_answers, 50),
    ("upstream", "calls of an upstream server", upstream::calls, 50),
    ("memory", "memory after all calls", |bed, _, report| memory::after(bed, report), 1),
];

fn measured(bed: &Bed, options: &Options) -> Report {
    let started = Instant::now();
    let mut report = Report::new(Machine::this(&bed.deno));
    let [first, others @ ..] = MEASUREMENTS;
    let asked = others.into_iter().filter(|(section, ..)| options.asks_for(section));
    // Without a template nothing is forked.
    for (section, what, measure, samples) in iter::once(first).chain(asked) {
        let began = Instant::now();
        report.section(section);
        measure(bed, options.samples(samples), &mut report);
        progress(&format!("{what}: took {:.0} s", began.elapsed().as_secs_f64()));
    }
    report.took_s = started.elapsed().as_secs();
    report
}

#[expect(clippy::print_stderr, reason = "whoever waits wants to know for what")]
fn progress(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the results are this program's output")]
fn print(text: &str) {
    print!("{text}");
}
