//! What a new daemon must be told to go on where the last one was.

use super::MAX_KEPT_BYTES;
use crate::envelope::Envelope;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) initialize: Option<Remembered>,
    pub(super) initialized: Option<Vec<u8>>,
    level: Option<Remembered>,
    /// By URI.
    subscriptions: Vec<(String, Remembered)>,
}

/// A request of the client.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) envelope: Envelope,
    pub(super) json: Vec<u8>,
}

impl Session {
    /// Requests that set what the session has set, besides `initialize`.
    pub(super) fn settings(&self) -> impl Iterator<Item = &Remembered> {
        self.level.iter().chain(self.subscriptions.iter().map(|(_, request)| request))
    }

    /// Takes what the message sets, if it sets anything.
    pub(super) fn remember(&mut self, envelope: &Envelope, json: &[u8]) {
        let remembered = || Remembered { envelope: envelope.clone(), json: json.to_vec() };
        match (envelope.method.as_str(), &envelope.uri) {
            ("initialize", _) => *self = Self { initialize: Some(remembered()), ..Self::default() },
            ("notifications/initialized", _) if self.initialize.is_some() => {
                self.initialized = Some(json.to_vec())
            }
            ("logging/setLevel", _) => self.level = Some(remembered()),
            ("resources/subscribe", Some(uri)) => {
                self.subscriptions.retain(|(known, _)| known != uri);
                let used: usize = self.subscriptions.iter().map(|(_, request)| request.json.len()).sum();
                if used + json.len() <= MAX_KEPT_BYTES {
                    self.subscriptions.push((uri.clone(), remembered()));
                }
            }
            ("resources/unsubscribe", Some(uri)) => self.subscriptions.retain(|(known, _)| known != uri),
            _ => {}
        }
    }

    /// The message was not sent after all, and will be: a new daemon must not get it twice.
    pub(super) fn unremember(&mut self, envelope: &Envelope) {
        match envelope.method.as_str() {
            "initialize" => self.initialize = None,
            "notifications/initialized" => self.initialized = None,
            _ => {}
        }
    }
}
