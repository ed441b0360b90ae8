use super::*;

fn thrown(name: &str, message: &str) -> Thrown {
    Thrown { name: name.into(), message: message.into(), ..Thrown::default() }
}

fn hint(name: &str, message: &str) -> String {
    diagnose(&thrown(name, message), false, &Grants::default()).hint.unwrap_or_default()
}

/// The messages of Deno itself are in `tests/e2e/diagnosis.rs`.
#[test]
fn what_a_run_cannot_bring_about_is_told_apart_too() {
    for (name, message, kind, told) in [
        (
            "TypeError",
            "The lockfile is out of date. Run `deno install --frozen=false`, or rerun with `--frozen=false` to update it.\nchanges:\n 5 | +",
            ErrorType::Dependency,
            "the package is not among those that are installed, or not in that version",
        ),
        (
            "TypeError",
            "Failed loading https://registry.example/zod for package \"zod\"\n    0: npm package not found in cache: \"zod\", --cached-only is specified.",
            ErrorType::Dependency,
            "the package `npm:zod` is not available",
        ),
        (
            "TypeError",
            "Could not find npm package 'ms' matching '9'.",
            ErrorType::Dependency,
            "Could not find npm package 'ms' matching '9'.",
        ),
        (
            "TypeError",
            "Invalid package specifier 'npm:'\n    0: Did not contain a package name",
            ErrorType::Dependency,
            "Invalid package specifier 'npm:'",
        ),
        (
            "TypeError",
            "[ERR_MODULE_NOT_FOUND] Cannot find module 'file:///c/npm/ms/2.1.3/nope' imported from 'file:///ws'",
            ErrorType::Dependency,
            "[ERR_MODULE_NOT_FOUND] Cannot find module 'file:///c/npm/ms/2.1.3/nope' imported from 'file:///ws'",
        ),
        (
            "TypeError",
            "A remote specifier was requested: \"https://x.org/a.ts\", but --no-remote is specified.",
            ErrorType::Dependency,
            "A remote specifier was requested: \"https://x.org/a.ts\"",
        ),
        (
            "TypeError",
            "npm specifiers were requested; but --no-npm is specified at ext:core/01_core.js:405:7",
            ErrorType::Dependency,
            "npm specifiers were requested; no package is allowed",
        ),
        (
            "PermissionDenied",
            "Permission denied (os error 13)",
            ErrorType::Permission,
            "Permission denied (os error 13)",
        ),
        ("SyntaxError", "Unexpected token", ErrorType::Runtime, "Unexpected token"),
        ("RangeError", "too much", ErrorType::Runtime, "too much"),
        ("TypeError", "x is not iterable", ErrorType::Runtime, "x is not iterable"),
    ] {
        let error = thrown(name, message);
        assert_eq!(diagnose(&error, false, &Grants::default()).kind, kind, "{message}");
        assert_eq!(reworded(&error), told, "{message}");
    }
    assert_eq!(diagnose(&thrown("SyntaxError", "no"), true, &Grants::default()).kind, ErrorType::Syntax);
}

#[test]
fn advice_is_left_out_wherever_it_stands() {
    for (name, message, told) in [
        (
            "Error",
            "no: Requires run access, run again with the --allow-run flag!",
            "no: Requires run access!",
        ),
        ("Error", "a, run again with the --allow-net flag, b, run again with the --allow-run", "a, b"),
        (
            "NotCapable",
            "needs unscoped --allow-read, e.g. --allow-read=x",
            "needs unscoped allow-read, e.g. allow-read=x",
        ),
        ("Error", "run --allow-read yourself", "run --allow-read yourself"),
    ] {
        assert_eq!(reworded(&thrown(name, message)), told);
    }
}

#[test]
fn a_denied_permission_names_the_grant_for_an_administrator() {
    for (message, wanted) in [
        (
            "Requires net access to \"x.org:443\", run again with the --allow-net flag",
            "an administrator can grant it: allow-net=x.org:443 in MCP_CONDUCTOR_RUN_ARGS",
        ),
        (
            "Requires read access to <CWD>, run again with the --allow-read flag",
            "an administrator can grant it: allow-read in MCP_CONDUCTOR_RUN_ARGS",
        ),
        (
            "Requires sys access to \"hostname\", run again with the --allow-sys flag",
            "an administrator can grant it: allow-sys=hostname in run-args of a profile in the configuration file",
        ),
        ("something else", "an administrator decides what code may do, with MCP_CONDUCTOR_RUN_ARGS"),
    ] {
        assert_eq!(hint("NotCapable", message), wanted, "{message}");
    }
}

#[test]
fn a_program_that_is_not_found_is_no_matter_of_permission_where_programs_are_granted() {
    let error = thrown("NotFound", "Failed to spawn 'ls': entity not found");
    let granted = Grants { run: conductor_pool::Grant::All, ..Grants::default() };
    assert_eq!(diagnose(&error, false, &granted), Diagnosis { kind: ErrorType::Runtime, hint: None });
    assert_eq!(diagnose(&error, false, &Grants::default()).kind, ErrorType::Permission);
}
