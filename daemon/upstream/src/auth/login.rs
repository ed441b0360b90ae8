//! A login: from a server's URL to the page that its user opens, and from there to the tokens.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::Client;
use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationMetadataSource, CredentialStore as _,
    InMemoryCredentialStore, OAuthClientConfig, WWWAuthenticateParams,
};
use thiserror::Error;
use tokio::time::timeout;
use url::{Host, Url};

use crate::auth::callback::{Callback, Outcome};
use crate::auth::grant::Kept;
use crate::auth::{Authority, LoginStatus, explain};
use crate::error::CallError;
use crate::secret::Secret;

/// The name that conductor registers by.
const CLIENT_NAME: &str = "conductor";

/// How long a server and its issuer may take to say how to log in.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(45);

/// How long a server may take to refuse somebody without a token.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the exchange of a code may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(45);

/// How a user wants to log in.
#[derive(Debug, Clone, Default)]
pub struct LoginRequest {
    /// Of a client that the issuer knows already; otherwise conductor registers itself.
    pub client_id: Option<String>,
    /// The secret of that client, if it has one.
    pub client_secret: Option<Secret>,
    /// In place of those that the server names.
    pub scopes: Vec<String>,
    /// Where the browser comes back to on this machine; 0 for any free port.
    pub port: u16,
}

/// A login that was begun. Dropping it gives it up.
pub struct Login {
    url: String,
    state: String,
    callback: Callback,
    manager: AuthorizationManager,
    client: OAuthClientConfig,
    store: InMemoryCredentialStore,
    pub(crate) authority: Arc<Authority>,
}

/// Why a login failed. Texts carry no secret.
#[derive(Debug, Error)]
pub enum LoginError {
    #[error(transparent)]
    Server(#[from] CallError),
    #[error("{server} is a command and not a web server, so nobody logs in there")]
    NotHttp { server: String },
    #[error(
        "{server} is given an Authorization header by its configuration\nhint: remove the header to log in"
    )]
    Header { server: String },
    #[error("cannot listen on 127.0.0.1 for the browser")]
    Listen(#[source] io::Error),
    #[error(
        "{server} does not say how to log in: {reason}\nhint: if it takes a token, put it into `headers` of its configuration"
    )]
    NoOAuth { server: String, reason: String },
    #[error("{server} cannot be asked how to log in: {reason}")]
    Discovery { server: String, reason: String },
    #[error(
        "conductor cannot register at the issuer of {server}: {reason}\nhint: register it by hand, and name its id with --client-id"
    )]
    Registration { server: String, reason: String },
    #[error("the login page of {server} is none that can be trusted: {page}")]
    UnsafePage { server: String, page: String },
    #[error("the login was refused: {0}")]
    Refused(String),
    #[error("nobody logged in within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    #[error("the issuer gives no token: {0}")]
    Exchange(String),
    #[error("the login cannot be forgotten")]
    Forget(#[source] io::Error),
}

impl Login {
    /// Finds out where to log in and listens for the browser.
    pub(crate) async fn begin(
        server: &str,
        request: &LoginRequest,
        authority: Arc<Authority>,
        client: &Client,
    ) -> Result<Self, LoginError> {
        let callback = Callback::bind(request.port).await.map_err(LoginError::Listen)?;
        let begun = Self::discover(server, request, authority, callback, client);
        timeout(DISCOVERY_TIMEOUT, begun).await.unwrap_or_else(|_| {
            let reason = "no answer in time".to_owned();
            Err(LoginError::Discovery { server: server.to_owned(), reason })
        })
    }

    async fn discover(
        server: &str,
        request: &LoginRequest,
        authority: Arc<Authority>,
        callback: Callback,
        client: &Client,
    ) -> Result<Self, LoginError> {
        let name = || server.to_owned();
        let failed = |error: AuthError| LoginError::Discovery { server: name(), reason: explain(&error) };
        let mut manager = AuthorizationManager::new(authority.url().expose()).await.map_err(failed)?;
        let challenge = match authority.challenge() {
            Some(challenge) => Some(challenge),
            None => probe(client, authority.url().expose()).await,
        };
        let resolution =
            manager.resolve_metadata_from_challenge(challenge.as_deref()).await.map_err(failed)?;
        if resolution.source == AuthorizationMetadataSource::LegacyEndpointFallback {
            let reason = "it publishes no metadata of OAuth".to_owned();
            return Err(LoginError::NoOAuth { server: name(), reason });
        }
        manager.set_metadata(resolution.metadata);
        let scopes = match request.scopes.as_slice() {
            [] => {
                let wanted = manager.select_initial_scopes(&[]).await;
                more_than(&authority, challenge.as_deref(), wanted)
            }
            scopes => scopes.to_vec(),
        };
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let redirect = callback.url();
        let config = match &request.client_id {
            Some(id) => {
                let mut config = OAuthClientConfig::new(id, &redirect);
                config.client_secret =
                    request.client_secret.as_ref().map(|secret| secret.expose().to_owned());
                config
            }
            None => {
                let registered = manager.register_client(CLIENT_NAME, &redirect, &scopes).await;
                let failed =
                    |error: AuthError| LoginError::Registration { server: name(), reason: explain(&error) };
                registered.map_err(failed)?
            }
        };
        manager.configure_client(config.clone()).map_err(failed)?;
        let url = manager.get_authorization_url(&scopes).await.map_err(failed)?;
        let page = Url::parse(&url).map_err(|error| failed(error.into()))?;
        if !is_trustworthy(&page) {
            let page = page.origin().ascii_serialization();
            return Err(LoginError::UnsafePage { server: name(), page });
        }
        let state = page.query_pairs().find(|(key, _)| key == "state");
        let state = state.map(|(_, value)| value.into_owned()).unwrap_or_default();
        let store = InMemoryCredentialStore::new();
        manager.set_credential_store(store.clone());
        Ok(Self { url, state, callback, manager, client: config, store, authority })
    }

    /// The page that the user opens in a browser on this machine.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the user has logged in, and keeps the tokens.
    pub(crate) async fn finish(self, within: Duration) -> Result<LoginStatus, LoginError> {
        let waited = timeout(within, self.callback.wait(&self.state)).await;
        let (outcome, browser) = waited.map_err(|_| LoginError::Timeout(within))?;
        let result = match outcome {
            Outcome::Refused(why) => Err(LoginError::Refused(why.chars().take(300).collect())),
            Outcome::Granted(url) => self.exchange(&url).await,
        };
        match &result {
            Ok(_) => browser.show("200 OK", "You are logged in. This page can be closed.").await,
            Err(_) => {
                browser.show("400 Bad Request", "The login failed. conductorctl tells why.").await;
            }
        }
        result
    }

    async fn exchange(&self, url: &str) -> Result<LoginStatus, LoginError> {
        let failed = |error: AuthError| LoginError::Exchange(explain(&error));
        let callback =
            rmcp::transport::auth::AuthorizationCallback::from_redirect_url(url).map_err(failed)?;
        let exchange = self.manager.exchange_code_for_token_with_issuer(
            &callback.code,
            &callback.csrf_token,
            callback.issuer.as_deref(),
        );
        let exchanged = timeout(EXCHANGE_TIMEOUT, exchange).await;
        exchanged.map_err(|_| LoginError::Exchange("no answer in time".to_owned()))?.map_err(failed)?;
        let credentials = self.store.load().await.map_err(failed)?;
        let credentials = credentials.ok_or_else(|| LoginError::Exchange("no tokens came".to_owned()))?;
        let OAuthClientConfig { client_secret, redirect_uri, .. } = self.client.clone();
        let kept = Kept::new(self.authority.url().expose(), client_secret, redirect_uri, credentials);
        self.authority.log_in(kept).await;
        Ok(self.authority.status())
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("callback", &self.callback).finish_non_exhaustive()
    }
}

/// What the server says to somebody who comes without a token. Only some say it, and only there, where their metadata is.
async fn probe(client: &Client, url: &str) -> Option<String> {
    let request = client.get(url).header(ACCEPT, "text/event-stream").timeout(PROBE_TIMEOUT);
    let response = request.send().await.ok()?;
    let challenge = response.headers().get(WWW_AUTHENTICATE)?.to_str().ok()?;
    (response.status() == StatusCode::UNAUTHORIZED).then(|| challenge.to_owned())
}

/// What is asked for: where the server wants more than the present login allows, that and what it allows already.
fn more_than(authority: &Authority, challenge: Option<&str>, wanted: Vec<String>) -> Vec<String> {
    let Some(url) = Url::parse(authority.url().expose()).ok() else { return wanted };
    let wants_more = challenge
        .is_some_and(|challenge| WWWAuthenticateParams::parse(challenge, &url).is_insufficient_scope());
    let mut scopes = if wants_more { authority.scopes() } else { Vec::new() };
    scopes.extend(wanted);
    let mut known = HashSet::new();
    scopes.retain(|scope| known.insert(scope.clone()));
    scopes
}

/// Passwords are typed there, and the user's browser is started with it: encrypted, or on this machine.
fn is_trustworthy(page: &Url) -> bool {
    let is_local = match page.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    page.scheme() == "https" || (page.scheme() == "http" && is_local)
}
