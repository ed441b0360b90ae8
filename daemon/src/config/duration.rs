//! Durations in TOML: `30s`, `5m`, `1h 30m`, never bare numbers. Their bounds stand in the schema.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};

/// What [`parse`] takes, for editors that know the schema.
const PATTERN: &str = "^[0-9]{1,12}(ms|s|m|h|d|w)( ?[0-9]{1,12}(ms|s|m|h|d|w))*$";

const NEVER: &str = "never";

/// The schema of a duration.
pub(super) struct DurationText;

/// The schema of a duration that can be `never`.
pub(super) struct DurationOrNever;

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "x-syntax": "duration" })
    }
}

impl JsonSchema for DurationOrNever {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DurationOrNever".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = format!("^{NEVER}$|{PATTERN}");
        json_schema!({ "type": "string", "pattern": pattern, "x-syntax": "duration or never" })
    }
}

/// Reads one or more whole numbers with units: `ms`, `s`, `m`, `h`, `d`, `w`.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at(letters);
        if digits > 12 {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        let seconds: u64 = match unit {
            "ms" => 0,
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            "w" => 7 * 24 * 3600,
            _ => return None,
        };
        let part = if seconds == 0 {
            Duration::from_millis(number)
        } else {
            Duration::from_secs(number.checked_mul(seconds)?)
        };
        total = total.checked_add(part)?;
        rest = match after.strip_prefix(' ') {
            Some("") => return None,
            Some(more) => more,
            None => after,
        };
    }
    Some(total)
}

/// As [`parse`] reads it; in whole milliseconds, as all of ours are.
pub(crate) fn text(duration: Duration) -> String {
    const UNITS: [(u128, &str); 5] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let mut rest = duration.as_millis();
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Reads a duration, or `never` as an inner `None`.
pub(super) fn parse_or_never(text: &str) -> Option<Option<Duration>> {
    if text == NEVER { Some(None) } else { parse(text).map(Some) }
}

/// # Errors
/// A text that is no duration.
pub(super) fn deserialize_option<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).map(Some).ok_or_else(|| D::Error::custom(wrong(&text)))
}

/// # Errors
/// A text that is neither a duration nor `never`.
pub(super) fn deserialize_or_never<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<Duration>>, D::Error> {
    let text = String::deserialize(from)?;
    parse_or_never(&text).map(Some).ok_or_else(|| D::Error::custom(wrong(&text)))
}

pub(super) fn wrong(text: &str) -> String {
    format!("`{text}` is no duration like \"30s\" or \"5m\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_with_units_are_durations() {
        for (text, millis) in [
            ("1ms", 1),
            ("30s", 30_000),
            ("1m", 60_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            " ",
            "30",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "1s ",
            " 1s",
            "1s  1s",
            "1S",
            "1y",
            "never",
            "9999999999999s",
            "1s,1s",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse_or_never("never"), Some(None));
    }

    #[test]
    fn what_is_told_can_be_read() {
        for millis in [1, 1000, 1500, 30_000, 300_000, 5_400_000, 86_400_000, 172_800_000, 604_800_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&text(duration)), Some(duration), "{}", text(duration));
        }
    }
}
