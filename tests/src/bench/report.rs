//! Results beside their budgets, as tables or JSON. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// Everything that was measured, in the order in which it was.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) took: Duration,
    timings: Vec<Timing>,
    figures: Vec<Figure>,
}

/// Many samples of the same thing, sorted.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    name: String,
    sorted: Vec<Duration>,
}

/// One number, and how large it may be.
#[derive(Debug)]
struct Figure {
    name: String,
    value: f64,
    unit: Unit,
    budget: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A part of something, shown as 1/n.
    Part,
    /// A multiple of something.
    Times,
    Milliseconds,
    Mebibytes,
    PerSecond,
    Count,
}

impl Timing {
    pub(super) fn new(name: impl Into<String>, mut samples: Vec<Duration>) -> Self {
        assert!(!samples.is_empty(), "every measurement takes samples");
        samples.sort();
        Self { name: name.into(), sorted: samples }
    }

    /// The smallest sample that is not below `percent` of all.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted[rank - 1]
    }

    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        self.percentile(percent).as_secs_f64() * 1e3
    }
}

impl Report {
    pub(super) fn timing(&mut self, timing: &Timing) {
        self.timings.push(timing.clone());
    }

    pub(super) fn figure(&mut self, name: &str, value: f64, unit: Unit) {
        self.figures.push(Figure { name: name.to_owned(), value, unit, budget: None });
    }

    /// A figure that is to be `budget` at most.
    pub(super) fn budgeted(&mut self, name: &str, value: f64, unit: Unit, budget: f64) {
        self.figures.push(Figure { name: name.to_owned(), value, unit, budget: Some(budget) });
    }

    /// How many budgets are missed.
    pub(super) fn misses(&self) -> usize {
        self.figures.iter().filter(|figure| figure.is_met() == Some(false)).count()
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}\n\n{:<44}{:>6}{:>10}{:>10}{:>10}\n",
            self.conditions(),
            "milliseconds",
            "n",
            "p50",
            "p90",
            "p99"
        );
        for timing in &self.timings {
            let [p50, p90, p99] = [50, 90, 99].map(|percent| timing.percentile_ms(percent));
            let count = timing.sorted.len();
            writeln!(text, "{:<44}{count:>6}{p50:>10.2}{p90:>10.2}{p99:>10.2}", timing.name)
                .expect("a string");
        }
        write!(text, "\n{:<50}{:>12}{:>12}\n", "figures", "measured", "budget").expect("a string");
        for figure in &self.figures {
            let budget = figure.budget.map(|budget| format!("≤ {}", figure.unit.show(budget)));
            let verdict = figure.is_met().map(|met| if met { "  met" } else { "  MISSED" });
            let (budget, verdict) = (budget.unwrap_or_default(), verdict.unwrap_or_default());
            writeln!(text, "{:<50}{:>12}{budget:>12}{verdict}", figure.name, figure.unit.show(figure.value))
                .expect("a string");
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let timings = self.timings.iter().map(|timing| {
            let [p50, p90, p99] = [50, 90, 99].map(|percent| timing.percentile_ms(percent));
            json!({ "name": timing.name, "samples": timing.sorted.len(), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99 })
        });
        let figures = self.figures.iter().map(|figure| {
            let (unit, met) = (figure.unit.name(), figure.is_met());
            json!({ "name": figure.name, "value": figure.value, "unit": unit, "budget": figure.budget, "met": met })
        });
        json!({
            "conditions": self.conditions(),
            "took_ms": u64::try_from(self.took.as_millis()).expect("minutes"),
            "timings": timings.collect::<Vec<_>>(),
            "figures": figures.collect::<Vec<_>>(),
        })
    }

    fn conditions(&self) -> String {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let build =
            if cfg!(debug_assertions) { "debug build, whose numbers mean little" } else { "release build" };
        format!(
            "conductor {} ({build}), {cpus} CPUs, took {} s",
            env!("CARGO_PKG_VERSION"),
            self.took.as_secs()
        )
    }
}

impl Figure {
    fn is_met(&self) -> Option<bool> {
        self.budget.map(|budget| self.value <= budget)
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Part => "part",
            Self::Times => "times",
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::PerSecond => "1/s",
            Self::Count => "count",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Part => format!("1/{:.1}", value.recip()),
            Self::Times => format!("{value:.2} x"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Mebibytes => format!("{value:.2} MiB"),
            Self::PerSecond => format!("{value:.1} /s"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let timing = Timing::new("t", (1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!([1, 50, 99, 100].map(|p| timing.percentile(p).as_millis()), [2, 100, 198, 200]);
        assert_eq!(Timing::new("t", vec![Duration::from_millis(7)]).percentile(99).as_millis(), 7);
    }

    #[test]
    fn a_budget_is_met_up_to_its_value() {
        let mut report = Report::default();
        report.figure("no budget", 5.0, Unit::PerSecond);
        report.budgeted("met", 1.0 / 12.0, Unit::Part, 1.0 / 12.0);
        report.budgeted("missed", 4.1, Unit::Mebibytes, 4.0);
        assert_eq!(report.misses(), 1);
        let verdicts: Vec<Value> =
            report.json()["figures"].as_array().unwrap().iter().map(|figure| figure["met"].clone()).collect();
        assert_eq!(verdicts, [Value::Null, Value::Bool(true), Value::Bool(false)]);
        assert!(report.text().contains("1/12.0"));
    }
}
