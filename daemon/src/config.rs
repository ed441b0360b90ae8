//! The configuration file: its types, defaults and checks. Owns nothing; [`crate::supervisor`] holds the one in use.
//!
//! `config.toml` is optional. Unknown keys are errors that name the key, every value has bounds, and a file that others can
//! write is refused: whoever writes it decides what code may do.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_pool::spawn::Level;
use serde::Deserialize;

use crate::config::duration::deserialize_option as duration;

mod duration;

/// More than this is no configuration but a mistake.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// The Deno executable; `--deno` goes before it.
    pub deno: Option<PathBuf>,
    pub pool: PoolSection,
    pub jail: JailSection,
    /// Named profiles; `default` serves sessions that name none.
    pub profiles: BTreeMap<String, ProfileSection>,
    pub policy: PolicySection,
}

/// `[pool]`: all profiles together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PoolSection {
    pub idle_per_profile: Option<usize>,
    pub max_idle: Option<usize>,
    pub max_workers: Option<usize>,
    pub parallel_boots: Option<usize>,
    pub queue_capacity: Option<usize>,
    #[serde(deserialize_with = "duration")]
    pub queue_wait: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub boot_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub max_idle_age: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub unused_after: Option<Duration>,
}

/// `[jail]`: what the kernel keeps workers from. Read when the daemon starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct JailSection {
    /// Whether code runs where a layer of the jail is missing, or does not hold.
    pub level: Level,
    /// Takes V8's compiler away, and with it WebAssembly: loops are several times slower.
    pub hardened: bool,
}

/// `[profiles.NAME]`: what sessions of this profile may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ProfileSection {
    pub workspace: Option<String>,
    /// Deno permission flags, in the notation of `MCP_CONDUCTOR_RUN_ARGS`.
    pub run_args: Option<String>,
    #[serde(deserialize_with = "duration")]
    pub default_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub max_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub max_compute: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub linger: Option<Duration>,
    pub heap_mib: Option<u32>,
    pub max_output_bytes: Option<usize>,
    pub max_result_bytes: Option<usize>,
    pub max_inline_bytes: Option<usize>,
    pub max_calls_in_flight: Option<usize>,
    pub max_calls_per_minute: Option<u32>,
    /// The file with the upstream servers, as `MCP_CONDUCTOR_MCP_CONFIG`.
    pub mcp_config: Option<String>,
    /// Packages that code may import, each as in `MCP_CONDUCTOR_ALLOWED_PACKAGES`.
    pub packages: Option<Vec<String>>,
    /// A `deno.lock` that says every version; nothing outside it is ever fetched.
    pub packages_lock: Option<PathBuf>,
    /// Packages that are imported while workers boot; learned from use when absent.
    pub preload: Option<Vec<String>>,
}

/// `[policy]`: what the environment of a session may ask for at most. Profiles of this file are not cut.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PolicySection {
    /// Kinds of permission a session's environment may grant.
    pub session_grants: Vec<String>,
    /// When set, only paths in these directories.
    pub read: Option<Vec<String>>,
    /// When set, only paths in these directories.
    pub write: Option<Vec<String>>,
    /// When set, only these hosts.
    pub net: Option<Vec<String>>,
    /// When set, only these variables.
    pub env: Option<Vec<String>>,
    /// When set, only these packages in these versions.
    pub packages: Option<Vec<String>>,
    /// Whether a session's environment may name its own file of upstream servers.
    pub session_mcp_config: bool,
    #[serde(deserialize_with = "duration")]
    pub max_timeout: Option<Duration>,
}

impl Default for PolicySection {
    fn default() -> Self {
        Self {
            // `run`, `ffi`, `sys` and `all` let code act as the user: only an administrator may offer them.
            session_grants: ["read", "write", "net", "env"].map(String::from).to_vec(),
            read: None,
            write: None,
            net: None,
            env: None,
            packages: None,
            session_mcp_config: true,
            max_timeout: None,
        }
    }
}

/// Why a configuration file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {} {why}\nhint: {hint}", .path.display())]
    Untrusted { path: PathBuf, why: &'static str, hint: String },
    #[error("the configuration {} is wrong\n{text}\nhint: repair it; `conductord --check` says whether it is right", .path.display())]
    Syntax { path: PathBuf, text: String },
    #[error("the configuration {} is wrong: {key}: {why}", .path.display())]
    Value { path: PathBuf, key: String, why: String },
}

impl Config {
    /// Reads `path`. A missing file is the default configuration unless `required`.
    ///
    /// # Errors
    /// A file that cannot be read, that others can write, or that says something wrong.
    pub fn load(path: &Path, required: bool) -> Result<Self, ConfigError> {
        let text = match read_trusted(path) {
            Ok(text) => text,
            Err(ConfigError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && !required =>
            {
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Syntax { path: path.to_owned(), text: error.to_string() })?;
        config.check().map_err(|(key, why)| ConfigError::Value { path: path.to_owned(), key, why })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (String, String)> {
        for kind in &self.policy.session_grants {
            if !crate::profile::run_args::KINDS.contains(&kind.as_str()) {
                let known = crate::profile::run_args::KINDS.join(", ");
                return Err(("policy.session-grants".into(), format!("`{kind}` is none of {known}")));
            }
        }
        for (name, profile) in &self.profiles {
            let key = |field: &str| format!("profiles.{name}.{field}");
            if let Some(run_args) = &profile.run_args {
                crate::profile::run_args::parse(run_args)
                    .map_err(|error| (key("run-args"), error.to_string()))?;
            }
            within(profile.heap_mib, 32, 16_384, "MiB").map_err(|why| (key("heap-mib"), why))?;
            within(profile.max_output_bytes, 1024, 256 << 20, "bytes")
                .map_err(|why| (key("max-output-bytes"), why))?;
            within(profile.max_result_bytes, 1024, 64 << 20, "bytes")
                .map_err(|why| (key("max-result-bytes"), why))?;
            within(profile.max_inline_bytes, 1024, 8 << 20, "bytes")
                .map_err(|why| (key("max-inline-bytes"), why))?;
            within(profile.max_calls_in_flight, 1, 4096, "calls")
                .map_err(|why| (key("max-calls-in-flight"), why))?;
            within(profile.max_calls_per_minute, 1, 1_000_000, "calls")
                .map_err(|why| (key("max-calls-per-minute"), why))?;
        }
        Ok(())
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    value: Option<T>,
    min: T,
    max: T,
    unit: &str,
) -> Result<(), String> {
    match value {
        Some(value) if value < min || value > max => {
            Err(format!("{value} is not within {min} to {max} {unit}"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn read_trusted(path: &Path) -> Result<String, ConfigError> {
    let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
    let untrusted = |why, hint| ConfigError::Untrusted { path: path.to_owned(), why, hint };
    let file = File::open(path).map_err(read_error)?;
    let meta = file.metadata().map_err(read_error)?;
    if !meta.is_file() {
        return Err(untrusted("is not a regular file", "name a file".into()));
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() && meta.uid() != 0 {
        return Err(untrusted(
            "belongs to another user",
            format!("chown it: chown \"$USER\" {}", path.display()),
        ));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(untrusted("can be written by others", format!("chmod go-w {}", path.display())));
    }
    let mut text = String::new();
    file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text).map_err(read_error)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(untrusted("is larger than 1 MiB", "name a configuration file".into()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("c.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_every_section() {
        let config = parse(
            r#"
            deno = "/opt/deno"
            [pool]
            idle-per-profile = 3
            queue-wait = "10s"
            [jail]
            level = "strict"
            hardened = true
            [profiles.web]
            run-args = "allow-net=api.github.com"
            default-timeout = "1m"
            [policy]
            session-grants = ["read", "run"]
            max-timeout = "2m"
            "#,
        )
        .expect("is right");
        assert_eq!(config.pool.queue_wait, Some(Duration::from_secs(10)));
        assert_eq!(config.jail, JailSection { level: Level::Strict, hardened: true });
        assert_eq!(config.profiles["web"].default_timeout, Some(Duration::from_secs(60)));
        assert_eq!(config.policy.session_grants, ["read", "run"]);
        assert_eq!(parse("").expect("empty is right"), Config::default());
    }

    #[test]
    fn names_what_is_wrong() {
        for (text, says) in [
            ("denno = 1", "unknown field `denno`"),
            ("[pool]\nidle-per-profile = -1", "line 2"),
            ("[pool]\nqueue-wait = \"soon\"", "queue-wait"),
            ("[profiles.a]\nheap-mib = 1", "profiles.a.heap-mib: 1 is not within 32 to 16384 MiB"),
            ("[profiles.a]\nrun-args = \"allow-everything\"", "profiles.a.run-args"),
            ("[jail]\nlevel = \"none\"", "unknown variant `none`"),
            ("[policy]\nsession-grants = [\"red\"]", "`red` is none of read"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says), "{text:?} says {error:?}, not {says:?}");
        }
    }

    #[test]
    fn a_missing_file_is_wrong_only_when_it_was_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        assert_eq!(Config::load(&path, false).expect("not required"), Config::default());
        assert!(matches!(Config::load(&path, true), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn refuses_a_file_that_others_can_write() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "").expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("sets the mode");
        let error = Config::load(&path, false).expect_err("is writable by others").to_string();
        assert!(error.contains("hint: chmod go-w"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("sets the mode");
        Config::load(&path, true).expect("is right now");
    }
}
