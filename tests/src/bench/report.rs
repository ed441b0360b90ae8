//! What was measured, in sections, beside its budgets. Pure; as JSON it can be read again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// Everything that was measured, in the order in which it was.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) took_s: u64,
    pub(super) sections: Vec<Section>,
}

/// What belongs together.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) timings: Vec<Timing>,
    pub(super) figures: Vec<Figure>,
}

/// Many samples of the same thing, sorted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Timing {
    pub(super) name: String,
    /// Whose samples they are, where the same was measured of several.
    pub(super) of: String,
    samples_us: Vec<u32>,
}

/// One number, and how large or small it may be.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) of: String,
    pub(super) value: f64,
    pub(super) unit: Unit,
    pub(super) budget: Option<Budget>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Budget {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    /// A part of something, shown as 1/n.
    #[serde(rename = "part")]
    Part,
    /// A multiple of something.
    #[serde(rename = "times")]
    Times,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "count")]
    Count,
}

impl Timing {
    pub(super) fn new(name: impl Into<String>, of: &str, samples: Vec<Duration>) -> Self {
        assert!(!samples.is_empty(), "every measurement takes samples");
        let microseconds = |sample: Duration| u32::try_from(sample.as_micros()).expect("less than an hour");
        let mut samples_us: Vec<u32> = samples.into_iter().map(microseconds).collect();
        samples_us.sort_unstable();
        Self { name: name.into(), of: of.to_owned(), samples_us }
    }

    /// The smallest sample that is not below `percent` of all.
    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let rank = (self.samples_us.len() * percent).div_ceil(100).max(1);
        f64::from(self.samples_us[rank - 1]) / 1e3
    }

    /// The same, if enough samples lie beyond it for it to be more than the worst of them.
    pub(super) fn known_percentile_ms(&self, percent: usize) -> Option<f64> {
        (self.samples_us.len() * (100 - percent) >= 100).then(|| self.percentile_ms(percent))
    }

    pub(super) fn count(&self) -> usize {
        self.samples_us.len()
    }
}

impl Report {
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine, took_s: 0, sections: Vec::new() }
    }

    /// What follows belongs to this section, new or not.
    pub(super) fn section(&mut self, name: &str) {
        let section = match self.sections.iter().position(|section| section.name == name) {
            Some(at) => self.sections.remove(at),
            None => Section { name: name.to_owned(), timings: Vec::new(), figures: Vec::new() },
        };
        self.sections.push(section);
    }

    fn last(&mut self) -> &mut Section {
        self.sections.last_mut().expect("a section is begun first")
    }

    pub(super) fn timing(&mut self, timing: &Timing) {
        self.last().timings.push(timing.clone());
    }

    pub(super) fn figure(&mut self, name: &str, of: &str, value: f64, unit: Unit) {
        self.add(name, of, value, unit, None);
    }

    /// A figure with a limit.
    pub(super) fn budgeted(&mut self, name: &str, of: &str, value: f64, unit: Unit, budget: Budget) {
        self.add(name, of, value, unit, Some(budget));
    }

    fn add(&mut self, name: &str, of: &str, value: f64, unit: Unit, budget: Option<Budget>) {
        self.last().figures.push(Figure { name: name.to_owned(), of: of.to_owned(), value, unit, budget });
    }

    pub(super) fn timings(&self) -> impl Iterator<Item = &Timing> {
        self.sections.iter().flat_map(|section| &section.timings)
    }

    pub(super) fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.sections.iter().flat_map(|section| &section.figures)
    }

    /// The timing of this name; none where it could not be taken.
    pub(super) fn find_timing(&self, name: &str, of: &str) -> Option<&Timing> {
        self.timings().find(|timing| timing.name == name && timing.of == of)
    }

    pub(super) fn find_figure(&self, name: &str, of: &str) -> Option<f64> {
        self.figures().find(|figure| figure.name == name && figure.of == of).map(|figure| figure.value)
    }

    /// How many budgets are missed.
    pub(super) fn misses(&self) -> usize {
        self.figures().filter(|figure| figure.is_met() == Some(false)).count()
    }
}

impl Figure {
    pub(super) fn is_met(&self) -> Option<bool> {
        self.budget.map(|budget| match budget {
            Budget::AtMost(most) => self.value <= most,
            Budget::AtLeast(least) => self.value >= least,
        })
    }

    /// The budget and whether it is met.
    pub(super) fn verdict(&self) -> Option<(String, &'static str)> {
        let budget = self.budget?;
        let sign = if matches!(budget, Budget::AtMost(_)) { "≤" } else { "≥" };
        let verdict = if self.is_met()? { "met" } else { "MISSED" };
        Some((format!("{sign} {}", self.unit.show(budget.limit())), verdict))
    }
}

impl Budget {
    pub(super) fn limit(self) -> f64 {
        match self {
            Self::AtMost(limit) | Self::AtLeast(limit) => limit,
        }
    }
}

impl Unit {
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Part => format!("1/{:.1}", value.recip()),
            Self::Times => format!("{value:.2} x"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Microseconds => format!("{value:.2} µs"),
            Self::Mebibytes => format!("{value:.2} MiB"),
            Self::PerSecond => format!("{value:.1} /s"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(samples: impl IntoIterator<Item = u64>) -> Timing {
        Timing::new("t", "", samples.into_iter().map(Duration::from_millis).collect())
    }

    #[test]
    fn percentiles_are_samples() {
        let many = timing((1..=200).rev());
        assert_eq!([1, 50, 99, 100].map(|p| many.percentile_ms(p)), [2.0, 100.0, 198.0, 200.0]);
        assert_eq!(many.known_percentile_ms(99), Some(198.0));
        let few = timing([7]);
        assert_eq!((few.percentile_ms(99), few.known_percentile_ms(90)), (7.0, None));
    }

    #[test]
    fn a_budget_is_met_up_to_its_value() {
        let mut report = Report::new(Machine::default());
        report.section("s");
        report.figure("no budget", "", 5.0, Unit::PerSecond);
        report.budgeted("met", "", 1.0 / 12.0, Unit::Part, Budget::AtMost(1.0 / 12.0));
        report.budgeted("missed", "", 4.1, Unit::Mebibytes, Budget::AtMost(4.0));
        report.budgeted("too little", "", 3.9, Unit::Times, Budget::AtLeast(4.0));
        assert_eq!(report.misses(), 2);
        let met: Vec<_> = report.figures().map(Figure::is_met).collect();
        assert_eq!(met, [None, Some(true), Some(false), Some(false)]);
        let shown = report.figures().nth(1).and_then(Figure::verdict);
        assert_eq!(shown, Some(("≤ 1/12.0".to_owned(), "met")));
    }

    #[test]
    fn a_report_can_be_read_again() {
        let mut report = Report::new(Machine::default());
        report.section("s");
        report.timing(&timing([3, 1, 2]));
        report.budgeted("b", "fork", 0.25, Unit::Times, Budget::AtLeast(4.0));
        let text = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(read.find_timing("t", "").unwrap().percentile_ms(50), 2.0);
        assert_eq!(read.find_figure("b", "fork"), Some(0.25));
    }
}
