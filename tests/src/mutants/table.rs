//! The mistakes. Each is one that a change could make and a review could miss, and breaks one promise.

mod jail;
mod machines;

/// All tests of the rewrite: together they take seconds.
const REWRITE: &str = "-p conductor-script";

/// Passes as long as a worker boots and runs code.
const WORKS: &str = "-p conductor-pool --test worker values::no_value_is_none";

pub(super) struct Mutation {
    pub(super) name: &'static str,
    /// Relative to the repository.
    pub(super) file: &'static str,
    /// Must be in the file exactly once.
    pub(super) find: &'static str,
    pub(super) replace: &'static str,
    /// Arguments of `cargo test`, for the tests of which one must fail.
    pub(super) red: &'static str,
}

impl Mutation {
    /// A test that must still pass. The harness is not compiled, so a mistake there could be one that breaks everything.
    pub(super) fn alive(&self) -> Option<&'static str> {
        self.file.ends_with(".js").then_some(WORKS)
    }
}

const HARNESS: &str = "pool/src/harness/harness.js";

/// Every mutation.
pub(super) fn mutations() -> impl Iterator<Item = &'static Mutation> {
    MUTATIONS.iter().chain(&jail::MUTATIONS).chain(&machines::MUTATIONS)
}

const MUTATIONS: [Mutation; 20] = [
    // An `if` whose branches may give no value keeps the value of the statement before it.
    Mutation {
        name: "if-value",
        file: "daemon/script/src/completion.rs",
        find: "self.reset_unless(set_in_consequent && self.set, place);",
        replace: "self.reset_unless(set_in_consequent || self.set, place);",
        red: REWRITE,
    },
    // A `break` does not bring back the value of the statement before it.
    Mutation {
        name: "break-value",
        file: "daemon/script/src/completion.rs",
        find: "Statement::BreakStatement(_) | Statement::ContinueStatement(_) => self.set = false,",
        replace: "",
        red: REWRITE,
    },
    // A `finally` block in a loop changes the value.
    Mutation {
        name: "finally-value",
        file: "daemon/script/src/completion.rs",
        find: "self.plan.kept.insert(finalizer.span.start);",
        replace: "",
        red: REWRITE,
    },
    // Imported names are read once.
    Mutation {
        name: "live-binding",
        file: "daemon/script/src/rewrite/modules.rs",
        find: "self.replaced.insert(symbol, member(module, &name));",
        replace: r#"let _ = symbol;
            self.out.edits.head(format!("const {}={};", local.name, member(module, &name)), 0);"#,
        red: REWRITE,
    },
    // An imported function sees its module as `this`.
    Mutation {
        name: "call-this",
        file: "daemon/script/src/rewrite/modules.rs",
        find: r#"name.span.end, format!("(0,{text})"));"#,
        replace: "name.span.end, text);",
        red: REWRITE,
    },
    // Code runs in sloppy mode.
    Mutation {
        name: "strict-mode",
        file: "daemon/script/src/rewrite.rs",
        find: r#"self.out.edits.head("\"use strict\";", 0);"#,
        replace: "",
        red: REWRITE,
    },
    // Initializers of an enum do not see the members before them.
    Mutation {
        name: "enum-scope",
        file: "daemon/script/src/rewrite/enums.rs",
        find: "self.replaced.insert(*symbol, member(object, name));",
        replace: "let _ = (symbol, name, object);",
        red: REWRITE,
    },
    // Positions in text that was copied are those of where the copied piece begins.
    Mutation {
        name: "position-map",
        file: "daemon/script/src/edits.rs",
        find: "Kind::Copied => Some(segment.source + (code - segment.code)),",
        replace: "Kind::Copied => Some(segment.source),",
        red: REWRITE,
    },
    // A comment at the end swallows the return of the value.
    Mutation {
        name: "comment-at-the-end",
        file: "daemon/script/src/rewrite.rs",
        find: r#"format!("\nreturn {value};")"#,
        replace: r#"format!(";return {value};")"#,
        red: REWRITE,
    },
    // Text that closes the parenthesis around a braced program counts as one object.
    Mutation {
        name: "sole-parenthesis",
        file: "daemon/script/src/script.rs",
        find: "&& !is_sole_parenthesis(parsed.program, open)",
        replace: "&& !(is_sole_parenthesis(parsed.program, open) || true)",
        red: REWRITE,
    },
    // A method that user code may replace is looked up when it is used.
    Mutation {
        name: "captured-method",
        file: HARNESS,
        find: "const isWellFormed = uncurry(String.prototype.isWellFormed);",
        replace: "const isWellFormed = (text) => text.isWellFormed();",
        red: "-p conductor-pool --test worker hostile::a_changed_realm",
    },
    // More than one result leaves the worker.
    Mutation {
        name: "settled-once",
        file: HARNESS,
        find: "if (settled) return false;",
        replace: "",
        red: "-p conductor-pool --test worker errors::",
    },
    // Minus zero becomes zero.
    Mutation {
        name: "minus-zero",
        file: HARNESS,
        find: " && !is(value, -0)",
        replace: "",
        red: "-p conductor-pool --test worker values::",
    },
    // An object that is reached twice counts as a cycle.
    Mutation {
        name: "shared-object",
        file: HARNESS,
        find: "remove(ancestors, value);",
        replace: "",
        red: "-p conductor-pool --test worker values::",
    },
    // Nobody says that the event loop is empty.
    Mutation {
        name: "drained",
        file: HARNESS,
        find: r#"writeFrame('{"drained":{}}');"#,
        replace: "",
        red: "-p conductor-pool --test worker endings::waiting_for_nothing",
    },
    // A global cannot be assigned to.
    Mutation {
        name: "writable-globals",
        file: HARNESS,
        find: "bare({ value, writable: true, configurable: true, enumerable: true })",
        replace: "bare({ value, writable: false, configurable: true, enumerable: true })",
        red: "-p conductor-pool --test worker values::",
    },
    // The third byte of a frame's length is lost.
    Mutation {
        name: "frame-length",
        file: HARNESS,
        find: "header[2] = (length >>> 16) & 255;",
        replace: "header[2] = 0;",
        red: "-p conductor-pool --test worker values::",
    },
    // A Proxy is taken apart as if it were its target.
    Mutation {
        name: "proxy",
        file: HARNESS,
        find: "|| isProxy(value) || has(ancestors, value)",
        replace: "|| has(ancestors, value)",
        red: "-p conductor-pool --test worker values::",
    },
    // A chain of causes is followed without a bound.
    Mutation {
        name: "cause-depth",
        file: HARNESS,
        find: "encodeThrown(cause, depth + 1, budget)",
        replace: "encodeThrown(cause, depth, budget)",
        red: "-p conductor-pool --test worker errors::",
    },
    // The channel to the daemon can be opened again by its path.
    Mutation {
        name: "channel-by-path",
        file: HARNESS,
        find: "if (boot.revoke_write) Deno",
        replace: "if (false) Deno",
        red: "-p conductor-pool --test worker hostile::the_channel",
    },
];
