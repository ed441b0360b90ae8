//! Colours, and words for numbers. Colour repeats what the words say, never more.

use std::time::{Duration, SystemTime};

use console::Style;

/// Colours or not: only a terminal gets them, and only without `NO_COLOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Coloured,
}

impl Paint {
    pub(super) fn stdout() -> Self {
        if console::colors_enabled() { Self::Coloured } else { Self::Plain }
    }

    pub(super) fn stderr() -> Self {
        if console::colors_enabled_stderr() { Self::Coloured } else { Self::Plain }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.apply(Style::new().bold(), text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.apply(Style::new().dim(), text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.apply(Style::new().green(), text)
    }

    pub(super) fn warning(self, text: &str) -> String {
        self.apply(Style::new().yellow(), text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.apply(Style::new().red().bold(), text)
    }

    fn apply(self, style: Style, text: &str) -> String {
        style.force_styling(self == Self::Coloured).apply_to(text).to_string()
    }
}

/// Milliseconds with as many digits as a reader wants: `0.06 ms`, `3.2 ms`, `120 ms`, `2.5 s`.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 0.1 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

/// The two largest units of a time: `2h 3m`.
pub(super) fn span(ms: u64) -> String {
    let whole = humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// The day of a time in seconds since 1970: `2026-11-26`.
pub(super) fn day(seconds: u64) -> String {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    // Nobody writes the year 10000.
    let at = at.filter(|_| seconds < 253_402_300_800).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_seconds(at).to_string().split('T').next().unwrap_or_default().to_owned()
}

pub(super) fn size(bytes: u64) -> String {
    match bytes.div_ceil(1 << 20) {
        mebibytes @ 0..10_240 => format!("{mebibytes} MiB"),
        mebibytes => format!("{} GiB", mebibytes / 1024),
    }
}

/// Text of others for a terminal: control characters, which could draw anything there, are shown instead.
pub(super) fn printable(text: &str) -> String {
    let keeps = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if keeps(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0.062, 3.21, 123.4, 2500.0].map(millis), ["0.06 ms", "3.2 ms", "123 ms", "2.5 s"]);
        assert_eq!([0, 59_999, 7_384_000].map(span), ["0s", "59s", "2h 3m"]);
        assert_eq!([0, 1_798_761_600].map(day), ["1970-01-01", "2027-01-01"]);
        assert_eq!([0, 1, 20 << 20, 12 << 30].map(size), ["0 MiB", "1 MiB", "20 MiB", "12 GiB"]);
    }

    #[test]
    fn only_coloured_text_has_escapes() {
        assert_eq!(Paint::Plain.bad("x"), "x");
        assert!(Paint::Coloured.bad("x").contains('\u{1b}'));
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\n");
    }
}
