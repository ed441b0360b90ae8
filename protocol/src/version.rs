//! The protocol version, which is not the build's.

/// Raised when a frame's meaning or layout changes. A build may change without it.
pub const PROTOCOL_VERSION: u16 = 1;

/// Oldest version this build still speaks.
pub const MIN_PROTOCOL_VERSION: u16 = 1;

/// The newest version both sides speak, if there is one. `theirs` is an inclusive range.
pub fn negotiate(theirs_min: u16, theirs_max: u16) -> Option<u16> {
    let newest = theirs_max.min(PROTOCOL_VERSION);
    (newest >= theirs_min.max(MIN_PROTOCOL_VERSION)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiates_the_newest_common_version() {
        assert_eq!(negotiate(1, 1), Some(1));
        assert_eq!(negotiate(1, 9), Some(PROTOCOL_VERSION));
        assert_eq!(negotiate(PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 3), None);
        assert_eq!(negotiate(0, 0), None);
        assert_eq!(negotiate(5, 2), None, "an empty range");
    }
}
