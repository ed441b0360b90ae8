//! A machine made up for one test: tools in its `PATH`, a data directory, packages to serve.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_deno::{FetchOptions, PINNED, Pin, Search, testing};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub(crate) const FAKE_DENO: &str = env!("CARGO_BIN_EXE_fake-deno");

pub(crate) struct Machine {
    dir: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        // On the file system of the fake Deno, so that it can be linked.
        let dir = tempfile::tempdir_in(testing::target_dir()).unwrap();
        let machine = Self { dir };
        fs::create_dir(machine.path("bin")).unwrap();
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Puts a tool into `PATH` that runs `plan`; `$destination` is where it is to leave the package.
    pub(crate) fn tool(&self, name: &str, plan: &str) {
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tool.sh"), self.path("bin").join(name))
            .unwrap();
        fs::write(self.path("bin").join(format!("{name}.plan")), plan).unwrap();
    }

    /// A tool that leaves `package`, and counts its runs in the file `<name>.runs`.
    pub(crate) fn serve(&self, name: &str, package: &[u8]) {
        let file = self.path(&format!("{name}.package"));
        fs::write(&file, package).unwrap();
        let end = if name == "npm" { "tgz" } else { "whl" };
        let runs = self.path(&format!("{name}.runs"));
        self.tool(
            name,
            &format!("echo run >> '{}'; cp '{}' \"$destination/deno.{end}\"", runs.display(), file.display()),
        );
    }

    pub(crate) fn options(&self) -> FetchOptions {
        FetchOptions {
            path: Some(self.path("bin").into_os_string()),
            limit: Duration::from_secs(60),
            ..FetchOptions::default()
        }
    }

    /// A search that sees nothing but the data directory.
    pub(crate) fn search(&self) -> Search {
        Search { data_dir: self.data(), ..Search::default() }
    }

    /// True while a process has something of this machine in its environment.
    pub(crate) fn has_processes(&self) -> bool {
        let path = self.path("").into_os_string().into_encoded_bytes();
        let environments = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("environ"));
        // Those of others cannot be read.
        let mut readable = environments.filter_map(|path| fs::read(path).ok());
        readable.any(|bytes| bytes.windows(path.len()).any(|part| part == path))
    }

    /// What is in the directory that conductor fetches into, sorted.
    pub(crate) fn store(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.data().join("deno"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Places a fake Deno that answers with `version`.
pub(crate) fn place_deno(path: &Path, version: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::hard_link(FAKE_DENO, path).unwrap();
    fs::write(path.with_extension("says"), format!("deno {version} (fake)\nv8 14.9.1\n")).unwrap();
}

/// A pin of `executable`.
pub(crate) fn pin_of(executable: &[u8]) -> Pin {
    let mut hash = Sha256::new();
    hash.update(executable);
    Pin {
        version: PINNED,
        os: "any",
        arch: "any",
        npm_package: "@deno/any",
        sha256: format!("{:x}", hash.finalize()),
        size: executable.len() as u64,
        download_size: executable.len() as u64,
    }
}

pub(crate) fn fake_deno() -> Vec<u8> {
    fs::read(FAKE_DENO).unwrap()
}

/// An npm package with these files, whatever their names are; the format gives them 100 bytes.
pub(crate) fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        // Written by hand: the library refuses the names that an attacker would choose.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A wheel with these files.
pub(crate) fn wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub(crate) const IN_TARBALL: &str = "package/deno";

pub(crate) fn in_wheel() -> String {
    format!("deno-{PINNED}.data/scripts/deno")
}

/// True while the process runs; one that has ended and was not collected yet does not.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Waits for a condition that something else brings about, and fails when it never does.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Creates a file that says nothing and is not executable.
pub(crate) fn touch(path: &Path) {
    drop(File::create(path).unwrap());
}
