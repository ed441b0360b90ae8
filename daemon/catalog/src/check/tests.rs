use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::testing::{all_tools, any_json, any_schema, real_tool};

/// Hostile schemas must end: they take a second at most on a quiet machine, and for ever (or days) without the bounds.
const SOON: Duration = Duration::from_secs(30);

fn check(schema: Value, arguments: Value, expected: &str) {
    let checker = ArgumentChecker::compile(&schema);
    assert_eq!(checker.unchecked(), None, "{schema}");
    let text = checker.check(&arguments).map_or_else(|error| error.to_string(), |()| "ok".to_owned());
    assert_eq!(text, expected, "{arguments}");
}

fn issues(arguments: Value, expected: &str) {
    check(real_tool("github", "list_issues").input_schema, arguments, expected);
}

#[test]
fn messages_say_what_to_do() {
    issues(json!({"owner": "a", "repo": "b", "state": "open", "page": 2}), "ok");
    issues(json!({"owner": "a"}), "invalid arguments\n- missing required property \"repo\" (string)");
    issues(
        json!({"onwer": "a", "repo": "b"}),
        "invalid arguments\n- missing required property \"owner\" (string); \"onwer\" was given\n- unknown property \"onwer\"; did you mean \"owner\"?",
    );
    issues(
        json!({"owner": "a", "repo": "b", "state": "opened"}),
        "invalid arguments\n- state: expected \"open\" | \"closed\" | \"all\", got \"opened\"; did you mean \"open\"?",
    );
    issues(
        json!({"owner": "a", "repo": "b", "labels": ["x", 5], "page": "2"}),
        "invalid arguments\n- labels[1]: expected string, got 5\n- page: expected number, got \"2\"; give the number without quotes",
    );
    issues(
        json!({"owner": "a", "repo": "b", "zzz": 1}),
        "invalid arguments\n- unknown property \"zzz\"; known are owner, repo, direction, labels, page, per_page, since, sort, state",
    );
    issues(
        json!([1]),
        "invalid arguments\n- expected { owner: string; repo: string; direction?: \"asc\" | \"desc\"; labels?: string[]; [key: string]: unknown /* 5 more properties */ }, got an array of 1 item",
    );
}

#[test]
fn bounds_and_nested_places() {
    let schema = json!({"type": "object", "properties": {
        "n": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10}, "s": {"type": "string", "minLength": 2, "pattern": "^a"},
        "list": {"type": "array", "maxItems": 1, "items": {"type": "object", "properties": {"first name": {"const": "x"}}}},
    }});
    check(schema.clone(), json!({"n": 0}), "invalid arguments\n- n: must be ≥ 1, got 0");
    check(schema.clone(), json!({"n": 10}), "invalid arguments\n- n: must be < 10, got 10");
    check(schema.clone(), json!({"n": 1.5}), "invalid arguments\n- n: expected integer, got 1.5");
    check(
        schema.clone(),
        json!({"s": "b"}),
        "invalid arguments\n- s: must have at least 2 characters, got \"b\"\n- s: must match the pattern ^a, got \"b\"",
    );
    check(
        schema.clone(),
        json!({"list": [{"first name": "y"}]}),
        "invalid arguments\n- list[0][\"first name\"]: expected \"x\", got \"y\"",
    );
    check(
        schema.clone(),
        json!({"list": "[]"}),
        "invalid arguments\n- list: expected { \"first name\"?: \"x\" }[], got \"[]\"; give the array itself, not its JSON text",
    );
    check(
        schema,
        json!({"list": [{}, {}]}),
        "invalid arguments\n- list: must have at most 1 items, got 2 items",
    );
}

#[test]
fn alternatives_name_the_one_that_was_meant() {
    let schema = json!({"properties": {"to": {"anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"kind": {"const": "user"}, "id": {"type": "number"}}, "required": ["kind", "id"]},
        {"type": "object", "properties": {"kind": {"const": "team"}, "name": {"$ref": "#/$defs/name"}}, "required": ["kind", "name"]},
    ]}}, "$defs": {"name": {"type": "string"}}});
    check(
        schema.clone(),
        json!({"to": {"kind": "team", "name": 5}}),
        "invalid arguments\n- to.name: expected string, got 5",
    );
    check(
        schema.clone(),
        json!({"to": {"kind": "user"}}),
        "invalid arguments\n- to: missing required property \"id\" (number)",
    );
    check(
        schema,
        json!({"to": 5}),
        "invalid arguments\n- to: expected string | { kind: \"user\"; id: number } | { kind: \"team\"; name: string }, got 5",
    );
}

#[test]
fn problems_are_bounded() {
    let schema = json!({"type": "array", "items": {"type": "string"}});
    let error = ArgumentChecker::compile(&schema).check(&json!(vec![5; 100])).expect_err("it is wrong");
    assert_eq!((error.problems.len(), error.n_more), (MAX_PROBLEMS, 92));
    assert!(error.to_string().ends_with("\n- and 92 more"));
    let long = json!({"x".repeat(100_000): "y".repeat(100_000)});
    let error =
        ArgumentChecker::compile(&json!({"properties": {}, "additionalProperties": false})).check(&long);
    assert!(error.expect_err("it is wrong").to_string().len() < 1_000);
}

#[test]
fn real_schemas_are_checked() {
    for tool in all_tools() {
        let checker = ArgumentChecker::compile(&tool.input_schema);
        assert_eq!(checker.unchecked(), None, "{}", tool.name);
    }
}

#[test]
fn what_cannot_be_checked_says_why() {
    let unchecked = |schema: Value| ArgumentChecker::compile(&schema).unchecked().cloned();
    let remote = |reference: &str| Some(Unchecked::Remote { reference: reference.to_owned() });
    assert_eq!(unchecked(json!({"$ref": "http://127.0.0.1:9/s"})), remote("http://127.0.0.1:9/s"));
    assert_eq!(
        unchecked(json!({"properties": {"a": {"$ref": "file:///etc/passwd"}}})),
        remote("file:///etc/passwd")
    );
    assert_eq!(unchecked(json!({"allOf": [{"$id": "x", "$ref": "#"}]})), remote("$id"));
    assert_eq!(unchecked(json!({"pattern": "a".repeat(10_000)})), Some(Unchecked::Patterns));
    assert_eq!(unchecked(json!({"enum": vec![0; 100_000]})), Some(Unchecked::TooLarge));
    assert!(matches!(
        unchecked(json!({"$schema": "http://127.0.0.1:9/meta"})),
        Some(Unchecked::Invalid { .. })
    ));
    assert_eq!(unchecked(json!({"$schema": "http://json-schema.org/draft-07/schema#"})), None);
    assert!(matches!(unchecked(json!({"type": "strnig"})), Some(Unchecked::Invalid { .. })));
    assert!(matches!(unchecked(json!({"pattern": "("})), Some(Unchecked::Invalid { .. })));
    assert!(matches!(unchecked(json!(7)), Some(Unchecked::Invalid { .. })));
    assert_eq!(unchecked(json!({"pattern": "^(?!x).*$"})), None);
    let any = ArgumentChecker::compile(&json!({"$ref": "http://127.0.0.1:9/s"}));
    assert_eq!(any.check(&json!({"a": 1})), Ok(()));
}

/// Compiles and checks, whatever comes of it, soon.
fn assert_ends(what: &str, schema: &Value, arguments: &Value) {
    let started = Instant::now();
    let outcome = ArgumentChecker::compile(schema).check(arguments);
    assert!(started.elapsed() < SOON, "{what} took {:?}: {outcome:?}", started.elapsed());
}

#[test]
fn hostile_schemas_end_soon() {
    let long = "a".repeat(100_000);
    for pattern in [
        "^(a+)+$",
        "(a|a)*b",
        "^(?=(a+)+$)b",
        "(a*)*\\1b",
        "(?:a{1,1000}){1,1000}",
        "((a{1,90}){1,90}){1,90}",
    ] {
        assert_ends(
            pattern,
            &json!({"properties": {"s": {"pattern": pattern}}}),
            &json!({"s": format!("{long}!")}),
        );
        assert_ends(
            pattern,
            &json!({"patternProperties": {pattern: {}}, "additionalProperties": false}),
            &json!({format!("{long}!"): 1}),
        );
    }
    assert_ends("itself", &json!({"$ref": "#"}), &json!({}));
    assert_ends("itself in allOf", &json!({"allOf": [{"$ref": "#"}], "type": "object"}), &json!({}));
    assert_ends(
        "each other",
        &json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
        &json!({}),
    );
    for keyword in ["anyOf", "allOf", "oneOf"] {
        let defs: Map<String, Value> = (0..40)
            .map(|n| {
                let next = json!({"$ref": format!("#/$defs/l{}", n + 1)});
                (format!("l{n}"), json!({keyword: [next, next]}))
            })
            .chain([("l40".to_owned(), json!({"type": "string"}))])
            .collect();
        assert_ends(keyword, &json!({"$ref": "#/$defs/l0", "$defs": defs}), &json!(5));
        let branching = json!({keyword: [{"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, {"properties": {"a": {"$ref": "#"}}, "required": ["a"]}]});
        let mut nested = json!({});
        (0..100).for_each(|_| nested = json!({"a": nested}));
        assert_ends(keyword, &branching, &nested);
    }
    let mut deep = json!({});
    (0..90).for_each(|_| deep = json!({"not": deep}));
    assert_ends("deep schema", &deep, &json!({}));
    let list = json!({"properties": {"next": {"$ref": "#"}}, "additionalProperties": false});
    let mut nested = json!({"x": 1});
    (0..120).for_each(|_| nested = json!({"next": nested}));
    assert_ends("deep arguments", &list, &nested);
    let objects: Vec<Value> = (0..20_000).map(|n| json!({"n": n, "m": [n]})).collect();
    assert_ends("unique objects", &json!({"uniqueItems": true}), &json!(objects));
    let required: Vec<String> = (0..40_000).map(|n| format!("p{n}")).collect();
    assert_ends("all missing", &json!({"required": required}), &json!({}));
    assert_ends(
        "large enum",
        &json!({"items": {"enum": (0..40_000).collect::<Vec<_>>()}}),
        &json!(vec!["x"; 5_000]),
    );
}

/// Keywords that have the validator evaluate the same part again, which doubles with each level.
#[test]
fn nested_reevaluation_ends_soon() {
    let wraps: [fn(Value) -> Value; 6] = [
        |s| json!({"contains": s, "unevaluatedItems": false}),
        |s| json!({"patternProperties": {"^a": s}, "unevaluatedProperties": false}),
        |s| json!({"additionalProperties": s, "unevaluatedProperties": false}),
        |s| json!({"if": s, "unevaluatedProperties": false, "unevaluatedItems": false}),
        |s| json!({"allOf": [s], "unevaluatedProperties": false, "unevaluatedItems": false}),
        |s| json!({"oneOf": [s, {"not": {}}], "unevaluatedProperties": s}),
    ];
    for (at, wrap) in wraps.into_iter().enumerate() {
        let depth = if at == 5 { 10 } else { 40 };
        let (mut schema, mut object, mut list) =
            (json!({"properties": {"a": {}}}), json!({"b": 1}), json!([1]));
        for _ in 0..depth {
            (schema, object, list) = (wrap(schema), json!({"a": object, "b": 2}), json!([list]));
        }
        assert_ends(&format!("wrap {at} around objects"), &schema, &object);
        assert_ends(&format!("wrap {at} around lists"), &schema, &list);
    }
}

#[test]
fn long_chains_of_references_end_soon() {
    let next = |n: usize| json!({"properties": {"a": {"$ref": format!("#/$defs/d{}", n + 1)}}});
    let defs: Map<String, Value> =
        (0..5_000).map(|n| (format!("d{n}"), next(n))).chain([("d5000".to_owned(), json!({}))]).collect();
    let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
    let mut nested = json!(1);
    (0..120).for_each(|_| nested = json!({"a": nested}));
    assert_ends("chain", &schema, &nested);
    let defs: Map<String, Value> = (0..5_000)
        .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
        .chain([("d5000".to_owned(), json!({}))])
        .collect();
    assert_ends("chain in place", &json!({"$ref": "#/$defs/d0", "$defs": defs}), &nested);
}

/// The deepest that is still checked fits a thread's usual stack of 2 MiB, also in a debug build.
#[test]
fn what_is_deep_and_affordable_is_checked() {
    let list =
        json!({"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": false});
    let mut nested = json!({"x": 1});
    (0..60).for_each(|_| nested = json!({"next": nested}));
    assert!(ArgumentChecker::compile(&list).check(&nested).is_err());
    let step = |n: usize| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)}));
    let defs: Map<String, Value> =
        (0..90).map(step).chain([("d90".to_owned(), json!({"type": "string"}))]).collect();
    let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
    assert!(ArgumentChecker::compile(&schema).check(&json!(5)).is_err());
}

#[test]
fn checkers_are_compiled_once() {
    let cache = CheckerCache::default();
    let (a, b) = (cache.get(&json!({"type": "object"})), cache.get(&json!({"type": "object"})));
    assert!(Arc::ptr_eq(&a.0, &b.0));
    assert!(!Arc::ptr_eq(&a.0, &cache.get(&json!({"type": "array"})).0));
    (0..MAX_CACHED).for_each(|n| drop(cache.get(&json!({"const": n}))));
    assert!(cache.lock().len() <= MAX_CACHED);
}

proptest! {
    #[test]
    fn any_schema_ends_and_agrees_with_the_validator(schema in any_schema(), arguments in any_json()) {
        let checker = ArgumentChecker::compile(&schema);
        if checker.check(&arguments).is_err() {
            let plain = jsonschema::options().offline().should_validate_formats(false).build(&schema);
            prop_assert!(!plain.expect("it compiled before").is_valid(&arguments));
        }
    }
}
