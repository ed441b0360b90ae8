//! What each token does, and all of them together: how much they may do at one time, and what they did. Owns the numbers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer::Refusal;
use super::tokens::Token;
use crate::config::http::HttpLimits;
use crate::session::admission::{Admission, Refused};

/// See the module. A cheap handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// By the token's key.
    tokens: HashMap<[u8; 32], Account>,
    totals: Totals,
}

#[derive(Debug)]
struct Account {
    admission: Admission,
    in_flight: u64,
    requests: u64,
    used_at: Instant,
}

/// What all did since the daemon started, and how many are connected now.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) connections: u64,
    pub(super) turned_away: u64,
    pub(super) requests: u64,
    /// By reason.
    pub(super) refused: BTreeMap<String, u64>,
}

/// What one token did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    pub(super) in_flight: u64,
    pub(super) requests: u64,
    pub(super) unused: Option<Duration>,
}

/// Counts one request of a token for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pass {
    accounts: Accounts,
    key: [u8; 32],
}

/// Counts one connection for as long as it lives.
#[derive(Debug)]
pub(super) struct Connected(Accounts);

impl Accounts {
    /// Lets a request in, unless its token has too many.
    pub(super) fn enter(&self, token: &Token, limits: &HttpLimits) -> Result<Pass, Refusal> {
        let now = Instant::now();
        let mut inner = self.lock();
        let new = || Account { admission: Admission::new(now), in_flight: 0, requests: 0, used_at: now };
        let account = inner.tokens.entry(token.key()).or_insert_with(new);
        account.admission.enter(now, limits.max_requests_in_flight, limits.max_requests_per_minute).map_err(
            |refused| match refused {
                Refused::InFlight { in_flight } => Refusal::InFlight { limit: in_flight },
                Refused::Rate { limit, retry_in } => Refusal::Rate { limit, retry_in },
            },
        )?;
        account.in_flight += 1;
        account.requests += 1;
        account.used_at = now;
        inner.totals.requests += 1;
        drop(inner);
        Ok(Pass { accounts: self.clone(), key: token.key() })
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        *self.lock().totals.refused.entry(refusal.kind().to_owned()).or_default() += 1;
    }

    /// Lets a connection in, unless there are too many.
    pub(super) fn connect(&self, max: usize) -> Option<Connected> {
        let mut inner = self.lock();
        if inner.totals.connections >= max as u64 {
            inner.totals.turned_away += 1;
            return None;
        }
        inner.totals.connections += 1;
        drop(inner);
        Some(Connected(self.clone()))
    }

    pub(super) fn of(&self, token: &Token, now: Instant) -> Use {
        let inner = self.lock();
        let account = inner.tokens.get(&token.key());
        account.map_or(Use::default(), |account| Use {
            in_flight: account.in_flight,
            requests: account.requests,
            unused: Some(now.saturating_duration_since(account.used_at)),
        })
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().totals.clone()
    }

    /// Forgets tokens that are no more, once they have nothing in flight.
    pub(super) fn keep(&self, tokens: &[Arc<Token>]) {
        let is_valid = |key: &[u8; 32]| tokens.iter().any(|token| token.key() == *key);
        self.lock().tokens.retain(|key, account| account.in_flight > 0 || is_valid(key));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Numbers stay numbers, whatever panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(account) = self.accounts.lock().tokens.get_mut(&self.key) {
            account.admission.leave();
            account.in_flight -= 1;
            account.used_at = Instant::now();
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.lock().totals.connections -= 1;
    }
}
