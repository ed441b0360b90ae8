//! A profile whose workers are forked: the same answers, told in the status, and nothing left behind.

use std::time::Duration;

use conductor_tests::{Daemon, Home, Shim, wait_for};
use serde_json::json;

/// Time for a template: ten seconds until its idle threads have ended, and what a busy machine adds.
const TEMPLATE: Duration = Duration::from_secs(90);

#[test]
fn a_profile_can_have_its_workers_forked() {
    let home = Home::new();
    home.configure("[profiles.default]\nworker = \"fork\"\n");
    let mut daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    let profile = |daemon: &Daemon| daemon.status().pool.profiles.into_iter().next().expect("there is one");
    let first = shim.call("40 + 2");
    assert_eq!(first.value(), 42, "spawned workers serve until there is a template");
    assert_eq!(first.structured()["worker"], "spawn");
    let forked = || {
        let seen = profile(&daemon);
        if seen.forked >= seen.idle && seen.idle > 0 { Ok(()) } else { Err(format!("{seen:?}")) }
    };
    wait_for("idle workers that were spawned are replaced without a call", TEMPLATE, forked);
    assert_eq!(shim.call("40 + 2").structured()["worker"], "fork");
    let served = daemon.status().executions.by_worker;
    assert_eq!(served, [("fork".to_owned(), 1), ("spawn".to_owned(), 1)].into());
    let profile = profile(&daemon);
    assert_eq!((profile.source.as_str(), profile.fallback, profile.boot_failures), ("fork", None, 0));
    assert!(profile.spawned > 0 && profile.spawned + profile.forked == profile.booted);
    let templates = profile.templates.expect("one serves");
    assert_eq!((templates.built, templates.failures.len(), templates.gave_up), (1, 0, 0));
    assert!(templates.pid.is_some() && templates.memory_bytes > 1 << 20 && templates.forks >= profile.forked);

    assert_eq!(shim.call("const t: number = await new Promise(f => setTimeout(f, 5, 7)); t").value(), 7);
    assert!(shim.call("throw new TypeError('here')").error_message().contains("here"));
    assert_eq!(shim.call("Deno.readTextFileSync('/etc/hostname')").error_type(), "permission");
    assert_eq!(shim.call("Deno.exit(3)").error_type(), "exit");
    let endless = json!({ "deno_code": "for (;;);", "timeout": 300 });
    assert_eq!(shim.call_with(endless).error_type(), "timeout");

    daemon.kill9();
    wait_for("nothing is left of a daemon that was killed", Duration::from_secs(20), || {
        match home.workers() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
}

#[test]
fn a_profile_that_cannot_be_forked_says_why_and_is_spawned() {
    let home = Home::new();
    home.configure("[jail]\nhardened = true\n[profiles.default]\nworker = \"fork\"\n");
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    assert_eq!(shim.call("40 + 2").structured()["worker"], "spawn");
    let told = daemon.wait_for_status("the status tells why, though nobody calls", |status| {
        status.pool.profiles[0].fallback.as_deref().is_some_and(|why| why.contains("`hardened`"))
    });
    let profile = &told.pool.profiles[0];
    let templates = profile.templates.as_ref().expect("one was asked for");
    assert_eq!((profile.spawned, profile.forked), (profile.booted, 0));
    assert_eq!((templates.built, &templates.failures), (0, &[("unsuitable".to_owned(), 1)].into()));
    assert_eq!(templates.last_failure, profile.fallback);
    assert_eq!(shim.call("40 + 2").structured()["worker"], "spawn");
}

#[test]
fn what_a_profile_preloads_is_in_the_template_but_for_what_forks_must_not_share() {
    let home = Home::new();
    home.configure(
        "[profiles.default]\nworker = \"fork\"\npackages = [\"npm:axios@^1\", \"npm:seedrandom@^3\"]\n\
         preload = [\"npm:axios\", \"npm:seedrandom\"]\n",
    );
    let daemon = Daemon::start(&home);
    // The fixture's variable would go before the profile's list.
    let shim = Shim::session_with(&home, |command| {
        command.env_remove("MCP_CONDUCTOR_ALLOWED_PACKAGES");
    });
    let left_out = wait_for("the packages' template", 2 * TEMPLATE, || {
        let profiles = daemon.status().pool.profiles;
        let ready = profiles.iter().find(|it| it.forked >= it.idle && it.idle > 0 && !it.left_out.is_empty());
        ready.map(|it| it.left_out.join("\n")).ok_or(format!("{profiles:?}"))
    });
    let of = |package: &str| left_out.lines().find(|line| line.contains(package)).unwrap_or_default();
    assert!(of("npm:seedrandom").contains("draws random numbers"), "{left_out}");
    // A busy machine may take too long to import it in time.
    assert!(of("npm:axios").is_empty() || of("npm:axios").contains("half a second"), "{left_out}");

    let answer = shim.call(
        "const { default: axios } = await import('npm:axios');
         const { default: seedrandom } = await import('npm:seedrandom');
         [typeof axios.get, typeof seedrandom, process.pid === Deno.pid]",
    );
    assert_eq!(answer.structured()["worker"], "fork");
    assert_eq!(answer.value(), &json!(["function", "function", true]));
}
