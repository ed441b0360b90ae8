//! Which plots there are of a report.

use super::bed::{PACKAGES, Way};
use super::plot::{self, Bar, Range, Words};
use super::report::{Report, Timing};
use super::{cost, latency, load, packages};

/// Names of files, with their content.
pub(super) fn all(report: &Report) -> [(&'static str, String); 4] {
    [
        ("latency.svg", latency(report)),
        ("callers.svg", callers(report)),
        ("cpu.svg", cpu(report)),
        ("imports.svg", imports(report)),
    ]
}

fn names() -> [&'static str; 3] {
    Way::ALL.map(Way::name)
}

fn latency(report: &Report) -> String {
    let names = names();
    let rows = [latency::PAUSED, latency::BACK_TO_BACK, latency::AT_ONCE]
        .map(|name| rows(report, [name, name], names, &[50, 90, 99]));
    let words =
        Words { title: "Time of a call: p50, p90, p99", x: "milliseconds (the number: p50)", y: "", names };
    plot::ranges(words, &parted(&rows))
}

fn imports(report: &Report) -> String {
    let names = packages::PROFILES.map(|(_, of)| of);
    let rows = PACKAGES.map(|package| {
        let name = packages::import_of(package);
        rows(report, [&name, package], names, &[50, 90])
    });
    let words =
        Words { title: "import in the call: p50, p90", x: "milliseconds (the number: p50)", y: "", names };
    plot::ranges(words, &parted(&rows))
}

/// A row for each of those that were measured, the first of which says what.
fn rows(report: &Report, [name, label]: [&str; 2], names: [&str; 3], percents: &[usize]) -> Vec<Range> {
    let timings = names.into_iter().zip(0..).filter_map(|(of, at)| Some((report.find_timing(name, of)?, at)));
    let row = |(timing, of): (&Timing, usize)| Range {
        label: if of == 0 { label.to_owned() } else { String::new() },
        of,
        values: percents.iter().filter_map(|percent| timing.known_percentile_ms(*percent)).collect(),
    };
    timings.map(row).collect()
}

fn parted(groups: &[Vec<Range>]) -> Vec<Range> {
    groups.join(&Range::default())
}

fn callers(report: &Report) -> String {
    let of_way = |(way, at): (Way, usize)| {
        (at, load::CALLERS.map(|callers| report.find_figure(&load::rate(callers), way.name())).to_vec())
    };
    let series: Vec<_> = Way::ALL.into_iter().zip(0..).map(of_way).collect();
    let words = Words {
        title: "Calls per second, each caller with one call under way",
        x: "callers",
        y: "calls per second",
        names: names(),
    };
    plot::lines(words, &load::CALLERS, &series)
}

fn cpu(report: &Report) -> String {
    let bar = |way: Way| {
        let figure = report.figures().find(|figure| figure.name == cost::RATIO && figure.of == way.name());
        let (value, budget) = match figure {
            Some(figure) => (figure.value, figure.budget.map(|budget| budget.limit())),
            None => (1.0, None),
        };
        Bar { label: way.name().to_owned(), of: way as usize, value, budget }
    };
    let words = Words {
        title: "CPU time of a call, against a bare boot of Deno",
        x: "multiples of the CPU time of `deno run` of an empty script (the mark: budget)",
        y: "",
        names: names(),
    };
    plot::bars(words, &Way::ALL.map(bar))
}
