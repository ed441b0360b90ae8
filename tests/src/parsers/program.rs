//! Programs and the arguments that they come in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use conductor_daemon::config::Config;
use conductor_daemon::dirs::Dirs;
use conductor_daemon::exec::args::RunArgs;
use conductor_daemon::profile::{self, Profile};
use conductor_script::prepare;
use serde_json::Value;

pub(super) const ARGUMENT_WORDS: &[&str] = &[
    "\"deno_code\":",
    "\"timeout\":",
    "\"globals\":{",
    "\"dependencies\":[",
    "1e300",
    "-0.0",
    "0.0000001",
    "\"__proto__\":1",
    "\"constructor\":",
    "\"npm:a\"",
    "null",
    "{}",
    "[]",
    "\"\\u0000\":1",
    ",",
];

pub(super) const SCRIPT_WORDS: &[&str] = &[
    "import a from 'npm:a';",
    "import * as n from 'n';",
    "export default ",
    "export const x = 1;",
    "await ",
    "async ",
    "=> ",
    "class A { static x = 1; }",
    "@d ",
    "accessor ",
    "enum E { A, B = 'b' }",
    "namespace N { export let x = 1; }",
    "declare ",
    "if (x) ",
    "else ",
    "for (const x of y) ",
    "while (0) ",
    "do ",
    "switch (x) { case 1: ",
    "try {",
    "} catch {",
    "} finally {",
    "break;",
    "continue;",
    "return ",
    "label: ",
    "`${",
    "}`",
    "/*",
    "*/",
    "//",
    "\n",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ";",
    "<T>",
    " as any",
    " satisfies T",
    "?.",
    "??",
    "...",
    "#p",
    "#!",
    "\u{2028}",
    "'use strict';",
    "import(",
    "import.meta",
    "arguments",
    "this",
    "new.target",
    "using x = ",
    "/re/",
    "\\u{61}",
    "\u{feff}",
    "```ts\n",
    "abstract ",
    "type T = ",
    "interface I {}",
];

static PROFILE: LazyLock<Profile> = LazyLock::new(|| {
    let env = BTreeMap::new();
    let dirs = Dirs::from_env(&env, Some("/home/user".into())).expect("it is absolute");
    profile::resolve(&Config::default(), &env, "/", &dirs).expect("the defaults are right")
});

/// A program: what is refused is refused at a place in it; what is not becomes a program that can be read as the body of
/// an async function, is not much longer, and each of its places comes from a place in the user's.
pub(super) fn script(bytes: &[u8]) {
    let source = super::text_of(bytes);
    let script = match prepare(source) {
        Ok(script) => script,
        Err(error) => {
            super::assert_told(&error.to_string());
            assert!(error.message != "The parser failed on this program", "it panicked");
            return assert_place(source, error.line, error.column);
        }
    };
    assert!(
        script.code.len() <= 64 * 1024 + 40 * source.len(),
        "{} bytes of {}",
        script.code.len(),
        source.len()
    );
    assert!(!source.contains(&script.api_name), "the program uses {}", script.api_name);
    for import in &script.imports {
        assert_place(source, import.line, import.column);
    }
    for (line, text) in (1..).zip(script.code.split('\n')) {
        for column in [1, u32::try_from(text.encode_utf16().count()).expect("it is short") + 1] {
            if let Some((line, column)) = script.original_position(line, column) {
                assert_place(source, line, column);
            }
        }
    }
    let body = format!("async function f({}) {{{}\n}}", script.api_name, script.code);
    if let Err(error) = prepare(&body) {
        let is_limit = error.message.contains("nested") || error.message.contains("too ");
        assert!(is_limit, "{error}\n{}", script.code);
    }
}

/// The place is one in the text, or its end.
fn assert_place(source: &str, line: u32, column: u32) {
    let is_end = |c: char| matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}');
    let lines = 1 + source.chars().filter(|c| is_end(*c)).count();
    assert!(line >= 1 && line as usize <= lines, "line {line} of {lines}");
    let longest = source.split(is_end).map(|line| line.encode_utf16().count()).max().unwrap_or(0);
    assert!(column >= 1 && column as usize <= longest + 2, "column {column} of {longest}");
}

/// Arguments of `run_deno_code`: what is taken is within the profile's limits, what is refused is named.
pub(super) fn arguments(bytes: &[u8]) {
    let Ok(Value::Object(arguments)) = serde_json::from_slice(bytes) else { return };
    match RunArgs::read(Some(arguments.clone()), &PROFILE) {
        Ok(args) => {
            assert_eq!(Some(args.code.as_str()), arguments["deno_code"].as_str());
            assert!(!args.timeout.is_zero() && args.timeout <= PROFILE.max_timeout, "{:?}", args.timeout);
            assert!(args.globals.keys().all(|name| !name.is_empty() && name != "__proto__"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
