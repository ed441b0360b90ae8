//! Durations in TOML, written as humantime reads them (`30s`, `5m`), never as bare numbers.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// # Errors
/// A text that is no duration, or zero: nothing here can take no time.
pub(super) fn deserialize_option<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let duration = humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!("`{text}` is no duration like \"30s\" or \"5m\": {error}"))
    })?;
    if duration.is_zero() {
        return Err(D::Error::custom(format!("`{text}` must be more than zero")));
    }
    Ok(Some(duration))
}
