//! What is about to be written: shown first, then asked for, then written.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use similar::TextDiff;

use super::document::Document;
use super::file::{Access, ConfigFile, FileError};
use crate::ctl::paint::{Paint, printable};

/// One file and its new contents.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) file: ConfigFile,
    pub(super) old: Document,
    pub(super) new: Document,
    pub(super) access: Access,
}

/// What to do with changes once they were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    /// Write them.
    Given,
    /// Write them if the user at the terminal says yes.
    Asked,
    /// Write nothing.
    DryRun,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    NothingToDo,
    Written,
    Shown,
    Declined,
}

/// Why changes were not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    #[error("nothing was written: there is no terminal on which you could say yes")]
    NobodyToAsk,
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Change {
    fn is_needed(&self) -> bool {
        self.old != self.new
    }

    /// The change as a unified diff in which values that may be secret are hidden.
    pub(super) fn diff(&self, paint: Paint) -> String {
        // A line break of Windows would show as a control character.
        let text = |document: &Document| document.masked().replace("\r\n", "\n");
        let (old, new) = (text(&self.old), text(&self.new));
        let path = self.file.path().display().to_string();
        let before = if self.file.exists() { path.as_str() } else { "/dev/null" };
        let diff = TextDiff::from_lines(old.as_str(), new.as_str());
        let unified = diff.unified_diff().context_radius(3).header(before, &path).to_string();
        unified.lines().map(|line| painted(&printable(line), paint) + "\n").collect()
    }
}

fn painted(line: &str, paint: Paint) -> String {
    match line.as_bytes().first() {
        Some(b'+') => paint.good(line),
        Some(b'-') => paint.bad(line),
        Some(b'@') => paint.dim(line),
        _ => line.to_owned(),
    }
}

/// Shows `changes`, asks if it must, and writes them in their order.
pub(super) fn make(changes: &[Change], consent: Consent) -> Result<Outcome, ChangeError> {
    let needed: Vec<&Change> = changes.iter().filter(|change| change.is_needed()).collect();
    if needed.is_empty() {
        return Ok(Outcome::NothingToDo);
    }
    for change in &needed {
        change.file.check_writable()?;
    }
    let mut stdout = io::stdout();
    for change in &needed {
        stdout.write_all(change.diff(Paint::stdout()).as_bytes())?;
    }
    match consent {
        Consent::DryRun => return Ok(Outcome::Shown),
        Consent::Asked if !ask(&needed)? => return Ok(Outcome::Declined),
        Consent::Asked | Consent::Given => {}
    }
    for change in needed {
        let backup = change.file.replace(&change.new.bytes(), change.access)?;
        writeln!(stdout, "wrote   {}", shown(change.file.path()))?;
        if let Some(backup) = backup {
            writeln!(stdout, "backup  {}", shown(&backup))?;
        }
    }
    Ok(Outcome::Written)
}

/// Asks the user on the terminal.
fn ask(changes: &[&Change]) -> Result<bool, ChangeError> {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(ChangeError::NobodyToAsk);
    }
    let what = if changes.len() == 1 { "this" } else { "both" };
    write!(stderr, "Write {what}? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
