//! `conductorctl service` with a real systemd user manager: run by `tests/systemd.sh`, which has the reasons.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use conductor_tests::{DEADLINE, Home, Operator, Process, Shim, binaries, wait_for};
use nix::sys::signal::Signal;

use crate::service::{caller, is_served_without_a_gap};

/// A manager whose user has this home.
struct UserManager {
    home: Arc<Home>,
    child: Child,
}

impl UserManager {
    fn start() -> Self {
        assert!(std::env::var_os("CONDUCTOR_TEST_SYSTEMD").is_some(), "hint: run tests/systemd.sh");
        let home = Home::new();
        home.configure(&format!("deno = {:?}\n", binaries::deno()));
        let mut command = home.command(&PathBuf::from("/lib/systemd/systemd"));
        let log = fs::File::create(home.path("manager")).expect("a file");
        command.arg("--user").env("SYSTEMD_LOG_TARGET", "console").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let manager = Self { child: command.spawn().expect("systemd starts"), home };
        wait_for("the manager answers", DEADLINE, || {
            let output = manager.systemctl(&["show", "--property=Version"]);
            if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
        });
        manager
    }

    fn systemctl(&self, args: &[&str]) -> Output {
        let mut command = self.home.command(&PathBuf::from("systemctl"));
        command.arg("--user").args(args).output().expect("systemctl starts")
    }

    fn property(&self, unit: &str, name: &str) -> String {
        let output = self.systemctl(&["show", "--value", "--property", name, unit]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn main_pid(&self) -> i32 {
        self.property("conductor.service", "MainPID").parse().expect("a number")
    }

    fn ctl(&self, args: &[&str]) -> Output {
        let mut command = self.home.command(&binaries::conductorctl());
        command.env("CONDUCTOR_DAEMON", binaries::conductord());
        command.args(args).output().expect("conductorctl starts")
    }

    /// A command that must go well; gives what it printed.
    #[track_caller]
    fn service(&self, command: &str) -> String {
        let output = self.ctl(&["service", command]);
        let status = self.systemctl(&["status", "--no-pager", "conductor.service", "conductor.socket"]);
        let log = fs::read_to_string(self.home.path("manager")).unwrap_or_default();
        assert!(
            output.status.success(),
            "{command}: {output:?}\n{}\n{log}",
            String::from_utf8_lossy(&status.stdout)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn socket(&self) -> PathBuf {
        self.home.path("run/conductor/conductord.sock")
    }

    /// A client as IDEs start them: told nothing about the service.
    fn client(&self) -> Shim {
        caller(&self.home, |command: &mut Command| {
            command.env("CONDUCTOR_SOCKET", "");
        })
    }

    /// What lies in the directory of the user's units, and in those for what they want.
    fn installed(&self) -> Vec<String> {
        let units = self.home.home().join(".config/systemd/user");
        let dirs = [units.clone(), units.join("sockets.target.wants")];
        let names = |dir| fs::read_dir(dir).into_iter().flatten().flatten();
        let names =
            dirs.into_iter().flat_map(names).map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains("conductor")).collect()
    }
}

impl Drop for UserManager {
    fn drop(&mut self) {
        // It stops its units first, as at a logout.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)
            .ok();
        self.child.wait().expect("it is a child");
    }
}

#[test]
#[ignore = "needs a systemd of its own: tests/systemd.sh"]
fn from_install_to_uninstall() {
    let manager = UserManager::start();
    let told = manager.service("install");
    assert!(told.contains("serves"), "{told}");
    assert_eq!(manager.property("conductor.socket", "ActiveState"), "active");
    assert_eq!(manager.property("conductor.service", "ActiveState"), "active");
    assert!(manager.property("conductor.service", "StatusText").contains("serving"));
    assert_eq!(manager.installed().len(), 4, "{:?}", manager.installed());
    let shim = manager.client();
    assert_eq!(shim.call("'served'").value(), "served");

    // A second time, as after an upgrade: another daemon.
    let before = manager.main_pid();
    manager.service("install");
    assert_ne!(manager.main_pid(), before);
    assert_eq!(shim.call("'upgraded'").value(), "upgraded");

    manager.systemctl(&["reload", "conductor.service"]);
    wait_for("it serves again", DEADLINE, || match manager.property("conductor.service", "ActiveState") {
        state if state == "active" => Ok(()),
        state => Err(state),
    });

    // What `conductorctl stop` ends stays down until somebody connects.
    drop(shim);
    assert!(manager.ctl(&["stop"]).status.success());
    wait_for("the service is down", DEADLINE, || {
        match manager.property("conductor.service", "ActiveState") {
            state if state == "inactive" => Ok(()),
            state => Err(state),
        }
    });
    assert_eq!(manager.property("conductor.service", "Result"), "success");
    let shim = manager.client();
    assert_eq!(shim.call("'started by the socket'").value(), "started by the socket");
    drop(shim);

    manager.service("stop");
    assert!(!manager.socket().exists(), "no client may take it for a daemon");
    assert_eq!(manager.property("conductor.socket", "ActiveState"), "inactive");
    manager.service("start");
    assert!(Operator::status(&manager.socket()).is_ok());
    manager.service("status");

    manager.service("uninstall");
    assert_eq!(manager.installed(), Vec::<String>::new());
    assert!(!manager.socket().exists());
    let left = manager.home.daemons();
    assert!(left.is_empty(), "{left:?}");
    let output = manager.ctl(&["service", "start"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("hint: conductorctl service install"),
        "{output:?}"
    );
}

#[test]
#[ignore = "needs a systemd of its own: tests/systemd.sh"]
fn the_service_takes_over_from_a_daemon_that_a_client_started() {
    let manager = UserManager::start();
    let shim = caller(&manager.home, |command| {
        Shim::with_autostart(command);
        command.env("CONDUCTOR_SOCKET", "");
    });
    assert_eq!(shim.call("'no service'").value(), "no service");
    let told = manager.service("install");
    assert!(told.contains("which ran without a service, has stopped"), "{told}");
    assert_eq!(shim.call("'service'").value(), "service");
    let daemons = manager.home.daemons();
    assert_eq!(daemons.iter().map(|daemon| daemon.pid).collect::<Vec<_>>(), [manager.main_pid()]);
    drop(shim);
    manager.service("uninstall");
}

#[test]
#[ignore = "needs a systemd of its own: tests/systemd.sh"]
fn no_call_is_lost_while_systemd_restarts_the_service() {
    let manager = UserManager::start();
    manager.service("install");
    let shims: Vec<Shim> = (0..3).map(|_| manager.client()).collect();
    is_served_without_a_gap(&manager.home, &shims, 10, || drop(manager.service("restart")));
    drop(shims);
    manager.service("uninstall");
}

#[test]
#[ignore = "needs a systemd of its own: tests/systemd.sh"]
fn a_daemon_that_dies_or_hangs_is_replaced() {
    let manager = UserManager::start();
    manager.service("install");
    // The unit's own times are those of people.
    let drop_in = manager.home.home().join(".config/systemd/user/conductor.service.d");
    fs::create_dir(&drop_in).expect("a directory");
    fs::write(drop_in.join("fast.conf"), "[Service]\nWatchdogSec=6s\nTimeoutAbortSec=1s\n").expect("writes");
    assert!(manager.systemctl(&["daemon-reload"]).status.success());
    manager.service("restart");
    let shim = manager.client();
    assert_eq!(shim.call("1").value(), 1);
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let before = Process::get(manager.main_pid()).expect("runs");
        before.signal(signal);
        wait_for("another daemon serves", Duration::from_secs(60), || {
            let pid = manager.main_pid();
            let state = manager.property("conductor.service", "ActiveState");
            if pid != 0 && pid != before.pid && state == "active" {
                Ok(())
            } else {
                Err(format!("{pid} {state}"))
            }
        });
        assert!(!before.exists());
        assert_eq!(shim.call("2").value(), 2, "{signal}");
    }
    // A daemon that is well is left alone for longer than the watchdog waits.
    let pid = manager.main_pid();
    let since = std::time::Instant::now();
    wait_for("some time passes", DEADLINE, || {
        assert_eq!(manager.main_pid(), pid);
        if since.elapsed() > Duration::from_secs(14) { Ok(()) } else { Err("not yet") }
    });
    drop(shim);
    fs::remove_dir_all(&drop_in).expect("removes it");
    manager.service("uninstall");
}
