//! The programs of conductor, what the daemon thinks of its configuration, Deno, and the system below.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use conductor_deno::{FindError, Found, PINNED, Search};
use conductor_protocol::status::DenoStatus;
use nix::unistd::{AccessFlags, access};

use super::super::BUILD;
use super::{Check, places};
use crate::autostart::DAEMON_VARIABLE;
use crate::error::chain;

/// How long one of our programs may take to tell its version or to read its configuration.
const PROGRAM_LIMIT: Duration = Duration::from_secs(5);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

const DAEMON: &str = "conductord";
const SHIM: &str = "conductor-shim";
const DENO: &str = "deno";

pub(super) fn checks() -> Vec<Check> {
    let here = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let ours = Check::ok("conductorctl", format!("{BUILD}, {here}"));
    let shim = match beside_or_on_path(SHIM) {
        Some(path) => Check::ok(SHIM, path.display().to_string()),
        None => Check::warn(
            SHIM,
            "not beside this program and not on PATH",
            "install it: IDEs start it to reach the daemon",
        ),
    };
    vec![ours, daemon_program(), shim]
}

fn daemon_program() -> Check {
    let Some(path) = daemon_path() else {
        let fix =
            format!("install {DAEMON} beside this program or on PATH, or set {DAEMON_VARIABLE} to its path");
        return Check::fail(DAEMON, "not beside this program and not on PATH", fix);
    };
    let shown = path.display();
    let fix = "install conductor's programs again, all of one build";
    match output_of(&path, "--version") {
        Ok((status, text)) if status.success() => {
            let version = text.trim().rsplit(' ').next().unwrap_or_default().to_owned();
            match version == BUILD {
                true => Check::ok(DAEMON, format!("{version}, {shown}")),
                false => Check::warn(DAEMON, format!("{version}, not {BUILD} as this program; {shown}"), fix),
            }
        }
        Ok((status, text)) => Check::fail(DAEMON, format!("{shown} --version failed ({status}) {text}"), fix),
        Err(error) => Check::fail(DAEMON, format!("cannot run {shown}: {error}"), fix),
    }
}

/// What `conductord --check` says.
pub(super) fn configuration() -> Check {
    const NAME: &str = "configuration";
    let Some(path) = daemon_path() else {
        return Check::warn(
            NAME,
            format!("not checked: {DAEMON} was not found"),
            format!("install {DAEMON}"),
        );
    };
    let file = match places::config_file() {
        Some(file) if file.exists() => file.display().to_string(),
        Some(file) => format!("no {}; built-in defaults are used", file.display()),
        None => "built-in defaults are used".into(),
    };
    match output_of(&path, "--check") {
        Ok((status, _)) if status.success() => Check::ok(NAME, file),
        Ok((_, text)) if !text.trim().is_empty() => {
            let check = Check::fail_in_words(NAME, text.trim().trim_start_matches("conductord: "));
            Check { fix: check.fix.or_else(|| Some("repair it, then `conductorctl reload`".into())), ..check }
        }
        Ok((status, _)) => {
            Check::fail(NAME, format!("{DAEMON} --check failed ({status})"), format!("repair {file}"))
        }
        Err(error) => Check::fail(NAME, format!("cannot run {DAEMON} --check: {error}"), "install it again"),
    }
}

/// What conductor finds, and what it passes over; `in_use` is what a running daemon says.
pub(super) fn deno(in_use: &DenoStatus) -> Vec<Check> {
    let search = Search::from_env(places::data_dir().unwrap_or_default());
    let found = conductor_deno::find(&search);
    let found_path = found.as_ref().ok().map(|found| found.deno.path.display().to_string());
    if let (Some(version), Some(path)) = (&in_use.version, &in_use.path)
        && found_path.as_ref() != Some(path)
    {
        // The configuration names it, or the daemon's environment differs from ours: what it uses is what counts.
        let origin = in_use.origin.as_deref().unwrap_or("the daemon's search");
        let text = format!("{version}, {path} (from {origin})");
        return vec![used_deno(text, in_use.update.is_some())];
    }
    let (first, skipped) = match found {
        Ok(Found { deno, skipped }) => {
            let text = format!("{}, {} (from {})", deno.version, deno.path.display(), deno.origin);
            (used_deno(text, deno.update_wanted()), skipped)
        }
        Err(FindError::NotFound { skipped }) => (no_deno(), skipped),
        Err(error) => (Check::fail(DENO, chain(&error), error.hint()), Vec::new()),
    };
    let skipped = skipped.into_iter();
    let passed_over =
        skipped.map(|skipped| Check::warn(DENO, format!("skipped {skipped}"), skipped.reason.hint()));
    std::iter::once(first).chain(passed_over).collect()
}

fn used_deno(text: String, update_wanted: bool) -> Check {
    if !update_wanted {
        return Check::ok(DENO, text);
    }
    let text = format!("{text}; {PINNED} is newer, and what conductor is tested with");
    Check::warn(DENO, text, format!("deno upgrade {PINNED}, or remove it so that conductor fetches its own"))
}

fn no_deno() -> Check {
    let fetchers = ["npm", "pip3", "pip", "python3"];
    let fix = format!("install Deno {PINNED}, or npm or pip, with which conductor fetches it");
    match fetchers.into_iter().find(|program| on_path(program).is_some()) {
        Some(fetcher) => {
            let text = format!("none yet; {PINNED} is fetched with {fetcher} when code first runs");
            Check::warn(DENO, text, "none needed; or install it yourself")
        }
        None => Check::fail(DENO, "none, and neither npm nor pip to fetch it", fix),
    }
}

/// Facts worth knowing when something is reported.
pub(super) fn system() -> Check {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let kernel = read("/proc/sys/kernel/osrelease").unwrap_or_else(|_| std::env::consts::OS.to_owned());
    let landlock = match read("/sys/kernel/security/lsm") {
        Ok(modules) if modules.split(',').any(|module| module == "landlock") => ", with Landlock",
        Ok(_) => ", without Landlock",
        // The file is not visible in most containers.
        Err(_) => "",
    };
    Check::ok("system", format!("{} {kernel} {}{landlock}", std::env::consts::OS, std::env::consts::ARCH))
}

/// The daemon that would be started: the one that is named, else as any program of ours.
pub(in crate::ctl) fn daemon_path() -> Option<PathBuf> {
    let named = std::env::var_os(DAEMON_VARIABLE).filter(|value| !value.is_empty());
    named.map(PathBuf::from).or_else(|| beside_or_on_path(DAEMON))
}

fn beside_or_on_path(name: &str) -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    let beside = here.parent().map(|dir| dir.join(name)).filter(|path| is_program(path));
    beside.or_else(|| on_path(name))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let absolute = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    absolute.map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    access(path, AccessFlags::X_OK).is_ok() && path.is_file()
}

/// Runs `program argument` for at most [`PROGRAM_LIMIT`]; gives what it wrote, errors first.
fn output_of(program: &Path, argument: &str) -> io::Result<(ExitStatus, String)> {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let deadline = Instant::now() + PROGRAM_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("it gave no answer within {PROGRAM_LIMIT:?}")));
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    let mut text = String::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut text)?;
    }
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut text)?;
    }
    Ok((status, text))
}
