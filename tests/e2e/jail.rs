//! The jail as users see it: its level, what it lacks, and code that does not run without it.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use conductor_tests::{DEADLINE, Daemon, Home, Shim, wait_for};
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
    let inside = jail.layers.iter().filter(|layer| layer.name != "cgroup");
    let missing: Vec<_> = inside.filter(|layer| layer.state == "missing").collect();
    assert!(matches!(missing[..], [layer] if layer.name == "landlock" && layer.reason.is_some()), "{jail:?}");
    assert!(!jail.refuses && jail.broken.is_empty(), "{jail:?}");
    // Logged when it is known, which is when the status tells it.
    wait_for("it is logged", DEADLINE, || match home.logged("the workers' jail was tried out").len() {
        1 => Ok(()),
        n => Err(n),
    });
    assert_eq!(home.logged("a layer of the workers' jail is not complete").len(), 1);
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
    let (group, inside) = jail.layers.split_last().expect("there are some");
    assert!(inside.len() == 5 && inside.iter().all(|layer| layer.state == "active"), "{jail:?}");
    // Whether there is one is up to where the tests run.
    assert_eq!(
        (group.name.as_str(), group.state == "active"),
        ("cgroup", group.reason.is_none()),
        "{group:?}"
    );
    home.configure("[jail]\nlevel = \"best-effort\"\n");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let status = daemon.wait_for_status("the change is refused", |status| !status.warnings.is_empty());
    assert!(status.warnings[0].contains("`[jail]` cannot change"), "{:?}", status.warnings);
    assert_eq!(shim.call("typeof WebAssembly").value(), "undefined");
}

/// Where the daemon has a whole control group the code runs, elsewhere it must not; both say what is.
#[test]
fn strict_runs_code_that_may_start_programs_only_in_a_control_group() {
    let home = Home::new();
    home.configure("[jail]\nlevel = \"strict\"\n[profiles.run]\nrun-args = \"allow-run=/bin/true\"\n");
    let daemon = Daemon::start(&home);
    assert_eq!(Shim::session(&home).call("6 * 7").value(), 42, "code without the grant is not concerned");
    let shim = Shim::session_with(&home, |command| {
        command.env("MCP_CONDUCTOR_PROFILE", "run");
    });
    let answer = shim.call("new Deno.Command('/bin/true').outputSync().code");
    let jail =
        daemon.wait_for_status("the jail was tried out", |status| status.jail.state != "checking").jail;
    let group = jail.layers.iter().find(|layer| layer.name == "cgroup").expect("it is told");
    if group.state == "active" {
        assert_eq!(answer.value(), 0);
        return;
    }
    let reason = group.reason.as_deref().expect("it is told");
    assert_eq!(answer.error_type(), "configuration", "{}", answer.error());
    assert!(answer.error_message().contains(reason), "{}: {reason}", answer.error());
    let hint = answer.error()["hint"].as_str().expect("there is a cure");
    assert!(hint.contains("conductorctl service install"), "{hint}");
}

#[test]
fn the_daemons_memory_is_closed_to_its_user() {
    let home = Home::new();
    let daemon = Daemon::start_with(&home, |command| {
        let mut plain = without_capabilities(command.get_program());
        plain.args(command.get_args()).env_clear();
        plain.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        plain.current_dir(home.path("")).stdin(Stdio::null()).stdout(Stdio::null());
        *command = plain;
    });
    let mut other = without_capabilities("sleep").arg("60").spawn().expect("starts");
    let can_read = |pid: i32, name: &str| {
        let mut cat = without_capabilities("cat");
        cat.arg(format!("/proc/{pid}/{name}")).output().expect("starts").status.success()
    };
    wait_for("another process can be looked into", DEADLINE, || {
        if can_read(other.id().cast_signed(), "environ") { Ok(()) } else { Err("it cannot") }
    });
    for name in ["environ", "maps"] {
        assert!(!can_read(daemon.pid(), name), "{name}");
    }
    assert!(can_read(daemon.pid(), "cmdline"));
    other.kill().expect("it is a child");
    other.wait().expect("it is a child");
}

/// A program as an ordinary user runs it: root's capabilities look into everything.
fn without_capabilities(program: impl AsRef<OsStr>) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]).arg(program);
    command
}
