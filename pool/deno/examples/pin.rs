//! Prints the table of `src/pin.rs` for a version of Deno: the hash and the sizes of its executable on every platform.
//!
//! ```text
//! cargo run -p conductor-deno --example pin -- 2.9.6
//! ```
//!
//! It downloads the packages with pip, which can ask for those of other platforms.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is its output")]

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use zip::ZipArchive;

/// Operating system, architecture, npm package, pip's name of the platform.
const PLATFORMS: [(&str, &str, &str, &str); 6] = [
    ("linux", "x86_64", "@deno/linux-x64-glibc", "manylinux_2_27_x86_64"),
    ("linux", "aarch64", "@deno/linux-arm64-glibc", "manylinux_2_27_aarch64"),
    ("macos", "x86_64", "@deno/darwin-x64", "macosx_11_0_x86_64"),
    ("macos", "aarch64", "@deno/darwin-arm64", "macosx_11_0_arm64"),
    ("windows", "x86_64", "@deno/win32-x64", "win_amd64"),
    ("windows", "aarch64", "@deno/win32-arm64", "win_arm64"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let version = std::env::args().nth(1).ok_or("give a version, as in 2.9.6")?;
    for (os, arch, npm_package, platform) in PLATFORMS {
        match pin(&version, platform) {
            Ok((sha256, size, download)) => {
                println!("    (\"{os}\", \"{arch}\", \"{npm_package}\", \"{sha256}\", {size}, {download}),");
            }
            Err(error) => eprintln!("no pin for {os} on {arch}: {error}"),
        }
    }
    Ok(())
}

/// The SHA-256 and the size of the executable, and the size of the package around it.
fn pin(version: &str, platform: &str) -> Result<(String, u64, u64), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--quiet"])
        .args(["--platform", platform, "--dest"])
        .arg(dir.path())
        .arg(format!("deno=={version}"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    let wheel = fs::read_dir(dir.path())?.next().ok_or("pip left no package")??.path();
    let (sha256, size) = hash_of_executable(&wheel, version)?;
    Ok((sha256, size, fs::metadata(&wheel)?.len()))
}

fn hash_of_executable(wheel: &Path, version: &str) -> Result<(String, u64), Box<dyn Error>> {
    let mut wheel = ZipArchive::new(File::open(wheel)?)?;
    let scripts = format!("deno-{version}.data/scripts/deno");
    let names = [scripts.clone(), format!("{scripts}.exe")];
    let name = names
        .iter()
        .find(|name| wheel.index_for_name(name).is_some())
        .ok_or("there is no executable in it")?;
    let mut hash = Sha256::new();
    let size = io::copy(&mut wheel.by_name(name)?, &mut hash)?;
    Ok((format!("{:x}", hash.finalize()), size))
}
