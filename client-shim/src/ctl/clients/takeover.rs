//! `--import`: the other servers of a client go into conductor's upstream file, and the client keeps conductor alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::change::Change;
use super::client::Client;
use super::document::{Document, DocumentError, Format, Syntax};
use super::file::{Access, ConfigFile, FileError};
use super::import::imported;
use super::registration::is_ours;

/// The variable that names conductor's upstream file.
pub(super) const VARIABLE: &str = "MCP_CONDUCTOR_MCP_CONFIG";

/// What is imported, and what is not.
#[derive(Debug)]
pub(super) struct Takeover {
    /// The client's file without the servers that were taken over.
    pub(super) client: Document,
    /// Conductor's file with them.
    pub(super) upstream: Change,
    pub(super) moved: Vec<String>,
    /// Names and reasons.
    pub(super) stays: Vec<(String, String)>,
}

/// Why nothing can be imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeoverError {
    #[error("{} names other servers already as {}", path.display(), names.join(", "))]
    Clash { path: PathBuf, names: Vec<String> },
    #[error("it cannot be told which file {VARIABLE}={value} means")]
    Unclear { value: String },
    #[error("cannot edit {}", path.display())]
    Upstream { path: PathBuf, source: DocumentError },
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl TakeoverError {
    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Clash { .. } => "rename these servers in one of the two files; nothing was changed".into(),
            Self::Unclear { .. } => "write an absolute path".into(),
            Self::Upstream { source, .. } | Self::Document(source) => source.hint().into(),
            Self::File(error) => error.hint(),
        }
    }
}

/// Where conductor reads a session's upstream servers from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UpstreamFile {
    pub(super) path: PathBuf,
    /// The client must be told, as this process was by its environment.
    pub(super) is_named: bool,
}

impl UpstreamFile {
    /// The file that our entry names, else that our environment names, else the usual one.
    pub(super) fn of(
        entry: Option<&Value>,
        variable: Option<OsString>,
        home: &Path,
    ) -> Result<Self, TakeoverError> {
        let in_entry = entry.and_then(|entry| entry["env"][VARIABLE].as_str());
        if let Some(value) = in_entry {
            return Ok(Self { path: expanded(value, home)?, is_named: false });
        }
        let Some(value) = variable.filter(|value| !value.is_empty()) else {
            return Ok(Self { path: home.join(".mcp-conductor").join("mcp-config.json"), is_named: false });
        };
        let value = value
            .into_string()
            .map_err(|value| TakeoverError::Unclear { value: value.display().to_string() })?;
        Ok(Self { path: expanded(&value, home)?, is_named: true })
    }
}

fn expanded(value: &str, home: &Path) -> Result<PathBuf, TakeoverError> {
    let known = ["~/", "${userHome}/", "${HOME}/"];
    let below_home = known.iter().find_map(|prefix| value.strip_prefix(prefix));
    let path = below_home.map_or_else(|| PathBuf::from(value), |below| home.join(below));
    let is_clear = path.is_absolute() && !path.to_string_lossy().contains("${");
    is_clear.then_some(path).ok_or_else(|| TakeoverError::Unclear { value: value.to_owned() })
}

/// Plans the move of all servers of `document` but conductor's. `name` is conductor's entry there.
pub(super) fn plan(
    client: Client,
    document: &Document,
    name: &str,
    upstream: &UpstreamFile,
) -> Result<Takeover, TakeoverError> {
    let file = ConfigFile::read(&upstream.path)?;
    let at = |source| TakeoverError::Upstream { path: upstream.path.clone(), source };
    let old = parse(file.bytes()).map_err(at)?;
    let (mut new, mut rest) = (old.clone(), document.clone());
    let (mut moved, mut stays, mut clashes, mut variables) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (server, entry) in document.servers().iter().filter(|(_, entry)| !is_ours(entry)) {
        let imported = match imported(client, entry) {
            Ok(imported) => imported,
            Err(reason) => {
                stays.push((server.clone(), reason));
                continue;
            }
        };
        match new.server(server) {
            Some(known) if *known != imported.entry => clashes.push(server.clone()),
            Some(_) => {}
            None => new = new.with(server, &imported.entry).map_err(at)?,
        }
        rest = rest.without(server)?;
        moved.push(server.clone());
        variables.extend(imported.variables);
    }
    if !clashes.is_empty() {
        return Err(TakeoverError::Clash { path: upstream.path.clone(), names: clashes });
    }
    if !moved.is_empty() {
        rest = informed(client, rest, name, upstream, &variables)?;
    }
    let upstream = Change { file, old, new, access: Access::Private };
    Ok(Takeover { client: rest, upstream, moved, stays })
}

/// Conductor's file: the daemon takes `servers` too when there is no `mcpServers`.
fn parse(bytes: &[u8]) -> Result<Document, DocumentError> {
    let usual = Format { syntax: Syntax::Jsonc, container: "mcpServers" };
    let document = Document::parse(usual, bytes)?;
    if !document.has("mcpServers") && document.has("servers") {
        return Document::parse(Format { container: "servers", ..usual }, bytes);
    }
    Ok(document)
}

/// `document` with what our entry has to tell the shim about the servers that were moved.
fn informed(
    client: Client,
    document: Document,
    name: &str,
    upstream: &UpstreamFile,
    variables: &[String],
) -> Result<Document, TakeoverError> {
    let Some(entry) = document.server(name).cloned() else { return Ok(document) };
    let mut edited = document;
    if upstream.is_named {
        let mut env = entry.get("env").cloned().unwrap_or_else(|| json!({}));
        env[VARIABLE] = upstream.path.to_string_lossy().into();
        edited = edited.with_member(name, "env", &env)?;
    }
    // Codex clears the environment: what the servers refer to would not reach the shim.
    if client == Client::Codex && !variables.is_empty() {
        let mut names = entry["env_vars"].as_array().cloned().unwrap_or_default();
        for variable in variables {
            if !names.contains(&variable.as_str().into()) {
                names.push(variable.as_str().into());
            }
        }
        edited = edited.with_member(name, "env_vars", &names.into())?;
    }
    Ok(edited)
}

#[cfg(test)]
mod tests;
