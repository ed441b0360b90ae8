//! Manifests on disk: one file each, for their user's eyes only, replaced whole.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::manifest::Manifest;

/// Changes when what is kept means something else; other files count as none.
const FORMAT: u32 = 1;

/// Largest file that is read, in bytes: more than four full lists.
const MAX_BYTES: u64 = 80 * 1024 * 1024;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    manifest: &'a Manifest,
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    manifest: Manifest,
}

pub(crate) fn load(file: &Path) -> Option<Manifest> {
    let mut text = String::new();
    match File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "a kept list of tools cannot be read");
            return None;
        }
    }
    match serde_json::from_str::<Read>(&text) {
        Ok(Read { format: FORMAT, manifest }) => Some(manifest),
        _ => {
            tracing::info!(file = %file.display(), "a kept list of tools is of another format and not used");
            None
        }
    }
}

pub(crate) fn save(file: &Path, manifest: &Manifest) -> io::Result<()> {
    let directory = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut staged = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    serde_json::to_writer(&mut staged, &Written { format: FORMAT, manifest })?;
    staged.flush()?;
    staged.persist(file)?;
    Ok(())
}
