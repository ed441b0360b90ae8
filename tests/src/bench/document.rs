//! A report in the documents of the repository: the samples, plots of them, tables in `docs/BENCHMARKS.md` and in the README.
//!
//! Everything is made from the samples alone, so that a test can tell whether what is committed belongs together.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::bed::Way;
use super::plots;
use super::report::{Figure, Report, Section, Timing, Unit};
use super::{cost, latency};

/// The samples, relative to the repository's root.
pub const SAMPLES: &str = "docs/figures/bench.json";

const DOCUMENT: &str = "docs/BENCHMARKS.md";
const README: &str = "README.md";
const FIGURES: &str = "docs/figures";
const END: &str = "<!-- end -->";

/// One line for each thing that was measured.
pub(super) fn json(report: &Report) -> String {
    let text = serde_json::to_string(report).expect("it is plain data");
    text.replace(r#"{"name":"#, "\n{\"name\":") + "\n"
}

/// The files that follow from these samples, with their content: the samples themselves, and documents below `root` with
/// what stands between their markers replaced.
///
/// # Errors
/// A document cannot be read or lacks a marker, or `samples` are none.
pub fn files(root: &Path, samples: &str) -> io::Result<Vec<(PathBuf, String)>> {
    let report: Report = serde_json::from_str(samples)?;
    let mut files = vec![(root.join(SAMPLES), samples.to_owned())];
    files.extend(plots::all(&report).map(|(name, svg)| (root.join(FIGURES).join(name), svg)));
    let mut document = fs::read_to_string(root.join(DOCUMENT))?;
    document = replaced(&document, "machine", &machine(&report))?;
    document = replaced(&document, "budgets", &budgets(&report))?;
    for section in &report.sections {
        document = replaced(&document, &section.name, &tables(section))?;
    }
    files.push((root.join(DOCUMENT), document));
    let readme = fs::read_to_string(root.join(README))?;
    files.push((root.join(README), replaced(&readme, "summary", &summary(&report))?));
    Ok(files)
}

pub(super) fn write(root: &Path, samples: &str) -> io::Result<()> {
    for (path, text) in files(root, samples)? {
        fs::create_dir_all(path.parent().expect("they are files of the repository"))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// The document with another text in this place.
fn replaced(document: &str, name: &str, text: &str) -> io::Result<String> {
    let start = format!("<!-- bench: {name} -->\n");
    let place =
        document.split_once(&start).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        place.ok_or_else(|| io::Error::other(format!("no place for the results: {}", start.trim_end())))?;
    Ok(format!("{before}{start}{text}{END}{after}"))
}

fn machine(report: &Report) -> String {
    let mut text = "| | |\n|---|---|\n".to_owned();
    for (what, is) in report.machine.lines() {
        writeln!(text, "| {what} | {is} |").expect("a string");
    }
    writeln!(text, "| took | {} s |", report.took_s).expect("a string");
    text
}

fn budgets(report: &Report) -> String {
    let mut text = "| | | measured | budget | |\n|---|---|---|---|---|\n".to_owned();
    for figure in report.figures() {
        if let Some((budget, verdict)) = figure.verdict() {
            let Figure { name, of, value, unit, .. } = figure;
            writeln!(text, "| {name} | {of} | {} | {budget} | {verdict} |", unit.show(*value))
                .expect("a string");
        }
    }
    text
}

/// A table of times and one of other figures, with a column for each of those that were compared.
fn tables(section: &Section) -> String {
    let times = section.timings.iter().map(|timing| (&*timing.name, &*timing.of, percentiles(timing)));
    let figures =
        section.figures.iter().map(|figure| (&*figure.name, &*figure.of, figure.unit.show(figure.value)));
    let tables = [("p50 / p90 / p99, ms", times.collect()), ("", figures.collect::<Vec<_>>())];
    let tables: Vec<String> = tables
        .into_iter()
        .filter(|(_, cells): &(_, Vec<_>)| !cells.is_empty())
        .map(|(head, cells)| table(head, &cells))
        .collect();
    tables.join("\n")
}

/// `cells` are names of rows, names of columns, and what stands there.
fn table(head: &str, cells: &[(&str, &str, String)]) -> String {
    let (mut rows, mut columns): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (row, column, _) in cells {
        if !rows.contains(row) {
            rows.push(row);
        }
        if !columns.contains(column) {
            columns.push(column);
        }
    }
    let mut text = format!("| {head} | {} |\n|---|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for row in rows {
        write!(text, "| {row} |").expect("a string");
        for column in &columns {
            let cell = cells.iter().find(|cell| (cell.0, cell.1) == (row, *column));
            write!(text, " {} |", cell.map_or("", |cell| &cell.2)).expect("a string");
        }
        text.push('\n');
    }
    text
}

/// Those that are more than the worst of a few samples.
fn percentiles(timing: &Timing) -> String {
    let shown = [50, 90, 99]
        .map(|percent| timing.known_percentile_ms(percent).map_or("–".to_owned(), |ms| format!("{ms:.2}")));
    shown.join(" / ")
}

/// The few that the README shows.
fn summary(report: &Report) -> String {
    let ways = Way::ALL.map(Way::name);
    let mut cells = Vec::new();
    for name in [latency::PAUSED, latency::BACK_TO_BACK, latency::AT_ONCE] {
        let row = format!("a call, {name}: p50 / p99");
        for of in ways {
            if let Some(timing) = report.find_timing(name, of) {
                let [p50, p99] = [50, 99].map(|percent| timing.percentile_ms(percent));
                cells.push((row.clone(), of, format!("{p50:.1} / {p99:.1} ms")));
            }
        }
    }
    for (name, unit) in [(cost::RATE, Unit::PerSecond), (cost::CPU, Unit::Milliseconds)] {
        for of in ways {
            if let Some(value) = report.find_figure(name, of) {
                cells.push((name.to_owned(), of, unit.show(value)));
            }
        }
    }
    let cells: Vec<_> = cells.iter().map(|(row, of, text)| (&**row, *of, text.clone())).collect();
    table("", &cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_a_column_for_each_that_was_compared() {
        let cells = [("a", "x", "1".to_owned()), ("a", "y", "2".to_owned()), ("b", "y", "3".to_owned())];
        assert_eq!(table("h", &cells), "| h | x | y |\n|---|---|---|\n| a | 1 | 2 |\n| b |  | 3 |\n");
    }

    #[test]
    fn text_between_the_markers_is_replaced_and_the_rest_stays() {
        let document = "before\n<!-- bench: a -->\nold\n<!-- end -->\nafter <!-- end -->";
        let new = replaced(document, "a", "new\n").unwrap();
        assert_eq!(new, "before\n<!-- bench: a -->\nnew\n<!-- end -->\nafter <!-- end -->");
        assert!(replaced(document, "b", "").unwrap_err().to_string().contains("bench: b"));
    }
}
