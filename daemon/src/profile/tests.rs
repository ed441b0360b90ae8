use super::mcp_config::MCP_CONFIG;
use super::packages::ALLOWED_PACKAGES;
use super::resolve::{DEFAULT_TIMEOUT, MAX_TIMEOUT, RUN_ARGS, WORKSPACE};
use super::*;
use crate::config::Config;

fn dirs() -> Dirs {
    Dirs::from_env(&BTreeMap::new(), Some("/home/a".into())).expect("has a home")
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn resolved(config: &str, pairs: &[(&str, &str)]) -> Result<Profile, String> {
    let config: Config = toml::from_str(config).expect("the test's configuration is right");
    resolve(&config, &env(pairs), "/cwd", &dirs()).map_err(|error| error.to_string())
}

fn only(values: &[&str]) -> Grant {
    Grant::Only(values.iter().map(|value| (*value).to_owned()).collect())
}

#[test]
fn without_any_setting_code_may_do_nothing() {
    let profile = resolved("", &[]).expect("defaults are right");
    assert_eq!(profile.grants, Grants::default());
    assert_eq!(profile.workspace, Path::new("/home/a/.mcp-conductor/workspace"));
    assert_eq!((profile.default_timeout, profile.max_timeout), (defaults::TIMEOUT, defaults::MAX_TIMEOUT));
    assert_eq!(profile.grants_in_words(), "nothing");
    assert!(profile.warnings.is_empty());
}

#[test]
fn the_environment_wins_over_the_file_and_paths_are_made_absolute() {
    let config = "[profiles.default]\nworkspace = \"/file\"\nrun-args = \"allow-net=a.org\"\nmax-timeout = \"1m\"\nmax-compute = \"20s\"";
    let profile = resolved(config, &[]).expect("is right");
    assert_eq!(
        (profile.workspace.as_path(), profile.grants.net.clone()),
        (Path::new("/file"), only(&["a.org"]))
    );
    let profile = resolved(
        config,
        &[
            (WORKSPACE, "${workspaceFolder}/ws"),
            ("CLAUDE_PROJECT_DIR", "/project"),
            (RUN_ARGS, "allow-read=~/data,sub,/x/../y"),
            (DEFAULT_TIMEOUT, "5000"),
        ],
    )
    .expect("is right");
    assert_eq!(profile.workspace, Path::new("/project/ws"));
    assert_eq!(profile.grants.read, only(&["/home/a/data", "/project/ws/sub", "/y"]));
    assert_eq!(profile.grants.net, Grant::None, "the variable replaces the file's arguments");
    assert_eq!(profile.default_timeout, Duration::from_secs(5));
    assert_eq!(profile.max_timeout, Duration::from_secs(60));
    assert_eq!(profile.limits(Duration::from_secs(1)).compute, Duration::from_secs(20));
}

#[test]
fn a_named_profile_must_exist() {
    let config = "[profiles.web]\nrun-args = \"allow-net\"\n[profiles.lab]";
    assert_eq!(resolved(config, &[(PROFILE, "web")]).expect("exists").grants.net, Grant::All);
    assert_eq!(resolved(config, &[(PROFILE, "default")]).expect("always exists").grants, Grants::default());
    let error = resolved(config, &[(PROFILE, "wep")]).expect_err("does not exist");
    assert!(error.contains("`wep`") && error.contains("hint: it has lab, web"), "{error}");
}

#[test]
fn a_session_cannot_grant_what_policy_does_not_offer() {
    for kind in ["run", "ffi", "sys", "all"] {
        let asked = format!("allow-{kind}");
        let error = resolved("", &[(RUN_ARGS, &asked)]).expect_err(kind);
        assert!(error.contains(&format!("add \"{kind}\" to session-grants")), "{error}");
        let config = format!("[policy]\nsession-grants = [\"{kind}\"]");
        resolved(&config, &[(RUN_ARGS, &asked)]).expect("is offered now");
        let in_file = format!("[profiles.default]\nrun-args = \"{asked}\"");
        resolved(&in_file, &[]).expect("an administrator's profile is not cut");
    }
    assert!(resolved("[policy]\nsession-grants = []", &[(RUN_ARGS, "allow-read=/x")]).is_err());
}

#[test]
fn policy_lists_cap_values() {
    let config = "[policy]\nread = [\"~/code\"]\nwrite = []\nnet = [\"a.org\"]\nenv = [\"LANG\"]\nmax-timeout = \"10s\"";
    let profile = resolved(
        config,
        &[
            (RUN_ARGS, "allow-read=~/code/x,allow-net=a.org,allow-env=LANG"),
            (MAX_TIMEOUT, "60000"),
            ("LANG", "C"),
        ],
    )
    .expect("is offered");
    assert_eq!(profile.max_timeout, Duration::from_secs(10));
    assert_eq!(profile.env, env(&[("LANG", "C")]));
    for asked in [
        "allow-read=/etc",
        "allow-read",
        "allow-read=~/code/../.ssh",
        "allow-read=~/codex",
        "allow-write=~/code",
        "allow-net=b.org",
        "allow-net",
        "allow-env=HOME",
    ] {
        let error = resolved(config, &[(RUN_ARGS, asked)]).expect_err(asked);
        assert!(error.contains("outside what [policy] offers"), "{asked}: {error}");
    }
}

#[test]
fn what_is_beyond_the_policy_is_cut_where_it_says_so() {
    let config = "[policy]\nexcess = \"cut\"\nread = [\"~/code\"]\nnet = [\"a.org\"]\nworkspaces = [\"~/code\"]\n\
                  packages = [\"npm:zod\"]\nsession-mcp-config = false\nprofiles = [\"default\"]\n[profiles.web]";
    let asked = [
        (RUN_ARGS, "allow-read=/home/a,/etc,allow-net,allow-run=ls,allow-write=/ws"),
        (WORKSPACE, "/elsewhere"),
        (ALLOWED_PACKAGES, "npm:zod,npm:ms"),
        (MCP_CONFIG, "/my.json"),
    ];
    let profile = resolved(config, &asked).expect("is cut");
    assert_eq!(profile.grants.read, only(&["/home/a/code"]));
    assert_eq!(profile.grants.net, only(&["a.org"]));
    assert_eq!((&profile.grants.run, &profile.grants.write), (&Grant::None, &only(&["/ws"])));
    assert_eq!(profile.workspace, Path::new("/home/a/.mcp-conductor/workspace"));
    assert_eq!(profile.packages.allowed.packages().map(|it| it.key()).collect::<Vec<_>>(), ["npm:zod"]);
    assert_eq!(profile.mcp_config.as_ref().map(|it| it.required), Some(false));
    let warnings = profile.warnings.join("\n");
    for says in [
        "allow-read=/etc is cut: [policy] offers /home/a/code",
        "allow-net=(all) is cut",
        "allow-run is cut: [policy] offers none",
        "`/elsewhere` is outside what [policy] offers, and not used",
        "npm:ms",
        "name a file of their own; it is not used",
    ] {
        assert!(warnings.contains(says), "{says}: {warnings}");
    }
    let all = resolved(config, &[(RUN_ARGS, "allow-all")]).expect("is cut");
    assert!(!all.grants.all && all.grants.run == Grant::None && all.grants.env == Grant::All);
    let error = resolved(config, &[(PROFILE, "web")]).expect_err("is not offered");
    assert!(error.contains("`web`") && error.contains("hint: offered are default"), "{error}");
}

#[test]
fn a_policy_refuses_what_it_does_not_offer() {
    let config = "[policy]\nsession-grants = [\"run\", \"sys\", \"ffi\"]\nrun = [\"git\"]\nsys = [\"hostname\"]\nffi = [\"/lib\"]\n\
                  workspaces = [\"~/code\"]\nsession-mcp-config = false";
    resolved(config, &[(RUN_ARGS, "allow-run=git,allow-sys=hostname,allow-ffi=/lib/x.so")])
        .expect("is offered");
    resolved(config, &[(WORKSPACE, "~/code/x")]).expect("is offered");
    for (variable, asked) in [
        (RUN_ARGS, "allow-run=sh"),
        (RUN_ARGS, "allow-run"),
        (RUN_ARGS, "allow-sys=osRelease"),
        (RUN_ARGS, "allow-ffi=/tmp/x.so"),
        (WORKSPACE, "/elsewhere"),
        (MCP_CONFIG, "/my.json"),
    ] {
        let error = resolved(config, &[(variable, asked)]).expect_err(asked);
        assert!(error.starts_with(variable) && error.contains("[policy]"), "{error}");
    }
}

#[test]
fn no_limit_is_above_the_policys_whatever_the_profile_says() {
    let config = "[profiles.default]\nheap-mib = 1024\nlinger = \"1m\"\n[policy]\nmax-heap-mib = 512\nmax-linger = \"10s\"\n\
                  max-compute = \"1m\"\nmax-output-bytes = 2048\nmax-result-bytes = 2048\nmax-inline-bytes = 1024\n\
                  max-calls-in-flight = 2\nmax-calls-per-minute = 60\nmax-timeout = \"20s\"";
    let config: Config = toml::from_str(config).expect("is right");
    let asked = env(&[(MAX_TIMEOUT, "60000"), (DEFAULT_TIMEOUT, "40000")]);
    let (profile, origins) = explain(&config, &asked, "/", &dirs()).expect("is right");
    assert_eq!((profile.heap_mib, profile.linger), (512, Duration::from_secs(10)));
    assert_eq!((profile.max_compute, profile.max_output_bytes), (Duration::from_secs(60), 2048));
    assert_eq!((profile.max_result_bytes, profile.max_inline_bytes), (2048, 1024));
    assert_eq!((profile.max_calls_in_flight, profile.max_calls_per_minute), (2, Some(60)));
    let cut = |by, asked: Value, from| Origin::Cut { by, asked, from: Box::new(from) };
    assert_eq!(origins["heap-mib"], cut("policy.max-heap-mib", 1024.into(), Origin::File));
    assert_eq!(origins["max-compute"], cut("policy.max-compute", "5m".into(), Origin::Default));
    let asked = Origin::Environment(MAX_TIMEOUT);
    assert_eq!(origins["max-timeout"], cut("policy.max-timeout", "1m".into(), asked));
    assert_eq!(profile.default_timeout, Duration::from_secs(20));
    assert_eq!((&origins["run-args"], &origins["mcp-config"]), (&Origin::Default, &Origin::Default));
    // What nobody asked for is cut without a word.
    assert_eq!(profile.warnings.len(), 4, "{:?}", profile.warnings);
    assert!(
        profile.warnings.contains(&"heap-mib: 1024 is cut to 512, as policy.max-heap-mib says".to_owned())
    );
}

#[test]
fn own_directories_are_never_granted() {
    for asked in ["allow-read=~/.config/conductor", "allow-write=~/.cache/conductor/x"] {
        let error = resolved("", &[(RUN_ARGS, asked)]).expect_err(asked);
        assert!(error.contains("conductor's own directories"), "{error}");
    }
    assert!(resolved("", &[(WORKSPACE, "~/.local/share/conductor/ws")]).is_err());
}

#[test]
fn names_the_variable_that_is_wrong() {
    for (variable, value, says) in [
        (DEFAULT_TIMEOUT, "0", "`0` is no whole number of milliseconds"),
        (DEFAULT_TIMEOUT, "-5", "`-5`"),
        (MAX_TIMEOUT, "1s", "`1s`"),
        (WORKSPACE, "relative/dir", "must be an absolute path"),
        (WORKSPACE, "${env:NOPE}/x", "`${env:NOPE}` is not set"),
        (RUN_ARGS, "allow-reed=/x", "`allow-reed` is not known"),
    ] {
        let error = resolved("", &[(variable, value)]).expect_err(value);
        assert!(error.starts_with(variable) && error.contains(says), "{error}");
    }
}

#[test]
fn unknown_variables_are_warned_about() {
    let profile = resolved("", &[("MCP_CONDUCTOR_WORKSPASE", "/x"), ("MCP_CONDUCTOR_MCP_CONFIG", "/y")])
        .expect("is right");
    assert_eq!(profile.warnings.len(), 1, "{:?}", profile.warnings);
    assert!(profile.warnings.iter().any(|warning| warning.contains("WORKSPASE is not a variable")));
}

#[test]
fn asks_for_referenced_variables_that_were_not_sent() {
    let config: Config = toml::from_str("[profiles.default]\nworkspace = \"${env:WS}/x\"").expect("is right");
    let sent = env(&[(RUN_ARGS, "allow-read=${env:DATA},allow-env=LANG,TOKEN"), ("LANG", "C")]);
    assert_eq!(missing_variables(&config, &sent, "/", &dirs()), ["DATA", "TOKEN", "WS"]);
}
