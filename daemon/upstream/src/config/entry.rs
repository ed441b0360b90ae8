//! One entry of `mcpServers`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use crate::config::expand::{Expanded, Expansion};
use crate::config::parse::{Members, Source, unknown_key};
use crate::config::{
    Disabled, Endpoint, Expose, Life, Remote, Scope, Server, ServerConfig, ServerDefaults, Start, Stdio,
    ToolFilter,
};
use crate::secret::{Redactor, Secret, is_secret_variable};

/// Every key that means something here.
const KEYS: [&str; 21] = [
    "command",
    "args",
    "env",
    "cwd",
    "url",
    "headers",
    "type",
    "disabled",
    "enabled",
    "description",
    "scope",
    "idle_timeout",
    "max_lifetime",
    "start",
    "timeout",
    "allow_tools",
    "deny_tools",
    "expose",
    "expose_prefix",
    "transport",
    "http_url",
];

/// Keys of IDEs that say how the IDE itself is to treat the server.
const KEYS_OF_IDES: [&str; 8] =
    ["auto_approve", "always_allow", "trust", "gallery", "version", "dev", "name", "tools"];

/// Longest name of a server, in bytes: it becomes part of names that clients limit.
const MAX_NAME_BYTES: usize = 64;

/// What is read of an entry before it is judged as a whole.
#[derive(Default)]
struct Draft {
    command: Option<String>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    url: Option<String>,
    headers: BTreeMap<String, String>,
    kind: Option<String>,
    off: bool,
    description: Option<String>,
    scope: Option<Scope>,
    start: Option<Start>,
    idle_timeout: Option<Span>,
    max_lifetime: Option<Span>,
    timeout: Option<Span>,
    tools: ToolFilter,
    expose: BTreeSet<Expose>,
    expose_prefix: Option<String>,
}

/// A time as people write it: a number of milliseconds, `"90s"`, or `"never"`.
#[derive(Clone, Copy)]
struct Span(Option<Duration>);

/// An environment variable's value: IDEs take numbers and booleans for strings too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
}

pub(crate) fn read<'a>(
    source: Source<'a>,
    name: &str,
    raw: &'a RawValue,
    (expansion, defaults): (&Expansion<'_>, &ServerDefaults),
    warnings: &mut Vec<String>,
) -> Server {
    let (draft, config) = match draft(source, name, raw, warnings) {
        Err(why) => (Draft::default(), Err(Disabled::Invalid(why))),
        Ok(draft) if draft.off => (draft, Err(Disabled::Off)),
        Ok(draft) => {
            let config = finish(&draft, expansion, defaults).map(Arc::new).map_err(Disabled::Invalid);
            (draft, config)
        }
    };
    Server { description: draft.description, config }
}

fn draft<'a>(
    source: Source<'a>,
    name: &str,
    raw: &'a RawValue,
    warnings: &mut Vec<String>,
) -> Result<Draft, String> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err("a server's name has 1 to 64 bytes and no control characters".to_owned());
    }
    let members: Members<'_, &RawValue> = source.value(raw)?;
    let mut draft = Draft::default();
    for (key, raw) in members.0 {
        let known = draft.take(source, &snake_case(&key), raw).map_err(|why| format!("`{key}`: {why}"))?;
        if !known {
            warnings.push(format!("server {name}: {}", unknown_key(source.position(raw), &key, &KEYS)));
        }
    }
    Ok(draft)
}

impl Draft {
    /// Takes one member; `false` if nothing here knows its key.
    fn take<'a>(&mut self, source: Source<'a>, key: &str, raw: &'a RawValue) -> Result<bool, String> {
        match key {
            "command" => self.command = Some(source.value(raw)?),
            "args" => self.args = source.value(raw)?,
            "env" => self.env = scalars(source.value(raw)?),
            "cwd" => self.cwd = source.value(raw)?,
            "url" | "http_url" => self.url = Some(source.value(raw)?),
            "headers" => self.headers = scalars(source.value(raw)?),
            "type" | "transport" => self.kind = Some(source.value(raw)?),
            "disabled" => self.off |= source.value::<bool>(raw)?,
            "enabled" => {
                let on: bool = source.value(raw)?;
                self.off |= !on;
            }
            "description" => self.description = Some(source.value(raw)?),
            "scope" => self.scope = Some(source.value(raw)?),
            "start" => self.start = Some(source.value(raw)?),
            "idle_timeout" => self.idle_timeout = Some(source.value(raw)?),
            "max_lifetime" => self.max_lifetime = Some(source.value(raw)?),
            "timeout" => self.timeout = Some(source.value(raw)?),
            "allow_tools" => self.tools.allow = Some(globs(&source.value::<Vec<String>>(raw)?)?),
            "deny_tools" => self.tools.deny = Some(globs(&source.value::<Vec<String>>(raw)?)?),
            "expose" => self.expose = source.value(raw)?,
            "expose_prefix" => self.expose_prefix = Some(source.value(raw)?),
            key => return Ok(KEYS_OF_IDES.contains(&key)),
        }
        Ok(true)
    }
}

fn finish(
    draft: &Draft,
    expansion: &Expansion<'_>,
    defaults: &ServerDefaults,
) -> Result<ServerConfig, String> {
    let mut values = Values { expansion, secrets: Vec::new() };
    let endpoint = endpoint(draft, &mut values)?;
    let timeout = match draft.timeout {
        Some(Span(Some(timeout))) if !timeout.is_zero() => timeout,
        Some(Span(Some(_))) => return Err("`timeout`: it must be more than zero".to_owned()),
        Some(Span(None)) => Duration::from_secs(24 * 60 * 60),
        None => defaults.timeout,
    };
    let life = Life {
        start: draft.start.unwrap_or(defaults.start),
        idle_timeout: draft.idle_timeout.map_or(defaults.idle_timeout, |span| span.0),
        max_lifetime: draft
            .max_lifetime
            .map_or(defaults.max_lifetime, |span| span.0.filter(|span| !span.is_zero())),
    };
    Ok(ServerConfig {
        endpoint,
        life,
        scope: draft.scope.unwrap_or(defaults.scope),
        timeout,
        tools: draft.tools.clone(),
        expose: draft.expose.clone(),
        expose_prefix: draft.expose_prefix.clone(),
        tenant: None,
        redactor: Redactor::new(&values.secrets),
    })
}

fn endpoint(draft: &Draft, values: &mut Values<'_, '_>) -> Result<Endpoint, String> {
    let kind = draft.kind.as_deref().map(snake_case);
    match (kind.as_deref(), &draft.command, &draft.url) {
        (_, Some(_), Some(_)) => Err("it has both `command` and `url`".to_owned()),
        (None | Some("stdio"), Some(command), None) => Ok(Endpoint::Stdio(stdio(draft, command, values)?)),
        (None | Some("http" | "streamable_http" | "streamable-http"), None, Some(url)) => {
            Ok(Endpoint::Http { remote: remote(draft, url, values)?, named: kind.is_some() })
        }
        (Some("sse"), None, Some(url)) => Ok(Endpoint::Sse(remote(draft, url, values)?)),
        (Some("stdio"), None, _) => Err("a server of type stdio needs `command`".to_owned()),
        (Some("http" | "streamable_http" | "streamable-http" | "sse"), _, None) => {
            Err("a server of this type needs `url`".to_owned())
        }
        (None, None, None) => Err("it has neither `command` nor `url`".to_owned()),
        (Some(_), ..) => Err(format!(
            "`type`: {:?} is none of stdio, http, streamable-http and sse",
            draft.kind.as_deref().unwrap_or_default()
        )),
    }
}

fn stdio(draft: &Draft, command: &str, values: &mut Values<'_, '_>) -> Result<Stdio, String> {
    let expanded = values.expand("command", command)?;
    if expanded.is_empty() {
        return Err("`command`: it is empty".to_owned());
    }
    let mut args = Vec::with_capacity(draft.args.len());
    for arg in &draft.args {
        args.push(Secret::new(values.expand("args", arg)?));
    }
    let mut env = BTreeMap::new();
    for (name, value) in &draft.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("`env`: {name:?} cannot name a variable"));
        }
        let value = values.expand(&format!("env.{name}"), value)?;
        if is_secret_variable(name, &value) {
            values.secrets.push(Secret::new(value.as_str()));
        }
        env.insert(name.clone(), Secret::new(value));
    }
    let cwd = draft.cwd.as_ref().map(|cwd| values.expand("cwd", cwd)).transpose()?;
    let cwd =
        cwd.map(|cwd| values.expansion.workspace.unwrap_or(values.expansion.home).join(PathBuf::from(cwd)));
    let all =
        args.iter().map(Secret::expose).chain([expanded.as_str()]).chain(env.values().map(Secret::expose));
    if all.into_iter().any(|text| text.contains('\0')) {
        return Err("a value has a NUL character in it".to_owned());
    }
    let shown = [&[command.to_owned()], draft.args.as_slice()].concat().join(" ");
    Ok(Stdio { shown: values.redactor().redact(&shown), command: Secret::new(expanded), args, env, cwd })
}

fn remote(draft: &Draft, url: &str, values: &mut Values<'_, '_>) -> Result<Remote, String> {
    let expanded = values.expand("url", url)?;
    let parsed = Url::parse(&expanded).map_err(|error| format!("`url`: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err("`url`: it must begin with http:// or https://".to_owned());
    }
    if let Some(password) = parsed.password() {
        values.secrets.push(Secret::new(password));
    }
    values.secrets.extend(
        parsed
            .query_pairs()
            .filter(|(name, value)| is_secret_variable(name, value))
            .map(|(_, value)| Secret::new(value)),
    );
    let mut headers = BTreeMap::new();
    for (name, value) in &draft.headers {
        let value = values.expand(&format!("headers.{name}"), value)?;
        http::HeaderName::try_from(name.as_str())
            .map_err(|_| format!("`headers`: {name:?} cannot name a header"))?;
        http::HeaderValue::try_from(value.as_str())
            .map_err(|_| format!("`headers`: the value of {name} cannot be sent in a header"))?;
        values.secrets.push(Secret::new(value.as_str()));
        headers.insert(name.to_ascii_lowercase(), Secret::new(value));
    }
    let mut shown = parsed.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    shown.set_username("").ok();
    shown.set_password(None).ok();
    Ok(Remote { shown: values.redactor().redact(shown.as_str()), url: Secret::new(expanded), headers })
}

/// Expands values and remembers what in them is secret.
struct Values<'a, 'b> {
    expansion: &'a Expansion<'b>,
    secrets: Vec<Secret>,
}

impl Values<'_, '_> {
    fn expand(&mut self, key: &str, text: &str) -> Result<String, String> {
        let Expanded { text, secrets } =
            self.expansion.expand(text).map_err(|error| format!("`{key}`: {error}"))?;
        self.secrets.extend(secrets);
        Ok(text)
    }

    fn redactor(&self) -> Redactor {
        Redactor::new(&self.secrets)
    }
}

fn scalars(values: BTreeMap<String, Scalar>) -> BTreeMap<String, String> {
    let text = |scalar| match scalar {
        Scalar::Text(text) => text,
        Scalar::Number(number) => number.to_string(),
        Scalar::Bool(truth) => truth.to_string(),
    };
    values.into_iter().map(|(name, scalar)| (name, text(scalar))).collect()
}

fn globs(patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        // Names of tools may hold slashes, which mean nothing.
        let glob = GlobBuilder::new(pattern).literal_separator(false).build();
        set.add(glob.map_err(|error| format!("{pattern:?} is no pattern: {}", error.kind()))?);
    }
    set.build().map_err(|error| error.to_string())
}

/// `idleTimeout` and `idle-timeout` are `idle_timeout`.
fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 2);
    for c in key.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of milliseconds, a time such as \"90s\", or \"never\"")]
        enum Written {
            Milliseconds(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Milliseconds(n) => Ok(Self(Some(Duration::from_millis(n)))),
            Written::Text(text) if matches!(text.as_str(), "never" | "off" | "none") => Ok(Self(None)),
            Written::Text(text) => {
                humantime::parse_duration(&text).map(|span| Self(Some(span))).map_err(|error| {
                    serde::de::Error::custom(format!(
                        "{text:?} is no time such as \"90s\" or \"never\": {error}"
                    ))
                })
            }
        }
    }
}
