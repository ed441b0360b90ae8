//! Where a session's upstream servers are configured.

use std::path::{Path, PathBuf};

use super::ProfileError;
use super::expand::Scope;
use super::origin::{Notes, Origin};
use super::resolve::absolute;
use crate::config::{Excess, PolicySection, ProfileSection};
use crate::upstreams::references;

pub(super) const MCP_CONFIG: &str = "MCP_CONDUCTOR_MCP_CONFIG";

/// A file in the `mcpServers` shape that IDEs use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpConfig {
    pub path: PathBuf,
    /// Somebody named it, so it has to be there.
    pub required: bool,
}

impl McpConfig {
    pub(super) fn resolve(
        section: &ProfileSection,
        policy: &PolicySection,
        scope: Scope<'_>,
        notes: &mut Notes,
    ) -> Result<Option<Self>, ProfileError> {
        let asked = scope.env.get(MCP_CONFIG).filter(|text| !text.trim().is_empty());
        let asked = match (asked, policy.session_mcp_config, policy.excess) {
            (Some(_), false, Excess::Refuse) => {
                let why = "[policy] does not let sessions name a file of their own".to_owned();
                return Err(ProfileError::Value { variable: MCP_CONFIG, why });
            }
            (Some(_), false, Excess::Cut) => {
                let why = "[policy] does not let sessions name a file of their own; it is not used";
                notes.warnings.push(format!("{MCP_CONFIG}: {why}"));
                None
            }
            (asked, ..) => asked,
        };
        let (named, origin) = match (asked, &section.mcp_config) {
            (Some(text), _) => (Some(text), Origin::Environment(MCP_CONFIG)),
            (None, Some(text)) => (Some(text), Origin::File),
            (None, None) => (None, Origin::Default),
        };
        notes.origin("mcp-config", origin);
        match named.map(|text| text.trim()) {
            Some("none") => Ok(None),
            Some(text) => Ok(Some(Self { path: absolute(MCP_CONFIG, text, scope, None)?, required: true })),
            None => Ok(Some(Self { path: default_path(Path::new(scope.home)), required: false })),
        }
    }

    /// Variables that the file refers to, and those by which its commands are found.
    pub(super) fn references(&self) -> Vec<String> {
        // What is wrong with the file is told when it is used.
        let Ok(text) = crate::config::read_trusted(&self.path) else { return Vec::new() };
        references::of(&text).into_iter().chain(["PATH".to_owned()]).collect()
    }
}

fn default_path(home: &Path) -> PathBuf {
    home.join(".mcp-conductor/mcp-config.json")
}
