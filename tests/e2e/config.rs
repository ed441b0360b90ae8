//! The configuration file: changes are taken while calls run, mistakes are not, and `conductorctl config` needs no daemon.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output};
use std::sync::Arc;

use conductor_tests::binaries::write_program;
use conductor_tests::{DEADLINE, Daemon, Home, Shim, binaries, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::service::{caller, is_served_without_a_gap};

/// Writes the file where it is: for a moment it is empty.
fn rewrite(home: &Home, text: &str) {
    fs::write(home.config_file(), text).expect("writes");
    fs::set_permissions(home.config_file(), fs::Permissions::from_mode(0o600)).expect("sets its mode");
}

/// Puts exactly this text in its place in one step, as most editors do.
fn replace(home: &Home, text: &str) {
    let staged = home.config_file().with_file_name("staged");
    fs::write(&staged, text).expect("writes");
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).expect("sets its mode");
    fs::rename(&staged, home.config_file()).expect("renames");
}

fn wait_for_max_idle(daemon: &Daemon, max_idle: u64) {
    daemon.wait_for_status("the new configuration", |status| status.pool.max_idle == max_idle);
}

#[test]
fn no_call_is_lost_while_the_file_changes_in_every_way() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let shims: Vec<Shim> = (0..2).map(|_| caller(&home, |_| {})).collect();
    let mut round = 0;
    is_served_without_a_gap(&home, &shims, 6, || {
        round += 1;
        let text = format!("[pool]\nmax-idle = {}\n", 20 + round);
        match round {
            1 => rewrite(&home, &text),
            2 => replace(&home, &text),
            3 => {
                for n in 100..150 {
                    replace(&home, &format!("[pool]\nmax-idle = {n}\n"));
                }
                replace(&home, &text);
            }
            4 => {
                rewrite(&home, "[pool]\nmax-idel = 1\n");
                daemon.wait_for_status("the mistake", |status| !status.warnings.is_empty());
                assert_eq!(daemon.status().pool.max_idle, 23);
                replace(&home, &text);
            }
            5 => {
                fs::remove_file(home.config_file()).expect("removes");
                daemon.wait_for_status("its end", |status| {
                    status.warnings.iter().any(|it| it.contains("is gone"))
                });
                assert_eq!(daemon.status().pool.max_idle, 24, "what it said stays in force");
                rewrite(&home, &text);
            }
            _ => {
                rewrite(&home, &text);
                daemon.signal(Signal::SIGHUP);
            }
        }
        wait_for_max_idle(&daemon, 20 + round);
    });
    assert_eq!(daemon.status().warnings, [""; 0]);
}

#[test]
fn a_wrong_file_changes_nothing_and_is_told_of_until_it_is_right() {
    let home = Home::new();
    home.configure("[pool]\nmax-idle = 5\n[policy]\nnet = []\n");
    let daemon = Daemon::start(&home);
    let cases = [
        ("[pool]\nmax-idle = 9999\n", "config.toml:2:12: pool.max-idle: must be from 0 to 512 workers"),
        ("[pool]\nmax-idle = 6\n[polcy]\n", "hint: did you mean `policy`?"),
        ("[pool]\nmax-idle = 6\n[jail]\nhardened = true\n", "`[jail]` cannot change while the daemon runs"),
        ("", "is empty; what it said stays in force"),
        ("[pool", "config.toml:1:"),
    ];
    for (text, says) in cases {
        // In one step: a file that is seen while it is written is a mistake of its own.
        replace(&home, text);
        let status = daemon
            .wait_for_status(says, |status| status.warnings.iter().any(|warning| warning.contains(says)));
        assert_eq!((status.warnings.len(), status.pool.max_idle), (1, 5), "{:?}", status.warnings);
        assert_eq!(Shim::session(&home).call("1").value(), 1, "calls go on");
    }
    let told = home.logged("the configuration cannot be used; the one before stays in use");
    assert_eq!(told.len(), cases.len(), "each once: {told:#?}");
    let doctor = ctl(&home, &["doctor", "--json"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("config.toml:1:"), "{doctor:?}");

    home.configure("# the same again\n[pool]\nmax-idle = 5\n[policy]\nnet = []\n");
    daemon.wait_for_status("no warning", |status| status.warnings.is_empty());
    assert_eq!(home.logged("the configuration is right again, and says what is in use").len(), 1);
    fs::set_permissions(home.config_file(), fs::Permissions::from_mode(0o666)).expect("sets its mode");
    daemon.wait_for_status("distrust", |status| {
        status.warnings.iter().any(|warning| warning.contains("can be written by others"))
    });
    home.configure("[pool]\nmax-idle = 7\n");
    wait_for_max_idle(&daemon, 7);
}

#[test]
fn calls_that_run_keep_what_they_began_with_and_the_next_ones_do_not() {
    let home = Home::new();
    home.configure("[profiles.default]\nmax-timeout = \"60s\"\n");
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    let gate = home.workspace().join("gate");
    let read = Shim::session_with(&home, |command| {
        command.env("MCP_CONDUCTOR_RUN_ARGS", format!("allow-read={}", home.workspace().display()));
    });
    let code = "while (true) { try { Deno.statSync(gate); break } catch { await new Promise((done) => setTimeout(done, 20)) } } 'done'";
    let running =
        read.start_call(json!({ "deno_code": code, "timeout": 60_000, "globals": { "gate": gate } }));
    daemon.wait_for_status("the call runs", |status| {
        status.pool.profiles.iter().map(|profile| profile.busy).sum::<u64>() == 1
    });
    replace(&home, "[profiles.default]\nmax-timeout = \"50ms\"\n[pool]\nmax-idle = 3\n");
    wait_for_max_idle(&daemon, 3);
    for session in [&shim, &Shim::session(&home)] {
        let endless = session.call_with(json!({ "deno_code": "while (true) {}", "timeout": 30_000 }));
        assert_eq!(endless.error_type(), "timeout");
    }
    fs::write(&gate, "").expect("writes");
    assert_eq!(read.answer(running).value(), "done", "it had a minute, and keeps it");
}

#[test]
fn a_linked_file_and_one_whose_directory_comes_later_are_followed() {
    let home = Home::new();
    let directory = home.config_file().parent().expect("has one").to_owned();
    let daemon = Daemon::start(&home);
    fs::remove_dir_all(&directory).ok();
    let dotfiles = home.path("dotfiles");
    fs::create_dir(&dotfiles).expect("makes");
    let target = dotfiles.join("conductor.toml");
    fs::write(&target, "[pool]\nmax-idle = 3\n").expect("writes");
    fs::create_dir_all(&directory).expect("makes");
    symlink(&target, home.config_file()).expect("links");
    wait_for_max_idle(&daemon, 3);
    fs::write(&target, "[pool]\nmax-idle = 4\n").expect("writes");
    wait_for_max_idle(&daemon, 4);
    fs::write(dotfiles.join("staged"), "[pool]\nmax-idle = 5\n").expect("writes");
    fs::rename(dotfiles.join("staged"), &target).expect("renames");
    wait_for_max_idle(&daemon, 5);
    fs::set_permissions(&dotfiles, fs::Permissions::from_mode(0o777)).expect("sets its mode");
    fs::write(&target, "[pool]\nmax-idle = 6\n").expect("writes");
    daemon.wait_for_status("distrust", |status| {
        status.warnings.iter().any(|warning| warning.contains("dotfiles can be written by others"))
    });
    assert_eq!(daemon.status().pool.max_idle, 5);
}

// `conductorctl config`

fn ctl_with(home: &Arc<Home>, arguments: &[&str], adapt: impl FnOnce(&mut Command)) -> Output {
    let mut command = home.command(&binaries::conductorctl());
    command.env("CONDUCTOR_DAEMON", binaries::conductord()).env("CONDUCTOR_SOCKET", home.socket());
    command.arg("--no-start").args(arguments);
    adapt(&mut command);
    command.output().expect("starts")
}

fn ctl(home: &Arc<Home>, arguments: &[&str]) -> Output {
    ctl_with(home, arguments, |_| {})
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_configuration_is_shown_and_checked_without_a_daemon() {
    let home = Home::new();
    let path = home.config_file().display().to_string();
    assert_eq!(words(&ctl(&home, &["config", "path"]).stdout).trim(), path);
    assert!(words(&ctl(&home, &["config", "check"]).stdout).contains("is not there"));
    home.configure(
        "[pool]\nmax-idle = 3\n[profiles.web]\nheap-mib = 512\nrun-args = \"allow-net=a.org\"\n[policy]\nmax-timeout = \"2s\"\n",
    );
    let checked = ctl(&home, &["config", "check"]);
    assert_eq!((checked.status.code(), words(&checked.stdout)), (Some(0), format!("{path} is right\n")));

    let shown = ctl_with(&home, &["config", "show", "--profile", "web", "--json"], |command| {
        command.env("MCP_CONDUCTOR_MAX_TIMEOUT", "60000").env("SECRET", "hush");
    });
    let report: Value = serde_json::from_slice(&shown.stdout).expect("is JSON");
    let setting = |section: &str, key: &str| {
        let all = report["settings"].as_array().expect("is a list");
        let found = all.iter().find(|it| it["section"] == section && it["key"] == key);
        found.unwrap_or_else(|| panic!("{section}.{key} in {report:#}")).clone()
    };
    let told = |section: &str, key: &str| {
        let setting = setting(section, key);
        (setting["value"].clone(), setting["origin"]["kind"].clone(), setting["origin"]["line"].clone())
    };
    assert_eq!(told("pool", "max-idle"), (json!(3), json!("file"), json!(2)));
    assert_eq!(told("pool", "queue-wait"), (json!("30s"), json!("default"), Value::Null));
    assert_eq!(told("profiles.web", "heap-mib"), (json!(512), json!("file"), json!(4)));
    assert_eq!(told("profiles.web", "run-args"), (json!("allow-net=a.org"), json!("file"), json!(5)));
    assert_eq!(told("profiles.web", "max-timeout"), (json!("2s"), json!("policy"), json!(7)));
    let origin = &setting("profiles.web", "max-timeout")["origin"];
    assert_eq!(
        (&origin["asked"], &origin["asked_by"]["name"]),
        (&json!("1m"), &json!("MCP_CONDUCTOR_MAX_TIMEOUT"))
    );
    assert!(setting("pool", "max-workers")["value"].is_number(), "computed for this machine");
    assert!(!words(&shown.stdout).contains("hush"));

    let text = words(&ctl(&home, &["config", "show"]).stdout);
    assert!(text.contains("[profiles.default]") && text.contains("max-idle = 3"), "{text}");
    assert!(home.daemons().is_empty(), "none was started");

    home.configure("[pool]\nmax-idel = 3\nqueue-wait = 3\n");
    for arguments in [["config", "check"], ["config", "show"]] {
        let wrong = ctl(&home, &arguments);
        let said = words(&wrong.stdout) + &words(&wrong.stderr);
        assert_eq!(wrong.status.code(), Some(1), "{said}");
        assert!(said.contains("did you mean `max-idle`?") && said.contains("must be a duration"), "{said}");
    }
    let other = home.path("other.toml");
    fs::write(&other, "").expect("writes");
    assert!(ctl(&home, &["config", "check", &other.display().to_string()]).status.success());
    let nowhere = ctl(&home, &["config", "check", "/no/such/file.toml"]);
    assert_eq!(nowhere.status.code(), Some(1), "one that is named has to be there");
}

#[test]
fn the_schema_is_one_and_knows_the_file() {
    let home = Home::new();
    let printed = ctl(&home, &["config", "schema"]);
    let schema: Value = serde_json::from_slice(&printed.stdout).expect("is JSON");
    let validator = jsonschema::validator_for(&schema).expect("is a schema");
    assert!(
        validator
            .is_valid(&json!({ "pool": { "max-idle": 3, "queue-wait": "1m" }, "profiles": { "a": {} } }))
    );
    assert!(!validator.is_valid(&json!({ "pool": { "max-idel": 3 } })));
    assert!(!validator.is_valid(&json!({ "pool": { "queue-wait": "soon" } })));
}

/// An editor that does `script` to its file, `$1`.
fn edit(home: &Arc<Home>, script: &str) -> Output {
    let editor = home.path("editor");
    write_program(&editor, &format!("#!/bin/sh\n{script}\n"));
    ctl_with(home, &["config", "edit"], |command| {
        command.env("EDITOR", format!("{} --wait", editor.display()));
    })
}

#[test]
fn an_edit_takes_the_place_of_the_file_only_when_it_is_right() {
    let home = Home::new();
    let fresh = edit(&home, "shift; echo '[pool]\nmax-idle = 3' > \"$1\"");
    assert!(fresh.status.success(), "{fresh:?}");
    assert!(words(&fresh.stdout).contains("no daemon runs; the next one uses it"), "{fresh:?}");
    let text = || fs::read_to_string(home.config_file()).expect("is there");
    assert_eq!(text(), "[pool]\nmax-idle = 3\n");
    assert_eq!(fs::metadata(home.config_file()).expect("is there").permissions().mode() & 0o777, 0o600);

    let daemon = Daemon::start(&home);
    let wrong = edit(&home, "shift; sed -i s/idle/idel/ \"$1\"");
    let said = words(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{}:2:1: pool: unknown key", home.config_file().display())), "{said}");
    let kept =
        said.split("what you wrote is kept in ").nth(1).and_then(|rest| rest.lines().next()).expect(&said);
    assert_eq!(fs::read_to_string(kept).expect("is kept"), "[pool]\nmax-idel = 3\n");
    assert_eq!(text(), "[pool]\nmax-idle = 3\n", "the file is as it was");

    let right = edit(&home, "shift; sed -i s/3/4/ \"$1\"");
    assert!(right.status.success(), "{right:?}");
    assert!(words(&right.stdout).contains("the configuration was read again"), "{right:?}");
    assert_eq!(daemon.status().pool.max_idle, 4);
    assert!(words(&edit(&home, "true").stdout).contains("nothing was changed"));
    let failed = edit(&home, "exit 3");
    assert!(words(&failed.stderr).contains("hint: set VISUAL or EDITOR"), "{failed:?}");
    let theirs =
        format!("shift; echo '# mine' >> \"$1\"; echo '# theirs' >> {}", home.config_file().display());
    let raced = edit(&home, &theirs);
    let said = words(&raced.stderr);
    assert_eq!(raced.status.code(), Some(1), "{said}");
    assert!(said.contains("was changed by another program") && text().contains("# theirs"), "{said}");
    let restart = edit(&home, "shift; echo '[jail]\nhardened = true' > \"$1\"");
    assert!(words(&restart.stderr).contains("`[jail]` cannot change while the daemon runs"), "{restart:?}");
    let left = || {
        let entries = fs::read_dir(home.config_file().parent().expect("has one")).expect("lists");
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(".config-")).collect::<Vec<_>>()
    };
    wait_for("only what was kept is left", DEADLINE, || {
        if left().len() == 2 { Ok(()) } else { Err(left().join(" ")) }
    });
}
