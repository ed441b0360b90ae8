//! Logs: one line per event, to stderr (the journal, under systemd) or a file that only the user can read.
//!
//! Levels: error means an operator must act, warn healed itself, info is a change of state, debug is per call, trace per
//! frame. Code, arguments and results are never logged.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::cli::LogFormat;

/// What is logged, in the notation of `tracing_subscriber`.
const FILTER_VARIABLE: &str = "CONDUCTOR_LOG";

/// rmcp logs each notification with its payload at info.
const DEFAULT_FILTER: &str = "info,rmcp=warn";

/// A log file of the last run larger than this is put aside as `NAME.old` at start, bytes.
const ROTATE_BYTES: u64 = 8 << 20;

/// Starts logging for the whole process. Call once.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn start(file: Option<&Path>, format: LogFormat) -> io::Result<()> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => {
            EnvFilter::try_new(format!("rmcp=warn,{text}")).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER))
        }
        Err(_) => EnvFilter::new(DEFAULT_FILTER),
    };
    let colour = file.is_none() && io::stderr().is_terminal();
    let writer = match file {
        Some(path) => BoxMakeWriter::new(Mutex::new(open(path)?)),
        None => BoxMakeWriter::new(io::stderr),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(writer);
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > ROTATE_BYTES) {
        std::fs::rename(path, path.with_extension("log.old"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
