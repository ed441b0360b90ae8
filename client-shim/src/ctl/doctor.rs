//! `conductorctl doctor`: looks at everything a run needs, then runs something. Each finding has its cure.

mod daemon;
mod http;
pub(super) mod places;
pub(super) mod programs;
mod servers;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use super::failure::Failure;
use super::paint::{Paint, printable};
use super::{GlobalOptions, exit_code};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Works, and should be looked at.
    Warn,
    /// Does not work.
    Fail,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, text: text.into(), fix: None }
    }

    fn warn(name: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, text: text.into(), fix: Some(fix.into()) }
    }

    fn fail(name: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, text: text.into(), fix: Some(fix.into()) }
    }

    /// A failure from conductor's own words, which may bring their cure.
    fn fail_in_words(name: &'static str, words: &str) -> Self {
        match words.split_once("\nhint: ") {
            Some((text, fix)) => Self::fail(name, text, fix),
            None => Self { name, verdict: Verdict::Fail, text: words.to_owned(), fix: None },
        }
    }

    fn shown(&self, paint: Paint) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => paint.good("ok  "),
            Verdict::Warn => paint.warning("warn"),
            Verdict::Fail => paint.bad("FAIL"),
        };
        let indented = |text: &str| printable(text.trim_end()).replace('\n', "\n                      ");
        let mut shown = format!("{verdict}  {:<14}  {}\n", self.name, indented(&self.text));
        if let Some(fix) = &self.fix {
            shown.push_str(&format!("{:22}{} {}\n", "", paint.bold("fix:"), indented(fix)));
        }
        shown
    }
}

/// Findings so far. For a person they are printed as they come: some take long.
struct Findings {
    checks: Vec<Check>,
    json: bool,
}

impl Findings {
    fn add(&mut self, check: Check) -> io::Result<()> {
        if !self.json {
            io::stdout().write_all(check.shown(Paint::stdout()).as_bytes())?;
        }
        self.checks.push(check);
        Ok(())
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }
}

pub(super) fn examine(global: &GlobalOptions, json: bool) -> Result<u8, Failure> {
    let mut findings = Findings { checks: Vec::new(), json };
    for check in programs::checks().into_iter().chain(places::checks()) {
        findings.add(check)?;
    }
    findings.add(programs::configuration())?;
    let in_use = daemon::checks(global, &mut findings)?;
    for check in programs::deno(&in_use) {
        findings.add(check)?;
    }
    for check in servers::checks(global) {
        findings.add(check)?;
    }
    findings.add(programs::system())?;
    let (failed, warned) = (findings.count(Verdict::Fail), findings.count(Verdict::Warn));
    if json {
        let document = json!({ "ok": failed == 0, "checks": findings.checks });
        writeln!(io::stdout(), "{document:#}")?;
    } else {
        writeln!(io::stdout(), "\n{}", summary(failed, warned))?;
    }
    Ok(if failed == 0 { exit_code::OK } else { exit_code::FAILED })
}

fn summary(failed: usize, warned: usize) -> String {
    let checks = |n: usize| if n == 1 { "1 check".to_owned() } else { format!("{n} checks") };
    match (failed, warned) {
        (0, 0) => "All is well.".into(),
        (0, warned) => format!("It works; {} with a warning.", checks(warned)),
        (failed, 0) => format!("{} failed.", checks(failed)),
        (failed, warned) => format!("{} failed, {} with a warning.", checks(failed), checks(warned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_cure_below() {
        let check = Check::fail_in_words("socket", "first\nsecond\nhint: do it");
        let margin = " ".repeat(22);
        let expected = format!("FAIL  socket          first\n{margin}second\n{margin}fix: do it\n");
        assert_eq!(check.shown(Paint::Plain), expected);
        let json = serde_json::to_value(Check::ok("a", "b")).expect("serializes");
        assert_eq!(json, json!({ "name": "a", "verdict": "ok", "text": "b" }));
    }
}
