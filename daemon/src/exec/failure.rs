//! From what went wrong to an error a model can act on: kind, message, place in the sent code, usual cure. Pure.
//!
//! ```text
//! diagnosis  what a thrown error means, by Deno's own messages
//! ends       what is told of a run that reached a limit or broke
//! frames     places in the sent code
//! own_paths  what no client is told
//! ```

mod diagnosis;
pub(crate) mod ends;
mod frames;
mod own_paths;

use conductor_packages::{Layer, Refusal, RefusalKind};
use conductor_pool::{Grants, LeaseError, SpawnError, Thrown};
use conductor_script::{Script, SyntaxError, code_frame};

use super::result::{ErrorReport, ErrorType};
use diagnosis::{Diagnosis, diagnose, reworded};
use frames::{Frame, user_frames};
pub(crate) use own_paths::OwnPaths;

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
    if let LeaseError::Broken { source, .. } = error
        && let SpawnError::Jail(refused) = &**source
    {
        return ErrorReport::from_text(ErrorType::Configuration, &format!("no code runs here: {refused}"));
    }
    let kind = match error {
        LeaseError::Busy { .. } | LeaseError::Draining | LeaseError::Gone => ErrorType::Busy,
        LeaseError::Broken { .. } => ErrorType::Internal,
    };
    ErrorReport::new(kind, crate::error_chain(error)).hint(error.hint())
}

/// Where the packages are that a run could import.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packages<'a> {
    /// None is allowed.
    None,
    /// Some are allowed, and the worker had none: nothing said before the run that the code needs one.
    NotFetched,
    Layer(&'a Layer),
}

/// `grants` and `packages` are those that the code ran with.
pub(crate) fn from_thrown(
    thrown: &Thrown,
    source: Source<'_>,
    grants: &Grants,
    packages: Packages<'_>,
) -> ErrorReport {
    let frames = user_frames(&thrown.stack, source);
    let Diagnosis { kind, hint } = diagnose(thrown, frames.is_empty(), grants);
    let refused = (kind == ErrorType::Dependency).then(|| refused(&thrown.message, packages)).flatten();
    let (message, hint) = match refused {
        Some(refusal) => (refusal.message, refusal.hint.or(hint)),
        None => (headline(thrown), hint),
    };
    let place = frames.first().map(|frame| (frame.line, frame.column));
    ErrorReport {
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        code_frame: place.map(|(line, column)| code_frame(source.text, line, column).trim_end().to_owned()),
        stack: (!frames.is_empty()).then(|| frames.iter().map(Frame::text).collect::<Vec<_>>().join("\n")),
        cause: causes(thrown),
        hint,
        ..ErrorReport::new(kind, message)
    }
}

/// What Deno's refusal of a computed import comes to.
fn refused(message: &str, packages: Packages<'_>) -> Option<Refusal> {
    match packages {
        Packages::None => None,
        Packages::Layer(layer) => layer.explain(message),
        Packages::NotFetched => diagnosis::is_about_a_package(message).then(|| Refusal {
            kind: RefusalKind::NotInLayer,
            message: "the package was not fetched, since its name is computed".to_owned(),
            hint: Some("import it by a literal name, or list it in `dependencies`".to_owned()),
        }),
    }
}

/// `Name: message`.
fn headline(thrown: &Thrown) -> String {
    let message = reworded(thrown);
    match (thrown.name.is_empty(), message.is_empty()) {
        (true, _) => format!("Uncaught {message}"),
        (false, true) => thrown.name.clone(),
        (false, false) => format!("{}: {message}", thrown.name),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(code: &str, thrown: &Thrown) -> ErrorReport {
        let script = conductor_script::prepare(code).expect("the test's code is right");
        from_thrown(thrown, Source { text: code, script: &script }, &Grants::default(), Packages::None)
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
    fn causes_and_members_are_told_in_order() {
        let mut error = thrown("AggregateError", "all failed", "");
        error.errors = vec![thrown("Error", "a", ""), thrown("Error", "b", "")];
        error.cause = Some(Box::new(thrown("", "just text", "")));
        assert_eq!(report("1", &error).cause, ["Uncaught just text", "Error: a", "Error: b"]);
    }
}
