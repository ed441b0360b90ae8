use std::time::Duration;

use conductor_pool::PoolConfig;
use conductor_pool::spawn::Level;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("c.toml")).map_err(|error| error.to_string())
}

#[test]
fn reads_every_section() {
    let config = parse(
        r#"
        deno = "/opt/deno"
        [pool]
        idle-per-profile = 3
        queue-wait = "10s"
        [jail]
        level = "strict"
        hardened = true
        [upstreams]
        idle-timeout = "never"
        timeout = "1m 30s"
        [profiles.web]
        run-args = "allow-net=api.github.com"
        default-timeout = "1m"
        [policy]
        excess = "cut"
        session-grants = ["read", "run"]
        max-timeout = "2m"
        "#,
    )
    .expect("is right");
    assert_eq!(config.pool.queue_wait, Some(Duration::from_secs(10)));
    assert_eq!(config.jail, JailSection { level: Level::Strict, hardened: true });
    assert_eq!(config.upstreams.idle_timeout, Some(None));
    assert_eq!(config.upstreams.timeout, Some(Duration::from_secs(90)));
    assert_eq!(config.profiles["web"].default_timeout, Some(Duration::from_secs(60)));
    assert_eq!(config.policy.session_grants, [GrantKind::Read, GrantKind::Run]);
    assert_eq!(config.policy.excess, Excess::Cut);
    assert_eq!(parse("").expect("empty is right"), Config::default());
}

#[test]
fn names_what_is_wrong() {
    for (text, says) in [
        ("denno = 1", "c.toml:1:1: unknown key `denno`"),
        ("denno = 1", "hint: did you mean `deno`?"),
        ("[pool]\nmax-worker = 3", "hint: did you mean `max-workers`?"),
        ("[profiles.a]\nidle-per-profile = 3", "hint: it belongs into [pool]"),
        ("[zzzzzzzz]", "hint: known are deno, pool,"),
        (
            "[pool]\nidle-per-profile = -1",
            "c.toml:2:20: pool.idle-per-profile: must be from 0 to 64 workers, and is -1",
        ),
        ("[pool]\nmax-workers = 0xffff", "must be from 1 to 512 workers"),
        ("[pool]\nmax-workers = 99999999999999999999", "must be from 1 to 512 workers"),
        ("[pool]\nmax-workers = 1.5", "must be a whole number, and is a number with a fraction"),
        ("[pool]\nmax-workers = \"1\"", "must be a whole number, and is a text"),
        ("[pool]\nqueue-wait = \"soon\"", "pool.queue-wait: `soon` is no duration like \"30s\""),
        ("[pool]\nqueue-wait = \"1h\"", "must be from 10ms to 10m, and is 1h"),
        ("[pool]\nqueue-wait = 30", "must be a duration like \"30s\", and is a whole number"),
        ("[upstreams]\nidle-timeout = \"ever\"", "nor \"never\""),
        ("pool = 1", "must be a table, and is a whole number"),
        ("[profiles.a]\nheap-mib = 1", "profiles.a.heap-mib: must be from 32 to 16384 MiB, and is 1"),
        (
            "[profiles.a]\nheap-mib = 512\nmax-memory-mib = 300",
            "profiles.a.max-memory-mib: must not be below `heap-mib`",
        ),
        ("[profiles.\"a b\"]\nheap-mib = 1", "profiles.\"a b\".heap-mib"),
        (
            "[profiles.a]\nrun-args = \"allow-everything\"",
            "profiles.a.run-args: `allow-everything` is not known",
        ),
        ("[profiles.a]\nworkspace = \"w\"", "hint: begin it with / or ~/"),
        ("[profiles.a]\npackages = [\"axios\"]", "profiles.a.packages"),
        ("[profiles.a]\npackages = []\npreload = [\"npm:zod\"]", "profiles.a.preload"),
        ("[profiles.a]\npackages-lock = \"deno.lock\"", "must be an absolute path"),
        ("[jail]\nlevel = \"none\"", "`none` is none of best-effort, strict"),
        ("[policy]\nsession-grants = [\"red\"]", "`red` is none of read, write"),
        ("[policy]\nnet = [\"https://x\"]", "is a URL"),
        ("[policy]\nread = [\"code\"]", "policy.read: `code` must be an absolute path"),
        ("[policy]\nread = [\"${env:CODE}\"]", "refers to what a session can choose"),
        ("[policy]\nprofiles = [\"wbe\"]\n[profiles.web]", "hint: did you mean `web`?"),
        ("a = = 1", "c.toml:1:5"),
        ("[pool]\nmax-idle = 1\nmax-idle = 2", "c.toml:3:1"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(says), "{text:?} says {error:?}, not {says:?}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let text = "dino = 1\n\n[pool]\nmax-workers = 0\nqueue-wait = \"1h\"\n";
    let error = parse(text).expect_err("is wrong");
    let expected = "\
the configuration c.toml is wrong
c.toml:1:1: unknown key `dino`
  1 | dino = 1
    | ^^^^
  hint: did you mean `deno`?
c.toml:4:15: pool.max-workers: must be from 1 to 512 workers, and is 0
  4 | max-workers = 0
    |               ^
c.toml:5:14: pool.queue-wait: must be from 10ms to 10m, and is 1h
  5 | queue-wait = \"1h\"
    |              ^^^^
hint: repair it; `conductorctl config check` says whether it is right";
    assert_eq!(error, expected);
    let broken = parse("a = [1\n[pool\nx = 'y\n").expect_err("is no TOML");
    assert!(broken.matches("\nc.toml:").count() >= 2, "{broken}");
}

#[test]
fn a_missing_file_is_wrong_only_when_it_was_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.toml");
    assert_eq!(Config::load(&path, false).expect("not required"), Config::default());
    assert!(Config::load(&path, true).expect_err("is required").is_absent());
    let nowhere = dir.path().join("not/there/config.toml");
    assert_eq!(Config::load(&nowhere, false).expect("not required"), Config::default());
}

/// The pool has bounds of its own: what the schema lets through must be what it takes.
#[test]
fn the_bounds_of_the_pool_are_the_pools() {
    let properties = schema::schema()["properties"]["pool"]["properties"].as_object().expect("has some");
    for (key, schema) in properties {
        for (bound, is_within) in
            [("minimum", true), ("maximum", true), ("minimum", false), ("maximum", false)]
        {
            let value = match (schema[bound].as_i64(), bound) {
                (Some(number), "minimum") => (number - i64::from(!is_within)).to_string(),
                (Some(number), _) => (number + i64::from(!is_within)).to_string(),
                (None, _) => {
                    let text = schema[if bound == "minimum" { "x-least" } else { "x-most" }].as_str();
                    let at = duration::parse(text.expect("a bound")).expect("is a duration");
                    let beyond = match (is_within, bound) {
                        (true, _) => at,
                        (_, "minimum") => at - Duration::from_millis(1),
                        _ => at + Duration::from_millis(1),
                    };
                    format!("{:?}", duration::text(beyond))
                }
            };
            let text = format!("[pool]\n{key} = {value}");
            let parsed = parse(&text);
            assert_eq!(parsed.is_ok(), is_within, "{text}: {parsed:?}");
            if let Ok(config) = parsed {
                config.pool.settings().validate().expect(&text);
            }
        }
    }
    assert_eq!(PoolSection::default().settings(), PoolConfig::default());
    for key in properties.keys() {
        let default = &properties[key]["default"];
        let Some(told) =
            default.as_str().map(|text| format!("{text:?}")).or(default.as_i64().map(|n| n.to_string()))
        else {
            continue;
        };
        let config = parse(&format!("[pool]\n{key} = {told}")).expect("a default is right");
        assert_eq!(config.pool.settings(), PoolConfig::default(), "{key}");
    }
}

/// What is told of `[upstreams]` is what happens.
#[test]
fn the_defaults_of_upstreams_are_the_servers() {
    use conductor_upstream::config::ServerDefaults;
    assert_eq!(UpstreamsSection::default().settings(), ServerDefaults::default());
    let properties = schema::schema()["properties"]["upstreams"]["properties"].as_object().expect("has some");
    let told = properties.iter().map(|(key, schema)| format!("{key} = {}\n", schema["default"]));
    let config = parse(&format!("[upstreams]\n{}", told.collect::<String>())).expect("defaults are right");
    assert_eq!(config.upstreams.settings(), ServerDefaults::default());
}

/// Values for a place of the schema: good ones, ones at and beyond the bounds, ones of another type.
fn values(schema: &Value) -> BoxedStrategy<Value> {
    let odd = vec![
        json!(null),
        json!(true),
        json!(7),
        json!(-1),
        json!(1.5),
        json!("text"),
        json!(["a"]),
        json!({"a": 1}),
    ];
    // There is no null in TOML.
    let odd: Vec<_> = odd.into_iter().skip(1).collect();
    let own: Vec<Value> = match (schema["type"].as_str(), schema.get("x-syntax").and_then(Value::as_str)) {
        _ if schema.get("enum").is_some() => schema["enum"]
            .as_array()
            .expect("is a list")
            .iter()
            .cloned()
            .chain([json!("Read"), json!("")])
            .collect(),
        (_, Some(syntax)) if syntax.starts_with("duration") => {
            let texts = ["30s", "1h 30m", "90s", "5m", "never", "1.5s", "soon", "", "30", "1S"];
            let bounds = [&schema["x-least"], &schema["x-most"]].into_iter().cloned();
            texts.into_iter().map(Value::from).chain(bounds).collect()
        }
        (Some("integer"), _) => {
            let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
            [least, most]
                .into_iter()
                .flatten()
                .flat_map(|at| [json!(at - 1), json!(at), json!(at + 1)])
                .collect()
        }
        (Some("string"), _) => vec![json!(""), json!("/a"), json!("~/b")],
        (Some("array"), _) => {
            let item = values(&schema["items"]);
            let lists = prop::collection::vec(item, 0..3).prop_map(Value::from);
            return prop_oneof![8 => lists, 1 => select(odd)].boxed();
        }
        (Some("object"), _) => return prop_oneof![12 => tables(schema), 1 => select(odd)].boxed(),
        _ => vec![json!(true), json!(false)],
    };
    prop_oneof![8 => select(own), 1 => select(odd)].boxed()
}

/// Tables with some of the known keys, and now and then another.
fn tables(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(each) = schema.get("additionalProperties").filter(|each| each.is_object()) {
        return prop::collection::btree_map("[a-c]", values(each), 0..3).prop_map(Value::from_iter).boxed();
    }
    let known = schema["properties"].as_object().expect("a table has keys");
    let keys: Vec<_> = known.iter().map(|(name, below)| (name.clone(), below.clone())).collect();
    let entry = select(keys).prop_flat_map(|(name, below)| (Just(name), values(&below)));
    let stray = Just(("stray-key".to_owned(), json!(1)));
    prop::collection::vec(prop_oneof![40 => entry, 1 => stray], 0..4).prop_map(Value::from_iter).boxed()
}

/// What JSON Schema has no word for.
fn is_about_a_duration_out_of_bounds(problem: &Problem) -> bool {
    problem.what.starts_with("must be from") && !problem.what.contains(|c: char| c.is_uppercase()) && {
        let words: Vec<_> = problem.what.split(' ').collect();
        words.get(3).is_some_and(|least| duration::parse(least).is_some())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The parser and any other reader of the schema agree on every document: an editor never marks what the daemon takes,
    /// and never leaves alone what the daemon refuses for its shape.
    #[test]
    fn the_parser_and_the_schema_agree(document in tables(schema::schema())) {
        static VALIDATOR: std::sync::OnceLock<jsonschema::Validator> = std::sync::OnceLock::new();
        let validator = VALIDATOR.get_or_init(|| jsonschema::validator_for(schema::schema()).expect("is a schema"));
        let text = toml::to_string(&document).expect("is a table");
        let located = Document::parse(&text).expect("is TOML");
        let problems = check::problems(&located);
        let ours: Vec<_> = problems.iter().filter(|problem| !is_about_a_duration_out_of_bounds(problem)).collect();
        let theirs: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        prop_assert_eq!(ours.is_empty(), theirs.is_empty(), "{}\n{:?}\n{:?}", text, ours, theirs);
        if problems.is_empty() {
            // What has the right shape is read; what it means is looked at in the typed value.
            prop_assert!(toml::from_str::<Config>(&text).is_ok(), "{}", text);
        }
        for problem in &problems {
            prop_assert!(problem.line >= 1 && !problem.excerpt.is_empty(), "{:?}", problem);
        }
    }

    /// Nothing that is put into the file can bring the parser down.
    #[test]
    fn no_text_is_too_odd(text in "[a-z\\[\\]\\.=\"'\n #{}0-9é\u{0}-]{0,80}") {
        drop(parse(&text));
    }
}
