//! What a login gave: tokens, and the client that they were issued to; on disk in one file, replaced whole.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Instant, SystemTime};

use oauth2::TokenResponse as _;
use rmcp::transport::auth::StoredCredentials;
use serde::{Deserialize, Serialize};

use crate::secret::{Redactor, Secret};

/// Changes when what is kept means something else; other files count as none.
const FORMAT: u32 = 1;

/// Largest file that is read, in bytes: rmcp takes answers of one mebibyte.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A token is renewed so long before its end, in seconds, or at half its life if that is shorter.
const MARGIN_SECS: u64 = 30;

/// What is kept on disk.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    format: u32,
    /// URL of the server that the tokens are for.
    server: String,
    pub(crate) client_secret: Option<String>,
    pub(crate) redirect_uri: String,
    pub(crate) credentials: StoredCredentials,
}

/// The same in use.
pub(crate) struct Grant {
    pub(crate) kept: Kept,
    pub(crate) redactor: Redactor,
    /// `None` for one that did not come from a renewal by this process.
    pub(crate) renewed_at: Option<Instant>,
}

impl Kept {
    pub(crate) fn new(
        server: &str,
        client_secret: Option<String>,
        redirect_uri: String,
        credentials: StoredCredentials,
    ) -> Self {
        Self { format: FORMAT, server: server.to_owned(), client_secret, redirect_uri, credentials }
    }

    pub(crate) fn issuer(&self) -> Option<&str> {
        self.credentials.issuer.as_deref()
    }

    pub(crate) fn is_renewable(&self) -> bool {
        self.credentials.token_response.as_ref().is_some_and(|tokens| tokens.refresh_token().is_some())
    }

    pub(crate) fn with(&self, credentials: StoredCredentials) -> Self {
        Self { credentials, ..self.clone() }
    }

    pub(crate) fn without_tokens(&self) -> Self {
        let mut kept = self.clone();
        kept.credentials.token_response = None;
        kept
    }

    fn secrets(&self) -> Vec<Secret> {
        let tokens = self.credentials.token_response.as_ref();
        let access = tokens.map(|tokens| tokens.access_token().secret());
        let refresh = tokens.and_then(|tokens| tokens.refresh_token()).map(|token| token.secret());
        [access, refresh, self.client_secret.as_ref()].into_iter().flatten().map(Secret::new).collect()
    }
}

impl Grant {
    pub(crate) fn new(kept: Kept, renewed_at: Option<Instant>) -> Self {
        let redactor = Redactor::new(&kept.secrets());
        Self { kept, redactor, renewed_at }
    }

    /// The bearer token.
    pub(crate) fn token(&self) -> &str {
        self.kept.credentials.token_response.as_ref().map_or("", |tokens| tokens.access_token().secret())
    }

    pub(crate) fn is_renewable(&self) -> bool {
        self.kept.is_renewable()
    }

    /// Whether the token may be sent.
    pub(crate) fn is_valid(&self, now: SystemTime) -> bool {
        self.kept.credentials.token_response.is_some() && self.lasts_secs(now) != Some(0)
    }

    /// Whether the token is to be renewed before it is sent.
    pub(crate) fn is_stale(&self, now: SystemTime) -> bool {
        let Some((lasts, life)) = self.lasts_secs(now).zip(self.life_secs()) else { return false };
        self.is_renewable() && lasts < MARGIN_SECS.min(life / 2).max(1)
    }

    /// Seconds until the token expires; `None` if that is not known. By a clock that was set back it is as new: that it is
    /// not, its server says.
    pub(crate) fn lasts_secs(&self, now: SystemTime) -> Option<u64> {
        let received_at = self.kept.credentials.token_received_at?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Some(self.life_secs()?.saturating_sub(now.saturating_sub(received_at)))
    }

    fn life_secs(&self) -> Option<u64> {
        Some(self.kept.credentials.token_response.as_ref()?.expires_in()?.as_secs())
    }
}

/// What is kept for `server`, if anything.
pub(crate) fn load(file: &Path, server: &str) -> Option<Kept> {
    let mut text = String::new();
    match File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "a login cannot be read");
            return None;
        }
    }
    // Without serde's error, which may quote what it read.
    let kept = serde_json::from_str(&text).ok();
    let kept = kept.filter(|kept: &Kept| kept.format == FORMAT && kept.server == server);
    if kept.is_none() {
        tracing::warn!(file = %file.display(), "a login is not understood and not used");
    }
    kept
}

pub(crate) fn save(file: &Path, kept: &Kept) -> io::Result<()> {
    conductor_files::replace(file, &serde_json::to_vec(kept)?)
}

pub(crate) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    const LIFE: Duration = Duration::from_secs(3600);
    const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

    fn grant(received_at: SystemTime) -> Grant {
        let received_at = received_at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let tokens = json!({
            "access_token": "a", "refresh_token": "r", "token_type": "bearer", "expires_in": LIFE.as_secs(),
        });
        let credentials =
            json!({ "client_id": "c", "token_response": tokens, "token_received_at": received_at });
        let credentials = serde_json::from_value(credentials).expect("is what rmcp writes");
        Grant::new(Kept::new("https://server.test", None, String::new(), credentials), None)
    }

    /// Valid, and not to be renewed first.
    fn is_sent(grant: &Grant, now: SystemTime) -> bool {
        grant.is_valid(now) && !grant.is_stale(now)
    }

    #[test]
    fn a_token_is_sent_for_its_life_and_renewed_in_time() {
        let now = SystemTime::now();
        let grant = grant(now);
        assert!(is_sent(&grant, now) && is_sent(&grant, now + LIFE / 2));
        assert!(grant.is_valid(now + LIFE - Duration::from_secs(9)));
        assert!(grant.is_stale(now + LIFE - Duration::from_secs(9)));
        assert!(!grant.is_valid(now + LIFE));
    }

    #[test]
    fn a_clock_that_jumps_costs_a_renewal_and_no_login() {
        let now = SystemTime::now();
        let grant_of_now = grant(now);
        assert!(
            grant_of_now.is_stale(now + YEARS) && grant_of_now.is_renewable(),
            "ahead: renewed before it is sent"
        );
        assert!(is_sent(&grant_of_now, now), "and back: as before");
        // Set back, it is sent, until its server refuses it; then it is renewed like any that was refused.
        assert!(is_sent(&grant_of_now, now - YEARS));
        assert_eq!(grant_of_now.lasts_secs(now - YEARS), Some(LIFE.as_secs()));
        assert!(is_sent(&grant(now + YEARS), now), "renewed while the clock was ahead");
        assert!(is_sent(&grant_of_now, SystemTime::UNIX_EPOCH), "a clock that has forgotten the day");
    }
}
