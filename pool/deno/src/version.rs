//! Deno's version number.

use std::fmt;

/// A release of Deno. Ordered; a canary build (`2.9.6+abc1234`) counts as the release that it was built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `MAJOR.MINOR.PATCH`, with or without build metadata.
    ///
    /// A pre-release (`2.10.0-rc.1`) is refused: it is older than the release of its number, and which fixes it has
    /// cannot be told.
    pub fn parse(text: &str) -> Option<Self> {
        let release = text.split_once('+').map_or(text, |(release, _build)| release);
        let mut numbers = release.split('.').map(number);
        let version = Self { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()?? };
        numbers.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Digits alone: `str::parse` would also take `+1`.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn reads_releases_and_canaries_and_nothing_else() {
        let table = [
            ("2.9.6", Some(Version::new(2, 9, 6))),
            ("10.20.30", Some(Version::new(10, 20, 30))),
            ("2.9.6+0a1b2c3", Some(Version::new(2, 9, 6))),
            ("2.10.0-rc.1", None),
            ("2.9", None),
            ("2.9.6.1", None),
            ("2..6", None),
            ("", None),
            ("+2.9.6", None),
            ("2.+9.6", None),
            ("v2.9.6", None),
            ("2.9.99999999999", None),
            (" 2.9.6", None),
        ];
        for (text, expected) in table {
            assert_eq!(Version::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn compares_numbers_and_not_text() {
        assert!(Version::new(2, 9, 10) > Version::new(2, 9, 9));
        assert!(Version::new(2, 10, 0) > Version::new(2, 9, 99));
        assert!(Version::new(3, 0, 0) > Version::new(2, 99, 99));
        assert_eq!(Version::new(2, 9, 6).to_string(), "2.9.6");
    }
}
