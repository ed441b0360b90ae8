//! `conductorctl config edit`: a copy is edited, and takes the file's place in one step once it is right.

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use conductor_protocol::{AdminRequest, ClientKind};
use tempfile::NamedTempFile;

use super::{ConfigFailure, is_right, report, wrongs};
use crate::ctl::client::Admin;
use crate::ctl::clients::file::{Access, ConfigFile};
use crate::ctl::doctor::places;
use crate::ctl::failure::Failure;
use crate::ctl::paint::printable;
use crate::ctl::{GlobalOptions, exit_code};

/// What a file begins with that was not there.
const TEMPLATE: &str = "\
# The configuration of conductord. `conductorctl config show` tells what is in effect.
# Editors with Taplo complete this file when `conductorctl config schema` was written to config.schema.json beside it, and
# the first line is: #:schema ./config.schema.json

# [profiles.default]                # for sessions that name no profile
# packages = [\"npm:zod@^4\"]
# default-timeout = \"30s\"

# [policy]                          # what a session's environment may ask for at most
# session-grants = [\"read\", \"write\", \"net\", \"env\"]
";

/// The editor if the environment names none; every system has it.
const LAST_RESORT: &str = "vi";

pub(super) fn edit(global: &GlobalOptions, file: Option<&Path>) -> Result<u8, Failure> {
    let path = match file {
        Some(file) => std::path::absolute(file)?,
        None => places::config_file().ok_or(ConfigFailure::NoHome)?,
    };
    let file = ConfigFile::read(&path).map_err(ConfigFailure::from)?;
    file.check_writable().map_err(ConfigFailure::from)?;
    let before = if file.exists() { file.bytes() } else { TEMPLATE.as_bytes() };
    let copy = copy(file.target(), before)?;
    let written = loop {
        run_editor(copy.path())?;
        // Read by its name: editors put a new file in its place.
        let written = fs::read(copy.path()).map_err(|source| copy_error(copy.path(), source))?;
        if written == before {
            writeln!(io::stdout(), "nothing was changed")?;
            return Ok(exit_code::OK);
        }
        let report = report(Some(copy.path()), None)?;
        if is_right(&report) {
            break written;
        }
        let shown = wrongs(&report).replace(&report.path, &path.display().to_string());
        io::stderr().write_all(shown.as_bytes())?;
        if !ask_for_another_round()? {
            return Err(ConfigFailure::Wrong { copy: kept(copy)? }.into());
        }
    };
    let backup = match file.replace(&written, Access::New) {
        Ok(backup) => backup,
        Err(source) => return Err(ConfigFailure::Place { copy: kept(copy)?, source }.into()),
    };
    writeln!(io::stdout(), "wrote   {}", printable(&path.display().to_string()))?;
    if let Some(backup) = backup {
        writeln!(io::stdout(), "backup  {}", printable(&backup.display().to_string()))?;
    }
    take_effect(global)
}

/// Has a daemon that runs read it, and says what came of it.
fn take_effect(global: &GlobalOptions) -> Result<u8, Failure> {
    let mut admin = match Admin::connect(&global.route_to_running(ClientKind::Admin)) {
        Ok(admin) => admin,
        Err(error) if error.is_absent() => {
            writeln!(io::stdout(), "no daemon runs; the next one uses it")?;
            return Ok(exit_code::OK);
        }
        Err(error) => return Err(error.into()),
    };
    let text = admin.command(AdminRequest::Reload)?;
    writeln!(io::stdout(), "{}", printable(&text))?;
    Ok(exit_code::OK)
}

/// A file beside the real one, for this user alone, that editors know by its ending.
fn copy(target: &Path, bytes: &[u8]) -> Result<NamedTempFile, ConfigFailure> {
    let directory = target.parent().unwrap_or(Path::new("/"));
    let error = |source| ConfigFailure::Copy { directory: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(error)?;
    let mut copy =
        tempfile::Builder::new().prefix(".config-").suffix(".toml").tempfile_in(directory).map_err(error)?;
    copy.write_all(bytes).and_then(|()| copy.flush()).map_err(error)?;
    Ok(copy)
}

fn kept(copy: NamedTempFile) -> Result<PathBuf, ConfigFailure> {
    let path = copy.path().to_owned();
    copy.keep().map(|(_, path)| path).map_err(|error| copy_error(&path, error.error))
}

fn copy_error(copy: &Path, source: io::Error) -> ConfigFailure {
    ConfigFailure::Copy { directory: copy.parent().unwrap_or(copy).to_owned(), source }
}

fn run_editor(copy: &Path) -> Result<(), ConfigFailure> {
    let named = ["VISUAL", "EDITOR"].iter().filter_map(|name| std::env::var(name).ok());
    let editor =
        named.into_iter().find(|editor| !editor.trim().is_empty()).unwrap_or_else(|| LAST_RESORT.to_owned());
    // By the shell: the variable may hold options, as in `code --wait`.
    let run =
        Command::new("/bin/sh").arg("-c").arg(format!("{editor} \"$@\"")).arg(&editor).arg(copy).status();
    match run {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ConfigFailure::Editor { editor, how: format!("ended with {status}") }),
        Err(error) => Err(ConfigFailure::Editor { editor, how: format!("cannot be started: {error}") }),
    }
}

/// Without a terminal there is nobody who could edit again.
fn ask_for_another_round() -> io::Result<bool> {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Ok(false);
    }
    write!(stderr, "Edit again? [Y/n] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    let n_read = stdin.lock().read_line(&mut answer)?;
    Ok(n_read > 0 && !matches!(answer.trim().to_ascii_lowercase().as_str(), "n" | "no"))
}
