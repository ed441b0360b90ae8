//! One line of the table: a class of attacks, code of it, and what must become of it. Pure.

use conductor_tests::Answer;
use serde_json::Value;

/// What a caller sees of a call, by the letters of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// `T`: ended at a limit on time.
    Time,
    /// `M`: ended at a limit on memory, or told by an exception that there is no more.
    Memory,
    /// `O`: ended at a limit on output or results.
    Output,
    /// `D`: each thing that was tried was refused.
    Refused,
    /// `V`: gave a value.
    Value,
    /// `F`: its own run failed.
    Failed,
    /// `B`: something was done that a layer of the jail should have stopped. Expected only where that layer is missing.
    Breach,
}

pub(crate) struct Case {
    /// Its number in the list of classes.
    pub(crate) class: u16,
    /// As in `MCP_CONDUCTOR_RUN_ARGS`.
    pub(crate) grants: &'static str,
    pub(crate) code: Code,
    /// One letter or several, if any of them is right. `I` is for code without an effect: `V`, `D` or `F`.
    pub(crate) expected: &'static str,
    /// The letters where Landlock and seccomp are missing, if they are others.
    pub(crate) bare: Option<&'static str>,
    /// The value it must give, as JSON.
    pub(crate) value: Option<&'static str>,
    /// The names that a name server is asked for meanwhile: these and no other.
    pub(crate) resolves: &'static [&'static str],
}

pub(crate) enum Code {
    Program(&'static str),
    /// Attempts, each a JavaScript expression: all are made, whatever becomes of those before.
    Each(&'static [&'static str]),
}

/// Attempts that must be refused.
pub(crate) const fn refused(class: u16, attempts: &'static [&'static str]) -> Case {
    Case {
        class,
        grants: "",
        code: Code::Each(attempts),
        expected: "D",
        bare: None,
        value: None,
        resolves: &[],
    }
}

/// A program and the letters of its outcome.
pub(crate) const fn program(class: u16, expected: &'static str, code: &'static str) -> Case {
    Case { class, grants: "", code: Code::Program(code), expected, bare: None, value: None, resolves: &[] }
}

impl Case {
    pub(crate) const fn with(self, grants: &'static str) -> Self {
        Self { grants, ..self }
    }

    pub(crate) const fn bare(self, letters: &'static str) -> Self {
        Self { bare: Some(letters), ..self }
    }

    pub(crate) const fn gives(self, value: &'static str) -> Self {
        Self { value: Some(value), ..self }
    }

    pub(crate) const fn resolves(self, names: &'static [&'static str]) -> Self {
        Self { resolves: names, ..self }
    }

    /// The letters that are right, on a kernel with every layer or without two.
    pub(crate) fn letters(&self, bare: bool) -> &'static str {
        self.bare.filter(|_| bare).unwrap_or(self.expected)
    }

    pub(crate) fn allows(&self, outcome: Outcome, bare: bool) -> bool {
        self.letters(bare).chars().any(|letter| match letter {
            'T' => outcome == Outcome::Time,
            'M' => outcome == Outcome::Memory,
            'O' => outcome == Outcome::Output,
            'D' => outcome == Outcome::Refused,
            'V' => outcome == Outcome::Value,
            'F' => outcome == Outcome::Failed,
            'B' => outcome == Outcome::Breach,
            'I' => matches!(outcome, Outcome::Value | Outcome::Refused | Outcome::Failed),
            other => panic!("`{other}` is no letter of the table"),
        })
    }

    /// Milliseconds: code that must be stopped by the clock is stopped soon, the rest has time on a loaded machine.
    pub(crate) fn timeout(&self) -> u64 {
        match self.expected {
            "T" | "TV" => 500,
            letters if letters.contains('T') => 1_500,
            _ => 50_000,
        }
    }

    pub(crate) fn source(&self) -> String {
        match self.code {
            Code::Program(code) => code.to_owned(),
            Code::Each(attempts) => {
                let each: String =
                    attempts.iter().map(|attempt| format!("await attempt(() => {attempt});\n")).collect();
                format!("{ATTEMPTS}\n{each}tried")
            }
        }
    }
}

/// What attempts are made with. One that ends neither way within its time has done nothing, and is told as such.
pub(crate) const ATTEMPTS: &str = r#"
const tried = [];
const tell = (e) => e !== null && typeof e === "object" ? `${e.name} ${e.code ?? ""} ${e.message}` : String(e);
const must = (done) => { if (!done) throw { name: "NotDone", message: "" } };
const emits = (emitter, event) => new Promise((ok, no) => { emitter.on(event, ok); emitter.on("error", no) });
const worker = (url, options = {}) => new Promise((ok, no) => {
    const worker = new Worker(url, { type: "module", ...options });
    worker.onmessage = (event) => event.data?.error ? no(event.data.error) : ok();
    worker.onerror = (event) => { event.preventDefault(); no({ name: "Worker", message: event.message }) };
});
const attempt = async (make) => {
    let timer;
    const late = new Promise((_, no) => timer = setTimeout(() => no({ name: "Late", message: "" }), 2000));
    try { await Promise.race([(async () => await make())(), late]); tried.push("DONE " + make); }
    catch (e) { tried.push(tell(e)) }
    clearTimeout(timer);
};"#;

/// What an attempt that was refused says. Anything else, a mistake of the table included, is none.
const REFUSALS: [&str; 26] = [
    "NotCapable",
    "PermissionDenied",
    "Requires ",
    "ERR_ACCESS_DENIED",
    "EACCES",
    "EPERM",
    "EBADF",
    "NotDone",
    "--no-remote is specified",
    "--no-npm is specified",
    "Can't import",
    "not allowed",
    "ERR_INVALID_FD_TYPE",
    "ERR_DLOPEN_FAILED",
    "not a dependency",
    "Unsupported scheme",
    "Late ",
    "Not implemented",
    "too many attached databases - max 0",
    "UVWASI_E",
    "Failed to create cache storage",
    "is unsupported",
    "is only allowed from",
    "Permission denied",
    "Command failed",
    "Error UNKNOWN",
];

/// Exceptions that tell of an allocation that the limit has refused.
const NO_MEMORY: [&str; 4] =
    ["allocation failed", "Out of memory", "could not allocate memory", "could not deserialize value"];

/// What the code came to.
pub(crate) fn outcome(case: &Case, answer: &Answer) -> Result<Outcome, String> {
    let structured = &answer.result()["structuredContent"];
    let error = &structured["error"];
    let text = error.to_string();
    if answer.message.to_string().contains("BREACH") {
        return Ok(Outcome::Breach);
    }
    let outcome = match error["type"].as_str() {
        None if matches!(case.code, Code::Each(_)) => return attempts(&structured["returnValue"]),
        None => Outcome::Value,
        Some("timeout" | "compute_limit") => Outcome::Time,
        Some("memory") => Outcome::Memory,
        Some("runtime") if NO_MEMORY.iter().any(|sign| text.contains(sign)) => Outcome::Memory,
        Some("output_limit") => Outcome::Output,
        Some("call_limit") => Outcome::Failed,
        Some("permission" | "dependency") => Outcome::Refused,
        Some("runtime" | "exit" | "syntax" | "internal" | "invalid_arguments") => Outcome::Failed,
        Some(other) => return Err(format!("an error of type {other}: {text}")),
    };
    match case.value {
        Some(expected)
            if serde_json::from_str::<Value>(expected).expect("the table has JSON")
                != structured["returnValue"] =>
        {
            Err(format!("gave {}, not {expected}; error {text}", structured["returnValue"]))
        }
        _ => Ok(outcome),
    }
}

fn attempts(tried: &Value) -> Result<Outcome, String> {
    let tried = tried.as_array().ok_or_else(|| format!("no list of attempts: {tried}"))?;
    let said: Vec<&str> = tried.iter().filter_map(Value::as_str).collect();
    if said.iter().any(|said| said.starts_with("DONE")) {
        return Ok(Outcome::Breach);
    }
    match said.iter().find(|said| !REFUSALS.iter().any(|refusal| said.contains(refusal))) {
        None => Ok(Outcome::Refused),
        Some(other) => Err(format!("no refusal: {other}")),
    }
}
