//! The programs of conductor, what the daemon thinks of its configuration, Deno, and the system below.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use conductor_deno::{FindError, PINNED, Search};
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
            Check::fail_in_words(NAME, text.trim().trim_start_matches("conductord: "))
        }
        Ok((status, _)) => {
            Check::fail(NAME, format!("{DAEMON} --check failed ({status})"), format!("repair {file}"))
        }
        Err(error) => Check::fail(NAME, format!("cannot run {DAEMON} --check: {error}"), "install it again"),
    }
}

/// What conductor would find, and what it would pass over. The daemon's configuration may name another.
pub(super) fn deno() -> Vec<Check> {
    const NAME: &str = "deno";
    let search = Search::from_env(places::data_dir().unwrap_or_default());
    let mut checks = Vec::new();
    let skipped = match conductor_deno::find(&search) {
        Ok(found) => {
            let deno = &found.deno;
            let text = format!("{}, {} (from {})", deno.version, deno.path.display(), deno.origin);
            checks.push(match deno.update_wanted() {
                true => Check::warn(
                    NAME,
                    format!("{text}; {PINNED} is newer, and what conductor is tested with"),
                    format!("deno upgrade {PINNED}, or remove it so that conductor fetches its own"),
                ),
                false => Check::ok(NAME, text),
            });
            found.skipped
        }
        Err(FindError::NotFound { skipped }) => {
            checks.push(no_deno(NAME));
            skipped
        }
        Err(error) => {
            checks.push(Check::fail(NAME, chain(&error), error.hint()));
            Vec::new()
        }
    };
    let passed_over =
        skipped.iter().map(|skipped| Check::warn(NAME, format!("skipped {skipped}"), skipped.reason.hint()));
    checks.extend(passed_over);
    checks
}

fn no_deno(name: &'static str) -> Check {
    let fetchers = ["npm", "pip3", "pip", "python3"];
    let fix = format!("install Deno {PINNED}, or npm or pip, with which conductor fetches it");
    match fetchers.into_iter().find(|program| on_path(program).is_some()) {
        Some(fetcher) => {
            let text = format!("none yet; {PINNED} is fetched with {fetcher} when code first runs");
            Check::warn(name, text, "none needed; or install it yourself")
        }
        None => Check::fail(name, "none, and neither npm nor pip to fetch it", fix),
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
fn daemon_path() -> Option<PathBuf> {
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
