//! What a verdict means for the caller: a value, an error, or an error that still carries the value. Pure.

use conductor_pool::{Media, Settled, Thrown, Verdict};
use serde_json::Value;

use super::failure::ends::{self, Usage};
use super::failure::{self, Source};
use super::result::{ErrorReport, ErrorType, MediaItem, ReturnFormat};

/// Images, sounds and files in one answer, bytes; as base64 they fit into one MCP message with room to spare.
pub(crate) const MAX_MEDIA_BYTES: usize = 8 << 20;

/// Of a file's name; what is longer is no name.
const MAX_NAME_CHARS: usize = 200;

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) value: Option<Value>,
    pub(crate) format: ReturnFormat,
    pub(crate) error: Option<ErrorReport>,
    pub(crate) media: Vec<MediaItem>,
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    pub(crate) fn of(verdict: Verdict, source: Source<'_>, usage: Usage<'_>) -> Self {
        let thrown =
            |error: &Thrown| failure::from_thrown(error, source, &usage.profile.grants, usage.packages);
        let error = match verdict {
            Verdict::Settled { settled, open_handles, late } => {
                let mut outcome = Self::settled(settled, thrown);
                outcome.notes.extend(open_handles.map(|handles| open_handles_note(&handles)));
                if let (Some(late), None) = (late, &outcome.error) {
                    let mut error = thrown(&late);
                    error.message.push_str(" (thrown after the code had returned)");
                    outcome.error = Some(error);
                }
                return outcome;
            }
            Verdict::Exited { out_of_memory: true, .. } => usage.out_of_memory(),
            Verdict::Exited { code: Some(code), .. } => return Self::exit(code),
            Verdict::Exited { code: None, signal, .. } => ends::ended_by_signal(signal),
            Verdict::NeverSettles => ends::never_settles(),
            Verdict::Timeout => usage.timed_out(),
            Verdict::ComputeLimit => usage.computed_too_long(),
            Verdict::MemoryLimit => usage.used_too_much_memory(),
            Verdict::Cancelled => ends::cancelled(),
            Verdict::OutputLimit => usage.printed_too_much(),
            Verdict::ResultLimit => usage.returned_too_much(),
            Verdict::BrokenChannel { detail } => ends::lost_its_result(&detail),
        };
        Self::error(error)
    }

    fn settled(settled: Settled, thrown: impl FnOnce(&Thrown) -> ErrorReport) -> Self {
        match settled {
            Settled::None => Self::value(None, ReturnFormat::None),
            Settled::Json { value } => Self::value(Some(value), ReturnFormat::Json),
            Settled::Inspect { text } => Self::value(Some(Value::String(text)), ReturnFormat::Inspect),
            Settled::Media { items } => Self::media(items),
            Settled::Oversized { bytes } => Self::error(
                ErrorReport::new(
                    ErrorType::OutputLimit,
                    format!("the returned images, sounds and files have {bytes} bytes, more than {MAX_MEDIA_BYTES}"),
                )
                .hint("return fewer or smaller ones, or write them to the workspace"),
            ),
            Settled::Exit { code } => Self::exit(code),
            Settled::Thrown { error } => Self::error(thrown(&error)),
        }
    }

    /// What the worker says of them is a claim: what is no base64 or no media type would break the client's answer.
    fn media(items: Vec<Media>) -> Self {
        let items: Option<Vec<MediaItem>> = items.into_iter().map(media_item).collect();
        match items {
            Some(media) if media.iter().map(|item| item.bytes).sum::<usize>() <= MAX_MEDIA_BYTES => {
                Self { media, ..Self::value(None, ReturnFormat::Media) }
            }
            _ => Self::error(ErrorReport::new(
                ErrorType::Internal,
                "the result of the code was lost: what it returned is no image, sound or file",
            )),
        }
    }

    fn exit(code: i32) -> Self {
        if code != 0 {
            return Self::error(ends::exited(code));
        }
        let notes = vec!["the code called exit(0)".into()];
        Self { notes, ..Self::value(None, ReturnFormat::None) }
    }

    fn value(value: Option<Value>, format: ReturnFormat) -> Self {
        Self { value, format, error: None, media: Vec::new(), notes: Vec::new() }
    }

    fn error(error: ErrorReport) -> Self {
        Self { error: Some(error), ..Self::value(None, ReturnFormat::None) }
    }
}

fn media_item(item: Media) -> Option<MediaItem> {
    let Media { kind, media_type, name, data } = item;
    let (main, sub) = media_type.split(';').next()?.trim().split_once('/')?;
    let name = name.map(|name| name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect());
    let bytes = base64_length(&data)?;
    (is_restricted_name(main) && is_restricted_name(sub)).then(|| MediaItem {
        kind,
        mime_type: format!("{main}/{sub}"),
        name,
        bytes,
        data,
    })
}

/// What RFC 6838, section 4.2, allows for a type and a subtype. The harness refuses the same, so that code is told where it
/// made the mistake: `essence` in `harness.js`.
fn is_restricted_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    text.len() <= 127
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(fits)
}

/// Bytes that padded base64 stands for; `None` when the text is none.
fn base64_length(data: &str) -> Option<usize> {
    let unpadded = data.trim_end_matches('=');
    let padding = data.len() - unpadded.len();
    let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let fits = data.len().is_multiple_of(4) && padding <= 2 && unpadded.bytes().all(in_alphabet);
    fits.then(|| data.len() / 4 * 3 - padding)
}

fn open_handles_note(handles: &[String]) -> String {
    let names = if handles.is_empty() { String::new() } else { format!(": {}", handles.join(", ")) };
    format!("the code left something open that kept it alive, and was ended{names}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{config::Config, dirs::Dirs, profile};

    fn outcome(verdict: Verdict) -> Outcome {
        let dirs = Dirs::from_env(&BTreeMap::new(), Some("/h".into())).expect("has a home");
        let profile = profile::resolve(&Config::default(), &BTreeMap::new(), "/", &dirs).expect("is right");
        let script = conductor_script::prepare("1").expect("is right");
        let usage = Usage {
            packages: failure::Packages::None,
            profile: &profile,
            timeout: Duration::from_secs(1),
            wall: Duration::from_secs(2),
            cpu: Duration::from_secs(301),
        };
        Outcome::of(verdict, Source { text: "1", script: &script }, usage)
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
    fn media_is_believed_only_when_it_can_be() {
        let item = |media_type: &str, data: &str| Media {
            kind: conductor_pool::MediaKind::Image,
            media_type: media_type.into(),
            name: Some("a\nb.png".into()),
            data: data.into(),
        };
        let media = |items| {
            outcome(Verdict::Settled { settled: Settled::Media { items }, open_handles: None, late: None })
        };
        let good = media(vec![item("image/png", "AAEC"), item("image/svg+xml; charset=utf-8", "AA==")]);
        let told: Vec<_> = good
            .media
            .iter()
            .map(|item| (item.mime_type.as_str(), item.bytes, item.name.as_deref()))
            .collect();
        assert_eq!(told, [("image/png", 3, Some("ab.png")), ("image/svg+xml", 1, Some("ab.png"))]);
        for bad in [
            item("png", "AAEC"),
            item("image/", "AAEC"),
            item("image/p g", "AAEC"),
            item("image/p'g", "AAEC"),
            item("image/.png", "AAEC"),
            item("image/png", "AAE"),
            item("image/png", "AA\n="),
        ] {
            let error = media(vec![bad]).error.expect("is refused");
            assert_eq!(error.kind, ErrorType::Internal);
        }
        let large = "A".repeat(MAX_MEDIA_BYTES / 3 * 4 + 8);
        assert!(media(vec![item("image/png", &large)]).error.is_some());
    }

    #[test]
    fn the_compute_limit_tells_both_clocks() {
        let message = outcome(Verdict::ComputeLimit).error.expect("is an error").message;
        let told = "the code used 301000 ms of CPU time, in 2000 ms of wall time; the limit is 300000 ms (`max-compute`)";
        assert_eq!(message, told);
    }

    #[test]
    fn each_end_has_its_kind() {
        let exited = |code, signal, out_of_memory| Verdict::Exited { code, signal, out_of_memory };
        let exit =
            |code| Verdict::Settled { settled: Settled::Exit { code }, open_handles: None, late: None };
        for (verdict, expected) in [
            (Verdict::Timeout, Some("timeout")),
            (Verdict::ComputeLimit, Some("compute_limit")),
            (Verdict::MemoryLimit, Some("memory")),
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
