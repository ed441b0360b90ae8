//! The order of the places, and what is skipped and what is an error.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use conductor_deno::{
    FetchOptions, FindError, MINIMUM, ObtainError, Origin, PINNED, ProbeError, Search, Version, find,
    find_or_fetch, probe,
};
use support::{Machine, fake_deno, pin_of, place_deno, tarball, touch};

/// Everything there is, each of another version.
fn full(machine: &Machine) -> Search {
    for (place, version) in [
        ("explicit/deno", "3.0.1"),
        ("env/deno", "3.0.2"),
        ("first/deno", "3.0.3"),
        ("second/deno", "3.0.4"),
        ("home/.deno/bin/deno", "3.0.5"),
        ("data/deno/3.1.0/deno", "3.1.0"),
        ("data/deno/2.9.6/deno", "2.9.6"),
    ] {
        place_deno(&machine.path(place), version);
    }
    Search {
        explicit: Some(machine.path("explicit/deno")),
        env: Some(machine.path("env/deno")),
        path: Some(std::env::join_paths([machine.path("first"), machine.path("second")]).unwrap()),
        home: Some(machine.path("home")),
        data_dir: machine.data(),
    }
}

#[test]
fn places_are_searched_in_order() {
    let machine = Machine::new();
    let mut search = full(&machine);
    let expect = |search: &Search, origin, version: &str, place: &str| {
        let found = find(search).unwrap();
        assert_eq!((found.deno.origin, found.deno.version.to_string().as_str()), (origin, version));
        assert_eq!(found.deno.path, machine.path(place));
        assert_eq!(found.deno.v8, "14.9.1");
        assert!(found.skipped.is_empty());
    };
    expect(&search, Origin::Explicit, "3.0.1", "explicit/deno");
    search.explicit = None;
    expect(&search, Origin::Env, "3.0.2", "env/deno");
    search.env = None;
    expect(&search, Origin::Path, "3.0.3", "first/deno");
    fs::remove_file(machine.path("first/deno")).unwrap();
    expect(&search, Origin::Path, "3.0.4", "second/deno");
    search.path = None;
    expect(&search, Origin::Home, "3.0.5", "home/.deno/bin/deno");
    search.home = None;
    expect(&search, Origin::Managed, "3.1.0", "data/deno/3.1.0/deno");
    fs::remove_dir_all(machine.path("data/deno/3.1.0")).unwrap();
    expect(&search, Origin::Managed, "2.9.6", "data/deno/2.9.6/deno");
    fs::remove_dir_all(machine.data()).unwrap();
    assert!(matches!(find(&search), Err(FindError::NotFound { skipped }) if skipped.is_empty()));
}

#[test]
fn one_that_was_asked_for_is_used_or_is_an_error_that_names_it() {
    let machine = Machine::new();
    let whole = full(&machine);
    place_deno(&machine.path("old/deno"), "2.9.4");
    touch(&machine.path("plain"));
    type Expected = fn(&ProbeError) -> bool;
    let table: [(&str, Expected); 4] = [
        ("nowhere", |reason| matches!(reason, ProbeError::Missing)),
        ("plain", |reason| matches!(reason, ProbeError::NotExecutable)),
        ("bin", |reason| matches!(reason, ProbeError::NotAFile)),
        (
            "old/deno",
            |reason| matches!(reason, ProbeError::TooOld { found } if *found == Version::new(2, 9, 4)),
        ),
    ];
    for (place, expected) in table {
        let path = machine.path(place);
        for origin in [Origin::Explicit, Origin::Env] {
            let mut search = whole.clone();
            if origin == Origin::Explicit {
                search.explicit = Some(path.clone());
            } else {
                search.explicit = None;
                search.env = Some(path.clone());
            }
            // It is not replaced by a fetched one either.
            let error =
                find_or_fetch(&search, &machine.options(), |_| panic!("nothing is fetched")).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(error.to_string().contains(&origin.to_string()), "{error}");
            assert!(!error.hint().is_empty());
            let ObtainError::Find(FindError::Unusable { source, .. }) = error else { panic!("{error}") };
            assert!(expected(&source), "{place}: {source:?}");
        }
    }
}

#[test]
fn what_just_lies_there_and_cannot_be_used_is_skipped_with_its_reason() {
    let machine = Machine::new();
    place_deno(&machine.path("old/deno"), "2.9.4");
    place_deno(&machine.path("chatty/deno"), "of another kind");
    fs::create_dir_all(machine.path("plain")).unwrap();
    touch(&machine.path("plain/deno"));
    fs::create_dir_all(machine.path("script")).unwrap();
    symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tool.sh"), machine.path("script/deno"))
        .unwrap();
    fs::create_dir_all(machine.path("broken")).unwrap();
    fs::write(machine.path("broken/deno"), "no program").unwrap();
    fs::set_permissions(machine.path("broken/deno"), PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all(machine.path("dangling")).unwrap();
    symlink("nowhere", machine.path("dangling/deno")).unwrap();
    // ~/.deno/bin is often in PATH as well, and is looked at once.
    place_deno(&machine.path("home/.deno/bin/deno"), "1.46.3");
    place_deno(&machine.path("data/deno/2.9.6/deno"), "2.9.6");

    let places = ["old", "chatty", "plain", "script", "broken", "dangling", "home/.deno/bin"];
    let search = Search {
        path: Some(std::env::join_paths(places.map(|place| machine.path(place))).unwrap()),
        home: Some(machine.path("home")),
        ..machine.search()
    };
    let found = find(&search).unwrap();
    assert_eq!(found.deno.origin, Origin::Managed);
    let reasons: Vec<String> = found
        .skipped
        .iter()
        .map(|skipped| {
            assert_eq!(skipped.origin, Origin::Path);
            let debug = format!("{:?}", skipped.reason);
            let reason = debug.split([' ', '(']).next().unwrap();
            format!("{} {reason}", skipped.path.strip_prefix(machine.path("")).unwrap().display())
        })
        .collect();
    assert_eq!(
        reasons,
        [
            "old/deno TooOld",
            "chatty/deno NotDeno",
            "plain/deno NotExecutable",
            "script/deno Script",
            "broken/deno Start",
            "home/.deno/bin/deno TooOld",
        ]
    );
    assert!(
        found.skipped[0].to_string().contains(&format!("2.9.4 is older than {MINIMUM}")),
        "{}",
        found.skipped[0]
    );
}

#[test]
fn with_nothing_usable_one_is_fetched_and_the_skipped_stay_known() {
    let machine = Machine::new();
    place_deno(&machine.path("old/deno"), "2.9.4");
    machine.serve("npm", &tarball(&[(support::IN_TARBALL, &fake_deno())]));
    let search = Search { path: Some(machine.path("old").into_os_string()), ..machine.search() };
    let Err(FindError::NotFound { skipped }) = find(&search) else { panic!() };
    assert_eq!(skipped.len(), 1);
    let offline = FetchOptions { installers: Vec::new(), ..machine.options() };
    let error = find_or_fetch(&search, &offline, |_| {}).unwrap_err();
    assert!(error.to_string().contains("2.9.4 is older"), "{error}");
    conductor_deno::fetch_pin(&machine.data(), &pin_of(&fake_deno()), &machine.options(), |_| {}).unwrap();
    let found = find_or_fetch(&search, &machine.options(), |_| panic!("it is there")).unwrap();
    assert_eq!((found.deno.origin, found.skipped.len()), (Origin::Managed, 1));
}

#[test]
fn relative_directories_in_path_are_not_searched() {
    let machine = Machine::new();
    // The working directory of this test is the crate's; from there the target directory can be reached.
    place_deno(&machine.path("here/deno"), "3.0.0");
    let up = "../".repeat(std::env::current_dir().unwrap().components().count());
    let relative = format!("{up}{}", machine.path("here").strip_prefix("/").unwrap().display());
    assert!(fs::metadata(&relative).unwrap().is_dir());
    let search = Search { path: Some(format!("{relative}:").into()), ..machine.search() };
    assert!(matches!(find(&search), Err(FindError::NotFound { skipped }) if skipped.is_empty()));
}

#[test]
fn links_are_resolved_and_a_replaced_file_is_noticed() {
    let machine = Machine::new();
    place_deno(&machine.path("real/deno"), &MINIMUM.to_string());
    symlink(machine.path("real/deno"), machine.path("bin/anything")).unwrap();
    let deno = probe(&machine.path("bin/anything"), Origin::Explicit).unwrap();
    assert_eq!(deno.path, machine.path("real/deno"));
    assert_eq!(deno.update_wanted(), MINIMUM < PINNED);
    assert!(!deno.was_replaced());
    fs::rename(machine.path("real/deno"), machine.path("real/before")).unwrap();
    assert!(deno.was_replaced(), "it is gone");
    fs::copy(support::FAKE_DENO, machine.path("real/deno")).unwrap();
    assert!(deno.was_replaced(), "it is another file");
    fs::rename(machine.path("real/before"), machine.path("real/deno")).unwrap();
    assert!(!deno.was_replaced());
}
