//! The program an IDE starts as its MCP server. Arguments only; the work is in `conductor_client::shim`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use conductor_client::shim;

/// sysexits: the command line is wrong.
const USAGE: u8 = 64;
/// sysexits: the operating system refused something basic.
const OS_ERROR: u8 = 71;

const HELP: &str = "\
conductor-shim connects an IDE to the conductor daemon, and starts the daemon if none runs.
It speaks MCP on standard input and output; put it into the IDE's MCP configuration.

Usage: conductor-shim [--socket PATH]

  --socket PATH  the daemon's socket (also CONDUCTOR_SOCKET)
  --help         this text
  --version      the version

CONDUCTOR_NO_AUTOSTART=1 keeps it from starting a daemon; CONDUCTOR_DAEMON names the daemon's program.
";

enum Command {
    Serve { socket: Option<PathBuf> },
    Help,
    Version,
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve { socket }) => shim::run(socket).unwrap_or_else(|error| {
            shim::note(error);
            ExitCode::from(OS_ERROR)
        }),
        Ok(Command::Help) => say(HELP),
        Ok(Command::Version) => say(concat!("conductor-shim ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(text) => {
            shim::note(format_args!("{text}\nhint: see `conductor-shim --help`"));
            ExitCode::from(USAGE)
        }
    }
}

fn say(text: &str) -> ExitCode {
    // A reader that went away wants no more.
    std::io::stdout().write_all(text.as_bytes()).ok();
    ExitCode::SUCCESS
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut socket = None;
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--version" | "-V") => return Ok(Command::Version),
            Some("--socket") => {
                let path = args.next().filter(|path| !path.is_empty()).ok_or("--socket needs a path")?;
                socket = Some(PathBuf::from(path));
            }
            Some(given) if given.starts_with("--socket=") && given.len() > "--socket=".len() => {
                socket = Some(PathBuf::from(&given["--socket=".len()..]));
            }
            _ => return Err(format!("unknown argument {}", arg.display())),
        }
    }
    Ok(Command::Serve { socket })
}
