//! The socket, the daemon behind it, and a real run.

use std::io;
use std::path::Path;

use conductor_protocol::endpoint::{self, Surroundings};
use conductor_protocol::status::{DenoStatus, JailStatus, StatusReport};
use conductor_protocol::{ClientKind, PROTOCOL_VERSION};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::super::client::{Admin, ClientError, McpSession};
use super::super::failure::Failure;
use super::super::paint::millis;
use super::super::progress::Spinner;
use super::super::render::jail_in_words;
use super::super::run::{RunResult, TOOL, structured};
use super::super::{BUILD, GlobalOptions};
use super::{Check, Findings, Verdict, http, places};
use crate::connect::{self, ConnectError};
use crate::error::chain;

const NAME: &str = "daemon";
const RUN: &str = "execution";

/// What is run: output, a value, a type to strip.
const PROGRAM: &str = "const six: number = 6; console.log('ran'); six * 7";

/// Gives what the daemon says of its Deno; nothing when it does not run.
pub(super) fn checks(global: &GlobalOptions, findings: &mut Findings) -> io::Result<DenoStatus> {
    let at = connect::surroundings(global.socket.clone());
    let mut is_running = false;
    for path in endpoint::candidates(&at) {
        let (check, is_served) = socket(&path, &at);
        is_running |= is_served;
        findings.add(check)?;
    }
    if !is_running && global.no_start {
        findings.add(Check::warn(
            NAME,
            "not running, and --no-start forbids to start it",
            "leave out --no-start",
        ))?;
        findings.add(Check::warn(RUN, "not tried: the daemon is not running", "leave out --no-start"))?;
        return Ok(DenoStatus::default());
    }
    let spinner = Spinner::new(if is_running { "connecting to the daemon" } else { "starting the daemon" });
    let session = McpSession::open(&global.route(ClientKind::Ctl));
    drop(spinner);
    match session {
        Ok(mut session) => {
            findings.add(reached(&session, is_running))?;
            findings.add(execution(&mut session))?;
        }
        Err(error) => {
            findings.add(failed(NAME, error))?;
            findings.add(Check::fail(RUN, "not tried: the daemon cannot be reached", "see above"))?;
            return Ok(DenoStatus::default());
        }
    }
    let report = match Admin::connect(&global.route_to_running(ClientKind::Admin))
        .and_then(|mut admin| admin.status())
    {
        Ok(document) => StatusReport::deserialize(document).unwrap_or_default(),
        Err(error) => {
            findings.add(failed("status", error))?;
            StatusReport::default()
        }
    };
    findings.add(jail(&report.jail))?;
    for check in http::checks(&report.http) {
        findings.add(check)?;
    }
    for warning in &report.warnings {
        findings.add(Check { verdict: Verdict::Warn, ..Check::fail_in_words("daemon says", warning) })?;
    }
    Ok(report.deno)
}

/// Says what is at a socket path, and whether a daemon of ours is.
fn socket(path: &Path, at: &Surroundings) -> (Check, bool) {
    const NAME: &str = "socket";
    let shown = path.display();
    let only = Surroundings { explicit: Some(path.to_owned()), ..at.clone() };
    let check = match connect::connect(&only) {
        Ok(_) => return (Check::ok(NAME, format!("{shown}, served")), true),
        Err(ConnectError::Absent { .. }) if path.exists() => {
            Check::ok(NAME, format!("{shown}, left by a daemon that is gone; the next one takes it over"))
        }
        Err(ConnectError::Absent { .. }) => match path.parent() {
            Some(dir) if dir.exists() => {
                let below = places::directory(NAME, dir, 0);
                let text = format!("{shown}, nobody listens; {}", below.text);
                Check { text, ..below }
            }
            _ => Check::ok(NAME, format!("{shown}, nobody listens")),
        },
        Err(error) => {
            let fix = format!("see who owns {shown}, or set CONDUCTOR_SOCKET to another path");
            Check::fail(NAME, chain(&error), fix)
        }
    };
    (check, false)
}

fn reached(session: &McpSession, was_running: bool) -> Check {
    let welcome = &session.welcome;
    let how = if was_running { "running" } else { "started now" };
    let text = format!("{}, {how}, pid {}, protocol {PROTOCOL_VERSION}", welcome.build, welcome.pid);
    match welcome.build == BUILD {
        true => Check::ok(NAME, text),
        false => Check::warn(
            NAME,
            format!("{text}; this program is {BUILD}"),
            "conductorctl stop: the next start runs the new build",
        ),
    }
}

fn execution(session: &mut McpSession) -> Check {
    let spinner = Spinner::new("running a small program");
    let answer = session.call_tool(TOOL, json!({ "deno_code": PROGRAM }), &mut |text| spinner.tell(text));
    drop(spinner);
    let result = answer.and_then(structured).and_then(|document| Ok((RunResult::read(&document)?, document)));
    match result {
        Err(error) => failed(RUN, error),
        Ok((RunResult { error: Some(error), .. }, _)) => {
            let fix = error.hint.unwrap_or_else(|| "see `conductorctl status` and the daemon's log".into());
            Check::fail(RUN, error.message, fix)
        }
        Ok((result, document)) => match (&document["returnValue"], &document["stdout"]) {
            (value, Value::String(stdout)) if *value == 42 && stdout == "ran\n" => {
                Check::ok(RUN, format!("a small program ran in {}", millis(result.timings.total)))
            }
            (value, stdout) => {
                let text = format!("a small program gave {value} and wrote {stdout}, not 42 and \"ran\\n\"");
                Check::fail(RUN, text, "report this, with the daemon's log")
            }
        },
    }
}

/// Whether the kernel keeps workers from all that it should.
fn jail(jail: &JailStatus) -> Check {
    const NAME: &str = "jail";
    let lacks = jail
        .layers
        .iter()
        .filter_map(|layer| Some(format!("{} is {}: {}", layer.name, layer.state, layer.reason.as_ref()?)));
    let broken = jail.broken.iter().map(|finding| format!("does not hold: {finding}"));
    let faults: Vec<String> = lacks.chain(broken).collect();
    let text = std::iter::once(jail_in_words(jail)).chain(faults).collect::<Vec<_>>().join("\n");
    let verdict = match jail.state.as_str() {
        "holds" | "checking" => return Check::ok(NAME, text),
        _ if jail.refuses => Verdict::Fail,
        _ => Verdict::Warn,
    };
    let fix = if jail.broken.is_empty() {
        "use a kernel that has all layers: Linux 6.12 and later do"
    } else {
        "report this, with the name of the kernel (uname -a)"
    };
    Check { verdict, ..Check::fail(NAME, text, fix) }
}

fn failed(name: &'static str, error: ClientError) -> Check {
    let words = Failure::Client(error).text().unwrap_or_default();
    Check::fail_in_words(name, &words)
}

#[cfg(test)]
mod tests {
    use conductor_protocol::status::LayerStatus;

    use super::*;

    #[test]
    fn a_jail_that_is_not_whole_is_told_by_how_bad_it_is() {
        let layer = |state: &str, reason: Option<&str>| LayerStatus {
            name: "seccomp".into(),
            state: state.into(),
            reason: reason.map(Into::into),
        };
        let jailed = |state: &str, layer, broken: &[&str], refuses| {
            let broken = broken.iter().map(|text| (*text).to_owned()).collect();
            jail(&JailStatus {
                level: "strict".into(),
                state: state.into(),
                layers: vec![layer],
                broken,
                refuses,
                ..JailStatus::default()
            })
        };
        let whole = jailed("holds", layer("active", None), &[], false);
        assert_eq!((whole.verdict, whole.text.as_str()), (Verdict::Ok, "strict, holds: seccomp"));
        let missing = layer("missing", Some("no filters"));
        let warned = jailed("incomplete", missing.clone(), &[], false);
        assert_eq!(warned.verdict, Verdict::Warn);
        assert!(warned.text.contains("seccomp is missing: no filters"), "{}", warned.text);
        let refused = jailed("incomplete", missing, &["a socket: it was done"], true);
        assert_eq!(refused.verdict, Verdict::Fail);
        assert!(
            refused.text.contains("no code runs") && refused.text.contains("a socket"),
            "{}",
            refused.text
        );
        assert!(refused.fix.is_some_and(|fix| fix.contains("report")));
    }
}
