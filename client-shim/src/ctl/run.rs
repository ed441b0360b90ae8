//! `conductorctl run`: one call of `run_deno_code`, made as an MCP client makes it.

mod code;
mod report;
mod result;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use conductor_protocol::ClientKind;
use serde_json::{Map, Value, json};

use super::client::{ClientError, McpSession};
use super::failure::Failure;
use super::paint::Paint;
use super::progress::Spinner;
use super::{GlobalOptions, exit_code};

pub(super) use code::CodeError;
pub(super) use result::RunResult;

/// The tool, as the daemon lists it.
pub(super) const TOOL: &str = "run_deno_code";

/// The variable by which a session names its profile.
pub(super) const PROFILE_VARIABLE: &str = "MCP_CONDUCTOR_PROFILE";

const ABOUT: &str = "\
What the program writes to its stdout and stderr goes to ours, after its end. The return value (of the last expression, \
or of a top-level `return`) follows on stdout as JSON, on one line when stdout is no terminal. So a program that prints \
nothing can be piped as it is: `conductorctl run x.ts | jq`; for one that does, --value moves its output to stderr. \
Errors, notes and the time go to stderr.

The code gets the permissions of the session's profile, which MCP_CONDUCTOR_* variables and the daemon's configuration \
decide, and its relative imports start from the workspace. Ctrl-C ends it.";

#[derive(Clone, Debug, Args)]
#[command(after_long_help = ABOUT)]
pub(super) struct RunOptions {
    /// File with the code; `-`, or nothing when stdin is no terminal: read it from stdin
    #[arg(value_name = "FILE", conflicts_with = "eval")]
    file: Option<PathBuf>,
    /// The code itself
    #[arg(short = 'e', long, value_name = "CODE", allow_hyphen_values = true)]
    eval: Option<String>,
    /// Time limit, like 500ms or 30s [default and maximum: the profile's]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Define a global variable, like limit=10 or name='"x"'; can be repeated
    #[arg(long = "global", value_name = "NAME=JSON", value_parser = global)]
    one_global: Vec<(String, Value)>,
    /// Define global variables, like '{"limit": 10}'
    #[arg(long, value_name = "JSON", value_parser = globals)]
    globals: Option<Map<String, Value>>,
    /// A package the code imports, like npm:zod; can be repeated
    #[arg(long = "dep", value_name = "SPEC")]
    dependencies: Vec<String>,
    /// Use this profile of the daemon's configuration [env: MCP_CONDUCTOR_PROFILE]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Print the whole result as JSON instead
    #[arg(long, conflicts_with = "value")]
    json: bool,
    /// Only the return value goes to stdout; what the program writes there goes to stderr
    #[arg(long)]
    value: bool,
    /// Leave out notes and the time
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(global: &GlobalOptions, options: &RunOptions) -> Result<u8, Failure> {
    let arguments = arguments(options)?;
    let mut route = global.route(ClientKind::Ctl);
    if let Some(profile) = &options.profile {
        route.caller.env.insert(PROFILE_VARIABLE.into(), profile.clone());
    }
    let spinner = Spinner::new("connecting");
    let mut session = McpSession::open(&route)?;
    spinner.tell("running");
    let answer = session.call_tool(TOOL, arguments, &mut |text| spinner.tell(text));
    let document = structured(answer?)?;
    let mut result = RunResult::read(&document)?;
    if !options.json {
        result.complete(&mut |uri| session.read_resource(uri));
    }
    drop(spinner);
    let shown = match options.json {
        true => report::write_json(&document, &mut io::stdout()),
        false => view(options).show(&result, &mut io::stdout().lock(), &mut io::stderr().lock()),
    };
    match shown {
        Ok(()) if result.is_success() && (options.json || result.is_whole()) => Ok(exit_code::OK),
        Ok(()) => Ok(exit_code::FAILED),
        // What the code came to still counts when nobody reads its output.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !result.is_success() => {
            Ok(exit_code::FAILED)
        }
        Err(error) => Err(error.into()),
    }
}

/// The structured content of a tool's result.
pub(super) fn structured(mut answer: Value) -> Result<Value, ClientError> {
    match answer.get_mut("structuredContent") {
        Some(document) => Ok(document.take()),
        None => Err(ClientError::Protocol { expected: "a structured result" }),
    }
}

fn arguments(options: &RunOptions) -> Result<Value, CodeError> {
    let code = match (&options.eval, &options.file) {
        (Some(code), _) => code.clone(),
        (None, Some(path)) if path.as_os_str() != "-" => code::from_file(path)?,
        (None, None) if io::stdin().is_terminal() => return Err(CodeError::NotNamed),
        (None, _) => code::from_stdin()?,
    };
    let mut globals = options.globals.clone().unwrap_or_default();
    globals.extend(options.one_global.iter().cloned());
    let mut arguments = json!({ "deno_code": code });
    if let Some(timeout) = options.timeout {
        arguments["timeout"] = json!(timeout.as_secs_f64() * 1e3);
    }
    if !globals.is_empty() {
        arguments["globals"] = globals.into();
    }
    if !options.dependencies.is_empty() {
        arguments["dependencies"] = json!(options.dependencies);
    }
    Ok(arguments)
}

fn view(options: &RunOptions) -> report::View {
    let file = options.file.as_ref().filter(|path| path.as_os_str() != "-");
    report::View {
        file: file.map(|path| path.display().to_string()),
        value_only: options.value,
        quiet: options.quiet,
        width: io::stdout().is_terminal().then(|| console::Term::stdout().size().1.into()),
        stdout: Paint::stdout(),
        stderr: Paint::stderr(),
    }
}

/// A time above zero, with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("it must be more than zero".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it like 500ms, 30s or 2m")),
    }
}

fn global(text: &str) -> Result<(String, Value), String> {
    let Some((name, json)) = text.split_once('=') else { return Err("write it like NAME=JSON".into()) };
    match serde_json::from_str(json) {
        Ok(value) => Ok((name.to_owned(), value)),
        Err(error) => {
            Err(format!("the value is not JSON ({error}); a string needs quotes: {name}='\"text\"'"))
        }
    }
}

fn globals(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(globals)) => Ok(globals),
        Ok(_) => Err("write it like {\"NAME\": VALUE}".into()),
        Err(error) => Err(format!("it is not JSON ({error}); write it like {{\"NAME\": VALUE}}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_say_how_to_write_them() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0s").expect_err("zero"), "it must be more than zero");
        assert!(duration("500").expect_err("no unit").ends_with("write it like 500ms, 30s or 2m"));
        assert_eq!(global("a=[1]"), Ok(("a".into(), json!([1]))));
        assert!(global("a=b").expect_err("a bare word").ends_with("a string needs quotes: a='\"text\"'"));
        assert_eq!(global("a").expect_err("no value"), "write it like NAME=JSON");
        assert_eq!(globals("[]").expect_err("an array"), "write it like {\"NAME\": VALUE}");
    }
}
