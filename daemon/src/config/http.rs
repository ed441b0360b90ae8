//! `[http]`: whether agents can reach the daemon over HTTP, and within which limits.
//!
//! Nothing listens unless it is asked to, others than this machine are let in only where the file says so twice, and without
//! encryption only with a reason in writing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::duration::{self, DurationText};

/// Where it listens unless the file says.
const DEFAULT_LISTEN: &str = "127.0.0.1:7780";

/// Each connection takes a descriptor, of which a daemon has 1024 in many places, and workers and servers take theirs.
const MAX_CONNECTIONS: usize = 256;

const MAX_SESSIONS: usize = 64;

/// Clients that are closed seldom say so; one that comes back after this begins a new session by itself.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

/// Large data belongs into files: a body is held in memory, and a client may send several.
const MAX_BODY_BYTES: usize = 16 << 20;

const MAX_HEADER_BYTES: usize = 16 << 10;
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REQUESTS_IN_FLIGHT: usize = 128;

/// Streamable HTTP for agents that are not on stdio. Who calls needs a token: `conductorctl token add NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct HttpSection {
    /// Whether the daemon listens at all.
    #[schemars(extend("default" = false))]
    pub enabled: bool,
    /// Addresses with ports. Port 0 is any that is free, which `conductorctl status` tells.
    #[schemars(length(min = 1, max = 16), extend("default" = [DEFAULT_LISTEN]))]
    pub listen: Option<Vec<String>>,
    /// Lets `listen` name addresses that other machines can reach.
    #[schemars(extend("default" = false))]
    pub allow_remote: bool,
    /// Host names by which clients may call the daemon, beside the addresses of `listen` and `localhost`.
    #[schemars(extend("default" = []))]
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may call, as `https://NAME[:PORT]`, beside those of this machine itself.
    #[schemars(extend("default" = []))]
    pub allowed_origins: Vec<String>,
    /// File with the certificate and its chain, in PEM. With it and `tls-key` the daemon speaks HTTPS alone. A renewed
    /// one is taken by itself.
    #[schemars(extend("x-default" = "none, no TLS"))]
    pub tls_cert: Option<PathBuf>,
    /// File with the certificate's private key, in PEM, that nobody else can read.
    #[schemars(extend("x-default" = "none, no TLS"))]
    pub tls_key: Option<PathBuf>,
    /// Why `allow-remote` goes without TLS, such as "a proxy has it"; without a reason it does not.
    #[schemars(extend("x-default" = "none"))]
    pub plaintext_because: Option<String>,
    /// Connections at one time, of all clients together.
    #[schemars(range(min = 1, max = 65_536), extend("x-unit" = "connections", "default" = MAX_CONNECTIONS))]
    pub max_connections: Option<usize>,
    /// Sessions at one time for each token, of clients that begin with `initialize`; the one unused longest gives way.
    #[schemars(range(min = 1, max = 4096), extend("x-unit" = "sessions", "default" = MAX_SESSIONS))]
    pub max_sessions: Option<usize>,
    /// How long a session may lie unused.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "100ms", "x-most" = "1w", "default" = duration::text(SESSION_IDLE)))]
    pub session_idle: Option<Duration>,
    /// Largest body of a request.
    #[schemars(range(min = 4096, max = 268_435_456), extend("x-unit" = "bytes", "default" = MAX_BODY_BYTES))]
    pub max_body_bytes: Option<usize>,
    /// Largest head of a request.
    #[schemars(range(min = 4096, max = 1_048_576), extend("x-unit" = "bytes", "default" = MAX_HEADER_BYTES))]
    pub max_header_bytes: Option<usize>,
    /// How long the head of a request may take, and a connection lie unused.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "100ms", "x-most" = "1h", "default" = duration::text(HEADER_TIMEOUT)))]
    pub header_timeout: Option<Duration>,
    /// How long the body of a request may take.
    #[serde(deserialize_with = "duration::deserialize_option")]
    #[schemars(with = "DurationText", extend("x-least" = "100ms", "x-most" = "1h", "default" = duration::text(BODY_TIMEOUT)))]
    pub body_timeout: Option<Duration>,
    /// Requests in flight at one time for each token, streams among them.
    #[schemars(range(min = 1, max = 65_536), extend("x-unit" = "requests", "default" = MAX_REQUESTS_IN_FLIGHT))]
    pub max_requests_in_flight: Option<usize>,
    /// Requests in a minute for each token.
    #[schemars(range(min = 1, max = 1_000_000), extend("x-unit" = "requests", "x-default" = "no limit"))]
    pub max_requests_per_minute: Option<u32>,
}

/// The section with every limit filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HttpLimits {
    pub(crate) max_connections: usize,
    pub(crate) max_sessions: usize,
    pub(crate) session_idle: Duration,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_header_bytes: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) max_requests_in_flight: usize,
    pub(crate) max_requests_per_minute: Option<u32>,
}

impl HttpSection {
    /// Where to listen; what is no address is left out, and told by [`Self::problems`].
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let default = [DEFAULT_LISTEN.to_owned()];
        let texts = self.listen.as_deref().unwrap_or(&default);
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }

    pub(crate) fn limits(&self) -> HttpLimits {
        HttpLimits {
            max_connections: self.max_connections.unwrap_or(MAX_CONNECTIONS),
            max_sessions: self.max_sessions.unwrap_or(MAX_SESSIONS),
            session_idle: self.session_idle.unwrap_or(SESSION_IDLE),
            max_body_bytes: self.max_body_bytes.unwrap_or(MAX_BODY_BYTES),
            max_header_bytes: self.max_header_bytes.unwrap_or(MAX_HEADER_BYTES),
            header_timeout: self.header_timeout.unwrap_or(HEADER_TIMEOUT),
            body_timeout: self.body_timeout.unwrap_or(BODY_TIMEOUT),
            max_requests_in_flight: self.max_requests_in_flight.unwrap_or(MAX_REQUESTS_IN_FLIGHT),
            max_requests_per_minute: self.max_requests_per_minute,
        }
    }

    /// What a schema cannot say: keys, and what is wrong with their values.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let addresses = self.listen.iter().flatten().filter(|text| text.parse::<SocketAddr>().is_err());
        let addresses = addresses.map(|text| {
            (
                "listen",
                format!("`{text}` is no address with a port\nhint: such as 127.0.0.1:7780 or [::1]:7780"),
            )
        });
        let hosts = self.allowed_hosts.iter().filter_map(|host| crate::http::check_host(host).err());
        let origins =
            self.allowed_origins.iter().filter_map(|origin| crate::http::check_origin(origin).err());
        addresses
            .chain(hosts.map(|why| ("allowed-hosts", why)))
            .chain(origins.map(|why| ("allowed-origins", why)))
            .chain(self.pair_problem())
            .chain(self.reach_problem())
            .collect()
    }

    fn pair_problem(&self) -> Option<(&'static str, String)> {
        let alone = match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => "tls-cert",
            (None, Some(_)) => "tls-key",
            _ => return None,
        };
        Some((alone, "a certificate and its key go together\nhint: set `tls-cert` and `tls-key`".into()))
    }

    fn reach_problem(&self) -> Option<(&'static str, String)> {
        let remote = self.addresses().into_iter().find(|address| !address.ip().is_loopback())?;
        if !self.allow_remote {
            let why = format!(
                "other machines can reach {remote}\nhint: set `allow-remote = true` if they should, or listen on 127.0.0.1"
            );
            return Some(("listen", why));
        }
        let has_reason = self.plaintext_because.as_ref().is_some_and(|reason| !reason.trim().is_empty());
        if self.tls_cert.is_some() || has_reason {
            return None;
        }
        let why = format!(
            "tokens would go to {remote} unencrypted\nhint: set `tls-cert` and `tls-key`, or say in `plaintext-because` why that \
             is safe here"
        );
        Some(("allow-remote", why))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn check(text: &str) -> Result<HttpSection, String> {
        let config = Config::parse(&format!("[http]\n{text}"), Path::new("c.toml"));
        config.map(|config| config.http).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_listens_by_default_and_then_on_this_machine_alone() {
        assert!(!HttpSection::default().enabled);
        let addresses = HttpSection::default().addresses();
        assert!(!addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback()));
        check("enabled = true").expect("is right");
        check(r#"listen = ["127.0.0.1:0", "[::1]:0"]"#).expect("is right");
    }

    #[test]
    fn other_machines_are_let_in_only_when_it_is_written_twice() {
        let remote = r#"listen = ["0.0.0.0:443"]"#;
        for (more, says) in [
            ("", "other machines can reach 0.0.0.0:443"),
            ("allow-remote = true", "tokens would go to"),
            ("allow-remote = true\nplaintext-because = \" \"", "tokens would go to"),
            ("allow-remote = true\ntls-cert = \"/c\"", "go together"),
        ] {
            let error = check(&format!("{remote}\n{more}")).expect_err(more);
            assert!(error.contains(says), "{error}");
        }
        let remote = format!("{remote}\nallow-remote = true");
        check(&format!("{remote}\nplaintext-because = \"a proxy has it\"")).expect("is right");
        check(&format!("{remote}\ntls-cert = \"/c\"\ntls-key = \"/k\"")).expect("is right");
    }

    #[test]
    fn values_make_sense() {
        for (text, says) in [
            ("max-body-bytes = 1", "4096"),
            ("listen = []", "at least 1"),
            ("listen = [\"localhost\"]", "`localhost` is no address"),
            ("session-idle = \"0s\"", "from 100ms"),
            ("allowed-origins = [\"example.com\"]", "is no origin"),
            ("allowed-hosts = [\"https://example.com\"]", "is no host"),
            ("max-requests-per-minute = 0", "from 1"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
