use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::spec::Grants;

fn spec(grants: Grants) -> WorkerSpec {
    WorkerSpec {
        deno: "/deno".into(),
        workspace: "/ws".into(),
        grants,
        protected: BTreeSet::new(),
        heap_mib: 64,
        max_memory_mib: 512,
        max_wall: std::time::Duration::from_secs(3600),
        env: BTreeMap::new(),
        worker: Default::default(),
        packages: None,
    }
}

fn only<const N: usize>(values: [&str; N]) -> Grant {
    Grant::Only(values.map(String::from).into())
}

fn build(spec: &WorkerSpec) -> Result<(Vec<String>, Revoke), CommandLineError> {
    let line = CommandLine::new(spec, Path::new("/h.js"))?;
    Ok((line.args.into_iter().map(|arg| arg.into_string().unwrap()).collect(), line.revoke))
}

/// The arguments that depend on the grants, and what is revoked.
fn variable(grants: Grants) -> (Vec<String>, Revoke) {
    let (args, revoke) = build(&spec(grants)).unwrap();
    let common = 1 + FIXED.len() + WITHOUT_PACKAGES.len() + 1;
    assert_eq!(args[0], "run");
    assert_eq!(args[1..common - 1], [&FIXED[..], &WITHOUT_PACKAGES].concat());
    assert_eq!(args[common - 1], "--v8-flags=--max-old-space-size=64");
    assert_eq!(args.last().unwrap(), "/h.js");
    (args[common..args.len() - 1].to_vec(), revoke)
}

#[test]
fn packages_come_from_a_frozen_lock_and_nothing_is_fetched() {
    let packages = crate::spec::Packages {
        deno_dir: "/layer/deno".into(),
        lock: "/layer/deno.lock".into(),
        env: [("HOME".to_owned(), "/layer/home".to_owned())].into(),
        allow_import: Some("jsr.io:443".to_owned()),
        spellings: BTreeMap::new(),
        preload: Vec::new(),
    };
    let spec = WorkerSpec {
        packages: Some(packages),
        env: [("HOME".to_owned(), "/granted".to_owned())].into(),
        ..spec(Grants::default())
    };
    let (args, _) = build(&spec).unwrap();
    let env = environment(Path::new("/d"), &spec);
    assert_eq!(
        env.iter().filter(|entry| entry.as_encoded_bytes().starts_with(b"HOME=")).collect::<Vec<_>>(),
        ["HOME=/layer/home"]
    );
    assert_eq!(args[1..=FIXED.len() + 2], [&FIXED[..], &["--lock=/layer/deno.lock", "--frozen"]].concat());
    assert!(args.iter().any(|arg| arg == "--cached-only"), "{args:?}");
    assert!(args.iter().any(|arg| arg == "--allow-import=jsr.io:443"), "{args:?}");
    assert!(!args.iter().any(|arg| WITHOUT_PACKAGES.contains(&arg.as_str())), "{args:?}");
}

#[test]
fn grants_become_flags() {
    const NO_IMPORT: &str = "--allow-import=none.invalid";
    let none = Grants::default;
    let table: Vec<(Grants, Vec<&str>, (bool, bool))> = vec![
        (
            none(),
            vec![NO_IMPORT, "--allow-read=/dev/fd/3", "--allow-write=/dev/fd/4", "--ignore-env"],
            (true, true),
        ),
        (
            Grants { read: only(["/a", "/b"]), write: only(["/a"]), ..none() },
            vec![
                NO_IMPORT,
                "--allow-read=/a",
                "--allow-read=/b",
                "--allow-read=/dev/fd/3",
                "--allow-write=/a",
                "--allow-write=/dev/fd/4",
                "--ignore-env",
            ],
            (true, true),
        ),
        (
            Grants { read: only(["/"]), write: only(["/dev"]), ..none() },
            vec![NO_IMPORT, "--allow-read=/", "--allow-write=/dev", "--ignore-env"],
            (false, false),
        ),
        (
            Grants { read: only(["/dev/fd"]), write: only(["/device"]), ..none() },
            vec![
                NO_IMPORT,
                "--allow-read=/dev/fd",
                "--allow-write=/device",
                "--allow-write=/dev/fd/4",
                "--ignore-env",
            ],
            (false, true),
        ),
        (
            Grants { read: Grant::All, ..none() },
            vec![NO_IMPORT, "--allow-read", "--allow-write=/dev/fd/4", "--ignore-env"],
            (false, true),
        ),
        (
            Grants { net: only(["a.example", "b.example:80"]), env: only(["A"]), ..none() },
            vec![
                NO_IMPORT,
                "--allow-read=/dev/fd/3",
                "--allow-write=/dev/fd/4",
                "--allow-net=a.example",
                "--allow-net=b.example:80",
                "--allow-env=A",
            ],
            (true, true),
        ),
        (
            Grants { run: Grant::All, ffi: only(["/l.so"]), sys: Grant::All, env: Grant::All, ..none() },
            vec![
                NO_IMPORT,
                "--allow-read=/dev/fd/3",
                "--allow-write=/dev/fd/4",
                "--allow-env",
                "--allow-run",
                "--allow-ffi=/l.so",
                "--allow-sys",
            ],
            (true, true),
        ),
        (Grants { all: true, read: only(["/a"]), ..none() }, vec!["--allow-all"], (false, false)),
        // An empty list is no grant, and above all not a bare flag.
        (
            Grants { read: only([]), write: only([]), net: only([]), env: only([]), run: only([]), ..none() },
            vec![NO_IMPORT, "--allow-read=/dev/fd/3", "--allow-write=/dev/fd/4", "--ignore-env"],
            (true, true),
        ),
    ];
    for (grants, flags, (read, write)) in table {
        let expected = (flags.into_iter().map(String::from).collect(), Revoke { read, write });
        assert_eq!(variable(grants.clone()), expected, "{grants:?}");
    }
}

#[test]
fn protected_directories_are_denied_wherever_something_is_granted() {
    let protected = |grants| WorkerSpec { protected: ["/p".into()].into(), ..spec(grants) };
    let denied = |grants| {
        let (args, _) = build(&protected(grants)).unwrap();
        args.into_iter().filter(|arg| arg.starts_with("--deny")).collect::<Vec<_>>()
    };
    assert_eq!(denied(Grants::default()), [""; 0]);
    assert_eq!(denied(Grants { read: Grant::All, ..Grants::default() }), ["--deny-read=/p"]);
    assert_eq!(denied(Grants { write: only(["/"]), ..Grants::default() }), ["--deny-write=/p"]);
    assert_eq!(denied(Grants { all: true, ..Grants::default() }), ["--deny-read=/p", "--deny-write=/p"]);
    for inside in ["/p", "/p/deeper"] {
        let error = build(&protected(Grants { read: only([inside]), ..Grants::default() })).unwrap_err();
        assert_eq!(error, CommandLineError::Protected { flag: "allow-read", value: inside.to_owned() });
    }
}

#[test]
fn values_that_deno_would_misread_are_refused() {
    let read = |value| build(&spec(Grants { read: only([value]), ..Grants::default() })).unwrap_err();
    assert_eq!(read("/a,/etc"), CommandLineError::Comma { flag: "allow-read", value: "/a,/etc".to_owned() });
    assert_eq!(read("a"), CommandLineError::NotAbsolute { flag: "allow-read", value: "a".to_owned() });
    assert_eq!(read(""), CommandLineError::NotAbsolute { flag: "allow-read", value: String::new() });
    let net = build(&spec(Grants { net: only([""]), ..Grants::default() })).unwrap_err();
    assert_eq!(net, CommandLineError::Empty { flag: "allow-net" });
    let comma = WorkerSpec {
        protected: ["/p,q".into()].into(),
        ..spec(Grants { read: Grant::All, ..Grants::default() })
    };
    assert!(matches!(build(&comma), Err(CommandLineError::Comma { flag: "deny-read", .. })));
}

#[test]
fn the_environment_cannot_be_overridden() {
    let granted = [("A", "1"), ("DENO_DIR", "/x"), ("HOME", "/y"), ("DENO_NO_UPDATE_CHECK", "")];
    let env = granted.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let granted = WorkerSpec { env, ..spec(Grants::default()) };
    let expected = [
        "DENO_DIR=/d",
        "HOME=/nonexistent",
        "NO_COLOR=1",
        "DENO_NO_UPDATE_CHECK=1",
        "DENO_WEBGPU_BACKEND=none",
        "A=1",
    ];
    assert_eq!(environment(Path::new("/d"), &granted), expected);
}

#[test]
fn reading_a_path_needs_a_grant_that_covers_it() {
    let table = [
        (Grant::None, false),
        (only(["/ws"]), true),
        (only(["/ws/sub"]), false),
        (only(["/w"]), false),
        (only(["/"]), true),
        (Grant::All, true),
    ];
    for (read, expected) in table {
        assert_eq!(
            reads(&spec(Grants { read: read.clone(), ..Grants::default() }), Path::new("/ws")),
            expected,
            "{read:?}"
        );
    }
    assert!(reads(&spec(Grants { all: true, ..Grants::default() }), &PathBuf::from("/ws")));
}

proptest! {
    /// No value, whatever it holds, adds a flag or becomes one, or splits into two values.
    #[test]
    fn a_value_stays_one_value_of_one_flag(values in proptest::collection::btree_set(".{0,20}", 0..4)) {
        let grants = Grants { net: Grant::Only(values.clone()), ..Grants::default() };
        if let Ok((args, _)) = build(&spec(grants)) {
            let flags: BTreeSet<String> =
                args.iter().filter_map(|arg| arg.strip_prefix("--allow-net=")).map(String::from).collect();
            prop_assert!(flags.iter().all(|value| !value.contains(',')));
            prop_assert_eq!(flags, values);
            let baseline = build(&spec(Grants::default())).unwrap().0.len();
            prop_assert_eq!(args.iter().filter(|arg| !arg.starts_with("--allow-net=")).count(), baseline);
        }
    }
}
