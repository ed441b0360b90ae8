//! Logs: one line per event, to stderr (the journal, under systemd) or a file that only the user can read.
//!
//! Levels: error means an operator must act, warn healed itself, info is a change of state, debug is per call, trace per
//! frame. Code, arguments and results are never logged. Panics are, and like every line without secrets ([`sink`]).

mod sink;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::Mutex;

use conductor_upstream::RMCP_LOG_FILTER;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::cli::LogFormat;
use sink::Sink;

/// What is logged, in the notation of `tracing_subscriber`.
const FILTER_VARIABLE: &str = "CONDUCTOR_LOG";

const DEFAULT_LEVEL: &str = "info";

/// A log file of the last run larger than this is put aside as `NAME.old` at start, bytes.
const ROTATE_BYTES: u64 = 8 << 20;

/// Starts logging for the whole process. Call once.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn start(file: Option<&Path>, format: LogFormat) -> io::Result<()> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => {
            EnvFilter::try_new(filter_of(&text)).unwrap_or_else(|_| EnvFilter::new(filter_of(DEFAULT_LEVEL)))
        }
        Err(_) => EnvFilter::new(filter_of(DEFAULT_LEVEL)),
    };
    let colour = file.is_none() && io::stderr().is_terminal();
    let writer = match file {
        Some(path) => BoxMakeWriter::new(Mutex::new(Sink::new(open(path)?, false))),
        None => BoxMakeWriter::new(move || Sink::new(io::stderr(), colour)),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(writer);
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// In the place of Rust's own hook, which writes to stderr whatever the panic says.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let said = panic.payload_as_str().unwrap_or_default();
    tracing::error!(place, thread = thread.name(), said, "a panic; this is a fault of conductor");
}

/// What is asked for, but for rmcp: it logs whole messages, and errors with the URLs and headers that they came of.
fn filter_of(text: &str) -> String {
    let others = text.split(',').filter(|directive| !directive.trim_start().starts_with("rmcp"));
    others.chain([RMCP_LOG_FILTER]).collect::<Vec<_>>().join(",")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_ask_for_the_messages_themselves() {
        let filter = filter_of("debug, rmcp=trace,rmcp::service=info,conductor_pool=trace");
        assert_eq!(filter, format!("debug,conductor_pool=trace,{RMCP_LOG_FILTER}"));
        assert!(EnvFilter::try_new(filter).is_ok());
    }
}
