//! From how a run ended to an error a model can act on: kind, message, place in the sent code, usual cure. Pure.

use std::time::Duration;

use conductor_pool::{LeaseError, Thrown, USER_LINE_OFFSET, USER_SCRIPT_URL, Verdict};
use conductor_script::{Script, SyntaxError, code_frame};

use super::result::{ErrorReport, ErrorType};
use crate::profile::Profile;

/// Causes and members told at most; the rest adds nothing a reader acts on.
const MAX_CAUSES: usize = 8;

/// The source a run came from, to find places in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    pub(crate) script: &'a Script,
}

pub(crate) fn from_syntax_error(error: &SyntaxError) -> ErrorReport {
    ErrorReport {
        line: Some(error.line),
        column: Some(error.column),
        code_frame: Some(error.code_frame.trim_end().to_owned()),
        hint: error.hint.clone(),
        ..ErrorReport::new(ErrorType::Syntax, format!("SyntaxError: {}", error.message))
    }
}

pub(crate) fn from_lease_error(error: &LeaseError) -> ErrorReport {
    let kind = match error {
        LeaseError::Busy { .. } | LeaseError::Draining | LeaseError::Gone => ErrorType::Busy,
        LeaseError::Broken { .. } => ErrorType::Internal,
    };
    ErrorReport::new(kind, crate::error_chain(error)).hint(error.hint())
}

/// For verdicts that are no answer of the code itself.
pub(crate) fn from_verdict(verdict: &Verdict, timeout: Duration, profile: &Profile) -> ErrorReport {
    match verdict {
        Verdict::NeverSettles => ErrorReport::new(
            ErrorType::Runtime,
            "a top-level await never settles: nothing is left that could settle it",
        )
        .hint("check that every promise the code awaits is resolved or rejected somewhere"),
        Verdict::Timeout => ErrorReport::new(
            ErrorType::Timeout,
            format!("the code ran for {} ms without an end", timeout.as_millis()),
        )
        .hint(format!(
            "do less in one call, or pass a longer `timeout` (at most {} ms)",
            profile.max_timeout.as_millis()
        )),
        Verdict::Cancelled => super::outcome::cancelled(),
        Verdict::OutputLimit => ErrorReport::new(
            ErrorType::OutputLimit,
            format!("the code printed more than {} bytes", profile.max_output_bytes),
        )
        .hint("print less, or return a summary"),
        Verdict::ResultLimit => ErrorReport::new(
            ErrorType::OutputLimit,
            format!("the returned value is larger than {} bytes", profile.max_result_bytes),
        )
        .hint("return a part of it, or a summary"),
        Verdict::Exited { out_of_memory: true, .. } => ErrorReport::new(
            ErrorType::Memory,
            format!("the code needed more than {} MiB of memory", profile.heap_mib),
        )
        .hint("work on smaller pieces, or stream the data"),
        Verdict::Exited { signal, .. } => ErrorReport::new(
            ErrorType::Exit,
            format!("the process was ended by signal {}", signal.unwrap_or_default()),
        ),
        Verdict::BrokenChannel { detail } => {
            ErrorReport::new(ErrorType::Internal, format!("the result of the code was lost: {detail}"))
                .hint("code that closes or writes to unknown file descriptors breaks its own result channel")
        }
        Verdict::Settled { .. } => ErrorReport::new(ErrorType::Internal, "the code has a value"),
    }
}

pub(crate) fn from_thrown(thrown: &Thrown, source: Source<'_>) -> ErrorReport {
    let frames = user_frames(&thrown.stack, source);
    let kind = kind_of(thrown, frames.is_empty());
    let place = frames.first().map(|frame| (frame.line, frame.column));
    ErrorReport {
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        code_frame: place.map(|(line, column)| code_frame(source.text, line, column).trim_end().to_owned()),
        stack: (!frames.is_empty()).then(|| frames.iter().map(Frame::text).collect::<Vec<_>>().join("\n")),
        cause: causes(thrown),
        hint: hint_for(kind, thrown),
        ..ErrorReport::new(kind, headline(thrown))
    }
}

/// `Name: message` as the code's author wrote it, without Deno's advice to change the command line.
pub(crate) fn headline(thrown: &Thrown) -> String {
    let message = thrown.message.split(", run again with the").next().unwrap_or(&thrown.message);
    match (thrown.name.is_empty(), message.is_empty()) {
        (true, _) => format!("Uncaught {message}"),
        (false, true) => thrown.name.clone(),
        (false, false) => format!("{}: {message}", thrown.name),
    }
}

fn kind_of(thrown: &Thrown, no_user_frame: bool) -> ErrorType {
    match thrown.name.as_str() {
        "NotCapable" | "PermissionDenied" => ErrorType::Permission,
        // V8 refused the code as a whole, so nothing of it is on the stack.
        "SyntaxError" if no_user_frame => ErrorType::Syntax,
        "TypeError" if is_import_failure(&thrown.message) => ErrorType::Dependency,
        _ => ErrorType::Runtime,
    }
}

fn is_import_failure(message: &str) -> bool {
    const STARTS: [&str; 7] = [
        "Module not found",
        "Relative import path",
        "Unable to load",
        "Import '",
        "Unsupported scheme",
        "A remote specifier was requested",
        "Could not resolve",
    ];
    STARTS.iter().any(|start| message.starts_with(start))
        || message.contains("--no-npm")
        || message.contains("--cached-only")
}

fn hint_for(kind: ErrorType, thrown: &Thrown) -> Option<String> {
    match kind {
        ErrorType::Permission => Some(permission_hint(&thrown.message)),
        ErrorType::Dependency => Some(
            "packages are not available in this build; use `node:` modules, web APIs or plain code".into(),
        ),
        _ if thrown.name == "ReferenceError" && thrown.message.starts_with("require ") => {
            Some("this is a module: write `import x from \"node:x\"` instead of `require`".into())
        }
        _ if thrown.name == "ReferenceError" && thrown.message.starts_with("__dirname ") => {
            Some("use WORKSPACE_DIR or `import.meta.dirname`".into())
        }
        _ => None,
    }
}

/// Deno says `Requires net access to "x.org:443", run again with the --allow-net flag`.
fn permission_hint(message: &str) -> String {
    let wanted = message.strip_prefix("Requires ").and_then(|rest| {
        let (kind, rest) = rest.split_once(" access")?;
        let value = rest.split('"').nth(1);
        Some(match value {
            Some(value) if !value.starts_with('<') => format!("allow-{kind}={value}"),
            _ => format!("allow-{kind}"),
        })
    });
    match wanted {
        Some(wanted) => format!("an administrator can grant it: {wanted} in MCP_CONDUCTOR_RUN_ARGS"),
        None => "an administrator decides what code may do, with MCP_CONDUCTOR_RUN_ARGS".into(),
    }
}

fn causes(thrown: &Thrown) -> Vec<String> {
    let mut causes = Vec::new();
    let mut pending: Vec<&Thrown> = Vec::new();
    pending.extend(thrown.errors.iter().rev());
    pending.extend(thrown.cause.as_deref());
    while let Some(next) = pending.pop() {
        if causes.len() == MAX_CAUSES {
            break;
        }
        causes.push(headline(next));
        pending.extend(next.errors.iter().rev());
        pending.extend(next.cause.as_deref());
    }
    causes
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    function: Option<String>,
    line: u32,
    column: u32,
}

impl Frame {
    fn text(&self) -> String {
        match &self.function {
            Some(function) => format!("    at {function} (main.ts:{}:{})", self.line, self.column),
            None => format!("    at main.ts:{}:{}", self.line, self.column),
        }
    }
}

/// The frames of the sent code in a V8 stack, with their places in the source.
fn user_frames(stack: &str, source: Source<'_>) -> Vec<Frame> {
    stack.lines().filter_map(|line| user_frame(line, source)).collect()
}

/// V8 writes `at f (conductor:main.ts, <anonymous>:3:7)` for code that was compiled from a string.
fn user_frame(line: &str, source: Source<'_>) -> Option<Frame> {
    let (before, after) = line.split_once(USER_SCRIPT_URL)?;
    let after = after.strip_prefix(", <anonymous>").unwrap_or(after);
    let mut numbers = after.strip_prefix(':')?.split(|c: char| !c.is_ascii_digit());
    let line: u32 = numbers.next()?.parse().ok()?;
    let column: u32 = numbers.next()?.parse().ok()?;
    let (line, column) = source.script.original_position(line.checked_sub(USER_LINE_OFFSET)?, column)?;
    let function = before.trim().strip_prefix("at ").and_then(|name| name.strip_suffix('(')).map(str::trim);
    // The code as a whole runs in a nameless function of ours.
    let function = function
        .filter(|name| !matches!(*name, "" | "eval" | "async eval" | "anonymous" | "async anonymous"));
    Some(Frame { function: function.map(String::from), line, column })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(code: &str, thrown: &Thrown) -> ErrorReport {
        let script = conductor_script::prepare(code).expect("the test's code is right");
        from_thrown(thrown, Source { text: code, script: &script })
    }

    fn thrown(name: &str, message: &str, stack: &str) -> Thrown {
        Thrown { name: name.into(), message: message.into(), stack: stack.into(), ..Thrown::default() }
    }

    #[test]
    fn places_an_error_in_the_sent_code() {
        let code = "function f() {\n  null.x;\n}\nf();";
        let stack = "TypeError: no\n    at f (conductor:main.ts, <anonymous>:4:8)\n    at eval (conductor:main.ts, <anonymous>:6:1)\n    \
                     at run (file:///home/a/.cache/harness.js:356:19)\n    at dispatch (ext:deno_web/02_event.js:1:7177)";
        let report = report(code, &thrown("TypeError", "no", stack));
        assert_eq!((report.kind, report.line, report.column), (ErrorType::Runtime, Some(2), Some(8)));
        assert_eq!(report.stack.as_deref(), Some("    at f (main.ts:2:8)\n    at main.ts:4:1"));
        assert!(report.code_frame.is_some_and(|frame| frame.contains("> 2 |   null.x;")));
    }

    #[test]
    fn tells_kinds_apart() {
        for (name, message, kind) in [
            (
                "NotCapable",
                "Requires net access to \"x.org:443\", run again with the --allow-net flag",
                ErrorType::Permission,
            ),
            ("TypeError", "Module not found \"file:///ws/x.ts\".", ErrorType::Dependency),
            ("SyntaxError", "Unexpected token", ErrorType::Syntax),
            ("RangeError", "too much", ErrorType::Runtime),
        ] {
            assert_eq!(report("1", &thrown(name, message, "")).kind, kind, "{name}: {message}");
        }
    }

    #[test]
    fn a_denied_permission_names_the_grant_for_an_administrator() {
        let report = |message| report("1", &thrown("NotCapable", message, ""));
        let net = report("Requires net access to \"x.org:443\", run again with the --allow-net flag");
        assert_eq!(net.message, "NotCapable: Requires net access to \"x.org:443\"");
        assert_eq!(
            net.hint.as_deref(),
            Some("an administrator can grant it: allow-net=x.org:443 in MCP_CONDUCTOR_RUN_ARGS")
        );
        let cwd = report("Requires read access to <CWD>, run again with the --allow-read flag");
        assert!(cwd.hint.is_some_and(|hint| hint.contains("allow-read in")));
    }

    #[test]
    fn causes_and_members_are_told_in_order() {
        let mut error = thrown("AggregateError", "all failed", "");
        error.errors = vec![thrown("Error", "a", ""), thrown("Error", "b", "")];
        error.cause = Some(Box::new(thrown("", "just text", "")));
        assert_eq!(report("1", &error).cause, ["Uncaught just text", "Error: a", "Error: b"]);
    }
}
