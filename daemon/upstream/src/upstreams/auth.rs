//! Logins at HTTP servers, by the servers' names.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::login::{Login, LoginError, LoginRequest};
use crate::auth::{Authority, LoginStatus};
use crate::config::{Endpoint, ServerConfig};
use crate::connection::task::Command;
use crate::error::CallError;
use crate::secret::Secret;
use crate::session::ServerRef;
use crate::upstreams::{Inner, Upstreams};

impl Upstreams {
    /// Begins a login: finds out where the user has to go, and listens on the loopback address for the browser.
    ///
    /// # Errors
    /// See [`LoginError`].
    ///
    /// # Cancel safety
    /// Safe; the login is given up.
    pub async fn begin_login(&self, server: &ServerRef, request: &LoginRequest) -> Result<Login, LoginError> {
        let config = self.entry(server)?.config;
        let name = || server.name.clone();
        let Endpoint::Http { remote, .. } = &config.endpoint else {
            return Err(LoginError::NotHttp { server: name() });
        };
        if remote.headers.contains_key("authorization") {
            return Err(LoginError::Header { server: name() });
        }
        // rmcp makes clients of its own for this, which need the TLS that ours installs.
        let client = self.0.http().map_err(|reason| LoginError::Discovery { server: name(), reason })?;
        let authority = self.0.authorities.of(&remote.url, config.tenant.as_ref());
        Login::begin(&server.name, request, authority, &client).await
    }

    /// Waits until the user has logged in, and gives the server's users fresh connections.
    ///
    /// # Errors
    /// The user refused, or took longer than `within`; the issuer gives no tokens.
    ///
    /// # Cancel safety
    /// The login is given up; what it gave by then is kept.
    pub async fn finish_login(&self, login: Login, within: Duration) -> Result<LoginStatus, LoginError> {
        let url = login.authority.url().clone();
        let status = login.finish(within).await?;
        self.tell(&url, || Command::Restart);
        Ok(status)
    }

    /// Forgets the tokens of a server; `false` if there were none.
    ///
    /// # Errors
    /// The profile has no such server, nobody logs in there, or the file cannot be removed.
    ///
    /// # Cancel safety
    /// Either everything is done or nothing.
    pub async fn log_out(&self, server: &ServerRef) -> Result<bool, LoginError> {
        let config = self.entry(server)?.config;
        let authority = self.0.authority(&config);
        let authority = authority.ok_or_else(|| LoginError::NotHttp { server: server.name.clone() })?;
        let was_in = authority.log_out().await.map_err(LoginError::Forget)?;
        self.tell(authority.url(), || Command::Stop);
        Ok(was_in)
    }

    /// How the login at a server stands; `None` where nobody logs in.
    ///
    /// # Errors
    /// The profile has no such server, or it is disabled.
    pub fn login_status(&self, server: &ServerRef) -> Result<Option<LoginStatus>, CallError> {
        let config = self.entry(server)?.config;
        Ok(self.0.authority(&config).map(|authority| authority.status()))
    }

    /// Tells the connections to a URL.
    fn tell(&self, url: &Secret, command: impl Fn() -> Command) {
        let registry = self.registry();
        let entries = registry.profiles.values().flat_map(|profile| profile.entries.values());
        for entry in entries.filter(|entry| entry.config.endpoint.logs_in_at() == Some(url)) {
            for connection in registry.connections_of(entry) {
                // Full or closed: it is busy, and asks for the token with its next request anyway.
                connection.commands.try_send(command()).ok();
            }
        }
    }
}

impl Inner {
    /// Who gives the token for a server; `None` where nobody logs in.
    pub(crate) fn authority(&self, config: &ServerConfig) -> Option<Arc<Authority>> {
        Some(self.authorities.of(config.endpoint.logs_in_at()?, config.tenant.as_ref()))
    }
}

impl Endpoint {
    /// The URL that a login is for; `None` for a command, or where the configuration brings an authorisation of its own.
    fn logs_in_at(&self) -> Option<&Secret> {
        match self {
            Self::Http { remote, .. } if !remote.headers.contains_key("authorization") => Some(&remote.url),
            Self::Http { .. } | Self::Sse(_) | Self::Stdio(_) => None,
        }
    }
}
