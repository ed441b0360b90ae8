//! What callers ask for without a pause: a table of programs, each with what its answer must be.

use std::path::Path;
use std::time::Instant;

use conductor_tests::{Answer, Noise, Shim};
use serde_json::json;

/// How long a call may take, milliseconds: what hangs because its process was stopped ends then, and nothing else is as slow
/// even on a loaded machine.
const TIME_MS: u64 = 15_000;

/// JSON-RPC error of the shim: the request may have run, its answer is lost.
const LOST: i64 = -32001;

/// What a shim says that has met nothing but short-lived daemons for longer than it waits for one.
const RESTLESS: &str = "the conductor daemon goes away again and again";

/// A program; `nonce` is text that no other call has.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    code: &'static str,
    /// The upstream server that it calls.
    pub(crate) server: Option<&'static str>,
    ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// With the nonce as its value.
    Value,
    /// The same, and printed a thousand times.
    Printed,
    /// With an error that holds it.
    Thrown,
    /// Before it is done, because its caller has had enough.
    Cancelled,
}

const fn kind(name: &'static str, server: Option<&'static str>, ends: Ends, code: &'static str) -> Kind {
    Kind { name, code, server, ends }
}

pub(crate) const KINDS: [Kind; 9] = [
    kind("trivial", None, Ends::Value, "nonce"),
    kind("slow", None, Ends::Value, "await new Promise((done) => setTimeout(done, 60)); nonce"),
    kind("prints", None, Ends::Printed, "for (let i = 0; i < 1000; i++) console.log(nonce); nonce"),
    kind("throws", None, Ends::Thrown, "throw new Error(nonce)"),
    kind("cancelled", None, Ends::Cancelled, "await new Promise((done) => setTimeout(done, 60_000)); nonce"),
    kind("flaky", Some("flaky"), Ends::Value, "await mcp.flaky.echo({ message: nonce })"),
    kind("calm", Some("calm"), Ends::Value, "await mcp.calm.echo({ message: nonce })"),
    kind(
        "everything",
        Some("everything"),
        Ends::Value,
        "(await mcp.everything.echo({ message: nonce })).replace('Echo: ', '')",
    ),
    kind(
        "time",
        Some("time"),
        Ends::Value,
        "const now = await mcp.time.get_current_time({ timezone: 'UTC' });\n\
         JSON.stringify(now).includes('UTC') ? nonce : now",
    ),
];

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A call that was made, and what came of it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) kind: &'static Kind,
    pub(crate) nonce: String,
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    pub(crate) outcome: Outcome,
}

impl Call {
    /// The run's id, if there was one and it failed.
    pub(crate) fn execution(&self) -> &str {
        match &self.outcome {
            Outcome::Failed { execution, .. } => execution,
            _ => "",
        }
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "what was told is printed when a test fails")]
pub(crate) enum Outcome {
    /// As it must be when nothing strikes it.
    Right,
    /// The run failed: kind of error, execution id, everything.
    Failed { error: String, execution: String, told: String },
    /// The daemon went away with it.
    Lost,
    /// It did not run: too many daemons went away one after the other.
    TurnedAway,
    /// Nothing that a client can be given.
    Wrong(String),
}

/// Makes one call and waits for what comes of it.
pub(crate) fn make(shim: &Shim, kind: &'static Kind, nonce: String, marks: &Path, noise: &mut Noise) -> Call {
    let code = format!("Deno.writeTextFileSync(marks, nonce + '\\n', {{ append: true }});\n{}", kind.code);
    let globals = json!({ "marks": marks, "nonce": nonce });
    let sent = Instant::now();
    let id = shim.start_call(json!({ "deno_code": code, "globals": globals, "timeout": TIME_MS }));
    let outcome = if kind.ends == Ends::Cancelled {
        std::thread::sleep(noise.milliseconds(0..80));
        shim.notify("notifications/cancelled", json!({ "requestId": id }));
        Outcome::Right
    } else {
        judge(kind, &nonce, &shim.answer(id))
    };
    Call { kind, nonce, sent, answered: Instant::now(), outcome }
}

fn judge(kind: &Kind, nonce: &str, answer: &Answer) -> Outcome {
    if answer.is_rpc_error() {
        let (code, text) = answer.rpc_error();
        return match code {
            LOST => Outcome::Lost,
            _ if text.starts_with(RESTLESS) => Outcome::TurnedAway,
            _ => Outcome::Wrong(format!("{code} {text}")),
        };
    }
    let told = answer.structured();
    let value_is_right = told["status"] == "success" && told["returnValue"] == nonce;
    let error = told["error"]["type"].as_str();
    let right = match kind.ends {
        Ends::Value => value_is_right,
        Ends::Printed => value_is_right && answer.stdout() == format!("{nonce}\n").repeat(1000),
        Ends::Thrown => error == Some("runtime") && answer.error_message().contains(nonce),
        Ends::Cancelled => unreachable!("nobody waits for its answer"),
    };
    match error {
        _ if right => Outcome::Right,
        Some(error) => Outcome::Failed {
            error: error.to_owned(),
            execution: told["executionId"].as_str().expect("an id").to_owned(),
            told: told["error"].to_string(),
        },
        None => Outcome::Wrong(told.to_string()),
    }
}
