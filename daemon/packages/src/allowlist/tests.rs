use proptest::prelude::*;

use super::*;
use crate::specifier::reference;

fn list() -> Allowlist {
    Allowlist::parse("npm:axios@^1, npm:lodash@^4,npm:zod@^3\n npm:@scope/x@^1 jsr:@std/path@^1,npm:ms")
        .unwrap()
}

fn refused(list: &Allowlist, specifier: &str) -> Refusal {
    list.judge(specifier).expect_err(specifier)
}

#[test]
fn the_administrators_version_is_what_runs() {
    let table = [
        ("npm:axios", "npm:axios@^1"),
        ("npm:axios@1.6", "npm:axios@^1"),
        ("npm:axios@^1.2.3", "npm:axios@^1"),
        ("npm:axios@latest", "npm:axios@^1"),
        ("npm:axios@*", "npm:axios@^1"),
        ("axios", "npm:axios@^1"),
        ("axios@1", "npm:axios@^1"),
        ("npm:lodash/fp", "npm:lodash@^4/fp"),
        ("lodash/fp.js", "npm:lodash@^4/fp.js"),
        ("npm:@scope/x@^1/sub/path.js", "npm:@scope/x@^1/sub/path.js"),
        ("jsr:@std/path/posix", "jsr:@std/path@^1/posix"),
        ("@std/path", "jsr:@std/path@^1"),
        ("npm:ms@0.7", "npm:ms"),
    ];
    for (written, runs) in table {
        assert_eq!(list().judge(written).unwrap().specifier(), runs, "{written}");
    }
}

#[test]
fn a_version_outside_the_range_is_refused_with_both() {
    for written in ["npm:axios@0.27", "axios@^2", "npm:axios@next", "npm:axios@v1"] {
        let refusal = refused(&list(), written);
        assert_eq!(refusal.kind, RefusalKind::Version);
        let asked = written.split_once('@').unwrap().1;
        assert!(
            refusal.message.contains(&format!("`{asked}`")) && refusal.message.contains("`^1`"),
            "{refusal}"
        );
        assert_eq!(refusal.hint.as_deref(), Some("write `npm:axios` without a version"));
    }
}

#[test]
fn what_is_not_listed_is_refused_with_what_was_meant() {
    let table = [
        ("npm:axois", "write `npm:axios`"),
        ("npm:\u{430}xios", "write `npm:axios`"),
        ("npm:Axios", "write `npm:axios`"),
        ("NPM:axios", "write `npm:axios`"),
        (" npm:axios", "write `npm:axios`"),
        ("npm:lodahs@4/fp", "write `npm:lodash`"),
        ("npm:@std/path", "write `jsr:@std/path`"),
        ("jsr:@scope/x", "write `npm:@scope/x`"),
        ("npm:@Scope/x@1", "write `npm:@scope/x`"),
        ("std/path", "write `jsr:@std/path`"),
        ("fs", "this is a module of Node: write `node:fs`"),
        ("path/posix", "this is a module of Node: write `node:path/posix`"),
        ("https://esm.sh/axios@1.6", "write `npm:axios`"),
        ("https://cdn.jsdelivr.net/npm/lodash@4/+esm", "write `npm:lodash`"),
        ("https://jsr.io/@std/path/1.0.0/mod.ts", "write `jsr:@std/path`"),
        ("npm:react", "allowed are: jsr:@std/path, npm:@scope/x, npm:axios, npm:lodash, npm:ms, npm:zod"),
        (
            "https://evil.example/x.js",
            "allowed are: jsr:@std/path, npm:@scope/x, npm:axios, npm:lodash, npm:ms, npm:zod",
        ),
    ];
    for (written, hint) in table {
        assert_eq!(refused(&list(), written).hint.as_deref(), Some(hint), "{written}");
    }
}

#[test]
fn hostile_text_is_refused_and_quoted_harmlessly() {
    let long = format!("npm:{}", "x".repeat(100_000));
    let hostile = [
        "npm:axios'; import evil",
        "npm:../x",
        "npm:axios\nimport 'x'",
        "npm:$(id)",
        "npm:`id`",
        "npm:a\u{445}ios",
        "npm:AXIOS",
        "npm:@Scope/x",
        "npm:axios\0",
        "npm:%2e%2e/x",
        "npm:axios/%2e%2e%2fx",
        "http://x/y",
        "https://x",
        "file:///etc/passwd",
        "data:text/javascript,1",
        "blob:x",
        "npm:axios/../../x",
        "npm:axios\u{202e}",
        "",
        &long,
        "npm://axios",
        "npm:axios?x",
        "npm:axios#x",
        "npm:axios@1||2",
        "npm:axios@file:/etc",
        "npm:axios@https://x/y.tgz",
        "npm:axios@git+ssh://x",
        "jsr:axios",
        "javascript:1",
        "node:fs",
        "ext:core",
        "\u{1b}[31m",
    ];
    for list in [list(), Allowlist::parse("all").unwrap(), Allowlist::none()] {
        for written in hostile {
            let refusal = refused(&list, written);
            assert!(matches!(refusal.kind, RefusalKind::Malformed | RefusalKind::Scheme), "{refusal:?}");
            assert!(refusal.message.len() < 600, "{}", refusal.message.len());
            let text = refusal.to_string();
            assert!(text.chars().all(|c| c == '\n' || c == '…' || (' '..='~').contains(&c)), "{text:?}");
        }
    }
}

#[test]
fn all_takes_any_package_and_keeps_the_listed_versions() {
    for written in ["all", "*", "ALL", "npm:axios@^1, all"] {
        let list = Allowlist::parse(written).unwrap();
        assert!(list.allows_any() && !list.is_empty());
        assert_eq!(list.judge("npm:react@19/jsx-runtime").unwrap().specifier(), "npm:react@19/jsx-runtime");
        assert_eq!(list.judge("react").unwrap().specifier(), "npm:react");
        assert_eq!(list.judge("@std/path@1").unwrap().specifier(), "jsr:@std/path@1");
        assert_eq!(refused(&list, "fs").hint.as_deref(), Some("this is a module of Node: write `node:fs`"));
    }
    let pinned = Allowlist::parse("npm:axios@^1 all").unwrap();
    assert_eq!(pinned.judge("axios").unwrap().specifier(), "npm:axios@^1");
    assert_eq!(refused(&pinned, "npm:axios@0.27").kind, RefusalKind::Version);
}

#[test]
fn an_empty_list_allows_nothing_and_an_absent_one_the_defaults() {
    for written in ["", " \n,, ", "none", "NONE"] {
        assert_eq!(Allowlist::parse(written).unwrap(), Allowlist::none(), "{written:?}");
    }
    assert!(Allowlist::none().is_empty());
    let hint = refused(&Allowlist::none(), "npm:axios").hint.unwrap();
    assert!(hint.starts_with("no package is allowed"), "{hint}");
    let defaults = Allowlist::from_setting(None).unwrap();
    assert!(defaults.packages().count() > 20 && defaults.packages().all(|package| package.range() != "*"));
    assert_eq!(Allowlist::from_setting(Some("")).unwrap(), Allowlist::none());
}

#[test]
fn a_bad_entry_is_named_with_its_cure() {
    let table = [
        ("npm:zod,axios@^1", "axios@^1", "write `npm:axios@^1`"),
        ("npm:Zod", "npm:Zod", "write `npm:zod`"),
        ("npm:lodash/fp", "npm:lodash/fp", "list the whole package"),
        ("npm:zod@>=3", "npm:zod@>=3", "a range is written ^1"),
        ("https://esm.sh/x", "https://esm.sh/x", "only npm: and jsr: packages"),
        ("jsr:path", "jsr:path", "jsr:@scope/name"),
        ("npm:zod@^3;npm:ms", "npm:zod@^3;npm:ms", "a range is written"),
        ("npm:zod@3 npm:zod@4", "npm:zod@4", "keep one of npm:zod@3 and npm:zod@4"),
        ("none, npm:zod", "none", "write `npm:none`"),
    ];
    for (written, entry, hint) in table {
        let error = Allowlist::parse(written).expect_err(written);
        assert_eq!(error.entry, entry);
        assert!(error.hint.contains(hint), "{error}");
    }
    let error = Allowlist::parse("npm:zod,axios@^1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "package list: `axios@^1` is no entry: `npm:` or `jsr:` is missing\nhint: write `npm:axios@^1`"
    );
}

/// Text near to specifiers, so that much of it is accepted and the rest almost is.
fn specifiers() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "(npm:|jsr:|NPM:|)@?[a-zA-Z0-9._/@^~*%'-]{0,40}",
        "(npm:|jsr:|)(axios|lodash|zod|@scope/x|@std/path|ms)(@[~^=v]?[0-9x*.]{0,9}(-[a-z0-9.]{1,6})?)?(/[a-zA-Z0-9._@/-]{0,20})?",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn judge_never_panics_and_accepts_only_what_deno_reads_as_an_allowed_package(text in specifiers()) {
        for list in [list(), Allowlist::parse("all,npm:axios@^1").unwrap()] {
            match list.judge(&text) {
                Ok(asked) => {
                    let specifier = asked.specifier();
                    let read = reference(asked.package().registry(), &specifier).expect(&specifier);
                    prop_assert_eq!(&read.req, asked.package().req());
                    prop_assert_eq!(read.sub_path.as_deref(), asked.subpath());
                    let listed = list.packages().any(|package| package == asked.package());
                    prop_assert!(list.allows_any() || listed);
                    prop_assert!(specifier.bytes().all(|b| b.is_ascii_graphic() && !b"'\"`\\$%?#".contains(&b)));
                }
                Err(refusal) => prop_assert!(!refusal.message.is_empty()),
            }
        }
    }

    #[test]
    fn a_list_never_panics_and_what_it_takes_is_judged_as_itself(text in "[a-z:@/^0-9., \n*]{0,60}") {
        if let Ok(list) = Allowlist::parse(&text) {
            for package in list.packages() {
                let judged = list.judge(&package.key()).unwrap();
                prop_assert_eq!(judged.package(), package);
            }
        }
    }
}
