//! Mistakes in the state machines of pool, session and shim: each breaks a rule that the simulations hold.

use super::Mutation;

const POOL: &str = "-p conductor-pool --lib state::";
const SESSION: &str = "-p conductor-daemon --lib session::";
const RELAY: &str = "-p conductor-client --lib relay::";

pub(super) const MUTATIONS: [Mutation; 13] = [
    // A session that got a worker loses its other calls in the queue.
    Mutation {
        name: "queued-calls-lost",
        file: "pool/src/state/queue.rs",
        find: r"            self.lines.remove(&session);
        } else {
            self.turn.push_back(session);
        }",
        replace: r"            self.lines.remove(&session);
        }",
        red: POOL,
    },
    // A session that got a worker is the first again.
    Mutation {
        name: "unfair-turn",
        file: "pool/src/state/queue.rs",
        find: r"        } else {
            self.turn.push_back(session);",
        replace: r"        } else {
            self.turn.push_front(session);",
        red: POOL,
    },
    // The daemon goes down before what it took is answered.
    Mutation {
        name: "promise-broken",
        file: "daemon/src/session/ending.rs",
        find: "if is_quiet && self.is_silent => stop(),",
        replace: "if self.is_silent => stop(),",
        red: SESSION,
    },
    // A session out of time is never ended.
    Mutation {
        name: "no-deadline",
        file: "daemon/src/session/ending.rs",
        find: "(Stage::Leaving { .. }, Some(deadline)) if is_gone || now >= deadline => wind_up(),",
        replace: "(Stage::Leaving { .. }, Some(_)) if is_gone => wind_up(),",
        red: SESSION,
    },
    // rmcp ends with its input, and calls that have something to tell hang.
    Mutation {
        name: "ended-with-its-input",
        file: "daemon/src/session/transport.rs",
        find: "return std::future::pending().await;",
        replace: "return None;",
        red: SESSION,
    },
    // What comes while the daemon goes down is neither taken nor given back.
    Mutation {
        name: "not-given-back",
        file: "daemon/src/session/transport.rs",
        find: "self.refusals.push_back(SessionFrame::Returned(body));",
        replace: "drop(body);",
        red: SESSION,
    },
    // Calls are not counted in.
    Mutation {
        name: "no-admission",
        file: "daemon/src/session/admission.rs",
        find: "if self.in_flight >= max_in_flight {",
        replace: "if self.in_flight > max_in_flight {",
        red: SESSION,
    },
    // A call whose client has to say something first is ended.
    Mutation {
        name: "suspended-and-cancelled",
        file: "daemon/src/session/rounds.rs",
        find: "        call.round += 1;",
        replace: "        call.round += 1;\n        call.cancel.cancel();",
        red: "-p conductor-tests --test e2e server_requests::a_suspended_call",
    },
    // Each request in flight is given up when the daemon dies, and sent again all the same.
    Mutation {
        name: "answered-twice",
        file: "client-shim/src/relay.rs",
        find: "|pending: &mut Pending| pending.kept.is_none() && Some(&pending.id) != being_written.as_ref();",
        replace: "|pending: &mut Pending| Some(&pending.id) != being_written.as_ref();",
        red: RELAY,
    },
    // What may be sent again is not.
    Mutation {
        name: "not-sent-again",
        file: "client-shim/src/relay.rs",
        find: "        messages.extend(later);\n",
        replace: "        let _ = later;\n",
        red: RELAY,
    },
    // A call that a second daemon may have taken is sent to a third.
    Mutation {
        name: "returned-for-ever",
        file: "client-shim/src/relay.rs",
        find: "pending.kept = pending.kept.take().filter(|_| is_repeatable(&pending.method));",
        replace: "pending.kept = pending.kept.take();",
        red: RELAY,
    },
    // An answer to an earlier daemon's question reaches another daemon.
    Mutation {
        name: "stale-answer",
        file: "client-shim/src/relay/questions.rs",
        find: "push_bounded(&mut self.stale, id.clone(), MAX_ASKED);",
        replace: "let _ = id;",
        red: RELAY,
    },
    // A call that is not safe to repeat counts as one that is.
    Mutation {
        name: "run-twice",
        file: "client-shim/src/relay/methods.rs",
        find: r#"            | "tools/list""#,
        replace: r#"            | "tools/list"
            | "tools/call""#,
        red: RELAY,
    },
];
