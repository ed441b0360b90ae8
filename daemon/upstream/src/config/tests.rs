use std::time::Duration;

use super::*;
use crate::keyring::NoKeyring;

fn env(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("t0ken-of-the-session".to_owned()),
        "DIR" => Some("/data".to_owned()),
        _ => None,
    }
}

fn expansion() -> Expansion<'static> {
    Expansion {
        env: &env,
        home: Path::new("/home/u"),
        workspace: Some(Path::new("/ws")),
        keyring: &NoKeyring,
    }
}

fn parse(text: &str) -> ServerSet {
    ServerSet::parse(text, &expansion()).expect("it parses")
}

fn entry(members: &str) -> ServerSet {
    parse(&format!(r#"{{"mcpServers": {{"s": {{{members}}}}}}}"#))
}

fn config(members: &str) -> Arc<ServerConfig> {
    entry(members).get("s").expect("s").config.clone().expect(members)
}

fn reason(members: &str) -> String {
    entry(members).get("s").expect("s").config.clone().expect_err(members).to_string()
}

#[test]
fn the_shapes_of_ides_are_read() {
    let set = parse(
        r#"{
          // VS Code's file
          "inputs": [],
          "servers": {
            "a": {"type": "stdio", "command": "npx", "args": ["-y", "x"], "env": {"PORT": 8080, "DEBUG": true}, "cwd": "sub"},
            "b": {"type": "streamable-http", "url": "https://h.example/mcp?x=1", "headers": {"Authorization": "Bearer ${env:TOKEN}"}},
            "c": {"type": "sse", "url": "http://127.0.0.1:1/sse",},
            "d": {"url": "https://h.example/mcp", "disabled": true, "autoApprove": ["x"]},
          },
        }"#,
    );
    assert_eq!(set.warnings, [""; 0]);
    let get = |name: &str| set.get(name).expect(name).config.clone();
    let Endpoint::Stdio(stdio) = &get("a").expect("a").endpoint else { panic!("not stdio") };
    assert_eq!(stdio.env["PORT"].expose(), "8080");
    assert_eq!(stdio.env["DEBUG"].expose(), "true");
    assert_eq!(stdio.cwd.as_deref(), Some(Path::new("/ws/sub")));
    let b = get("b").expect("b");
    let Endpoint::Http { remote, named: true } = &b.endpoint else { panic!("not http") };
    assert_eq!(remote.shown, "https://h.example/mcp");
    assert_eq!(remote.headers["authorization"].expose(), "Bearer t0ken-of-the-session");
    assert_eq!(b.redactor().redact("sent t0ken-of-the-session"), "sent [redacted]");
    assert!(matches!(get("c").expect("c").endpoint, Endpoint::Sse(_)));
    assert_eq!(get("d").expect_err("d"), Disabled::Off);
    assert!(!format!("{set:?}").contains("t0ken"), "{set:?}");
}

#[test]
fn our_own_keys_are_read_in_either_spelling() {
    let config = config(
        r#""command": "x", "scope": "session", "start": "eager", "idleTimeout": "90s", "max_lifetime": "1h",
           "timeout": 5000, "allow_tools": ["get_*", "list_*"], "deny_tools": ["*_secret*"], "expose": ["tools", "prompts"], "exposePrefix": "t""#,
    );
    assert_eq!(config.scope, Scope::Session);
    assert_eq!(config.life.start, Start::Eager);
    assert_eq!(config.life.idle_timeout, Some(Duration::from_secs(90)));
    assert_eq!(config.life.max_lifetime, Some(Duration::from_secs(3600)));
    assert_eq!(config.timeout, Duration::from_secs(5));
    assert_eq!(config.tools.denies("get_issue"), None);
    assert_eq!(config.tools.denies("delete_issue"), Some("allow_tools"));
    assert_eq!(config.tools.denies("get_secrets"), Some("deny_tools"));
    assert_eq!(config.expose, BTreeSet::from([Expose::Tools, Expose::Prompts]));
    assert_eq!(config.expose_prefix.as_deref(), Some("t"));
    assert_eq!(self::config(r#""command": "x", "idle_timeout": "never""#).life.idle_timeout, None);
}

#[test]
fn an_entry_goes_before_the_defaults() {
    let defaults = ServerDefaults {
        scope: Scope::Call,
        start: Start::Eager,
        idle_timeout: None,
        max_lifetime: Some(Duration::from_secs(60)),
        timeout: Duration::from_secs(7),
    };
    let parsed = |members: &str| {
        let text = format!(r#"{{"mcpServers": {{"s": {{{members}}}}}}}"#);
        let set = ServerSet::parse_with(&text, &expansion(), &defaults).expect("it parses");
        set.get("s").expect("s").config.clone().expect(members)
    };
    let silent = parsed(r#""command": "x""#);
    let life = Life { start: Start::Eager, idle_timeout: None, max_lifetime: Some(Duration::from_secs(60)) };
    assert_eq!((silent.scope, silent.life, silent.timeout), (Scope::Call, life, Duration::from_secs(7)));
    let says = parsed(
        r#""command": "x", "scope": "shared", "start": "lazy", "idle_timeout": "1s", "max_lifetime": "never", "timeout": 1"#,
    );
    let life = Life { start: Start::Lazy, idle_timeout: Some(Duration::from_secs(1)), max_lifetime: None };
    assert_eq!((says.scope, says.life, says.timeout), (Scope::Shared, life, Duration::from_millis(1)));
}

#[test]
fn a_bad_entry_disables_itself_alone_and_says_why() {
    let text = r#"{
  "mcpServers": {
    "good": {"command": "x"},
    "bad": {"command": "x",
            "args": "y"},
    "worse": 7
  }
}"#;
    let set = parse(text);
    assert!(set.get("good").expect("good").config.is_ok());
    let why = |name: &str| set.get(name).expect(name).config.clone().expect_err(name).to_string();
    assert!(
        why("bad").starts_with("`args`: line 5, column 2") && why("bad").contains("expected a sequence"),
        "{}",
        why("bad")
    );
    assert!(why("worse").starts_with("line 6, column 1"), "{}", why("worse"));
    for (members, part) in [
        (r#""command": "x", "url": "http://x""#, "both `command` and `url`"),
        ("", "neither `command` nor `url`"),
        (r#""command": """#, "empty"),
        (r#""type": "ws", "url": "ws://x""#, "none of stdio, http"),
        (r#""type": "http", "command": "x""#, "needs `url`"),
        (r#""url": "ftp://x""#, "must begin with http"),
        (r#""url": "http://""#, "`url`"),
        (r#""command": "x", "scope": "global""#, "unknown variant `global`"),
        (r#""command": "x", "timeout": "soon""#, "no time such as"),
        (r#""command": "x", "timeout": 0"#, "more than zero"),
        (r#""command": "x", "allow_tools": ["a["]"#, "no pattern"),
        (r#""command": "x", "env": {"A=B": "c"}"#, "cannot name a variable"),
        (r#""command": "${env:NONE}""#, "`command`: environment variable NONE is not set"),
        (r#""command": "x", "env": {"A": "${NONE}"}"#, "`env.A`: environment variable NONE"),
        (r#""url": "http://x", "headers": {"a b": "c"}"#, "cannot name a header"),
        (r#""url": "http://x", "headers": {"a": "b\nc"}"#, "cannot be sent in a header"),
        (r#""command": "a\u0000b""#, "NUL"),
    ] {
        assert!(reason(members).contains(part), "{members}: {}", reason(members));
    }
    let two = parse(r#"{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}"#);
    assert!(two.get("a").expect("a").config.clone().expect_err("two").to_string().contains("two servers"));
}

#[test]
fn broken_json_names_line_and_column() {
    for (text, line, column) in
        [("{\n  \"mcpServers\": {\n    oops\n", 3, 5), ("", 1, 0), ("[]", 1, 0), ("{\"a\":", 1, 5)]
    {
        match ServerSet::parse(text, &expansion()) {
            Err(ParseError::Json { line: l, column: c, .. }) => {
                assert!(l == line && c >= column, "{text:?}: {l}:{c}")
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
    assert_eq!(ServerSet::parse("{}", &expansion()).expect_err("nothing"), ParseError::NoServers);
}

#[test]
fn unknown_keys_are_warned_about_with_the_nearest_name() {
    let set = entry(r#""comand": "x", "command": "y""#);
    assert_eq!(set.warnings.len(), 1);
    assert!(
        set.warnings[0].contains("unknown key `comand` is ignored; did you mean `command`?"),
        "{:?}",
        set.warnings
    );
    assert!(set.warnings[0].starts_with("server s: line 1, column"), "{:?}", set.warnings);
    let set = ServerSet::parse(r#"{"mcpServer": {}, "mcpServers": {}}"#, &expansion()).expect("parses");
    assert!(set.warnings[0].contains("did you mean `mcpServers`?"), "{:?}", set.warnings);
}

#[test]
fn only_what_makes_a_connection_makes_its_identity() {
    let base = r#""command": "x", "args": ["a"], "env": {"A": "1"}"#;
    let identity = |members: &str| config(members).identity(None);
    assert_eq!(
        identity(base),
        identity(&format!(r#"{base}, "timeout": 1, "allow_tools": [], "scope": "session""#))
    );
    for other in [
        r#""command": "y", "args": ["a"], "env": {"A": "1"}"#,
        r#""command": "x", "args": ["a", ""], "env": {"A": "1"}"#,
        r#""command": "x", "args": ["a"], "env": {"A": "2"}"#,
        r#""command": "x", "args": ["a"], "env": {"A": "${TOKEN}"}"#,
        r#""command": "x", "args": ["a"], "env": {"A": "1"}, "cwd": "/"  "#,
    ] {
        assert_ne!(identity(base), identity(other), "{other}");
    }
    let program = config(base).identity(Some(Path::new("/usr/bin/x")));
    assert_ne!(program, identity(base));
}

#[test]
fn changes_name_what_must_restart() {
    let old = parse(
        r#"{"mcpServers": {"same": {"command": "x"}, "gone": {"command": "x"}, "other": {"command": "x"}, "soft": {"command": "x"}}}"#,
    );
    let new = parse(
        r#"{"mcpServers": {"new": {"command": "x"}, "same": {"command": "x"}, "other": {"command": "x", "env": {"A": "${DIR}"}},
            "soft": {"command": "x", "timeout": 1, "deny_tools": ["a"]}}}"#,
    );
    let expected =
        Changes { added: vec!["new".into()], removed: vec!["gone".into()], changed: vec!["other".into()] };
    assert_eq!(old.changes(&new), expected);
    assert_eq!(new.changes(&new), Changes::default());
}

#[test]
fn secrets_in_arguments_and_urls_are_not_shown() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "the-file-secret\n").expect("written");
    let path = file.path().display();
    let config = config(&format!(r#""command": "x", "args": ["--token", "${{file:{path}}}", "${{TOKEN}}"]"#));
    assert!(config.shown().contains("${TOKEN}"), "{}", config.shown());
    assert_eq!(config.redactor().redact("the-file-secret t0ken-of-the-session"), "[redacted] [redacted]");
    let remote = self::config(r#""url": "https://user:pass-word@h.example/p?api_key=k3y-value#f""#);
    assert_eq!(remote.shown(), "https://h.example/p");
    assert_eq!(remote.redactor().redact("pass-word k3y-value"), "[redacted] [redacted]");
    assert!(!format!("{config:?}{remote:?}").contains("the-file-secret"));
}
