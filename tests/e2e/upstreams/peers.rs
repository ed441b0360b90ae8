//! What the daemon has started is no client of it, whatever becomes of its parents.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use conductor_tests::{DEADLINE, Daemon, Home, Shim, wait_for};
use serde_json::json;

use super::fixtures::{default_place, recorder, write};

/// Waits until the process that has started it is gone, connects, and writes down what came of it.
const STRAY: &str = "import os, socket, sys, time\n\
    parent = int(sys.argv[3])\n\
    while os.getppid() == parent: time.sleep(0.002)\n\
    told = 'served'\n\
    try:\n    s = socket.socket(socket.AF_UNIX)\n    s.settimeout(3)\n    s.connect(sys.argv[1])\n    told = 'refused' if s.recv(1) == b'' else 'answered'\n\
    except TimeoutError: pass\n\
    except OSError as error: told = 'refused' if isinstance(error, ConnectionError) else f'denied {error}'\n\
    if sys.argv[2] == '-': sys.exit(print(told))\n\
    open(sys.argv[2] + '.new', 'w').write(told)\n\
    os.rename(sys.argv[2] + '.new', sys.argv[2])\n";

/// A shell that leaves such a process behind: it is the child of a subshell that has ended, in a session of its own.
fn leave_behind(home: &Home, result: &Path) -> String {
    let script = home.path("stray.py");
    fs::write(&script, STRAY).expect("writes");
    format!(
        "(sh -c 'setsid python3 {} {} {} $$ </dev/null >/dev/null 2>&1 &')",
        script.display(),
        home.socket().display(),
        result.display()
    )
}

#[track_caller]
fn told(result: &Path) -> String {
    wait_for("the process tells what came of it", DEADLINE, || {
        fs::read_to_string(result).map_err(|error| error.to_string())
    })
}

#[test]
fn a_process_that_a_server_has_left_behind_is_refused() {
    let home = Home::new();
    let result = home.path("of-a-server");
    let mut server = recorder(&home, "leaver");
    let program = server["command"].as_str().expect("a program").to_owned();
    let args: Vec<String> = server["args"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|arg| arg.as_str().expect("a text").to_owned())
        .collect();
    server["command"] = json!("sh");
    server["args"] = json!(["-c", format!("{}; exec \"$0\" \"$@\"", leave_behind(&home, &result)), program]);
    server["args"].as_array_mut().expect("a list").extend(args.into_iter().map(|arg| json!(arg)));
    write(&default_place(&home), &json!({ "leaver": server }));
    let _daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    assert_eq!(shim.call("await mcp.leaver.echo({ message: 'x' })").value(), "x");
    assert_eq!(told(&result), "refused");
    assert_eq!(home.logged("a connection of a process that the daemon has started is refused").len(), 1);

    // The same process, started by somebody else, is a client like any other.
    let result = home.path("of-a-user");
    let mut shell = Command::new("sh").arg("-c").arg(leave_behind(&home, &result)).spawn().expect("starts");
    shell.wait().expect("is a child");
    assert_ne!(told(&result), "refused");
}

#[test]
fn a_program_that_code_has_started_is_not_served() {
    let home = Home::new();
    let python = PathBuf::from("/usr/bin/python3").canonicalize().expect("there is Python");
    home.configure(&format!(
        "[profiles.default]\nrun-args = \"allow-run={},allow-read\"\n",
        python.display()
    ));
    let daemon = Daemon::start(&home);
    let shim = Shim::session(&home);
    let code = "const { stdout, stderr } = new Deno.Command(PYTHON, { args: ['-c', SCRIPT, SOCKET, '-', '0'], stdin: 'null' }).outputSync();\n\
                const text = (bytes) => new TextDecoder().decode(bytes); text(stdout) + text(stderr)";
    let globals = json!({ "PYTHON": python, "SCRIPT": STRAY, "SOCKET": home.socket() });
    let answer = shim.call_with(json!({ "deno_code": code, "globals": globals }));
    // The jail gives it no such socket; without the jail, the daemon knows whose it is.
    let told = answer.value().as_str().expect("a text").trim().to_owned();
    let jail =
        daemon.wait_for_status("the jail was tried out", |status| status.jail.state != "checking").jail;
    let jailed = jail.layers.iter().any(|layer| layer.name == "seccomp" && layer.state == "active");
    assert!(told.starts_with(if jailed { "denied" } else { "refused" }), "{told}");
}
