//! Conductor's own entry among a client's servers: finding it, adding it, taking it out. Pure.

use serde_json::Value;

use super::client::Client;
use super::document::{Document, DocumentError};

/// What clients start; its file name is how an entry of ours is known, whatever its name.
pub(super) const SHIM: &str = "conductor-shim";

/// What a client is to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) command: String,
    /// `None`: nothing in particular, so that arguments the user has written stay.
    pub(super) args: Option<Vec<String>>,
}

/// Why an entry cannot be added or taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RegistrationError {
    #[error("there is a server named {name} already, and it is not conductor's{}", runs(.command))]
    Taken { name: String, command: Option<String> },
    #[error("the server named {name} is not conductor's{}", runs(.command))]
    NotOurs { name: String, command: Option<String> },
    #[error(transparent)]
    Document(#[from] DocumentError),
}

fn runs(command: &Option<String>) -> String {
    command.as_ref().map(|command| format!(": it runs {command}")).unwrap_or_default()
}

impl RegistrationError {
    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Taken { .. } => {
                "choose another name for conductor with --name, or rename that server".into()
            }
            Self::NotOurs { .. } => "`conductorctl client list` shows where conductor is registered".into(),
            Self::Document(error) => error.hint().into(),
        }
    }
}

/// The program that an entry runs. Zed has had it one level lower.
pub(super) fn command(entry: &Value) -> Option<&str> {
    let command = &entry["command"];
    command.as_str().or_else(|| command["path"].as_str())
}

/// True for an entry that runs conductor's shim.
pub(super) fn is_ours(entry: &Value) -> bool {
    let file_name = command(entry).and_then(|command| command.rsplit(['/', '\\']).next());
    file_name.is_some_and(|name| name.strip_suffix(".exe").unwrap_or(name) == SHIM)
}

/// `document` with an entry that makes `client` run `program`. What an entry of ours says besides stays.
pub(super) fn added(
    client: Client,
    document: &Document,
    name: &str,
    program: &Program,
) -> Result<Document, RegistrationError> {
    let Some(entry) = document.server(name) else {
        let args = program.args.clone().unwrap_or_default();
        return Ok(document.with(name, &client.entry(&program.command, &args))?);
    };
    if !is_ours(entry) {
        let command = command(entry).map(str::to_owned);
        return Err(RegistrationError::Taken { name: name.to_owned(), command });
    }
    let mut edited = document.clone();
    if entry["command"] != program.command.as_str() {
        edited = edited.with_member(name, "command", &program.command.as_str().into())?;
    }
    if let Some(args) = program.args.as_deref().map(Value::from).filter(|args| entry["args"] != *args) {
        edited = edited.with_member(name, "args", &args)?;
    }
    Ok(edited)
}

/// `document` without our entry. One of `earlier` that becomes `document` by adding the entry is what the file was before,
/// down to the last blank; without such a one the entry alone is cut out.
pub(super) fn removed(
    document: &Document,
    name: &str,
    earlier: impl Iterator<Item = Document>,
) -> Result<Document, RegistrationError> {
    let Some(entry) = document.server(name) else { return Ok(document.clone()) };
    if !is_ours(entry) {
        let command = command(entry).map(str::to_owned);
        return Err(RegistrationError::NotOurs { name: name.to_owned(), command });
    }
    let becomes_this = |before: &Document| {
        before.server(name).is_none() && before.with(name, entry).is_ok_and(|again| again == *document)
    };
    for before in earlier {
        if becomes_this(&before) {
            return Ok(before);
        }
    }
    Ok(document.without(name)?)
}

#[cfg(test)]
mod tests;
