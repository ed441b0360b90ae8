//! OAuth at HTTP servers: who is logged in where, and the token that requests carry.
//!
//! In: a server's URL, and the login that its user finishes in a browser ([`Login`]). Out: a token that is valid, renewed
//! once for all requests that wait for it. Owns the grants, in memory and below the state directory in one file for each
//! server, for its user's eyes only. The protocol is rmcp's: discovery, registration, PKCE, exchange and refresh. A token
//! goes to the server it was issued for and to its issuer, and into no text: answers are cleaned of it.

mod callback;
mod grant;
pub(crate) mod login;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rmcp::transport::auth::{
    AuthError, AuthorizationManager, CredentialStore as _, InMemoryCredentialStore, OAuthClientConfig,
    StoredCredentials,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

pub(crate) use crate::auth::grant::Grant;
use crate::auth::grant::Kept;
use crate::secret::Secret;

/// How long a renewal may take, discovery included.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(60);

/// For so long a renewal that failed is not tried again: those who waited for it get its failure.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// A token that is refused so soon after it was issued would be refused again.
const MIN_LIFE: Duration = Duration::from_secs(30);

/// Longer ones are none: an address and a few scopes.
const MAX_CHALLENGE_BYTES: usize = 4096;

/// The logins of all servers.
#[derive(Debug)]
pub(crate) struct Authorities {
    directory: PathBuf,
    tracker: TaskTracker,
    known: Mutex<HashMap<Key, Arc<Authority>>>,
}

/// Whose login it is, where that counts, and the URL.
type Key = (Option<Arc<str>>, Secret);

/// The login at one server.
pub(crate) struct Authority {
    url: Secret,
    file: PathBuf,
    tracker: TaskTracker,
    current: Mutex<Option<Arc<Grant>>>,
    /// Held while the grant is replaced.
    replacing: Arc<tokio::sync::Mutex<()>>,
    failure: Mutex<Option<(Instant, RenewalError)>>,
    /// What the server said when it last wanted a login, or more than the present one allows.
    challenge: Mutex<Option<String>>,
}

/// A token cannot be renewed at the moment.
#[derive(Debug, Clone, thiserror::Error)]
#[error("its authorisation cannot be renewed now: {0}")]
pub(crate) struct RenewalError(String);

/// How a server's login stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoginStatus {
    pub state: LoginState,
    pub issuer: Option<String>,
    pub scopes: Vec<String>,
    /// Seconds for which the present token is valid; `None` if there is none, or its issuer does not say.
    pub expires_secs: Option<u64>,
    /// Whether a new token is got without the user.
    pub renewable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginState {
    /// Nobody logged in.
    LoggedOut,
    LoggedIn,
    /// The token expired or was taken back, and cannot be renewed.
    LoginAgain,
}

enum Refusal {
    /// Only the user can help.
    LoginAgain(String),
    /// Another try may succeed.
    Failed(String),
}

impl Authorities {
    pub(crate) fn new(directory: PathBuf, tracker: TaskTracker) -> Self {
        Self { directory, tracker, known: Mutex::default() }
    }

    /// Reads what is kept of a server's login, the first time. Each tenant has logins of its own.
    pub(crate) fn of(&self, url: &Secret, tenant: Option<&Arc<str>>) -> Arc<Authority> {
        let mut known = lock(&self.known);
        let new = || {
            let mut digest = Sha256::new();
            // No URL holds a line break.
            tenant.into_iter().for_each(|tenant| digest.update(format!("{tenant}\n")));
            digest.update(url.expose());
            let digest = digest.finalize();
            let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            let file = self.directory.join(format!("{name}.json"));
            let current = grant::load(&file, url.expose()).map(|kept| Arc::new(Grant::new(kept, None)));
            Arc::new(Authority {
                url: url.clone(),
                file,
                tracker: self.tracker.clone(),
                current: Mutex::new(current),
                replacing: Arc::default(),
                failure: Mutex::default(),
                challenge: Mutex::default(),
            })
        };
        known.entry((tenant.cloned(), url.clone())).or_insert_with(new).clone()
    }
}

impl Authority {
    /// What requests are authorised with; `None` if nobody is logged in, or has to log in again.
    ///
    /// # Errors
    /// The token expired, and the issuer cannot be asked for another at the moment.
    ///
    /// # Cancel safety
    /// Safe; a renewal goes on.
    pub(crate) async fn grant(self: &Arc<Self>) -> Result<Option<Arc<Grant>>, RenewalError> {
        match self.current() {
            Some(grant) if grant.is_stale(SystemTime::now()) => {
                let renewed = self.renew(&grant).await;
                if grant.is_valid(SystemTime::now()) && renewed.is_err() { Ok(Some(grant)) } else { renewed }
            }
            current => Ok(current.filter(|grant| grant.is_valid(SystemTime::now()))),
        }
    }

    /// Another grant than `refused`, which the server does not take.
    ///
    /// # Errors
    /// The issuer cannot be asked at the moment.
    ///
    /// # Cancel safety
    /// Safe; a renewal goes on.
    pub(crate) async fn replace(
        self: &Arc<Self>,
        refused: &Arc<Grant>,
    ) -> Result<Option<Arc<Grant>>, RenewalError> {
        if refused.renewed_at.is_some_and(|at| at.elapsed() < MIN_LIFE) {
            return Ok(None);
        }
        self.renew(refused).await
    }

    /// Renews `old`, unless somebody else has.
    async fn renew(self: &Arc<Self>, old: &Arc<Grant>) -> Result<Option<Arc<Grant>>, RenewalError> {
        let replacing = self.replacing.clone().lock_owned().await;
        match self.current() {
            Some(current) if Arc::ptr_eq(&current, old) => {}
            newer => return Ok(newer.filter(|grant| grant.is_valid(SystemTime::now()))),
        }
        if let Some((at, failure)) = lock(&self.failure).clone()
            && at.elapsed() < FAILURE_PAUSE
        {
            return Err(failure);
        }
        let (this, old) = (self.clone(), old.clone());
        // A task of its own: a refresh token may be used once, so a caller that leaves must not lose its successor.
        let renewal = self.tracker.spawn(async move {
            let _held = replacing;
            this.refresh(&old).await
        });
        renewal.await.unwrap_or_else(|panicked| Err(RenewalError(panicked.to_string())))
    }

    async fn refresh(&self, old: &Grant) -> Result<Option<Arc<Grant>>, RenewalError> {
        let refreshed = timeout(RENEWAL_TIMEOUT, refresh(self.url.expose(), &old.kept)).await;
        let refreshed = refreshed.unwrap_or_else(|_| Err(Refusal::Failed("its issuer is silent".to_owned())));
        let issuer = old.kept.issuer();
        match refreshed {
            Ok(credentials) => {
                tracing::info!(issuer, "token renewed");
                Ok(Some(self.keep(Grant::new(old.kept.with(credentials), Some(Instant::now())))))
            }
            Err(Refusal::LoginAgain(reason)) => {
                tracing::warn!(issuer, reason = %old.redactor.redact(&reason), "a new login is needed");
                self.keep(Grant::new(old.kept.without_tokens(), None));
                Ok(None)
            }
            Err(Refusal::Failed(reason)) => {
                let failure = RenewalError(old.redactor.redact(&reason));
                tracing::warn!(issuer, reason = %failure.0, "token not renewed");
                *lock(&self.failure) = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// The server refused a request with this `WWW-Authenticate`, which says where to log in and for what.
    pub(crate) fn challenged(&self, challenge: &str) {
        if !challenge.is_empty() && challenge.len() <= MAX_CHALLENGE_BYTES {
            *lock(&self.challenge) = Some(challenge.to_owned());
        }
    }

    pub(crate) fn challenge(&self) -> Option<String> {
        lock(&self.challenge).clone()
    }

    /// Takes the grant of a login.
    ///
    /// # Cancel safety
    /// Either everything is done or nothing.
    pub(crate) async fn log_in(&self, kept: Kept) {
        let _replacing = self.replacing.lock().await;
        *lock(&self.challenge) = None;
        self.keep(Grant::new(kept, None));
    }

    /// Forgets the login; `false` if there was none.
    ///
    /// # Errors
    /// The file cannot be removed.
    ///
    /// # Cancel safety
    /// Either everything is done or nothing.
    pub(crate) async fn log_out(&self) -> std::io::Result<bool> {
        let _replacing = self.replacing.lock().await;
        grant::remove(&self.file)?;
        *lock(&self.failure) = None;
        Ok(lock(&self.current).take().is_some())
    }

    pub(crate) fn status(&self) -> LoginStatus {
        let Some(grant) = self.current() else {
            let (issuer, scopes) = (None, Vec::new());
            return LoginStatus {
                state: LoginState::LoggedOut,
                issuer,
                scopes,
                expires_secs: None,
                renewable: false,
            };
        };
        let now = SystemTime::now();
        let is_in = grant.is_valid(now) || grant.is_renewable();
        LoginStatus {
            state: if is_in { LoginState::LoggedIn } else { LoginState::LoginAgain },
            issuer: grant.kept.issuer().map(str::to_owned),
            scopes: grant.kept.credentials.granted_scopes.clone(),
            expires_secs: grant.lasts_secs(now),
            renewable: grant.is_renewable(),
        }
    }

    /// What the present login allows.
    pub(crate) fn scopes(&self) -> Vec<String> {
        self.current().map(|grant| grant.kept.credentials.granted_scopes.clone()).unwrap_or_default()
    }

    pub(crate) fn url(&self) -> &Secret {
        &self.url
    }

    /// Without the tokens that answers may repeat.
    pub(crate) fn clean(&self, text: String) -> String {
        match self.current() {
            Some(grant) if grant.redactor.finds(&text) => grant.redactor.redact(&text),
            _ => text,
        }
    }

    fn keep(&self, grant: Grant) -> Arc<Grant> {
        if let Err(error) = grant::save(&self.file, &grant.kept) {
            // Good until the daemon ends.
            tracing::warn!(file = %self.file.display(), %error, "a login is not kept");
        }
        let grant = Arc::new(grant);
        *lock(&self.current) = Some(grant.clone());
        *lock(&self.failure) = None;
        grant
    }

    fn current(&self) -> Option<Arc<Grant>> {
        lock(&self.current).clone()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Asks the issuer for new tokens. What the server publishes is looked up again: it says what the tokens are asked for and
/// where, and that the issuer is still the one that they came from.
async fn refresh(url: &str, kept: &Kept) -> Result<StoredCredentials, Refusal> {
    if !kept.is_renewable() {
        return Err(Refusal::LoginAgain("there is no refresh token".to_owned()));
    }
    let failed = |error: AuthError| Refusal::Failed(explain(&error));
    let mut manager = AuthorizationManager::new(url).await.map_err(failed)?;
    let metadata = manager.resolve_metadata().await.map_err(failed)?.metadata;
    if metadata.issuer.as_deref() != kept.issuer() {
        return Err(Refusal::LoginAgain("the server names another issuer".to_owned()));
    }
    manager.set_metadata(metadata);
    let mut client = OAuthClientConfig::new(&kept.credentials.client_id, &kept.redirect_uri);
    client.client_secret.clone_from(&kept.client_secret);
    manager.configure_client(client).map_err(failed)?;
    let store = InMemoryCredentialStore::new();
    store.save(kept.credentials.clone()).await.map_err(failed)?;
    manager.set_credential_store(store.clone());
    match manager.refresh_token().await {
        Ok(_) => store.load().await.map_err(failed)?.ok_or_else(|| Refusal::Failed("no tokens".to_owned())),
        Err(error @ (AuthError::TokenRefreshRejected(_) | AuthError::AuthorizationRequired)) => {
            Err(Refusal::LoginAgain(explain(&error)))
        }
        Err(error) => Err(failed(error)),
    }
}

/// An error in one line of bounded length: rmcp puts whole answers into some.
fn explain(error: &AuthError) -> String {
    const MAX_CHARS: usize = 300;
    let text = crate::connection::request::chain(error);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_CHARS).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
