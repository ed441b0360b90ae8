//! A report as tables for a terminal.

use std::fmt::Write as _;

use super::report::Report;

pub(super) fn text(report: &Report) -> String {
    let mut text = format!("{}; took {} s\n", report.machine, report.took_s);
    row(&mut text, ["milliseconds", "n", "p50", "p90", "p99"].map(str::to_owned));
    for timing in report.timings() {
        let [p50, p90, p99] = [50, 90, 99].map(|percent| format!("{:.2}", timing.percentile_ms(percent)));
        row(&mut text, [full(&timing.of, &timing.name), timing.count().to_string(), p50, p90, p99]);
    }
    write!(text, "\n{:<56}{:>12}{:>12}\n", "figures", "measured", "budget").expect("a string");
    for figure in report.figures() {
        let (budget, verdict) = figure.verdict().unwrap_or_default();
        let (name, value) = (full(&figure.of, &figure.name), figure.unit.show(figure.value));
        writeln!(text, "{name:<56}{value:>12}{budget:>12}  {verdict}").expect("a string");
    }
    text
}

fn row(text: &mut String, [name, count, p50, p90, p99]: [String; 5]) {
    writeln!(text, "{name:<48}{count:>6}{p50:>10}{p90:>10}{p99:>10}").expect("a string");
}

fn full(of: &str, name: &str) -> String {
    if of.is_empty() { name.to_owned() } else { format!("{of}: {name}") }
}
