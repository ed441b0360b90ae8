//! What Deno says when something is missing, denied or not there, and what a model is told: each in a real run.
//!
//! A table row is code, the error's type, what its message is, and what its hint tells. Nothing may tell a model to change
//! Deno's command line.

use conductor_tests::{Answer, Daemon, Home, Shim};
use serde_json::json;

type Row = (&'static str, &'static str, &'static str, &'static str);

const PACKAGES: &str = "MCP_CONDUCTOR_ALLOWED_PACKAGES";

#[track_caller]
fn check(shim: &Shim, rows: &[Row]) {
    for (code, kind, message, hint) in rows {
        let answer = shim.call(code);
        assert_eq!(answer.error_type(), *kind, "{code}: {}", answer.error());
        assert!(answer.error_message().contains(message), "{code}: {}", answer.error());
        assert!(hint_of(&answer).contains(hint), "{code}: {}", answer.error());
        for advice in ["--allow", "--no-", "--frozen", "--cached", "run again"] {
            assert!(!answer.text().contains(advice), "{code}: {}", answer.text());
        }
    }
}

fn hint_of(answer: &Answer) -> &str {
    answer.error()["hint"].as_str().unwrap_or_default()
}

#[test]
fn idioms_of_node_and_of_browsers_are_answered_with_those_of_deno() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    check(
        &shim,
        &[
            (
                "const fs = require('fs'); fs",
                "runtime",
                "ReferenceError: require is not defined",
                "import fs from",
            ),
            ("__dirname", "runtime", "__dirname is not defined", "WORKSPACE_DIR"),
            ("__filename", "runtime", "__filename is not defined", "import.meta.filename"),
            ("module.exports = { a: 1 }", "runtime", "module is not defined", "`return` a value"),
            ("exports.a = 1", "runtime", "exports is not defined", "`return` a value"),
            ("fs.readFileSync('x')", "runtime", "fs is not defined", "import fs from \"node:fs\""),
            ("path.join('a')", "runtime", "path is not defined", "import path from \"node:path\""),
            ("os.cpus()", "runtime", "os is not defined", "import os from \"node:os\""),
            ("util.inspect(1)", "runtime", "util is not defined", "import util from \"node:util\""),
            ("child_process.exec('ls')", "runtime", "child_process is not defined", "\"node:child_process\""),
            ("new EventEmitter()", "runtime", "EventEmitter is not defined", "node:events"),
            ("document.title", "runtime", "document is not defined", "no DOM"),
            ("new DOMParser()", "runtime", "DOMParser is not defined", "no DOM"),
            ("window.x", "runtime", "window is not defined", "globalThis"),
            ("new XMLHttpRequest()", "runtime", "XMLHttpRequest is not defined", "fetch"),
            ("Bun.file('x')", "runtime", "Bun is not defined", "Deno.readTextFile"),
            ("crypto.randomBytes(8)", "runtime", "crypto.randomBytes is not a function", "\"node:crypto\""),
            (
                "crypto.createHash('sha256')",
                "runtime",
                "crypto.createHash is not a function",
                "\"node:crypto\"",
            ),
            ("await fetch('/x')", "runtime", "TypeError: Invalid URL: '/x'", "https://"),
            ("new URL('x.org')", "runtime", "TypeError: Invalid URL: 'x.org'", "https://"),
            ("Deno.readAll(1)", "runtime", "Deno.readAll is not a function", "new Response(stream).text()"),
            ("await Deno.openKv()", "runtime", "Deno.openKv is not a function", "unstable"),
        ],
    );
    // Where the idioms work, nobody is told anything.
    let answer = shim.call("[typeof process.cwd, typeof global, typeof Buffer.from, typeof setImmediate]");
    assert_eq!(answer.value(), &json!(["function", "object", "function", "function"]));
    assert_eq!(shim.call("process.env.HOME ?? 'none'").value(), "none");
}

#[test]
fn an_import_that_fails_says_what_can_be_imported() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    check(
        &shim,
        &[
            ("await import('axios')", "dependency", "the package `axios` is not allowed here", "no package"),
            (
                "const n = 'axios'; await import(n)",
                "dependency",
                "Import \"axios\" not a dependency",
                PACKAGES,
            ),
            (
                "const n = 'fs'; await import(n)",
                "dependency",
                "Import \"fs\" not a dependency",
                "write `node:fs`",
            ),
            (
                "const n = 'fs/promises'; await import(n)",
                "dependency",
                "not a dependency",
                "write `node:fs/promises`",
            ),
            ("const n = '#x'; await import(n)", "dependency", "Import \"#x\" not a dependency", PACKAGES),
            ("const n = 'npm:zod'; await import(n)", "dependency", "npm specifiers were requested", PACKAGES),
            (
                "const n = 'jsr:@std/path'; await import(n)",
                "dependency",
                "manifest for '@std/path'",
                PACKAGES,
            ),
            (
                "const n = 'https://x.org/a.ts'; await import(n)",
                "dependency",
                "cannot import from x.org:443: code is never fetched from the network",
                "node:",
            ),
            (
                "await import('node:nope')",
                "dependency",
                "Unsupported scheme \"node\" for module \"node:nope\"",
                "no built-in",
            ),
            ("const n = 'foo:bar'; await import(n)", "dependency", "Unsupported scheme \"foo\"", PACKAGES),
            ("await import('./nope.ts')", "permission", "Requires read access to \"", "allow-read="),
        ],
    );
    let answer = shim.call("1;\n  await import('./nope.ts')");
    let place = (answer.error()["line"].as_u64(), answer.error()["column"].as_u64());
    assert_eq!(place, (Some(2), Some(3)), "{}", answer.error());

    let reading = Shim::session_with(daemon.home(), |command| {
        command.env("MCP_CONDUCTOR_RUN_ARGS", "allow-read=.");
    });
    check(
        &reading,
        &[("await import('./nope.ts')", "dependency", "Module not found \"file:", "WORKSPACE_DIR")],
    );
    let answer = reading
        .call("await import('./nope.ts').then(() => 1, (e) => { throw new Error('wrapped', { cause: e }) })");
    assert_eq!(answer.error_type(), "runtime");
    let cause = answer.error()["cause"][0].as_str().expect("a cause");
    assert!(cause.starts_with("TypeError: Module not found"), "{cause}");
}

#[test]
fn a_denied_permission_names_the_grant_of_an_administrator() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    let in_file = "in run-args of a profile";
    let rows: &[Row] = &[
        (
            "Deno.readTextFileSync('/etc/passwd')",
            "permission",
            "Requires read access",
            "allow-read=/etc/passwd in MCP",
        ),
        (
            "Deno.writeTextFileSync('/tmp/x', '')",
            "permission",
            "Requires write access",
            "allow-write=/tmp/x in MCP",
        ),
        ("await fetch('https://x.org/')", "permission", "Requires net access", "allow-net=x.org:443 in MCP"),
        ("Deno.listen({ port: 80 })", "permission", "Requires net access", "allow-net=0.0.0.0:80"),
        (
            "Deno.hostname()",
            "permission",
            "Requires sys access to \"hostname\"",
            "allow-sys=hostname in run-args",
        ),
        (
            "new Deno.Command('/bin/ls').outputSync()",
            "permission",
            "Requires run access",
            "allow-run=/bin/ls in run-args",
        ),
        (
            "new Deno.Command('ls').outputSync()",
            "permission",
            "Failed to spawn 'ls'",
            "allow-run=ls in run-args",
        ),
        (
            "Deno.dlopen('/lib/x.so', {})",
            "permission",
            "Requires ffi access",
            "allow-ffi=/lib/x.so in run-args",
        ),
        ("Deno.makeTempDirSync()", "permission", "Requires write access to <TMP>", "allow-write in MCP"),
        ("Deno.kill(1)", "permission", "Requires run access", in_file),
        (
            "Deno.symlinkSync('/a', '/b')",
            "permission",
            "unscoped allow-read and allow-write",
            "an administrator",
        ),
        (
            "import fs from 'node:fs'; fs.readFileSync('/etc/passwd')",
            "permission",
            "Requires read access",
            "allow-read=/etc/passwd",
        ),
        (
            "import os from 'node:os'; os.hostname()",
            "permission",
            "Requires sys access",
            "allow-sys=hostname",
        ),
        (
            "import cp from 'node:child_process'; cp.execSync('ls')",
            "permission",
            "Command failed: ls",
            "allow-run=ls",
        ),
    ];
    check(&shim, rows);
    for (code, ..) in rows {
        let answer = shim.call(code);
        assert!(hint_of(&answer).contains("an administrator"), "{code}: {}", answer.error());
    }
    let env = Shim::session_with(daemon.home(), |command| {
        command.env("MCP_CONDUCTOR_RUN_ARGS", "allow-env=LANG");
    });
    check(
        &env,
        &[
            (
                "process.env.SECRET",
                "permission",
                "Requires env access to \"SECRET\"",
                "allow-env=SECRET in MCP",
            ),
            (
                "Deno.env.get('SECRET')",
                "permission",
                "Requires env access to \"SECRET\"",
                "allow-env=SECRET in MCP",
            ),
        ],
    );
    // The advice is left out also where code tells it on.
    let answer =
        shim.call("try { Deno.hostname() } catch (e) { throw new AggregateError([e], `no: ${e.message}`) }");
    assert_eq!(answer.error_message(), "AggregateError: no: Requires sys access to \"hostname\"");
    assert_eq!(answer.error()["cause"], json!(["NotCapable: Requires sys access to \"hostname\""]));
}

#[test]
fn where_everything_is_granted_imports_still_say_what_can_be_imported() {
    let home = Home::new();
    home.configure("[profiles.default]\nrun-args = \"allow-all\"\n");
    let daemon = Daemon::start(&home);
    let shim = Shim::session(daemon.home());
    check(
        &shim,
        &[
            ("const n = 'axios'; await import(n)", "dependency", "not a dependency", PACKAGES),
            ("const n = 'npm:zod'; await import(n)", "dependency", "npm specifiers were requested", PACKAGES),
            (
                "const n = 'jsr:@std/path'; await import(n)",
                "dependency",
                "manifest for '@std/path'",
                PACKAGES,
            ),
            (
                "const n = 'https://x.org/a.ts'; await import(n)",
                "dependency",
                "A remote specifier was requested: \"https",
                "node:",
            ),
            ("await import('./nope.ts')", "dependency", "Module not found", "WORKSPACE_DIR"),
        ],
    );
    let answer = shim.call("new Deno.Command('no-such-program').outputSync()");
    assert_eq!(answer.error_type(), "runtime", "{}", answer.error());
}

#[test]
fn code_that_computes_too_long_is_told_both_clocks() {
    let home = Home::new();
    home.configure("[profiles.default]\nmax-compute = \"300ms\"\n");
    let daemon = Daemon::start(&home);
    let shim = Shim::session(daemon.home());
    let answer = shim.call("console.log('before'); for (;;);");
    assert_eq!((answer.error_type(), answer.stdout()), ("compute_limit", "before\n"));
    let timings = &answer.structured()["timings"];
    let [compute, run] = ["compute", "run"].map(|name| timings[name].as_f64().expect("a number"));
    assert!(compute >= 300.0, "{timings}");
    let told = format!(
        "the code used {:.0} ms of CPU time, in {:.0} ms of wall time; the limit is 300 ms (`max-compute`)",
        compute.floor(),
        run.floor()
    );
    assert_eq!(answer.error_message(), told);
    assert!(hint_of(&answer).contains("Web Workers"), "{}", answer.error());
    // Waiting uses up the other clock only, and time spent waiting for conductor is told apart.
    let answer = shim
        .call("await new Promise((f) => setTimeout(f, 600)); await conductor.result('x').catch(() => {}); 1");
    assert_eq!(answer.value(), 1);
    let timings = &answer.structured()["timings"];
    let [run, waiting] = ["run", "waiting"].map(|name| timings[name].as_f64().expect("a number"));
    assert!(run >= 600.0 && waiting > 0.0 && waiting <= run - 600.0, "{timings}");
}

#[test]
fn no_error_shows_where_conductor_keeps_its_files() {
    let daemon = Daemon::new();
    let shim = Shim::session(daemon.home());
    shim.call("1").value();
    let cache = daemon.home().home().join(".cache/conductor");
    assert!(cache.is_dir(), "workers have a cache at {}", cache.display());
    let plain = cache.join("some dir/x.js");
    let (plain, shown) = (plain.to_str().expect("is text"), "Requires read access to \"<conductor>");
    for (code, message) in [
        (format!("Deno.readTextFileSync({plain:?})"), shown),
        (format!("await import(new URL({plain:?}, 'file:///').href)"), shown),
        (format!("throw new Error(new URL({plain:?}, 'file:///').href)"), "Error: <conductor>/…/x.js"),
        (format!("throw new Error('outer', {{ cause: new Error({plain:?}) }})"), "Error: outer"),
        (format!("throw new AggregateError([new Error({plain:?})], 'all')"), "AggregateError: all"),
        (format!("setTimeout(() => {{ throw new Error({plain:?}) }}, 5); 1"), "Error: <conductor>"),
    ] {
        let answer = shim.call(&code);
        assert!(
            answer.error_message().starts_with(message) || answer.error_message().contains(shown),
            "{code}: {}",
            answer.error()
        );
        let mut told = answer.error().clone();
        // The code itself names the path here.
        told.as_object_mut().expect("an object").remove("codeFrame");
        for part in [cache.to_str().expect("is text"), "harness"] {
            assert!(!told.to_string().contains(part), "{code}: {told}");
        }
    }
    let answer = shim.call(&format!("({{ error: new Error({plain:?}), map: new Map() }})"));
    assert_eq!(answer.structured()["returnValueFormat"], "inspect");
    let value = answer.value().as_str().expect("a text");
    assert!(value.contains("Error: <conductor>") && !value.contains("harness"), "{value}");
    // Data is never changed.
    assert_eq!(shim.call(&format!("[{plain:?}]")).value(), &json!([plain]));
}
