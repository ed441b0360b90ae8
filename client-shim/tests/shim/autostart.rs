//! Shims that start the daemon: a stand-in for `conductord`, which is this test program under a script's name.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use conductor_client::connection::Connection;
use conductor_protocol::handshake::Welcome;
use conductor_protocol::{Greeting, SessionFrame};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::ide::Ide;
use crate::{PATIENCE, call, error_of, initialize, result};

/// Where the stand-in writes what it was given; it names the socket after `--socket`, and is only set for it.
const STAGE_VARIABLE: &str = "CONDUCTOR_TEST_STAGE";

/// A home with a daemon to start in it. Ends the daemons that were started.
struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().expect("directory") };
        let program = std::env::current_exe().expect("this program");
        let script = format!(
            "#!/bin/sh\nCONDUCTOR_TEST_ARGS=\"$*\" exec '{}' --exact autostart::stand_in --ignored --nocapture\n",
            program.display()
        );
        stage.install("bin/conductord", &script);
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn install(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        let draft = path.with_extension("draft");
        fs::write(&draft, script).expect("writes");
        // By a process of its own: what another test starts just then would hold the script open for writing, and Linux executes
        // no such file.
        let installed = Command::new("install").arg("-m700").arg(&draft).arg(&path).status();
        assert!(installed.expect("install starts").success());
    }

    fn socket(&self) -> PathBuf {
        self.path("run/conductord.sock")
    }

    fn command(&self) -> Command {
        let mut command = Ide::command();
        command.arg("--socket").arg(self.socket()).envs(self.env());
        command
    }

    fn env(&self) -> BTreeMap<&'static str, String> {
        let path = |name| self.path(name).display().to_string();
        [
            ("HOME", path("home")),
            ("CONDUCTOR_DAEMON", path("bin/conductord")),
            (STAGE_VARIABLE, path("")),
            ("MCP_CONDUCTOR_PROFILE", "of a session".into()),
            ("SECRET", "s".into()),
            ("PATH", format!("{}:/usr/bin:/bin", path("bin"))),
        ]
        .into()
    }

    /// What each daemon that was started has told of itself.
    fn daemons(&self) -> Vec<Value> {
        let entries =
            fs::read_dir(self.dir.path()).expect("directory").map(|entry| entry.expect("an entry").path());
        let told = entries.filter(|path| path.extension().is_some_and(|extension| extension == "daemon"));
        told.map(|path| serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for daemon in self.daemons() {
            // A test may have ended it.
            kill(pid_of(&daemon), Signal::SIGKILL).ok();
        }
    }
}

fn pid_of(daemon: &Value) -> Pid {
    Pid::from_raw(daemon["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a pid"))
}

/// Not a test: the daemon that the tests start. Welcomes everybody and answers every request.
#[test]
#[ignore = "run by the other tests as a daemon"]
fn stand_in() {
    let Ok(stage) = std::env::var(STAGE_VARIABLE) else { return };
    let args = std::env::var("CONDUCTOR_TEST_ARGS").expect("the script sets it");
    let socket = args.split(' ').skip_while(|arg| *arg != "--socket").nth(1).expect("a socket").to_owned();
    let pid = std::process::id();
    let about = json!({
        "pid": pid,
        "parent": std::os::unix::process::parent_id(),
        "session": nix::unistd::getsid(None).expect("a session").as_raw(),
        "cwd": std::env::current_dir().expect("a directory"),
        "args": args,
        "env": std::env::vars().collect::<BTreeMap<_, _>>(),
        "stdin": fs::read_link("/proc/self/fd/0").expect("open"),
        "stdout": fs::read_link("/proc/self/fd/1").expect("open"),
        "descriptors": fs::read_dir("/proc/self/fd").expect("Linux").count(),
    });
    let draft = Path::new(&stage).join(format!("{pid}.draft"));
    fs::write(&draft, about.to_string()).expect("writes");
    fs::rename(&draft, draft.with_extension("daemon")).expect("renames");
    fs::remove_file(&socket).ok();
    let listener = UnixListener::bind(&socket).expect("binds");
    for stream in listener.incoming() {
        let stream = stream.expect("accepts");
        std::thread::spawn(move || answer_all(Connection::new(stream)));
    }
}

fn answer_all(mut connection: Connection) {
    if !matches!(connection.receive_payload(), Ok(Some(_))) {
        return;
    }
    let welcome = Welcome { build: "stand-in".into(), pid: std::process::id(), session: 1 };
    let greeting = Greeting::Welcome { version: 1, welcome }.encode().expect("encodes");
    connection.send_payload(&greeting).expect("the shim is there");
    connection.lift_limit();
    while let Ok(Some(SessionFrame::Mcp(json))) = connection.receive() {
        let message: Value = serde_json::from_slice(&json).expect("JSON");
        if let Some(id) = message.get("id") {
            let frame = SessionFrame::Mcp(result(id.clone()).to_string().into_bytes());
            connection.send(&frame).expect("the shim is there");
        }
    }
}

/// Waits until the process is gone or nobody's.
fn wait_for_death(pid: Pid) {
    let deadline = Instant::now() + PATIENCE;
    let is_gone = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with('Z'))
    };
    while !is_gone() {
        assert!(Instant::now() < deadline, "{pid} ends");
        std::thread::yield_now();
    }
}

#[test]
fn racing_shims_start_one_daemon() {
    let stage = Stage::new();
    let mut ides: Vec<_> = (0..12).map(|_| Ide::run(stage.command())).collect();
    for ide in &mut ides {
        ide.send(&initialize());
    }
    for ide in &mut ides {
        assert_eq!(ide.receive(), result(0));
    }
    let daemons = stage.daemons();
    assert_eq!(daemons.len(), 1);

    let daemon = &daemons[0];
    for ide in &mut ides {
        assert_ne!(daemon["parent"], ide.pid(), "it is no shim's child");
        ide.close_input();
        assert_eq!(ide.receive_line(), None);
        let (status, words) = ide.wait();
        assert!(status.success());
        assert_eq!(words, "");
    }
    kill(pid_of(daemon), None).expect("it outlives its shims");
    assert_eq!(daemon["cwd"], "/");
    assert_eq!((&daemon["stdin"], &daemon["stdout"]), (&json!("/dev/null"), &json!("/dev/null")));
    let own_session = nix::unistd::getsid(None).expect("a session").as_raw();
    assert_ne!(daemon["session"], own_session);
    // Standard streams and the directory that is being listed.
    assert_eq!(daemon["descriptors"], 4, "nothing of the shim is inherited");
    let env = daemon["env"].as_object().expect("an object");
    assert!(env.contains_key("HOME") && env.contains_key("CONDUCTOR_DAEMON"), "{env:?}");
    assert!(!env.contains_key("SECRET") && !env.contains_key("MCP_CONDUCTOR_PROFILE"), "{env:?}");
    let log = stage.path("home/.local/state/conductor/conductord.log");
    let expected =
        format!("--socket {} --idle-exit 15m --log-file {}", stage.socket().display(), log.display());
    assert_eq!(daemon["args"], expected);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&stage.path("run")), mode(&log)), (0o700, 0o600));
}

#[test]
fn a_killed_daemon_is_replaced_and_the_session_goes_on() {
    let stage = Stage::new();
    let mut ide = Ide::run(stage.command());
    ide.send(&initialize());
    assert_eq!(ide.receive(), result(0));
    for round in 1..4 {
        let daemons = stage.daemons();
        assert_eq!(daemons.len(), round);
        for daemon in &daemons {
            kill(pid_of(daemon), Signal::SIGKILL).ok();
            wait_for_death(pid_of(daemon));
        }
        ide.send(&call(format!("round {round}")));
        // The shim may have written to the dead daemon's socket just in time: then it says so, and the next call is served.
        let answer = ide.receive();
        if answer != result(format!("round {round}")) {
            assert_eq!(error_of(&answer).1, -32001);
            ide.send(&call("again"));
            assert_eq!(ide.receive(), result("again"));
        }
    }
}

#[test]
fn a_daemon_that_cannot_start_is_quoted() {
    let stage = Stage::new();
    stage.install("bin/conductord", "#!/bin/sh\necho 'config.toml: line 3: unknown key' >&2\nexit 78\n");
    let mut ide = Ide::run(stage.command());
    ide.send(&initialize());
    let answer = ide.receive();
    let (_, code, text) = error_of(&answer);
    assert_eq!(code, -32000);
    for words in ["ended as soon as it was started", "line 3: unknown key", "hint: see ", "conductord.log"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The user repairs it; the next request tries again.
    let healthy = Stage::new();
    fs::rename(healthy.path("bin/conductord"), stage.path("bin/conductord")).expect("moves");
    ide.send(&initialize());
    assert_eq!(ide.receive(), result(0));
}

#[test]
fn what_cannot_work_is_told_with_its_cure() {
    let stage = Stage::new();
    let told = |change: &dyn Fn(&mut Command) -> &mut Command| {
        let mut command = stage.command();
        change(&mut command);
        let mut ide = Ide::run(command);
        ide.send(&initialize());
        error_of(&ide.receive()).2.to_owned()
    };
    let off = told(&|command| command.env("CONDUCTOR_NO_AUTOSTART", "1"));
    assert!(off.contains("hint: start it with `conductord`"), "{off}");
    let no_program = told(&|command| command.env("CONDUCTOR_DAEMON", stage.path("nothing")));
    assert!(no_program.contains("nothing: No such file"), "{no_program}");
    fs::create_dir(stage.path("open")).expect("directory");
    fs::set_permissions(stage.path("open"), fs::Permissions::from_mode(0o777)).expect("chmod");
    std::os::unix::fs::symlink(stage.path("home"), stage.path("link")).expect("links");
    for (dir, words) in [("open", "can be written to by other users"), ("link", "is a link")] {
        let text = told(&|command| command.arg("--socket").arg(stage.path(dir).join("s")));
        assert!(text.contains(words) && text.contains("hint: set CONDUCTOR_SOCKET"), "{text}");
    }
    assert!(stage.daemons().is_empty());
}

#[test]
fn an_installed_unit_is_started_instead() {
    let stage = Stage::new();
    for dir in ["run/conductor", "home/.config/systemd/user"] {
        fs::create_dir_all(stage.path(dir)).expect("directory");
    }
    fs::write(stage.path("home/.config/systemd/user/conductor.socket"), "").expect("writes");
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>'{calls}'\n'{conductord}' --socket \"$XDG_RUNTIME_DIR/conductor/conductord.sock\" \
         </dev/null >/dev/null 2>&1 &\n",
        calls = stage.path("calls").display(),
        conductord = stage.path("bin/conductord").display(),
    );
    stage.install("bin/systemctl", &script);
    let mut command = Ide::command();
    command.envs(stage.env()).env("XDG_RUNTIME_DIR", stage.path("run"));
    let mut ide = Ide::run(command);
    ide.send(&initialize());
    assert_eq!(ide.receive(), result(0));
    assert_eq!(
        fs::read_to_string(stage.path("calls")).expect("called"),
        "--user --no-block start conductor.socket\n"
    );
    assert_eq!(stage.daemons().len(), 1);
}
