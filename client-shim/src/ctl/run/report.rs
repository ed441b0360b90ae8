//! The result of a run as its reader wants it. Pure but for the two streams it is given.

use std::io::{self, Write};

use serde_json::Value;

use super::super::paint::{Paint, millis, printable, size};
use super::result::{RunError, RunResult, Timings};

/// The name the daemon gives the code it was sent, in stacks.
const SENT_NAME: &str = "main.ts:";

pub(super) fn write_json(document: &Value, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{document:#}")
}

/// How a result is shown.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// The file the code came from.
    pub(super) file: Option<String>,
    pub(super) value_only: bool,
    pub(super) quiet: bool,
    /// Columns of the terminal that stdout is.
    pub(super) width: Option<usize>,
    pub(super) stdout: Paint,
    pub(super) stderr: Paint,
}

impl View {
    /// Writes the program's output, its value and what there is to say about it, in this order.
    pub(super) fn show(
        &self,
        result: &RunResult,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> io::Result<()> {
        match self.value_only {
            true => write_lines(err, &result.stdout)?,
            false => write_lines(out, &result.stdout)?,
        }
        write_lines(err, &result.stderr)?;
        match self.value(result) {
            // Half a value must not pass for one.
            Some(value) if result.return_value_format == "preview" => writeln!(err, "{}", printable(&value))?,
            Some(value) => writeln!(out, "{value}")?,
            None => {}
        }
        out.flush()?;
        if let Some(error) = &result.error {
            self.write_error(error, err)?;
        }
        for (field, cut) in &result.truncated {
            let (field, left_out, total) = (printable(field), size(cut.omitted_bytes), size(cut.total_bytes));
            let label = self.stderr.warning("incomplete:");
            writeln!(
                err,
                "{label} {left_out} of the {total} of {field} are left out; they are too large for an answer"
            )?;
        }
        if !result.is_whole() {
            writeln!(err, "{} write large data to a file in the workspace", self.stderr.warning("hint:"))?;
        }
        if !self.quiet {
            for note in &result.notes {
                writeln!(err, "{} {}", self.stderr.warning("note:"), printable(note))?;
            }
            writeln!(err, "{}", self.summary(result))?;
        }
        Ok(())
    }

    fn value(&self, result: &RunResult) -> Option<String> {
        let value = match (result.return_value_format.as_str(), &result.return_value) {
            ("json", value) => self.json(value),
            ("inspect" | "preview", Value::String(text)) => text.clone(),
            _ => return None,
        };
        // Tells the value from the output above it; a pipe gets the value alone.
        let arrow = self.width.map(|_| format!("{} ", self.stdout.dim("=>"))).unwrap_or_default();
        Some(format!("{arrow}{value}"))
    }

    fn json(&self, value: &Value) -> String {
        let line = value.to_string();
        match self.width {
            Some(width) if console::measure_text_width(&line) + "=> ".len() > width => format!("{value:#}"),
            _ => line,
        }
    }

    fn write_error(&self, error: &RunError, err: &mut impl Write) -> io::Result<()> {
        let label = self.stderr.bad(&format!("error ({}):", printable(&error.kind)));
        writeln!(err, "{label} {}", printable(error.message.trim_end()))?;
        if let (Some(line), Some(column)) = (error.line, error.column) {
            let file = self.file.as_deref().unwrap_or("main.ts");
            writeln!(err, "{} {}:{line}:{column}", self.stderr.dim("  -->"), printable(file))?;
        }
        if let Some(frame) = &error.code_frame {
            writeln!(err, "{}", printable(frame.trim_end()))?;
        }
        if let Some(stack) = &error.stack {
            writeln!(err, "{}", self.stderr.dim(&printable(&self.named(stack.trim_end()))))?;
        }
        for cause in &error.cause {
            writeln!(err, "caused by: {}", printable(cause))?;
        }
        if let Some(hint) = &error.hint {
            writeln!(err, "{} {}", self.stderr.warning("hint:"), printable(hint))?;
        }
        Ok(())
    }

    /// A stack names the user's file, so that an editor finds it.
    fn named(&self, stack: &str) -> String {
        match &self.file {
            Some(file) => stack.replace(SENT_NAME, &format!("{file}:")),
            None => stack.to_owned(),
        }
    }

    fn summary(&self, result: &RunResult) -> String {
        let word = match result.is_success() {
            true => self.stderr.good("ok"),
            false => self.stderr.bad("failed"),
        };
        let Timings { total, queue, run } = result.timings;
        // Code that reached no worker has no times of one.
        let times = match (total > 0.0, run > 0.0) {
            (_, true) => format!(" in {} (worker {}, queue {})", millis(total), millis(run), millis(queue)),
            (true, false) => format!(" in {}", millis(total)),
            (false, false) => String::new(),
        };
        format!("{word}{}", self.stderr.dim(&times))
    }
}

/// As it is, ended with a line break, so that what follows starts on its own line.
fn write_lines(to: &mut impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    match text.is_empty() || text.ends_with('\n') {
        true => Ok(()),
        false => to.write_all(b"\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PIPED: View = View {
        file: None,
        value_only: false,
        quiet: false,
        width: None,
        stdout: Paint::Plain,
        stderr: Paint::Plain,
    };

    fn shown(view: &View, document: &Value) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = RunResult::read(document).expect("a result");
        view.show(&result, &mut out, &mut err).expect("vectors take everything");
        (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    }

    fn success() -> Value {
        json!({
            "status": "success", "returnValue": { "b": 1, "a": null }, "returnValueFormat": "json",
            "stdout": "hi", "stderr": "careful\n", "executionId": "x", "notes": ["a timer was left"],
            "timings": { "total": 3.21, "prepare": 0.1, "queue": 0.06, "run": 0.6, "compute": 0.5 }, "later": 1
        })
    }

    #[test]
    fn output_and_value_go_to_stdout_the_rest_to_stderr() {
        let (out, err) = shown(&PIPED, &success());
        assert_eq!(out, "hi\n{\"b\":1,\"a\":null}\n");
        assert_eq!(err, "careful\nnote: a timer was left\nok in 3.2 ms (worker 0.6 ms, queue 0.06 ms)\n");
        let quiet = View { value_only: true, quiet: true, ..PIPED };
        let expected = ("{\"b\":1,\"a\":null}\n".to_owned(), "hi\ncareful\n".to_owned());
        assert_eq!(shown(&quiet, &success()), expected);
    }

    #[test]
    fn a_terminal_gets_a_mark_and_long_values_over_many_lines() {
        let value = |width, value: Value, format: &str| {
            let document = json!({ "status": "success", "returnValue": value, "returnValueFormat": format });
            shown(&View { width: Some(width), ..PIPED }, &document).0
        };
        assert_eq!(value(80, json!([1, 2]), "json"), "=> [1,2]\n");
        assert_eq!(value(6, json!([1, 2]), "json"), "=> [\n  1,\n  2\n]\n");
        assert_eq!(value(80, json!(null), "json"), "=> null\n");
        assert_eq!(value(80, json!("Map(0) {}"), "inspect"), "=> Map(0) {}\n");
        assert_eq!(value(80, json!(null), "none"), "");
    }

    #[test]
    fn half_a_value_does_not_pass_for_one() {
        let document = json!({
            "status": "success", "returnValue": "[1…", "returnValueFormat": "preview",
            "truncated": { "returnValue": { "totalBytes": 30 << 20, "omittedBytes": 29 << 20 } }
        });
        let (out, err) = shown(&View { quiet: true, ..PIPED }, &document);
        let said = "incomplete: 29 MiB of the 30 MiB of returnValue are left out; they are too large for an answer\n\
                    hint: write large data to a file in the workspace\n";
        assert_eq!((out.as_str(), err), ("", format!("[1…\n{said}")));
    }

    #[test]
    fn an_error_shows_where_why_and_the_cure() {
        let document = json!({
            "status": "error", "returnValueFormat": "none", "stdout": "", "stderr": "",
            "error": {
                "type": "runtime", "message": "Error: outer\u{1b}[2J", "line": 2, "column": 7,
                "codeFrame": "> 2 | throw boom\n    |       ^", "stack": "    at f (main.ts:2:7)\n    at main.ts:4:1",
                "cause": ["Error: inner"], "hint": "do not"
            },
            "timings": { "total": 1.0 }
        });
        let (out, err) = shown(&View { file: Some("dir/x.ts".into()), ..PIPED }, &document);
        assert_eq!(out, "");
        assert_eq!(
            err,
            "error (runtime): Error: outer\u{fffd}[2J\n  --> dir/x.ts:2:7\n> 2 | throw boom\n    |       ^\n    \
             at f (dir/x.ts:2:7)\n    at dir/x.ts:4:1\ncaused by: Error: inner\nhint: do not\nfailed in 1.0 ms\n"
        );
    }
}
