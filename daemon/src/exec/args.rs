//! Arguments of `run_deno_code`: reading and checking what a model sent. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::profile::Profile;

/// The largest code that is run, bytes. What a model writes is some KiB; more is generated data, which belongs in a file.
pub(crate) const MAX_CODE_BYTES: usize = 8 << 20;

/// Checked arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct RunArgs {
    pub code: String,
    /// Within the profile's maximum.
    pub timeout: Duration,
    pub globals: Map<String, Value>,
    pub dependencies: Vec<String>,
    /// What was changed about the arguments, told in the result.
    pub notes: Vec<String>,
}

/// What is wrong with the arguments.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    #[error("`deno_code` is missing\nhint: pass the TypeScript or JavaScript to run as a string")]
    NoCode,
    #[error("`deno_code` is empty\nhint: pass the TypeScript or JavaScript to run")]
    EmptyCode,
    #[error(
        "`deno_code` is {bytes} bytes long, more than the limit of {MAX_CODE_BYTES}\nhint: read data from the workspace or pass it in `globals`"
    )]
    LargeCode { bytes: usize },
    #[error("`{name}` must be {expected}, not {got}")]
    Type { name: &'static str, expected: &'static str, got: &'static str },
    #[error(
        "`timeout` must be more than zero milliseconds, not {0}\nhint: leave it out for the default, or pass for example 30000"
    )]
    Timeout(String),
    #[error(
        "`{name}` is not a parameter of run_deno_code\nhint: it takes deno_code, timeout, globals and dependencies"
    )]
    Unknown { name: String },
    #[error("`globals` cannot define `{name}`: {why}")]
    Global { name: String, why: &'static str },
}

impl RunArgs {
    /// # Errors
    /// The first thing that is wrong, by name. A timeout over the maximum is no error: it is cut and noted.
    pub fn read(arguments: Option<Map<String, Value>>, profile: &Profile) -> Result<Self, ArgsError> {
        let mut arguments = arguments.unwrap_or_default();
        let code = match arguments.shift_remove("deno_code") {
            None => return Err(ArgsError::NoCode),
            Some(Value::String(code)) => code,
            Some(other) => return Err(wrong_type("deno_code", "a string", &other)),
        };
        if code.trim().is_empty() {
            return Err(ArgsError::EmptyCode);
        }
        if code.len() > MAX_CODE_BYTES {
            return Err(ArgsError::LargeCode { bytes: code.len() });
        }
        let mut notes = Vec::new();
        let timeout = timeout(arguments.shift_remove("timeout"), profile, &mut notes)?;
        let globals = match arguments.shift_remove("globals") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(globals)) => globals,
            Some(other) => return Err(wrong_type("globals", "an object", &other)),
        };
        if let Some((name, why)) =
            globals.keys().find_map(|name| refuse_global(name).map(|why| (name.clone(), why)))
        {
            return Err(ArgsError::Global { name, why });
        }
        let dependencies = dependencies(arguments.shift_remove("dependencies"))?;
        match arguments.keys().next() {
            Some(name) => Err(ArgsError::Unknown { name: name.clone() }),
            None => Ok(Self { code, timeout, globals, dependencies, notes }),
        }
    }
}

fn timeout(value: Option<Value>, profile: &Profile, notes: &mut Vec<String>) -> Result<Duration, ArgsError> {
    let value = match value {
        None | Some(Value::Null) => return Ok(profile.default_timeout),
        Some(value) => value,
    };
    let Value::Number(number) = &value else {
        return Err(wrong_type("timeout", "a number of milliseconds", &value));
    };
    let millis = number
        .as_f64()
        .filter(|millis| *millis > 0.0)
        .ok_or_else(|| ArgsError::Timeout(number.to_string()))?;
    let maximum = profile.max_timeout;
    if millis > maximum.as_secs_f64() * 1e3 {
        notes.push(format!("timeout {number} ms is over the maximum; {} ms is used", maximum.as_millis()));
        return Ok(maximum);
    }
    Ok(Duration::from_secs_f64(millis / 1e3).max(Duration::from_millis(1)))
}

fn dependencies(value: Option<Value>) -> Result<Vec<String>, ArgsError> {
    const EXPECTED: &str = "an array of strings";
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_type("dependencies", EXPECTED, &other)),
    };
    let strings = items.into_iter().map(|item| match item {
        Value::String(text) => Ok(text),
        other => Err(wrong_type("dependencies", EXPECTED, &other)),
    });
    strings.collect()
}

fn wrong_type(name: &'static str, expected: &'static str, got: &Value) -> ArgsError {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ArgsError::Type { name, expected, got }
}

/// Names the run itself provides.
const PROVIDED: [&str; 5] = ["WORKSPACE_DIR", "PERMISSIONS", "mcpFactory", "mcp", "conductor"];

/// Names without which nothing runs, in the code or in the worker around it.
const ESSENTIAL: [&str; 9] =
    ["globalThis", "self", "window", "global", "Deno", "Object", "Function", "Promise", "undefined"];

/// Words that cannot be a variable's name in a module, so a global of that name could not be used.
const RESERVED: [&str; 50] = [
    "arguments",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "eval",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "let",
    "new",
    "null",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "static",
    "super",
    "switch",
    "this",
    "throw",
    "true",
    "try",
    "typeof",
    "var",
    "void",
    "while",
    "with",
    "yield",
    "NaN",
    "Infinity",
];

fn refuse_global(name: &str) -> Option<&'static str> {
    let starts = |first: char| first.is_alphabetic() || first == '_' || first == '$';
    let continues = |rest: char| rest.is_alphanumeric() || rest == '_' || rest == '$';
    let mut chars = name.chars();
    if !chars.next().is_some_and(starts) || !chars.all(continues) {
        return Some("it is not a variable name");
    }
    if RESERVED.contains(&name) {
        return Some("it is a reserved word");
    }
    if matches!(name, "__proto__" | "constructor" | "prototype") {
        return Some("it is part of every object");
    }
    if PROVIDED.contains(&name) {
        return Some("conductor provides it");
    }
    ESSENTIAL.contains(&name).then_some("the runtime needs it")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::{config::Config, dirs::Dirs, profile};

    fn read(arguments: Value) -> Result<RunArgs, String> {
        let dirs = Dirs::from_env(&BTreeMap::new(), Some("/h".into())).expect("has a home");
        let profile =
            profile::resolve(&Config::default(), &BTreeMap::new(), "/", &dirs).expect("defaults are right");
        let Value::Object(arguments) = arguments else { panic!("the test passes an object") };
        RunArgs::read(Some(arguments), &profile).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_all_four_parameters() {
        let args =
            read(json!({"deno_code": "1", "timeout": 50.5, "globals": {"a": 1}, "dependencies": ["npm:x"]}));
        let args = args.expect("is right");
        assert_eq!(args.timeout, Duration::from_micros(50_500));
        assert_eq!((args.globals["a"].clone(), args.dependencies), (json!(1), vec!["npm:x".to_owned()]));
        let args = read(json!({"deno_code": "1", "timeout": null, "globals": null, "dependencies": null}));
        assert_eq!(args.expect("null is absent").timeout, profile::defaults::TIMEOUT);
    }

    #[test]
    fn cuts_a_timeout_over_the_maximum_and_says_so() {
        let args = read(json!({"deno_code": "1", "timeout": 1e12})).expect("is cut");
        assert_eq!(args.timeout, profile::defaults::MAX_TIMEOUT);
        assert_eq!(args.notes, ["timeout 1000000000000.0 ms is over the maximum; 300000 ms is used"]);
    }

    #[test]
    fn names_what_is_wrong() {
        for (arguments, says) in [
            (json!({}), "`deno_code` is missing"),
            (json!({"deno_code": " \n"}), "`deno_code` is empty"),
            (json!({"deno_code": 7}), "`deno_code` must be a string, not a number"),
            (json!({"deno_code": "x".repeat(MAX_CODE_BYTES + 1)}), "more than the limit"),
            (json!({"deno_code": "1", "timeout": 0}), "more than zero milliseconds, not 0"),
            (json!({"deno_code": "1", "timeout": -1}), "not -1"),
            (
                json!({"deno_code": "1", "timeout": "5"}),
                "`timeout` must be a number of milliseconds, not a string",
            ),
            (json!({"deno_code": "1", "globals": []}), "`globals` must be an object"),
            (json!({"deno_code": "1", "dependencies": [1]}), "`dependencies` must be an array of strings"),
            (json!({"deno_code": "1", "code": "2"}), "`code` is not a parameter"),
        ] {
            let error = read(arguments.clone()).expect_err("is wrong");
            assert!(error.contains(says), "{arguments} says {error}");
        }
        for name in [
            "__proto__",
            "let",
            "a-b",
            "1a",
            "",
            "a.b",
            "await",
            "Deno",
            "WORKSPACE_DIR",
            "constructor",
            "e\u{0}",
        ] {
            let mut globals = Map::new();
            globals.insert(name.to_owned(), json!(1));
            let error = read(json!({"deno_code": "1", "globals": globals})).expect_err(name);
            assert!(error.contains(&format!("cannot define `{name}`")), "{error}");
        }
        for name in ["a", "_", "$x", "größe", "data2"] {
            read(json!({"deno_code": "1", "globals": {name: 1}})).expect(name);
        }
    }
}
