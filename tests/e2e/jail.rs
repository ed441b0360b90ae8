//! The jail as users see it: its level, what it lacks, and code that does not run without it.

use std::sync::Arc;

use conductor_tests::{Daemon, Home, Shim};
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// A daemon on a kernel that has no Landlock: this one, behind a filter that says so. Workers inherit it.
fn without_landlock(home: &Arc<Home>) -> Daemon {
    let start = || {
        let calls = [(libc::SYS_landlock_create_ruleset, vec![])].into();
        let answer = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let architecture = std::env::consts::ARCH.try_into().expect("a processor with a table");
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, answer, architecture).expect("a filter");
        let filter: BpfProgram = filter.try_into().expect("compiles");
        // Of this thread and what it starts.
        seccompiler::apply_filter(&filter).expect("this kernel has filters");
        Daemon::start(home)
    };
    std::thread::scope(|scope| scope.spawn(start).join().expect("the daemon starts"))
}

#[test]
fn strict_runs_no_code_without_a_layer_and_names_it() {
    let home = Home::new();
    home.configure("[jail]\nlevel = \"strict\"\n");
    let daemon = without_landlock(&home);
    let shim = Shim::session(&home);
    let answer = shim.call("1");
    assert_eq!(answer.error_type(), "configuration", "{}", answer.error());
    assert!(answer.error_message().contains("layer landlock"), "{}", answer.error());
    assert!(
        answer.error()["hint"].as_str().is_some_and(|hint| hint.contains("[jail]")),
        "{}",
        answer.error()
    );
    let status = daemon.wait_for_status("the jail was tried out", |status| status.jail.state != "checking");
    assert_eq!((status.jail.level.as_str(), status.jail.state.as_str()), ("strict", "incomplete"));
    assert!(status.jail.refuses);
    assert!(status.pool.profiles.iter().all(|profile| profile.booted == 0), "{:?}", status.pool.profiles);
}

#[test]
fn best_effort_runs_code_without_a_layer_and_says_so() {
    let home = Home::new();
    let daemon = without_landlock(&home);
    assert_eq!(Shim::session(&home).call("6 * 7").value(), 42);
    let jail =
        daemon.wait_for_status("the jail was tried out", |status| status.jail.state != "checking").jail;
    assert_eq!(
        (jail.level.as_str(), jail.state.as_str(), jail.landlock_abi),
        ("best-effort", "incomplete", 0)
    );
    let missing: Vec<_> = jail.layers.iter().filter(|layer| layer.state == "missing").collect();
    assert!(matches!(missing[..], [layer] if layer.name == "landlock" && layer.reason.is_some()), "{jail:?}");
    assert!(!jail.refuses && jail.broken.is_empty(), "{jail:?}");
    assert!(home.logged("a layer of the workers' jail is not complete").len() == 1);
}

#[test]
fn with_every_layer_strict_runs_code() {
    let home = Home::new();
    home.configure("[jail]\nlevel = \"strict\"\nhardened = true\n");
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    assert_eq!(shim.call("[6 * 7, typeof WebAssembly]").value(), &serde_json::json!([42, "undefined"]));
    let jail =
        daemon.wait_for_status("the jail was tried out", |status| status.jail.state != "checking").jail;
    assert_eq!(jail.state, "holds", "{jail:?}");
    assert!(jail.layers.len() == 5 && jail.layers.iter().all(|layer| layer.state == "active"), "{jail:?}");
    home.configure("[jail]\nlevel = \"best-effort\"\n");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let status = daemon.wait_for_status("the change is refused", |status| !status.warnings.is_empty());
    assert!(status.warnings[0].contains("`[jail]` cannot change"), "{:?}", status.warnings);
    assert_eq!(shim.call("typeof WebAssembly").value(), "undefined");
}

#[test]
fn the_daemons_memory_is_closed_to_its_user() {
    let daemon = Daemon::new();
    // The kernel gives what belongs to a process that must not be looked into to root.
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    assert!(status.contains("Name:"), "{status}");
    let ours = nix::unistd::geteuid();
    let readable = std::fs::read(format!("/proc/{}/environ", daemon.pid())).is_ok();
    assert_eq!(readable, ours.is_root(), "only who may trace everything can read it");
    let limited = std::process::Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", "cat"])
        .arg(format!("/proc/{}/environ", daemon.pid()))
        .output()
        .expect("setpriv starts");
    assert!(!limited.status.success(), "without capabilities even the same user cannot");
}
