//! `CONDUCTOR_TEST_WORKER=fork`: the default profile of every home has its workers forked, and calls wait until they are.

use std::path::Path;
use std::time::{Duration, Instant};

use conductor_protocol::status::{ProfileStatus, StatusReport};

use crate::operator::Operator;

/// For templates that are made with fewer packages each time. Then calls go on with workers that are not forked.
const TEMPLATES: Duration = Duration::from_secs(120);

/// Between two looks: each asks the daemon.
const LOOK: Duration = Duration::from_millis(100);

/// Where workers are to be forked.
pub fn are_wanted() -> bool {
    match std::env::var("CONDUCTOR_TEST_WORKER").as_deref() {
        Ok("fork") => true,
        Ok("spawn") | Err(_) => false,
        Ok(other) => panic!("CONDUCTOR_TEST_WORKER is {other:?}: neither fork nor spawn"),
    }
}

/// A configuration whose default profile asks for forked workers, unless it says which it wants.
pub(crate) fn asked_for(text: &str) -> String {
    const PROFILE: &str = "[profiles.default]\n";
    match text {
        text if text.contains("worker =") => text.to_owned(),
        text if text.contains(PROFILE) => text.replacen(PROFILE, &format!("{PROFILE}worker = \"fork\"\n"), 1),
        text => format!("{text}\n{PROFILE}worker = \"fork\"\n"),
    }
}

/// Waits while templates or packages of sessions are being made. Returns as well if the daemon does not answer.
pub(crate) fn wait(socket: &Path) {
    let deadline = Instant::now() + TEMPLATES;
    while Operator::status(socket).is_ok_and(|status| is_at_work(&status)) && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
}

fn is_at_work(status: &StatusReport) -> bool {
    let waits = |profile: &ProfileStatus| {
        let why = profile.fallback.as_deref().unwrap_or_default();
        profile.sessions > 0 && (why.contains("is being built") || why.contains("has been needed"))
    };
    status.pool.profiles.iter().any(waits)
        || status.packages.iter().any(|packages| packages.building.is_some())
}
