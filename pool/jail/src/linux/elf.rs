//! The loader that a program names: the kernel executes it together with the program.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Type of the entry that holds the loader's path.
const PT_INTERP: u32 = 3;
/// The kernel's own bound.
const PATH_MAX: usize = 4096;

/// The loader of a 64-bit little-endian ELF file; `None` if it needs none or is no such file.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn loader(program: &Path) -> io::Result<Option<PathBuf>> {
    let mut file = File::open(program)?;
    let mut header = [0; HEADER];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let (table, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if usize::from(size) != PROGRAM_HEADER {
        return Ok(None);
    }
    for index in 0..u64::from(count) {
        let mut entry = [0; PROGRAM_HEADER];
        let Some(at) = table.checked_add(index * PROGRAM_HEADER as u64) else { return Ok(None) };
        file.read_exact_at(&mut entry, at)?;
        if u32_at(&entry, 0) == PT_INTERP {
            return path_at(&file, u64_at(&entry, 8), u64_at(&entry, 32)).map(Some);
        }
    }
    Ok(None)
}

fn path_at(file: &File, offset: u64, length: u64) -> io::Result<PathBuf> {
    let length = usize::try_from(length).map_or(PATH_MAX, |length| length.min(PATH_MAX));
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(length);
    Ok(PathBuf::from(OsStr::from_bytes(&bytes[..end])))
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_this_program_exists() {
        let loader = loader(&std::env::current_exe().unwrap()).unwrap().unwrap();
        assert!(loader.is_absolute() && loader.exists(), "{}", loader.display());
    }

    #[test]
    fn what_is_no_program_has_no_loader() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        for content in [&b""[..], b"#!/bin/sh\n", &[0; 200], b"\x7fELF\x02\x01"] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(loader(&file).unwrap(), None, "{content:?}");
        }
        // A table beyond the end of the file.
        let mut broken = vec![0; 64];
        broken[..6].copy_from_slice(b"\x7fELF\x02\x01");
        broken[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        broken[54] = 56;
        broken[56] = 2;
        std::fs::write(&file, broken).unwrap();
        assert!(loader(&file).is_err() || loader(&file).unwrap().is_none());
    }
}
