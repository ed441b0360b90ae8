//! What sessions want to hear of servers without asking each time: changes of resources, and log messages.

#![expect(
    deprecated,
    reason = "logging levels are on their way out of MCP (SEP-2577); clients of today use them"
)]

use std::sync::Arc;

use rmcp::model::LoggingLevel;
use tokio::time::{Duration, Instant};

use super::Upstreams;
use super::call::CallContext;
use super::registry::{Connection, Instance};
use crate::config::Scope;
use crate::connection::live::Live;
use crate::connection::open::Era;
use crate::connection::request::{Limits, Operation};
use crate::connection::task::Command;
use crate::error::CallError;
use crate::session::{ServerRef, SessionId};

/// How long a server may take to hear that nobody watches a resource any more; nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(10);

impl Upstreams {
    /// Lets the session know ([`crate::ClientRequests::updated`]) whenever a resource of the server changes, until
    /// [`Upstreams::unwatch`] or the session's end. The server is kept running as long.
    ///
    /// # Errors
    /// See [`CallError`]; a server with a connection for each call cannot be watched.
    ///
    /// # Cancel safety
    /// The server may have been asked; what it announces then reaches nobody.
    pub async fn watch(&self, server: &ServerRef, context: &CallContext, uri: &str) -> Result<(), CallError> {
        if self.entry(server)?.config.scope == Scope::Call {
            let reason = "it has a connection for each call";
            return Err(CallError::Unwatchable { server: server.name.clone(), reason });
        }
        let used = self.use_server(server, context, "resources/subscribe").await?;
        let config = &used.entry.config;
        let deadline = Instant::now() + config.timeout;
        let limits = Limits {
            timeout: config.timeout,
            deadline: context.deadline.map_or(deadline, |earlier| earlier.min(deadline)),
            cancel: context.cancel.clone(),
            max_bytes: self.0.options.max_message_bytes,
        };
        let live = &used.lease.live;
        let added = live.answers.watches.add(live, &server.name, &context.session, uri, &limits).await;
        added.map_err(|error| error.redacted(&config.redactor))
    }

    /// The session watches a resource no more, whichever server has it.
    pub fn unwatch(&self, session: &SessionId, uri: &str) {
        for connection in self.registry().connections() {
            if connection.watches.remove(session, uri) {
                self.farewell(connection, vec![uri.to_owned()]);
            }
        }
    }

    /// The session wants to hear log messages from this level on: tells the servers that are its own, now and when they
    /// start. Servers of the newer era learn it with each call.
    pub fn set_log_level(&self, session: &SessionId, level: LoggingLevel) {
        let mut registry = self.registry();
        registry.log_levels.insert(session.clone(), level);
        let own = Instance::Session(session.clone());
        for connection in registry.connections().filter(|connection| connection.key.instance == own) {
            // Closed: it has ended. Full: it is told when it starts the next time.
            connection.commands.try_send(Command::LogLevel(level)).ok();
        }
    }

    /// Tells the server of a connection that nobody watches these resources any more.
    pub(super) fn farewell(&self, connection: &Connection, uris: Vec<String>) {
        let live: Option<Arc<Live>> = connection.status.borrow().live.clone();
        // Of the newer era: it was told by the end of the stream.
        let Some(live) = live.filter(|live| live.era == Era::Initialize && !uris.is_empty()) else { return };
        self.0.tracker.spawn(async move {
            for uri in uris {
                let limits = Limits::internal(FAREWELL, usize::MAX);
                let told = live.send(&live.answers.server, Operation::Unsubscribe { uri }, &limits).await;
                if let Err(error) = told {
                    tracing::debug!(upstream = %live.answers.server, %error, "a subscription stays");
                }
            }
        });
    }
}
