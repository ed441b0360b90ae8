//! The pinned Deno: which version is fetched, and the hash of its executable on each platform.
//!
//! To move the pin, change [`PINNED`] and replace [`PINS`] by what this prints (it needs pip, and downloads the package
//! of every platform, 200 MB):
//!
//! ```text
//! cargo run -p conductor-deno --example pin -- 2.9.6
//! ```
//!
//! The tests then fetch the version with npm and with pip and check that both carry the pinned executable. For the
//! platforms they do not run on, only pip's has been hashed; one that differs is refused and the next installer tried.

use crate::version::Version;

/// The oldest Deno that is used: earlier releases have known permission bypasses.
pub const MINIMUM: Version = Version::new(2, 9, 5);

/// The version that is fetched.
pub const PINNED: Version = Version::new(2, 9, 6);

/// One platform's package and what must be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub version: Version,
    /// As in [`std::env::consts::OS`] and [`std::env::consts::ARCH`].
    pub os: &'static str,
    pub arch: &'static str,
    /// The npm package. pip's is `deno` everywhere.
    pub npm_package: &'static str,
    /// SHA-256 of the unpacked executable, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Bytes of the unpacked executable.
    pub size: u64,
    /// Bytes of pip's package. npm's is within 2 % of it; only progress depends on it.
    pub download_size: u64,
}

impl Pin {
    /// The pin of the platform that this program was built for; `None` where no executable has been pinned.
    pub fn of_this_platform() -> Option<Self> {
        Self::of(std::env::consts::OS, std::env::consts::ARCH)
    }

    fn of(os: &str, arch: &str) -> Option<Self> {
        let row = PINS.iter().find(|row| row.0 == os && row.1 == arch)?;
        let &(os, arch, npm_package, sha256, size, download_size) = row;
        Some(Self { version: PINNED, os, arch, npm_package, sha256: sha256.to_owned(), size, download_size })
    }
}

type Row = (&'static str, &'static str, &'static str, &'static str, u64, u64);

/// Operating system, architecture, npm package, SHA-256 and bytes of the executable, bytes of pip's package.
#[rustfmt::skip]
const PINS: &[Row] = &[
    ("linux", "x86_64", "@deno/linux-x64-glibc", "bceb5b6a6239b0b010418406d8c77a508f67cf4337d94288f1c19fe71304aab0", 95600728, 41593942),
    ("linux", "aarch64", "@deno/linux-arm64-glibc", "d08d392418df53f4e6e88a08909c0e1bccbf9adcead7232df72b6ad6075ec416", 84905856, 39823223),
    ("macos", "x86_64", "@deno/darwin-x64", "ec9fbd8e8f5f6ca5ceb0ebe4a564636f2c698bf60e3187460ded400cc0147fd5", 97693344, 42274922),
    ("macos", "aarch64", "@deno/darwin-arm64", "b3ac3bd206e48c26026cadd80c1367e96c149f9c66130952382a642b09fa8a71", 80915104, 38462382),
    ("windows", "x86_64", "@deno/win32-x64", "2ff9493dfa356be2975f477025ea770088e9e9cb2c83d983236d13561b96b7a6", 97316640, 41516258),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_well_formed_and_only_they_are_pinned() {
        for row in PINS {
            let pin = Pin::of(row.0, row.1).unwrap();
            assert!(
                pin.sha256.len() == 64
                    && pin.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            );
            assert!(pin.npm_package.starts_with("@deno/") && pin.download_size < pin.size);
        }
        assert_eq!(Pin::of("plan9", "x86_64"), None);
        assert!(PINNED >= MINIMUM);
    }
}
