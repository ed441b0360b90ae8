//! What kind of failure a thrown error is, in which words it is told, and its usual cure. Pure.
//!
//! Deno's messages say how to change its command line, which neither the model nor its user can do: such advice is left out,
//! and the cure names what an administrator would change. Code can throw an error with any of these texts; it then gets the
//! answer that belongs to it. The texts are those of Deno 2.9; `tests/e2e/diagnosis.rs` holds each against a real one.

use std::borrow::Cow;

use conductor_packages::is_builtin;
use conductor_pool::{CALL_LIMIT_ERROR, Grants, Thrown};

use crate::exec::result::ErrorType;

/// An error as it is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Diagnosis {
    pub(super) kind: ErrorType,
    pub(super) hint: Option<String>,
}

/// `no_user_frame`: nothing of the sent code is on the error's stack.
pub(super) fn diagnose(thrown: &Thrown, no_user_frame: bool, grants: &Grants) -> Diagnosis {
    let message = thrown.message.as_str();
    let of = |kind, hint| Diagnosis { kind, hint };
    match thrown.name.as_str() {
        "NotCapable" => of(ErrorType::Permission, Some(grant_hint(message))),
        "PermissionDenied" => of(ErrorType::Permission, Some(REFUSED_BY_THE_SYSTEM.into())),
        CALL_LIMIT_ERROR => of(ErrorType::CallLimit, Some(CALL_LIMITS.into())),
        // V8 refused the code as a whole, so nothing of it is on the stack.
        "SyntaxError" if no_user_frame => of(ErrorType::Syntax, None),
        "TypeError" => match Import::of(message) {
            Some(Import { kind, hint, .. }) => of(kind, Some(hint)),
            None => of(ErrorType::Runtime, type_error_hint(message)),
        },
        "ReferenceError" => of(ErrorType::Runtime, reference_hint(message)),
        _ => match program_not_started(message).filter(|_| grants.run.is_none() && !grants.all) {
            Some(program) => of(ErrorType::Permission, Some(grant("run", Some(program)))),
            None => of(ErrorType::Runtime, None),
        },
    }
}

/// The message without advice on how to start Deno.
pub(super) fn reworded(thrown: &Thrown) -> Cow<'_, str> {
    let message = thrown.message.as_str();
    if thrown.name == "TypeError"
        && let Some(import) = Import::of(message)
    {
        return import.message;
    }
    let message = without_advice(message);
    match thrown.name == "NotCapable" {
        true => message.replace("--allow-", "allow-").into(),
        false => message,
    }
}

/// True for Deno's refusals of `npm:` and `jsr:` specifiers in a worker without packages.
pub(super) fn is_about_a_package(message: &str) -> bool {
    message.starts_with("npm specifiers were requested;")
        || message.starts_with("JSR package manifest for ")
        || message.contains("\" not a dependency")
}

const REFUSED_BY_THE_SYSTEM: &str =
    "the operating system refuses this to conductor's user or to its sandbox, whatever is granted";

const CALL_LIMITS: &str = "ask for more with each call, or split the work over several runs; an administrator can raise \
                           the limits of a profile in the configuration file";

const PACKAGES: &str = "packages are imported as `npm:NAME` or `jsr:@SCOPE/NAME`, and only those that an administrator \
                        allows in MCP_CONDUCTOR_ALLOWED_PACKAGES; `node:` modules and web APIs are always there";

const NO_REMOTE: &str = "code is never fetched from the network; use `node:` modules, web APIs, or packages that an \
                         administrator allows in MCP_CONDUCTOR_ALLOWED_PACKAGES";

const NO_SUCH_BUILTIN: &str = "Deno has no built-in module of that name; those of Node are there as `node:fs`, \
                               `node:path`, `node:crypto` and so on";

const LOCKED: &str = "an allowed package is imported as the allowlist spells it, or without a version; others an \
                      administrator can add to MCP_CONDUCTOR_ALLOWED_PACKAGES";

const NO_SUCH_FILE: &str = "relative imports are looked up in WORKSPACE_DIR, with the file's extension";

/// A failed import. Deno throws all of them as TypeErrors.
struct Import<'a> {
    kind: ErrorType,
    message: Cow<'a, str>,
    hint: String,
}

impl<'a> Import<'a> {
    fn of(message: &'a str) -> Option<Self> {
        let told = first_line(message);
        if let Some(name) = between(message, "Import \"", "\" not a dependency") {
            return match is_builtin(name.split('/').next().unwrap_or(name)) {
                true => failed(told, &format!("this is a module of Node: write `node:{name}`")),
                false => failed(told, PACKAGES),
            };
        }
        if let Some(host) = between(message, "Requires import access to \"", "\"") {
            let told = format!("cannot import from {host}: code is never fetched from the network");
            return failed(told, NO_REMOTE);
        }
        if message.starts_with("Requires read access to ") {
            let hint = grant_hint(message);
            return Some(Self { kind: ErrorType::Permission, message: without_advice(message), hint });
        }
        if message.starts_with("A remote specifier was requested: ") {
            return failed(up_to(message, ", but --"), NO_REMOTE);
        }
        if message.starts_with("npm specifiers were requested;") {
            return failed("npm specifiers were requested; no package is allowed", PACKAGES);
        }
        if message.starts_with("JSR package manifest for ") {
            return failed(up_to(message, ". "), PACKAGES);
        }
        if let Some(name) = message.strip_prefix("Failed loading ").and_then(|rest| rest.split('"').nth(1)) {
            return failed(format!("the package `npm:{name}` is not available"), PACKAGES);
        }
        if message.starts_with("Could not find npm package ")
            || message.starts_with("Invalid package specifier ")
        {
            return failed(told, PACKAGES);
        }
        if message.starts_with("The lockfile is out of date.") {
            return failed(
                "the package is not among those that are installed, or not in that version",
                LOCKED,
            );
        }
        if let Some(module) = between(message, "Unsupported scheme \"", "\"") {
            let hint = if module == "node" { NO_SUCH_BUILTIN } else { PACKAGES };
            return failed(up_to(message, ". Supported schemes"), hint);
        }
        if message.starts_with("No such built-in module: ") {
            return failed(told, NO_SUCH_BUILTIN);
        }
        let starts = ["Module not found ", "[ERR_MODULE_NOT_FOUND] ", "[ERR_UNSUPPORTED_DIR_IMPORT] "];
        if starts.iter().any(|start| message.starts_with(start)) {
            return failed(told, NO_SUCH_FILE);
        }
        let starts = ["Relative import path ", "Unable to load ", "Could not resolve "];
        let other =
            starts.iter().any(|start| message.starts_with(start)) || message.contains("--cached-only");
        if other { failed(up_to(first_line(message), ", --cached-only"), PACKAGES) } else { None }
    }
}

fn failed<'a>(message: impl Into<Cow<'a, str>>, hint: &str) -> Option<Import<'a>> {
    Some(Import { kind: ErrorType::Dependency, message: message.into(), hint: hint.to_owned() })
}

/// Deno says `Requires net access to "x.org:443", run again with the --allow-net flag`.
fn grant_hint(message: &str) -> String {
    let wanted = message.strip_prefix("Requires ").and_then(|rest| {
        let (kind, rest) = rest.split_once(" access")?;
        // `<CWD>` and `<TMP>` stand without quotes.
        Some(grant(kind, rest.split('"').nth(1).filter(|value| !value.starts_with('<'))))
    });
    wanted.unwrap_or_else(|| "an administrator decides what code may do, with MCP_CONDUCTOR_RUN_ARGS".into())
}

fn grant(kind: &str, value: Option<&str>) -> String {
    let flag = value.map_or_else(|| format!("allow-{kind}"), |value| format!("allow-{kind}={value}"));
    match kind {
        // A session may not grant itself these.
        "run" | "ffi" | "sys" => {
            format!(
                "an administrator can grant it: {flag} in run-args of a profile in the configuration file"
            )
        }
        _ => format!("an administrator can grant it: {flag} in MCP_CONDUCTOR_RUN_ARGS"),
    }
}

/// Without `PATH` a program is not found before the permission to run it is asked for.
fn program_not_started(message: &str) -> Option<&str> {
    let spawn = between(message, "Failed to spawn '", "'");
    let command = message.strip_prefix("Command failed: ").and_then(|rest| rest.split_whitespace().next());
    let node = message
        .strip_suffix(" ENOENT")
        .and_then(|rest| rest.strip_prefix("spawnSync ").or_else(|| rest.strip_prefix("spawn ")));
    spawn.or(command).or(node)
}

fn type_error_hint(message: &str) -> Option<String> {
    if message.starts_with("Invalid URL: ") {
        return Some("there is no page that a URL could be relative to: begin it with `https://`".into());
    }
    let missing = message
        .strip_suffix(" is not a function")
        .or_else(|| message.strip_suffix(" is not a constructor"))?;
    let (object, name) = missing.split_once('.')?;
    match (object, name) {
        ("crypto", name) => Some(format!(
            "the global `crypto` is the Web Crypto API; Node's has `{name}`: `import crypto from \"node:crypto\"`"
        )),
        ("Deno", "readAll" | "readAllSync" | "copy" | "Buffer" | "iter") => {
            Some("Deno 2 has no such API: use web streams, as in `await new Response(stream).text()`".into())
        }
        ("Deno", _) => Some("this version of Deno has no such API, or only as an unstable one".into()),
        _ => None,
    }
}

fn reference_hint(message: &str) -> Option<String> {
    let name = message.strip_suffix(" is not defined")?;
    let hint = match name {
        "require" => "this is a module: write `import fs from \"node:fs\"` instead of `require(\"fs\")`".into(),
        "module" | "exports" => {
            "this is a module of its own: end with an expression, or `return` a value, instead of exporting it".into()
        }
        "__dirname" => "use `WORKSPACE_DIR` or `import.meta.dirname`".into(),
        "__filename" => "use `import.meta.filename`".into(),
        "window" | "global" => "use `globalThis`".into(),
        "XMLHttpRequest" => "use `fetch`".into(),
        "document" | "DOMParser" | "HTMLElement" => {
            "this is Deno, not a browser: there is no page and no DOM".into()
        }
        "Bun" => "this is Deno: use its API, such as `Deno.readTextFile`, or `node:` modules".into(),
        "EventEmitter" => "import it: `import { EventEmitter } from \"node:events\"`".into(),
        name if is_builtin(name) => format!("import it: `import {name} from \"node:{name}\"`"),
        _ => return None,
    };
    Some(hint)
}

/// Takes out Deno's advice, wherever it stands: code often throws a message again within its own.
fn without_advice(message: &str) -> Cow<'_, str> {
    const ADVICE: &str = ", run again with the --";
    const END: &str = " flag";
    let mut message = Cow::Borrowed(message);
    while let Some(start) = message.find(ADVICE) {
        let rest = &message[start + ADVICE.len()..];
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '-');
        let rest = rest.strip_prefix(END).unwrap_or(rest);
        message = format!("{}{rest}", &message[..start]).into();
    }
    message
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn up_to<'a>(text: &'a str, end: &str) -> &'a str {
    text.split(end).next().unwrap_or(text)
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.strip_prefix(start)?.split_once(end).map(|(between, _)| between)
}

#[cfg(test)]
mod tests;
