//! What a verdict means for the caller: a value, an error, or an error that still carries the value. Pure.

use std::time::Duration;

use conductor_pool::{Settled, Verdict};
use serde_json::Value;

use super::failure::{self, Source};
use super::result::{ErrorReport, ErrorType, ReturnFormat};
use crate::profile::Profile;

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) value: Option<Value>,
    pub(crate) format: ReturnFormat,
    pub(crate) error: Option<ErrorReport>,
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    pub(crate) fn of(verdict: Verdict, source: Source<'_>, timeout: Duration, profile: &Profile) -> Self {
        match verdict {
            Verdict::Settled { settled, open_handles, late } => {
                let mut outcome = Self::settled(settled, source);
                outcome.notes.extend(open_handles.map(|handles| open_handles_note(&handles)));
                if let (Some(thrown), None) = (late, &outcome.error) {
                    let mut error = failure::from_thrown(&thrown, source);
                    error.message.push_str(" (thrown after the code had returned)");
                    outcome.error = Some(error);
                }
                outcome
            }
            Verdict::Exited { code: Some(code), out_of_memory: false, .. } => Self::exit(code),
            failed => Self::error(failure::from_verdict(&failed, timeout, profile)),
        }
    }

    fn settled(settled: Settled, source: Source<'_>) -> Self {
        match settled {
            Settled::None => Self::value(None, ReturnFormat::None),
            Settled::Json { value } => Self::value(Some(value), ReturnFormat::Json),
            Settled::Inspect { text } => Self::value(Some(Value::String(text)), ReturnFormat::Inspect),
            Settled::Exit { code } => Self::exit(code),
            Settled::Thrown { error } => Self::error(failure::from_thrown(&error, source)),
        }
    }

    fn exit(code: i32) -> Self {
        if code != 0 {
            return Self::error(ErrorReport::new(
                ErrorType::Exit,
                format!("the code exited with code {code}"),
            ));
        }
        let notes = vec!["the code called exit(0)".into()];
        Self { notes, ..Self::value(None, ReturnFormat::None) }
    }

    fn value(value: Option<Value>, format: ReturnFormat) -> Self {
        Self { value, format, error: None, notes: Vec::new() }
    }

    fn error(error: ErrorReport) -> Self {
        Self { error: Some(error), ..Self::value(None, ReturnFormat::None) }
    }
}

pub(crate) fn cancelled() -> ErrorReport {
    ErrorReport::new(ErrorType::Cancelled, "the call was cancelled")
}

fn open_handles_note(handles: &[String]) -> String {
    let names = if handles.is_empty() { String::new() } else { format!(": {}", handles.join(", ")) };
    format!("the code left something open that kept it alive, and was ended{names}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use conductor_pool::Thrown;
    use serde_json::json;

    use super::*;
    use crate::{config::Config, dirs::Dirs, profile};

    fn outcome(verdict: Verdict) -> Outcome {
        let dirs = Dirs::from_env(&BTreeMap::new(), Some("/h".into())).expect("has a home");
        let profile = profile::resolve(&Config::default(), &BTreeMap::new(), "/", &dirs).expect("is right");
        let script = conductor_script::prepare("1").expect("is right");
        Outcome::of(verdict, Source { text: "1", script: &script }, Duration::from_secs(1), &profile)
    }

    fn kind(verdict: Verdict) -> Option<&'static str> {
        outcome(verdict).error.map(|error| error.kind.name())
    }

    #[test]
    fn a_late_error_still_carries_the_value() {
        let late = Some(Thrown { name: "Error".into(), message: "late".into(), ..Thrown::default() });
        let outcome = outcome(Verdict::Settled {
            settled: Settled::Json { value: json!(7) },
            open_handles: None,
            late,
        });
        assert_eq!(outcome.value, Some(json!(7)));
        let message = outcome.error.expect("is an error").message;
        assert_eq!(message, "Error: late (thrown after the code had returned)");
    }

    #[test]
    fn each_end_has_its_kind() {
        let exited = |code, signal, out_of_memory| Verdict::Exited { code, signal, out_of_memory };
        let exit =
            |code| Verdict::Settled { settled: Settled::Exit { code }, open_handles: None, late: None };
        for (verdict, expected) in [
            (Verdict::Timeout, Some("timeout")),
            (Verdict::Cancelled, Some("cancelled")),
            (Verdict::OutputLimit, Some("output_limit")),
            (Verdict::ResultLimit, Some("output_limit")),
            (Verdict::NeverSettles, Some("runtime")),
            (Verdict::BrokenChannel { detail: String::new() }, Some("internal")),
            (exited(None, Some(5), true), Some("memory")),
            (exited(Some(1), None, true), Some("memory")),
            (exited(None, Some(9), false), Some("exit")),
            (exited(Some(3), None, false), Some("exit")),
            (exited(Some(0), None, false), None),
            (exit(2), Some("exit")),
            (exit(0), None),
        ] {
            let shown = format!("{verdict:?}");
            assert_eq!(kind(verdict), expected, "{shown}");
        }
    }
}
