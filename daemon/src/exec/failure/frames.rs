//! From V8's stacks to frames of the code that was sent. Pure.

use conductor_pool::{USER_LINE_OFFSET, USER_SCRIPT_URL};

use super::Source;

/// One place in the sent code, 1-based.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    function: Option<String>,
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Frame {
    pub(super) fn text(&self) -> String {
        match &self.function {
            Some(function) => format!("    at {function} (main.ts:{}:{})", self.line, self.column),
            None => format!("    at main.ts:{}:{}", self.line, self.column),
        }
    }
}

/// The frames of the sent code in a V8 stack, with their places in the source.
pub(super) fn user_frames(stack: &str, source: Source<'_>) -> Vec<Frame> {
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
