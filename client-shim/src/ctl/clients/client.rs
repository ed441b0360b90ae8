//! The MCP clients that are known: what their files look like, and where those are. Pure; nothing is read here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::document::{Format, Syntax};

/// What a daemon needs that a shim starts, and that Codex, which clears the environment, must be told to pass on: else it
/// would look for its files elsewhere than a daemon started from a terminal.
const PASSED_ON: [&str; 9] = [
    "CONDUCTOR_DAEMON",
    "CONDUCTOR_DENO",
    "CONDUCTOR_NO_AUTOSTART",
    "CONDUCTOR_SOCKET",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// A program that can use MCP servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    ClaudeCode,
    ClaudeDesktop,
    Cursor,
    #[value(name = "vscode", alias = "vs-code")]
    VsCode,
    Zed,
    Codex,
    #[value(alias = "gemini-cli")]
    Gemini,
    Windsurf,
}

/// Whom an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scope {
    /// All projects of this user
    User,
    /// One project: a file in its directory
    Project,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Linux,
    MacOs,
    Windows,
}

impl Platform {
    pub(super) fn here() -> Self {
        match std::env::consts::OS {
            "macos" => Self::MacOs,
            "windows" => Self::Windows,
            _ => Self::Linux,
        }
    }
}

/// The directories that clients put their files into. Variables that hold no absolute path count as unset.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    pub(super) home: PathBuf,
    /// `XDG_CONFIG_HOME`
    pub(super) config_home: Option<PathBuf>,
    /// `APPDATA`
    pub(super) app_data: Option<PathBuf>,
    /// `CLAUDE_CONFIG_DIR`
    pub(super) claude: Option<PathBuf>,
    /// `CODEX_HOME`
    pub(super) codex: Option<PathBuf>,
}

impl Roots {
    pub(super) fn new(home: PathBuf, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            home,
            config_home: path("XDG_CONFIG_HOME"),
            app_data: path("APPDATA"),
            claude: path("CLAUDE_CONFIG_DIR"),
            codex: path("CODEX_HOME"),
        }
    }

    /// Where programs of the platform keep settings, by its own rules.
    fn settings(&self, platform: Platform) -> PathBuf {
        match platform {
            Platform::Linux => self.config_home.clone().unwrap_or_else(|| self.home.join(".config")),
            Platform::MacOs => self.home.join("Library").join("Application Support"),
            Platform::Windows => {
                self.app_data.clone().unwrap_or_else(|| self.home.join("AppData").join("Roaming"))
            }
        }
    }
}

impl Client {
    /// As its maker writes it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::ClaudeCode => "Claude Code",
            Self::ClaudeDesktop => "Claude Desktop",
            Self::Cursor => "Cursor",
            Self::VsCode => "VS Code",
            Self::Zed => "Zed",
            Self::Codex => "Codex",
            Self::Gemini => "Gemini CLI",
            Self::Windsurf => "Windsurf",
        }
    }

    /// As the command line takes it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(super) fn format(self) -> Format {
        let (syntax, container) = match self {
            Self::ClaudeCode | Self::ClaudeDesktop | Self::Windsurf => (Syntax::Json, "mcpServers"),
            Self::Cursor | Self::Gemini => (Syntax::Jsonc, "mcpServers"),
            Self::VsCode => (Syntax::Jsonc, "servers"),
            Self::Zed => (Syntax::Jsonc, "context_servers"),
            Self::Codex => (Syntax::Toml, "mcp_servers"),
        };
        Format { syntax, container }
    }

    /// The file that names the servers; `None` when the client has none of that scope.
    pub(super) fn file(
        self,
        platform: Platform,
        scope: Scope,
        roots: &Roots,
        project: &Path,
    ) -> Option<PathBuf> {
        match scope {
            Scope::User => Some(self.user_file(platform, roots)),
            Scope::Project => {
                self.project_file().map(|parts| project.join(parts.iter().collect::<PathBuf>()))
            }
        }
    }

    fn user_file(self, platform: Platform, roots: &Roots) -> PathBuf {
        let settings = || roots.settings(platform);
        match self {
            Self::ClaudeCode => roots.claude.as_ref().unwrap_or(&roots.home).join(".claude.json"),
            Self::ClaudeDesktop => settings().join("Claude").join("claude_desktop_config.json"),
            Self::VsCode => settings().join("Code").join("User").join("mcp.json"),
            Self::Zed => match platform {
                Platform::Linux => settings().join("zed"),
                Platform::MacOs => roots.home.join(".config").join("zed"),
                Platform::Windows => settings().join("Zed"),
            }
            .join("settings.json"),
            Self::Cursor => roots.home.join(".cursor").join("mcp.json"),
            Self::Codex => {
                roots.codex.clone().unwrap_or_else(|| roots.home.join(".codex")).join("config.toml")
            }
            Self::Gemini => roots.home.join(".gemini").join("settings.json"),
            Self::Windsurf => roots.home.join(".codeium").join("windsurf").join("mcp_config.json"),
        }
    }

    fn project_file(self) -> Option<&'static [&'static str]> {
        match self {
            Self::ClaudeCode => Some(&[".mcp.json"]),
            Self::Cursor => Some(&[".cursor", "mcp.json"]),
            Self::VsCode => Some(&[".vscode", "mcp.json"]),
            Self::Zed => Some(&[".zed", "settings.json"]),
            Self::Codex => Some(&[".codex", "config.toml"]),
            Self::Gemini => Some(&[".gemini", "settings.json"]),
            Self::ClaudeDesktop | Self::Windsurf => None,
        }
    }

    /// A directory that is there when the client has run for this user.
    pub(super) fn directory(self, platform: Platform, roots: &Roots) -> PathBuf {
        match self {
            Self::ClaudeCode => roots.claude.clone().unwrap_or_else(|| roots.home.join(".claude")),
            _ => {
                let mut file = self.user_file(platform, roots);
                file.pop();
                file
            }
        }
    }

    /// The entry that makes the client start `command`.
    pub(super) fn entry(self, command: &str, args: &[String]) -> Value {
        match self {
            Self::ClaudeCode | Self::Cursor | Self::VsCode => {
                json!({ "type": "stdio", "command": command, "args": args })
            }
            Self::ClaudeDesktop | Self::Zed | Self::Gemini | Self::Windsurf => {
                json!({ "command": command, "args": args })
            }
            Self::Codex => json!({ "command": command, "args": args, "env_vars": PASSED_ON }),
        }
    }

    /// What makes it see a changed file.
    pub(super) fn refresh(self) -> &'static str {
        match self {
            Self::ClaudeCode => "start a new session, or `/mcp` in a running one",
            Self::ClaudeDesktop => "quit Claude Desktop and start it again",
            Self::Cursor => "Cursor Settings, MCP: switch the server on",
            Self::VsCode => "run `MCP: List Servers` in VS Code and start it",
            Self::Zed => "Zed reads the file at once; see its Agent Panel's settings",
            Self::Codex => "start a new Codex session; `codex mcp list` shows it",
            Self::Gemini => "start Gemini CLI again; `gemini mcp list` shows it",
            Self::Windsurf => "press Refresh in Cascade's list of MCP servers",
        }
    }
}

#[cfg(test)]
mod tests;
