//! A configuration file told to people: what is wrong with it, or what is in effect and why. Read without a daemon, by
//! `conductorctl config`.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use conductor_protocol::configuration::{ConfigOrigin, ConfigProblem, ConfigReport, ConfigSetting};
use serde_json::{Map, Value, json};
use toml::Spanned;
use toml::de::DeValue;

use super::document::Document;
use super::schema::schema;
use super::{Config, Problem, duration, read, read_trusted};
use crate::cli::Question;
use crate::dirs::Dirs;
use crate::profile::{self, Origin, Origins, Profile};

/// Answers on stdout.
///
/// # Errors
/// Nobody reads it.
pub(crate) fn answer(
    question: Question,
    named: Option<&Path>,
    env: &BTreeMap<String, String>,
    dirs: &Dirs,
) -> io::Result<()> {
    let answer = match question {
        Question::Schema => serde_json::to_value(schema())?,
        Question::Report => {
            let path = named.map_or_else(|| dirs.config_file(), Path::to_owned);
            let cwd = std::env::current_dir().map(|cwd| cwd.to_string_lossy().into_owned());
            serde_json::to_value(report(&path, named.is_some(), env, &cwd.unwrap_or_default(), dirs))?
        }
    };
    writeln!(io::stdout(), "{answer:#}")
}

/// What the file says, and what a session with this environment and working directory would get.
pub(crate) fn report(
    path: &Path,
    required: bool,
    env: &BTreeMap<String, String>,
    cwd: &str,
    dirs: &Dirs,
) -> ConfigReport {
    let mut report = ConfigReport { path: path.display().to_string(), ..ConfigReport::default() };
    let text = match read_trusted(path) {
        Ok(text) => Some(text),
        Err(error) if error.is_absent() && !required => None,
        Err(error) => {
            report.exists = !error.is_absent();
            report.error = Some(crate::error_chain(&error));
            return report;
        }
    };
    report.exists = text.is_some();
    match read(text.as_deref().unwrap_or_default()) {
        Ok((config, document)) => settings(&mut report, &config, &document, env, cwd, dirs),
        Err(problems) => report.problems = problems.iter().map(|problem| told(problem, path)).collect(),
    }
    report
}

fn told(problem: &Problem, path: &Path) -> ConfigProblem {
    ConfigProblem {
        line: problem.line as u64,
        column: problem.column as u64,
        key: problem.key.clone(),
        what: problem.what.clone(),
        hint: problem.hint.clone(),
        text: problem.text(path),
    }
}

fn settings(
    report: &mut ConfigReport,
    config: &Config,
    document: &Document<'_>,
    env: &BTreeMap<String, String>,
    cwd: &str,
    dirs: &Dirs,
) {
    let sections = schema()["properties"].as_object().expect("the schema is of a table");
    let computed = computed(config);
    let teller = Teller { document, computed: &computed };
    for (name, below) in sections.iter().filter(|(_, below)| below["type"] != "object") {
        report.settings.push(teller.setting("", name, below));
    }
    for (name, below) in sections {
        let Some(keys) = below.get("properties").and_then(Value::as_object) else { continue };
        report.settings.extend(keys.iter().map(|(key, schema)| teller.setting(name, key, schema)));
    }
    report.profile = env.get(profile::PROFILE).cloned().unwrap_or_else(|| "default".to_owned());
    match profile::explain(config, env, cwd, dirs) {
        Ok((profile, origins)) => {
            report.warnings.clone_from(&profile.warnings);
            let section = sections["profiles"]["additionalProperties"]["properties"].as_object();
            let keys = section.into_iter().flatten();
            report.settings.extend(keys.map(|(key, _)| of_profile(key, &profile, &origins, document)));
        }
        Err(error) => report.refusal = Some(error.to_string()),
    }
}

/// Values that the schema has no word for, because they follow from the machine or from other keys.
fn computed(config: &Config) -> BTreeMap<String, Value> {
    let pool = config.pool.settings();
    [
        ("pool.idle-per-profile", pool.idle_per_profile),
        ("pool.max-idle", pool.max_idle),
        ("pool.max-workers", pool.max_workers),
        ("pool.parallel-boots", pool.parallel_boots),
    ]
    .map(|(key, value)| (key.to_owned(), json!(value)))
    .into()
}

struct Teller<'a> {
    document: &'a Document<'a>,
    computed: &'a BTreeMap<String, Value>,
}

impl Teller<'_> {
    /// A key outside of profiles: what the file says, else the default.
    fn setting(&self, section: &str, key: &str, schema: &Value) -> ConfigSetting {
        let path: Vec<&str> = [section, key].into_iter().filter(|part| !part.is_empty()).collect();
        let secret = schema.get("x-secret") == Some(&json!(true));
        let written = self.document.value_of(&path);
        let value = match &written {
            Some((_, value)) => Some(json_of(value)),
            None => schema.get("default").or_else(|| self.computed.get(&path.join("."))).cloned(),
        };
        let words = schema.get("x-default").and_then(Value::as_str).filter(|_| value.is_none());
        ConfigSetting {
            section: section.to_owned(),
            key: key.to_owned(),
            value: value.filter(|_| !secret),
            words: words.map(str::to_owned),
            secret,
            origin: written.map_or_else(by_default, |(line, _)| by_file(line)),
        }
    }
}

/// A key of the profile: what a session gets.
fn of_profile(key: &str, profile: &Profile, origins: &Origins, document: &Document<'_>) -> ConfigSetting {
    let (value, words) = match effective(key, profile) {
        Ok(value) => (Some(value), None),
        Err(words) => (None, Some(words.to_owned())),
    };
    let section = format!("profiles.{}", profile.name);
    let origin = origins.get(key).unwrap_or(&Origin::Default);
    let origin = origin_of(origin, &profile.name, key, document);
    ConfigSetting { section, key: key.to_owned(), value, words, secret: false, origin }
}

/// The value of a profile's key, or what there is instead.
fn effective(key: &str, profile: &Profile) -> Result<Value, &'static str> {
    let span = |span| Ok(duration::text(span).into());
    match key {
        "workspace" => Ok(json!(profile.workspace)),
        "run-args" => Ok(profile::run_args::text(&profile.grants).into()),
        "default-timeout" => span(profile.default_timeout),
        "max-timeout" => span(profile.max_timeout),
        "max-compute" => span(profile.max_compute),
        "linger" => span(profile.linger),
        "heap-mib" => Ok(profile.heap_mib.into()),
        "max-memory-mib" => Ok(profile.max_memory_mib.into()),
        "worker" => Ok(profile.worker.name().into()),
        "max-output-bytes" => Ok(profile.max_output_bytes.into()),
        "max-result-bytes" => Ok(profile.max_result_bytes.into()),
        "max-inline-bytes" => Ok(profile.max_inline_bytes.into()),
        "max-calls-in-flight" => Ok(profile.max_calls_in_flight.into()),
        "max-calls-per-minute" => profile.max_calls_per_minute.map(Value::from).ok_or("no limit"),
        "max-workers" => profile.max_workers.map(Value::from).ok_or("no limit of its own"),
        "max-workers-per-session" => {
            profile.max_workers_per_session.map(Value::from).ok_or("no limit of its own")
        }
        "max-upstream-calls" => Ok(profile.max_upstream_calls.into()),
        "max-upstream-calls-in-flight" => Ok(profile.max_upstream_calls_in_flight.into()),
        "mcp-config" => {
            Ok(profile.mcp_config.as_ref().map_or_else(|| "none".into(), |file| json!(file.path)))
        }
        "packages" => {
            let allowed = &profile.packages.allowed;
            let any = allowed.allows_any().then(|| "all".to_owned());
            Ok(any.into_iter().chain(allowed.packages().map(ToString::to_string)).map(Value::from).collect())
        }
        "packages-lock" => profile.packages.lock.as_ref().map(|lock| json!(lock)).ok_or("none"),
        "preload" => profile.packages.preload.as_ref().map(|list| json!(list)).ok_or("learned from use"),
        _ => Err("not shown"),
    }
}

fn origin_of(origin: &Origin, name: &str, key: &str, document: &Document<'_>) -> ConfigOrigin {
    let line_of = |path: &[&str]| document.value_of(path).map(|(line, _)| line as u64);
    let of = |kind: &str, name: Option<&str>| ConfigOrigin {
        kind: kind.to_owned(),
        name: name.map(str::to_owned),
        ..ConfigOrigin::default()
    };
    match origin {
        Origin::Default => by_default(),
        Origin::File => ConfigOrigin { line: line_of(&["profiles", name, key]), ..of("file", None) },
        Origin::Environment(variable) => of("environment", Some(variable)),
        Origin::Policy(by) => {
            ConfigOrigin { line: line_of(&["policy", by]), ..of("policy", Some(&format!("policy.{by}"))) }
        }
        Origin::Cut { by, asked, from } => {
            let path: Vec<&str> = by.split('.').collect();
            let kind = if path[0] == "policy" { "policy" } else { "limit" };
            ConfigOrigin {
                line: line_of(&path),
                asked: Some(asked.clone()),
                asked_by: Some(Box::new(origin_of(from, name, key, document))),
                ..of(kind, Some(by))
            }
        }
    }
}

fn by_default() -> ConfigOrigin {
    ConfigOrigin { kind: "default".to_owned(), ..ConfigOrigin::default() }
}

fn by_file(line: usize) -> ConfigOrigin {
    ConfigOrigin { kind: "file".to_owned(), line: Some(line as u64), ..ConfigOrigin::default() }
}

fn json_of(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Boolean(on) => (*on).into(),
        DeValue::Array(items) => items.iter().map(json_of).collect(),
        DeValue::Table(table) => {
            let members = table.iter().map(|(key, value)| (key.get_ref().to_string(), json_of(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        // No key has a value of these kinds.
        DeValue::Float(_) | DeValue::Datetime(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(text: &str, env: &[(&str, &str)]) -> ConfigReport {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).expect("writes");
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let dirs = Dirs::from_env(&BTreeMap::new(), Some("/home/a".into())).expect("has a home");
        report(&path, true, &env, "/cwd", &dirs)
    }

    #[test]
    fn every_key_is_told_with_a_value_or_words_and_its_origin() {
        let report = told_of("", &[]);
        assert_eq!((report.error, report.refusal, report.problems), (None, None, Vec::new()));
        let known = crate::config::check::sections()
            .map(|(section, keys)| (section.replace("NAME", "default"), keys));
        for (section, keys) in known {
            for key in keys.keys() {
                let told = report.settings.iter().find(|it| it.section == section && it.key == *key);
                let told = told.unwrap_or_else(|| panic!("{section}.{key} is told"));
                assert!(told.value.is_some() != told.words.is_some(), "{told:?}");
                assert_ne!(told.words.as_deref(), Some("not shown"), "{told:?}");
                assert_eq!(told.origin.kind, "default", "{told:?}");
            }
        }
        assert_eq!(report.settings[0].key, "deno");
    }

    #[test]
    fn what_is_told_of_a_profile_can_be_written_into_the_file() {
        let env = [
            ("MCP_CONDUCTOR_RUN_ARGS", "allow-read=/a,/b,allow-net"),
            ("MCP_CONDUCTOR_ALLOWED_PACKAGES", "npm:zod@^4"),
        ];
        let report = told_of("", &env);
        let mut text = "[profiles.default]\n".to_owned();
        for setting in report.settings.iter().filter(|it| it.section == "profiles.default") {
            if let Some(value) = &setting.value {
                text.push_str(&format!("{} = {value}\n", setting.key));
            }
        }
        let again = told_of(&text, &[]);
        assert_eq!(again.problems, Vec::new(), "{text}");
        let values = |report: &ConfigReport| {
            report.settings.iter().map(|it| (it.key.clone(), it.value.clone())).collect::<Vec<_>>()
        };
        assert_eq!(values(&again), values(&report));
    }

    #[test]
    fn a_refused_session_and_a_wrong_file_are_told() {
        let refused = told_of("[policy]\nsession-grants = []\n", &[("MCP_CONDUCTOR_RUN_ARGS", "allow-net")]);
        assert!(refused.refusal.expect("is refused").contains("allow-net"));
        let wrong = told_of("[pool]\nmax-idel = 1\n", &[]);
        assert!(wrong.settings.is_empty() && wrong.problems[0].hint.is_some(), "{:?}", wrong.problems);
    }
}
