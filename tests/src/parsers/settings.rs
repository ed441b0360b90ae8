//! What users, administrators and IDEs write.

use std::collections::BTreeMap;
use std::path::Path;

use conductor_daemon::config::{Config, ConfigError};
use conductor_daemon::profile::expand::{ExpandError, Scope, expand as expanded, references};
use conductor_daemon::profile::run_args;
use conductor_pool::{Grant, Grants};
use conductor_upstream::config::{Disabled, Expansion, ServerSet};
use conductor_upstream::keyring::NoKeyring;

pub(super) const CONFIG_WORDS: &[&str] = &[
    "[pool]\n",
    "[jail]\n",
    "[policy]\n",
    "[profiles.a]\n",
    "[profiles.\"\\u0000\"]\n",
    "idle-per-profile = ",
    "queue-wait = ",
    "\"1s\"",
    "\"99999999999999y\"",
    "run-args = \"allow-net=",
    "session-grants = [\"run\"]\n",
    "level = \"strict\"\n",
    "heap-mib = 64\n",
    "-1\n",
    "9223372036854775808\n",
    "nan\n",
    "[[",
    "'''",
    "\"\"\"",
    "{ a.b = 1 }",
    "true\n",
    "packages = [",
];

pub(super) const SERVER_WORDS: &[&str] = &[
    "{\"mcpServers\":{",
    "\"servers\":{",
    "\"a\":{",
    "\"command\":\"x\"",
    "\"args\":[",
    "\"env\":{\"TOKEN\":\"${env:TOKEN}\"}",
    "\"url\":\"https://x.org/${TOKEN}\"",
    "\"headers\":{\"Authorization\":\"Bearer ${env:TOKEN}\"}",
    "\"disabled\":true",
    "\"allow_tools\":[\"*\"]",
    "\"scope\":\"session\"",
    "\"type\":\"sse\"",
    "\"timeout\":",
    "1e99",
    "${keyring:a/b}",
    "${HOME}",
    "${X:-d}",
    "${",
    "~/",
    "//",
    "/*",
    "*/",
    ",",
    "}",
    "\u{feff}",
];

pub(super) const FLAG_WORDS: &[&str] = &[
    "allow-read",
    "allow-write=",
    "allow-net=",
    "allow-env=",
    "allow-run",
    "allow-ffi",
    "allow-sys=",
    "allow-all",
    "-A",
    "deny-net",
    "allow-import",
    "--",
    ",",
    "=",
    "/a",
    "x.org:443",
    "https://",
    "HOME",
    "\u{0}",
    " ",
];

pub(super) const REFERENCE_WORDS: &[&str] = &[
    "${",
    "}",
    "${env:",
    "X",
    "Y",
    "${HOME}",
    "${userHome}",
    "${workspaceFolder}",
    "~",
    "~/",
    "$",
    ":",
    "{",
];

/// What no text about a configuration may show.
const PLANTED: &str = "planted-secret-value";

/// The configuration file: what is refused is refused at a place in it.
pub(super) fn config(bytes: &[u8]) {
    let text = super::text_of(bytes);
    let path = Path::new("config.toml");
    match Config::parse(text, path) {
        Ok(config) => assert_eq!(Config::parse(text, path).ok(), Some(config)),
        Err(error) => {
            let ConfigError::Wrong { problems, .. } = error else { panic!("no file is read") };
            assert!(!problems.is_empty(), "it is wrong in nothing");
            for problem in problems {
                assert!(problem.line >= 1 && problem.column >= 1 && !problem.what.is_empty(), "{problem:?}");
            }
        }
    }
}

/// The file of upstream servers: read twice it is the same, a bad entry has a reason, and no secret is shown.
pub(super) fn mcp_config(bytes: &[u8]) {
    let text = super::text_of(bytes);
    // Files are read in earnest: not by a check of any text.
    if text.contains("file:") || text.contains(PLANTED) {
        return;
    }
    let env = |name: &str| (name == "TOKEN").then(|| PLANTED.to_owned());
    let (home, workspace) = (Path::new("/home/user"), Some(Path::new("/work")));
    let expansion = Expansion { env: &env, home, workspace, keyring: &NoKeyring };
    let set = match ServerSet::parse(text, &expansion) {
        Ok(set) => set,
        Err(error) => return super::assert_told(&error.to_string()),
    };
    let again = ServerSet::parse(text, &expansion).expect("it was read before");
    assert_eq!(set.changes(&again), Default::default());
    for (_, server) in set.iter() {
        match &server.config {
            Ok(config) => assert!(!config.shown().contains(PLANTED), "{}", config.shown()),
            Err(Disabled::Invalid(why)) => assert!(!why.is_empty() && !why.contains(PLANTED), "{why}"),
            Err(Disabled::Off) => {}
        }
    }
    assert!(!format!("{set:?}").contains(PLANTED), "a secret is shown");
}

/// Permission flags: written again they mean the same.
pub(super) fn run_args(bytes: &[u8]) {
    match run_args::parse(super::text_of(bytes)) {
        Ok(grants) => assert_eq!(run_args::parse(&written(&grants)), Ok(grants)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn written(grants: &Grants) -> String {
    let Grants { read, write, net, env, run, ffi, sys, all } = grants;
    let kinds = [
        ("read", read),
        ("write", write),
        ("net", net),
        ("env", env),
        ("run", run),
        ("ffi", ffi),
        ("sys", sys),
    ];
    let flags = kinds.into_iter().filter_map(|(kind, grant)| match grant {
        Grant::None => None,
        Grant::All => Some(format!("allow-{kind}")),
        // Each with its flag: a value alone could be read as one.
        Grant::Only(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("allow-{kind}={value}")).collect();
            Some(values.join(","))
        }
    });
    flags.chain(all.then(|| "allow-all".to_owned())).collect::<Vec<_>>().join(",")
}

/// References in a value: nothing is expanded twice, a text without any stays as it is, and what is missing was asked for.
pub(super) fn expand(bytes: &[u8]) {
    let text = super::text_of(bytes);
    let env = BTreeMap::from([("X".to_owned(), "${env:Y}~".to_owned())]);
    let scope = Scope { home: "/home/user", project: "/work", env: &env };
    let asked_for = references(text);
    match expanded(text, scope) {
        Ok(value) => {
            if !text.contains("${") && !text.starts_with('~') {
                assert_eq!(value, text);
            }
            assert_eq!(value.matches("${env:Y}").count(), text.matches("${env:X}").count());
        }
        Err(ExpandError::Unset(name)) => assert!(asked_for.contains(&name), "{name} of {asked_for:?}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
