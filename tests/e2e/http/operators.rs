//! What an operator is told of HTTP, and the cures.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use conductor_protocol::status::StatusReport;
use conductor_tests::http::{CONFIG, HttpClient, add_token, address};
use conductor_tests::{Daemon, Home, binaries};
use serde_json::{Value, json};

use super::certificate::Certificate;

/// A default profile that fetches no packages, and another.
const PROFILES: &str = "[profiles.default]\npackages = []\n[profiles.b]\npackages = []\n";

fn ctl(home: &Home, arguments: &[&str]) -> Output {
    let mut command = home.command(&binaries::conductorctl());
    command.arg("--socket").arg(home.socket()).args(arguments);
    command.output().expect("conductorctl starts")
}

/// What the doctor says of HTTP: name, verdict, text and cure of each finding.
fn doctor(home: &Home) -> Vec<(String, String, String)> {
    let output = ctl(home, &["doctor", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let checks = document["checks"].as_array().expect("a list").iter();
    let of_http = checks.filter(|check| {
        ["http", "certificate", "http tokens"].contains(&check["name"].as_str().unwrap_or_default())
    });
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    of_http
        .map(|check| {
            (
                text(check, "name"),
                text(check, "verdict"),
                format!("{}\nfix: {}", text(check, "text"), text(check, "fix")),
            )
        })
        .collect()
}

#[track_caller]
fn finding(found: &[(String, String, String)], name: &str, verdict: &str, says: &[&str]) {
    let is_it = |found: &&(String, String, String)| found.0 == name && found.1 == verdict;
    let text = found.iter().find(is_it).map(|found| found.2.as_str()).unwrap_or_else(|| panic!("{found:#?}"));
    assert!(says.iter().all(|says| text.contains(says)), "{says:?} is not in {found:#?}");
}

#[test]
fn the_doctor_says_what_matters_about_http() {
    let home = Home::new();
    home.configure(PROFILES);
    let daemon = Daemon::start(&home);
    finding(&doctor(&home), "http", "ok", &["off", "enabled = true"]);

    home.configure(&format!("{CONFIG}{PROFILES}"));
    daemon.wait_for_status("it listens", |status| !status.http.urls.is_empty());
    let found = doctor(&home);
    finding(&found, "http", "ok", &["http://127.0.0.1:", "this machine alone, without TLS"]);
    finding(&found, "http tokens", "warn", &["nobody has a token", "conductorctl token add NAME"]);

    for arguments in [&["token", "add", "laptop"][..], &["token", "add", "bob", "--profile", "b"]] {
        assert!(ctl(&home, arguments).status.success());
    }
    finding(
        &doctor(&home),
        "http tokens",
        "ok",
        &["2: bob (profile b), laptop (profile default)", "mode 600"],
    );
    let file = daemon.status().http.tokens_file;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("sets the mode");
    finding(&doctor(&home), "http tokens", "fail", &["mode 644", &format!("chmod 600 {file}")]);
    // What the daemon itself says once it has read it.
    assert!(ctl(&home, &["reload"]).status.success());
    finding(
        &doctor(&home),
        "http tokens",
        "fail",
        &["can be read or written by others", "conductorctl reload"],
    );
    let shown = String::from_utf8(ctl(&home, &["status"]).stdout).expect("text");
    assert!(shown.contains("can be read or written by others"), "{shown}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("sets the mode");
    assert!(ctl(&home, &["reload"]).status.success());
    finding(&doctor(&home), "http tokens", "ok", &["2: bob"]);

    let (soon, late) = (Certificate::new(&home, "soon", 2), Certificate::new(&home, "late", 200));
    home.configure(&format!("{CONFIG}{}{PROFILES}", soon.section()));
    let status = daemon.wait_for_status("it is encrypted", |status| status.http.certificate.is_some());
    let found = doctor(&home);
    finding(&found, "http", "ok", &["https://127.0.0.1:", "this machine alone, with TLS"]);
    finding(&found, "certificate", "warn", &["is good until", "renew"]);
    late.take_the_place_of(&soon);
    let until = |status: &StatusReport| status.http.certificate.as_ref().and_then(|it| it.not_after);
    daemon.wait_for_status("the new one is taken", |now| {
        until(now) > until(&status) && now.http.error.is_none()
    });
    finding(&doctor(&home), "certificate", "ok", &["good until"]);
    fs::write(&soon.cert, "none").expect("writes");
    daemon.wait_for_status("it says what is wrong", |status| status.http.error.is_some());
    finding(&doctor(&home), "http", "fail", &["the certificate before stays in use", "-----BEGIN"]);
}

#[test]
fn a_token_for_a_profile_that_is_not_offered_is_refused_with_the_cure() {
    const REFUSED: &str = "the token is for the profile `b`, which [policy] does not offer to sessions";
    let home = Home::new();
    let offering =
        |offered: &str| format!("{CONFIG}{PROFILES}[profiles.c]\n[policy]\nprofiles = [{offered}]\n");
    home.configure(&offering("\"c\""));
    let daemon = Daemon::start(&home);
    let refused = ctl(&home, &["token", "add", "bob", "--profile", "b"]);
    let said = String::from_utf8(refused.stderr).expect("text");
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains(REFUSED) && said.contains("hint: offered are c; an administrator adds others"),
        "{said}"
    );
    assert!(daemon.status().http.tokens.is_empty(), "there is no token");
    let unknown = ctl(&home, &["token", "add", "eve", "--profile", "nobody"]);
    assert!(String::from_utf8(unknown.stderr).expect("text").contains("there is no profile `nobody`"));

    home.configure(&offering("\"b\""));
    let address = address(&daemon);
    assert!(ctl(&home, &["reload"]).status.success());
    let file = home.path("t").display().to_string();
    let added = ctl(&home, &["token", "add", "bob", "--profile", "b", "--file", &file]);
    assert!(added.status.success(), "{added:?}");
    let token = fs::read_to_string(home.path("t")).expect("is written").trim().to_owned();
    let (bob, own) =
        (HttpClient { address, token }, HttpClient { address, token: add_token(&home, "own", None) });
    let session = bob.initialize(json!({}));
    let call = json!({ "name": "run_deno_code", "arguments": { "deno_code": "1 + 1" } });
    let in_session =
        || bob.ask_in(&session, "tools/call", call.clone())["result"]["structuredContent"].clone();
    assert_eq!(in_session()["returnValue"], 2);

    // At a reload: what began before gets nothing more, and others are not concerned.
    home.configure(&offering(""));
    let refuses = |status: &StatusReport| {
        let problem =
            status.http.tokens.iter().find(|token| token.name == "bob").and_then(|it| it.problem.clone());
        problem.is_some_and(|problem| problem.contains(REFUSED) && problem.contains("hint: offered are none"))
    };
    daemon.wait_for_status("the token is refused", refuses);
    for result in [in_session(), bob.run("1 + 1")] {
        assert_eq!(result["error"]["type"], "configuration", "{result:#}");
        assert!(result["error"].to_string().contains(REFUSED), "{result:#}");
    }
    assert_eq!(own.run("1 + 1")["returnValue"], 2);
    finding(&doctor(&home), "http tokens", "fail", &[REFUSED, "or conductorctl token revoke bob"]);
    let shown = String::from_utf8(ctl(&home, &["token", "list"]).stdout).expect("text");
    assert!(shown.contains(REFUSED), "{shown}");

    // At the start.
    drop(daemon);
    let daemon = Daemon::start(&home);
    let status = daemon.wait_for_status("the token is refused", refuses);
    let told = |status: &StatusReport| status.last_errors.iter().any(|error| error.text.contains(REFUSED));
    if !told(&status) {
        daemon.wait_for_status("it is told", told);
    }
    assert_eq!(
        home.logged("nothing can be done with a token").len(),
        2,
        "once at the reload, once at the start"
    );

    home.configure(&offering("\"b\""));
    daemon.wait_for_status("the token is good again", |status| !refuses(status));
    let bob = HttpClient { address: self::address(&daemon), ..bob };
    assert_eq!(bob.run("1 + 1")["returnValue"], 2);
}
