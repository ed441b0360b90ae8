//! Packages from the registry: allowed, locked, offline once fetched, imported ahead of time when they are used.

use std::sync::Arc;
use std::time::Duration;

use conductor_protocol::AdminReply;
use conductor_protocol::operation::{Operation, PackageChanges, PackageReasons, PackagesReport};
use conductor_tests::{Daemon, Home, Operator, Shim, wait_for};
use serde::de::DeserializeOwned;
use serde_json::json;

const ALLOWED: &str = "MCP_CONDUCTOR_ALLOWED_PACKAGES";

/// Small ones, one of which needs others.
const LIST: &str = "npm:axios@^1,npm:ms@2.1.3,npm:lodash@^4";

fn with(home: &Arc<Home>, packages: &str) -> Shim {
    Shim::session_with(home, |command| {
        command.env(ALLOWED, packages);
    })
}

/// What an operator of the same environment is told.
fn operate<T: DeserializeOwned>(home: &Home, packages: &str, operation: &Operation) -> T {
    match Operator::operate(&home.socket(), &[(ALLOWED, packages)], operation).expect("is answered") {
        AdminReply::Json(json) => serde_json::from_slice(&json).expect("is the document"),
        other => panic!("{operation:?}: {other:?}"),
    }
}

#[test]
fn code_imports_what_is_listed_in_any_spelling_and_nothing_else() {
    let daemon = Daemon::new();
    let shim = with(daemon.home(), LIST);
    let code = "import axios from 'npm:axios';\n\
                import ms from 'ms';\n\
                import fp from 'lodash/fp';\n\
                import { readFileSync } from 'fs';\n\
                const { default: lodash } = await import('npm:lodash@4');\n\
                const { default: computed } = await import('npm:' + 'ms');\n\
                [typeof axios.get, ms('2 days'), fp.add(1)(2), lodash.chunk([1, 2, 3], 2), computed('1s'), typeof readFileSync]";
    let answer = shim.call(code);
    assert_eq!(answer.value(), &json!(["function", 172_800_000, 3, [[1, 2], [3]], 1000, "function"]));
    let declared = shim.call_with(json!({
        "deno_code": "(await import(name)).default('3s')", "globals": { "name": "npm:ms" }, "dependencies": ["npm:ms"],
    }));
    assert_eq!(declared.value(), 3000);

    for (code, says, hint) in [
        ("import x from 'npm:axois'; x", "`npm:axois` is not allowed here", "npm:axios"),
        ("import x from 'npm:axios@^2'; x", "allowed is `^1`", "without a version"),
        ("import x from 'npm:form-data'; x", "`npm:form-data` is not allowed here", "allowed are"),
        ("await import('npm:' + 'form-data')", "", ""),
        ("await import('npm:' + 'debug')", "", ""),
        ("import x from 'https://esm.sh/axios'; x", "https://esm.sh/axios", "npm:axios"),
        ("import x from \"npm:axios'; import evil\"; x", "no package specifier", ""),
        ("import x from 'npm:../x'; x", "no package specifier", ""),
    ] {
        let answer = shim.call(code);
        assert_eq!(answer.error_type(), "dependency", "{code}: {}", answer.error());
        assert!(answer.error_message().contains(says), "{code}: {}", answer.error());
        assert!(
            answer.error()["hint"].as_str().unwrap_or_default().contains(hint),
            "{code}: {}",
            answer.error()
        );
    }
    let report: PackagesReport = operate(daemon.home(), LIST, &Operation::PackagesList);
    assert_eq!(report.allowed, ["npm:axios@^1", "npm:lodash@^4", "npm:ms@2.1.3"]);
}

#[test]
fn a_call_without_packages_never_waits_and_one_with_them_says_why_it_cannot_have_them() {
    let home = Home::new();
    let _daemon = Daemon::start_with(&home, |command| {
        // Nothing listens there.
        command.env("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/");
    });
    let shim = with(&home, LIST);
    assert_eq!(shim.call("1 + 1").value(), 2);
    let answer = shim.call("import ms from 'npm:ms'; ms('1s')");
    assert_eq!(answer.error_type(), "dependency", "{}", answer.error());
    assert!(answer.error()["hint"].as_str().expect("a hint").contains("registry"), "{}", answer.error());
    assert_eq!(shim.call("2 + 2").value(), 4);
}

#[test]
fn a_layer_outlives_the_daemon_and_needs_no_registry() {
    let home = Home::new();
    let mut daemon = Daemon::start(&home);
    let shim = with(&home, LIST);
    let layer = wait_for_layer(&home);
    assert_eq!(shim.call("import ms from 'npm:ms'; ms('1s')").value(), 1000);
    drop(shim);
    daemon.stop();
    let daemon = Daemon::start_with(&home, |command| {
        command.env("HTTPS_PROXY", "http://127.0.0.1:9/").env("HTTP_PROXY", "http://127.0.0.1:9/");
    });
    let shim = with(&home, LIST);
    assert_eq!(shim.call("import ms from 'npm:ms'; ms('2s')").value(), 2000);
    assert_eq!(wait_for_layer(&home).layer.expect("a layer").id, layer.layer.expect("a layer").id);
    let why: PackageReasons =
        operate(&home, LIST, &Operation::PackagesWhy { package: "npm:form-data".into() });
    assert!(why.chains.iter().any(|chain| chain[0].starts_with("npm:axios@")), "{why:?}");
    let faults: conductor_protocol::operation::LayerFaults = operate(&home, LIST, &Operation::PackagesVerify);
    assert!(faults.checked >= 1 && faults.faults.is_empty(), "{faults:?}");
    drop(daemon);
}

#[test]
fn what_is_used_is_imported_ahead_of_time_and_leaves_nothing_behind() {
    let daemon = Daemon::new();
    let home = daemon.home();
    let shim = with(home, LIST);
    wait_for_layer(home);
    let code = "const start = performance.now(); const { default: axios } = await import('npm:axios');\n\
                const seen = axios.mark; axios.mark = 1; [performance.now() - start, seen ?? null]";
    let import_ms = || {
        let answer = shim.call(code);
        assert_eq!(answer.value()[1], json!(null), "a mark of an earlier run");
        answer.value()[0].as_f64().expect("a time")
    };
    let cold = import_ms().min(import_ms());
    wait_for("axios to be imported ahead of time", Duration::from_secs(20), || {
        let report: PackagesReport = operate(home, LIST, &Operation::PackagesList);
        let packages = report.layer.map(|layer| layer.packages).unwrap_or_default();
        let is_there = packages.iter().any(|package| package.name == "npm:axios" && package.preloaded);
        if is_there { Ok(()) } else { Err(format!("{packages:?}")) }
    });
    wait_for("a call to find it imported", Duration::from_secs(20), || {
        let warm = import_ms();
        if warm * 10.0 < cold { Ok(()) } else { Err(format!("{warm} ms, cold {cold} ms")) }
    });
}

#[test]
fn every_package_is_allowed_when_the_administrator_says_so_and_status_warns() {
    let daemon = Daemon::new();
    let shim = with(daemon.home(), "all");
    assert_eq!(shim.call("import ms from 'npm:ms@2.0.0'; ms('1s')").value(), 1000);
    assert_eq!(shim.call("import isOdd from 'npm:is-odd'; isOdd(3)").value(), true);
    let status = daemon.status();
    assert!(status.warnings.iter().any(|warning| warning.contains("any package")), "{:?}", status.warnings);
    let logged = daemon.home().logged("the session's configuration");
    let warned = logged.iter().any(|line| line.to_string().contains("any package"));
    assert!(warned, "{logged:?}");
    let tool = shim.tools().into_iter().find(|tool| tool["name"] == "run_deno_code").expect("is listed");
    assert!(tool["description"].as_str().expect("a text").contains("Packages: any"), "{tool}");
    let answer = shim.call("import x from 'npm:no-such-package-as-this-one-zz'; x");
    assert_eq!(answer.error_type(), "dependency", "{}", answer.error());
    assert!(answer.error_message().contains("knows no package"), "{}", answer.error());
}

#[test]
fn an_update_takes_what_the_list_allows_now() {
    let daemon = Daemon::new();
    let home = daemon.home();
    let shim = with(home, "npm:ms@2.0.0");
    let changes: PackageChanges = operate(home, "npm:ms@2.0.0", &Operation::PackagesUpdate);
    assert_eq!(changes.changes[0].after.as_deref(), Some("2.0.0"), "{changes:?}");
    let changes: PackageChanges = operate(home, "npm:ms@2.0.0", &Operation::PackagesUpdate);
    assert!(changes.changes.is_empty(), "{changes:?}");
    assert_eq!(shim.call("import ms from 'ms'; ms('1s')").value(), 1000);
}

fn wait_for_layer(home: &Arc<Home>) -> PackagesReport {
    wait_for("the layer of the list", Duration::from_secs(120), || {
        let report: PackagesReport = operate(home, LIST, &Operation::PackagesList);
        if report.layer.is_some() { Ok(report) } else { Err(format!("{report:?}")) }
    })
}

#[test]
fn a_call_that_waits_for_packages_is_told_what_for() {
    let daemon = Daemon::new();
    let shim = with(daemon.home(), LIST);
    shim.initialize();
    let answer = shim.ask(
        "tools/call",
        json!({
            "name": "run_deno_code",
            "arguments": { "deno_code": "import ms from 'npm:ms'; ms('1s')" },
            "_meta": { "progressToken": "p" },
        }),
    );
    assert_eq!(answer.value(), 1000);
    let told = shim.notifications("notifications/progress");
    let phases: Vec<&str> = told.iter().filter_map(|params| params["message"].as_str()).collect();
    assert!(phases.iter().any(|phase| phase.starts_with("packages: ")), "{phases:?}");
}

#[test]
fn an_administrator_looks_after_packages_with_conductorctl() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let ctl = |args: &[&str]| {
        let mut command = home.command(&conductor_tests::binaries::conductorctl());
        let output = command.env("CONDUCTOR_SOCKET", home.socket()).args(args).output().expect("runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = ctl(&["packages", "add", "npm:ms@2.0.0", "--profile", "web"]);
    assert!(code == Some(0) && text.contains("npm:ms@2.0.0"), "{text}");
    let written = std::fs::read_to_string(home.config_file()).expect("was written");
    assert!(written.contains("[profiles.web]") && written.contains("npm:ms@2.0.0"), "{written}");

    // The fixture's variable would go before the profile's list.
    let web = |command: &mut std::process::Command| {
        command.env("MCP_CONDUCTOR_PROFILE", "web").env_remove(ALLOWED);
    };
    let shim = Shim::session_with(&home, web);
    assert_eq!(shim.call("import ms from 'ms'; ms('1s')").value(), 1000);
    let (code, text) = ctl(&["packages", "verify"]);
    assert!(code == Some(0) && text.contains("as it was fetched"), "{text}");
    let (code, text) = ctl(&["packages", "list", "--profile", "nope"]);
    assert!(code == Some(1) && text.contains("nope"), "{text}");
    let (code, text) = ctl(&["packages", "add", "ms"]);
    assert!(code == Some(1) && text.contains("hint: write npm:NAME"), "{text}");
    drop(daemon);
}
