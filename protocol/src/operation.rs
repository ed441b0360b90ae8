//! What an operator asks for beyond the fixed requests, and the documents that answer it. Crosses as JSON: kinds and fields
//! may be added, never renamed, and a reader fills fields it does not get with their defaults.
//!
//! "The caller's profile" is the one that a session of the same environment would have: that of the connection's `Hello`.

use serde::{Deserialize, Serialize};

use crate::status::UpstreamStatus;

/// A text that shows up in no log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(…)")
    }
}

/// One operation. A daemon that does not know it answers with `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// Which packages there are. Answered with `Json` of [`PackagesReport`].
    PackagesList,
    /// Looks for newer versions within the allowed ranges and uses them. Answered with `Json` of [`PackageChanges`].
    PackagesUpdate,
    /// Compares what is used with what the registries have. Answered with `Json` of [`PackageAges`].
    PackagesOutdated,
    /// Which allowed packages bring one in. Answered with `Json` of [`PackageReasons`].
    PackagesWhy { package: String },
    /// Compares every file with its recorded hash. Answered with `Json` of [`LayerFaults`].
    PackagesVerify,
    /// Removes layers that nobody uses. Answered with `Done`.
    PackagesPrune,
    /// Which upstream servers there are. Answered with `Json` of [`ServersReport`].
    ServersList,
    /// The last lines of all servers of a name. Answered with `Json` of [`ServerLogs`].
    ServersLogs { server: String },
    /// Replaces all servers of a name by fresh ones; calls in flight finish. Answered with `Done`.
    ServersRestart { server: String },
    /// Ends all servers of a name once their calls are done; they start again when they are used. Answered with `Done`.
    ServersStop { server: String },
    /// Begins a login at a server. `port` on 127.0.0.1 is where the browser comes back to, any for 0. Answered with `Json` of
    /// [`LoginBegun`].
    AuthLogin {
        server: String,
        #[serde(default)]
        client_id: Option<String>,
        #[serde(default)]
        client_secret: Option<Hidden>,
        #[serde(default)]
        scopes: Vec<String>,
        #[serde(default)]
        port: u16,
    },
    /// Waits until the user has logged in. Answered with `Json` of [`ServerLogin`].
    AuthFinish { login: u64 },
    /// How logins stand. Answered with `Json` of [`LoginsReport`].
    AuthStatus,
    /// Forgets the login at a server. Answered with `Done`.
    AuthLogout { server: String },
    /// Who may call over HTTP. Answered with `Json` of [`HttpStatus`](crate::status::HttpStatus).
    TokensList,
    /// Makes a token for HTTP, for a named profile or `default`. Answered with `Json` of [`TokenAdded`].
    TokensAdd {
        name: String,
        #[serde(default)]
        profile: Option<String>,
    },
    /// Ends a token and its sessions. Answered with `Done`.
    TokensRevoke { name: String },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackagesReport {
    /// The list of the caller's profile, as the administrator wrote it: `npm:axios@^1`; `all` when any is allowed.
    pub allowed: Vec<String>,
    /// What the caller's profile imports from; absent while there is no layer yet.
    pub layer: Option<LayerReport>,
    /// What is being built now.
    pub builds: Vec<BuildReport>,
    /// Why the last build for the caller's profile failed.
    pub error: Option<String>,
    /// Every layer on this machine.
    pub layers: Vec<LayerSummary>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerReport {
    pub id: String,
    pub packages: Vec<PackageReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageReport {
    /// `npm:axios`.
    pub name: String,
    /// The spelling that is locked: `npm:axios@^1`.
    pub spelling: String,
    /// Absent when the package could not be had.
    pub version: Option<String>,
    /// Why it cannot be imported.
    pub unavailable: Option<String>,
    /// Cost of an import in a run, when it was measured.
    pub import_ms: Option<f64>,
    pub memory_bytes: Option<u64>,
    /// Imported while workers boot.
    pub preloaded: bool,
    /// Decayed count of runs that imported it.
    pub uses: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildReport {
    /// The packages asked for.
    pub packages: Vec<String>,
    pub phase: String,
    pub age_ms: u64,
    /// Packages fetched, and how many there are, as far as it is known.
    pub fetched: u64,
    pub total: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerSummary {
    pub id: String,
    pub packages: u64,
    pub bytes: u64,
    pub age_ms: u64,
    pub in_use: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageChanges {
    pub changes: Vec<PackageChange>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageChange {
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageAges {
    pub packages: Vec<PackageAge>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageAge {
    pub name: String,
    pub locked: Option<String>,
    /// The newest version that the list allows.
    pub newest_allowed: Option<String>,
    /// The newest of all.
    pub newest: Option<String>,
    /// Why it is not known.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageReasons {
    /// Each from an allowed package down to the one asked about.
    pub chains: Vec<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerFaults {
    pub checked: u64,
    pub faults: Vec<LayerFault>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerFault {
    pub layer: String,
    pub what: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServersReport {
    /// The file that configures the servers of the caller's profile, whether it is there or not; absent when the profile has
    /// none.
    pub config: Option<String>,
    /// Why that file cannot be used.
    pub error: Option<String>,
    /// What looks like a mistake in it.
    pub warnings: Vec<String>,
    /// The servers of the caller's profile.
    pub servers: Vec<UpstreamStatus>,
    /// Servers that only other configurations have.
    pub others: Vec<UpstreamStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerLogs {
    /// More than one when configurations differ in what they mean by the name.
    pub servers: Vec<ServerLog>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerLog {
    pub name: String,
    pub target: Option<String>,
    /// Sessions that have it in their configuration.
    pub sessions: Vec<u64>,
    /// Oldest first; bounded.
    pub lines: Vec<ServerLogLine>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerLogLine {
    /// In RFC 3339.
    pub at: String,
    /// `stderr`, `stdout`, `message`, `conductor`.
    pub source: String,
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoginBegun {
    pub login: u64,
    /// The page that the user opens in a browser on this machine.
    pub url: String,
    /// How long the daemon waits for it.
    pub within_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoginsReport {
    /// The servers of the caller's profile that one can log in at; of all profiles where his has none.
    pub servers: Vec<ServerLogin>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerLogin {
    pub name: String,
    pub target: Option<String>,
    /// `logged-out`, `logged-in`, `login-again`.
    pub state: String,
    pub issuer: Option<String>,
    pub scopes: Vec<String>,
    /// How long the present token is valid, as far as it is known.
    pub expires_ms: Option<u64>,
    /// A new token is got without the user.
    pub renewable: bool,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenAdded {
    pub name: String,
    pub profile: String,
    /// The token itself, which the daemon does not keep.
    pub token: String,
    /// Where it can be used; empty while the daemon does not listen.
    pub urls: Vec<String>,
}

impl std::fmt::Debug for TokenAdded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenAdded")
            .field("name", &self.name)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_a_tagged_document() {
        let why = Operation::PackagesWhy { package: "npm:debug".into() };
        let json = serde_json::to_string(&why).expect("encodes");
        assert_eq!(json, r#"{"operation":"packages-why","package":"npm:debug"}"#);
        assert_eq!(serde_json::from_str::<Operation>(&json).expect("decodes"), why);
        let list = r#"{"operation":"packages-list","later":1}"#;
        assert_eq!(serde_json::from_str::<Operation>(list).expect("decodes"), Operation::PackagesList);
    }
}
