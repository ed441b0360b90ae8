//! Logins at upstream servers, as an operator asks for them.
//!
//! A login is begun with one request and waited for with another, which may come from another connection. Owns those that
//! were begun and not yet waited for. An operator names a server by its name; where configurations differ in what they mean
//! by it, that of his own environment counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conductor_protocol::operation::{LoginBegun, LoginsReport, ServerLogin};
use conductor_upstream::{CallError, Login, LoginError, LoginRequest, LoginStatus, ProfileId, ServerRef};
use serde_json::Value;

use super::UpstreamService;
use super::calls::did_you_mean;
use super::report::ServerError;

/// How long a user may take in his browser.
const LOGIN_TIME: Duration = Duration::from_secs(5 * 60);

/// Logins that are begun at a time: each listens on a port. The oldest gives way.
const MAX_LOGINS: usize = 8;

/// Logins that nobody waits for yet.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<HashMap<u64, Begun>>);

#[derive(Debug)]
struct Begun {
    at: Instant,
    server: String,
    target: Option<String>,
    login: Login,
}

/// Why there is no login, or none to be forgotten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthFailure {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("this login is not waited for any more\nhint: begin it again")]
    Gone,
}

impl UpstreamService {
    /// Begins a login. `own` is the operator's own registration.
    ///
    /// # Cancel safety
    /// Safe; the login is given up.
    pub(crate) async fn begin_login(
        &self,
        own: Option<&ProfileId>,
        server: &str,
        request: &LoginRequest,
    ) -> Result<LoginBegun, AuthFailure> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (of, target) = self.server_to_log_in(own, server)?;
        let login = self.upstreams().begin_login(&of, request).await?;
        let (id, url) = (NEXT.fetch_add(1, Ordering::Relaxed), login.url().to_owned());
        self.logins.add(id, Begun { at: Instant::now(), server: of.name, target, login });
        Ok(LoginBegun {
            login: id,
            url,
            within_ms: u64::try_from(LOGIN_TIME.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Waits for the user.
    ///
    /// # Cancel safety
    /// The login is given up.
    pub(crate) async fn finish_login(&self, id: u64) -> Result<ServerLogin, AuthFailure> {
        let begun = self.logins.all().remove(&id).ok_or(AuthFailure::Gone)?;
        let left = LOGIN_TIME.saturating_sub(begun.at.elapsed());
        let status = self.upstreams().finish_login(begun.login, left).await?;
        Ok(row(&begun.server, begun.target, &status))
    }

    /// Forgets the tokens of a server.
    ///
    /// # Cancel safety
    /// Either everything is done or nothing.
    pub(crate) async fn log_out(&self, own: Option<&ProfileId>, server: &str) -> Result<bool, AuthFailure> {
        let (of, _) = self.server_to_log_in(own, server)?;
        Ok(self.upstreams().log_out(&of).await?)
    }

    /// How logins stand at the servers of the operator's own registration, and of all where he has none.
    pub(crate) fn login_report(&self, own: Option<&ProfileId>) -> LoginsReport {
        let mut rows = BTreeMap::new();
        for status in self.upstreams().status() {
            let of = ServerRef::new(status.profile.clone(), status.name.clone());
            let is_meant = own.is_none_or(|own| *own == status.profile);
            if let (true, Ok(Some(login))) = (is_meant, self.upstreams().login_status(&of)) {
                let key = (status.name.clone(), status.target.clone());
                rows.entry(key).or_insert_with(|| row(&status.name, status.target, &login));
            }
        }
        LoginsReport { servers: rows.into_values().collect() }
    }

    fn server_to_log_in(
        &self,
        own: Option<&ProfileId>,
        name: &str,
    ) -> Result<(ServerRef, Option<String>), ServerError> {
        let (mut named, others): (Vec<_>, Vec<_>) =
            self.upstreams().status().into_iter().partition(|status| status.name == name);
        named.sort_by_key(|status| own != Some(&status.profile));
        match named.into_iter().next() {
            Some(status) => Ok((ServerRef::new(status.profile, status.name), status.target)),
            None => {
                let near = did_you_mean(name, others.iter().map(|status| status.name.as_str()));
                Err(ServerError::Unknown { name: name.to_owned(), near })
            }
        }
    }
}

impl Logins {
    fn add(&self, id: u64, begun: Begun) {
        self.prune();
        let mut all = self.all();
        if all.len() >= MAX_LOGINS
            && let Some(oldest) = all.keys().min().copied()
        {
            all.remove(&oldest);
        }
        all.insert(id, begun);
    }

    /// Gives up those that took too long.
    pub(super) fn prune(&self) {
        self.all().retain(|_, begun| begun.at.elapsed() < LOGIN_TIME);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<CallError> for AuthFailure {
    fn from(error: CallError) -> Self {
        Self::Server(error.into())
    }
}

fn row(name: &str, target: Option<String>, status: &LoginStatus) -> ServerLogin {
    let word = serde_json::to_value(status.state).ok();
    ServerLogin {
        name: name.to_owned(),
        target,
        state: word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(),
        issuer: status.issuer.clone(),
        scopes: status.scopes.clone(),
        expires_ms: status.expires_secs.map(|secs| secs.saturating_mul(1000)),
        renewable: status.renewable,
    }
}
