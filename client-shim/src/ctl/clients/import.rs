//! From a client's entry for a server to conductor's own, which is what most clients write, with `command` or `url`.
//!
//! Pure. What conductor would treat otherwise than the client does is not translated by guess: the server then stays with
//! the client, with the reason.

use serde_json::{Map, Value, json};

use super::client::Client;

/// A server that conductor can take over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Imported {
    pub(super) entry: Value,
    /// Variables of the client's environment that the entry refers to.
    pub(super) variables: Vec<String>,
}

/// Conductor's entry for a server of `client`, or why it has none.
pub(super) fn imported(client: Client, entry: &Value) -> Result<Imported, String> {
    let mut members = entry.as_object().cloned().ok_or("it is no group of members")?;
    let mut written = Vec::new();
    references(entry, &mut written);
    if let Some(reference) = written.first().filter(|_| expands_nothing(client)) {
        return Err(format!("conductor would expand `${{{reference}}}`, which {} does not", client.title()));
    }
    if members.contains_key("envFile") {
        return Err("conductor reads no `envFile`".into());
    }
    match client {
        Client::Codex => codex(&mut members),
        Client::Gemini => gemini(&mut members),
        Client::Zed => zed(&mut members)?,
        Client::Windsurf => {
            rename(&mut members, "serverUrl", "url");
            rename(&mut members, "disabledTools", "deny_tools");
        }
        Client::ClaudeCode | Client::ClaudeDesktop | Client::Cursor | Client::VsCode => {}
    }
    if members.contains_key("command") == members.contains_key("url") {
        return Err("it has neither a `command` nor a `url` of its own".into());
    }
    let entry = Value::Object(members);
    let mut found = Vec::new();
    references(&entry, &mut found);
    let means_the_same = |name: &&&str| match variable(name) {
        Some(_) => name.starts_with("env:") || !names_its_own(client),
        None => is_known(name),
    };
    if let Some(unknown) = found.iter().find(|name| !means_the_same(name)) {
        return Err(format!("conductor does not know `${{{unknown}}}`"));
    }
    let variables = found.into_iter().filter_map(variable).map(str::to_owned).collect();
    Ok(Imported { entry, variables })
}

fn rename(members: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = members.shift_remove(from) {
        members.insert(to.to_owned(), value);
    }
}

/// Gemini expands `$NAME` as `${NAME}`, to nothing if it is unset, and `url` is the older transport there.
fn gemini(members: &mut Map<String, Value>) {
    if members.contains_key("httpUrl") {
        members.shift_remove("url");
        rename(members, "httpUrl", "url");
        members.entry("type").or_insert_with(|| "http".into());
    } else if members.contains_key("url") {
        members.entry("type").or_insert_with(|| "sse".into());
    }
    rename(members, "includeTools", "allow_tools");
    rename(members, "excludeTools", "deny_tools");
    for value in
        members.get_mut("env").and_then(Value::as_object_mut).into_iter().flatten().map(|(_, value)| value)
    {
        if let Value::String(text) = value {
            *text = with_braces(text);
        }
    }
}

/// `$NAME` and `${NAME}` as `${NAME:-}`.
fn with_braces(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        match braced {
            Some((name, behind)) if is_variable(name) => {
                out.push_str(&format!("${{{name}:-}}"));
                rest = behind;
            }
            None if is_variable(&after[..end]) => {
                out.push_str(&format!("${{{}:-}}", &after[..end]));
                rest = &after[end..];
            }
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out + rest
}

/// Zed has had `command: { path, args, env }`, names servers of its extensions here too, and counts time in seconds.
fn zed(members: &mut Map<String, Value>) -> Result<(), String> {
    if let Some(Value::Object(command)) = members.get("command").cloned() {
        members.shift_remove("command");
        members.extend(command);
        rename(members, "path", "command");
    }
    if members.get("source").is_some_and(|source| source != "custom") || members.contains_key("settings") {
        return Err("an extension of Zed provides it".into());
    }
    members.shift_remove("source");
    seconds(members, "timeout");
    Ok(())
}

/// Codex names variables instead of expanding them, and has its own words for most members.
fn codex(members: &mut Map<String, Value>) {
    let names = |value: Option<Value>| value.and_then(|value| value.as_array().cloned()).unwrap_or_default();
    let passed = names(members.shift_remove("env_vars"));
    if !passed.is_empty() {
        let env = members.entry("env").or_insert_with(|| json!({}));
        for name in passed.iter().filter_map(|item| item.as_str().or_else(|| item["name"].as_str())) {
            if env.get(name).is_none() {
                env[name] = format!("${{{name}:-}}").into();
            }
        }
    }
    rename(members, "http_headers", "headers");
    let from_env = members.shift_remove("env_http_headers");
    let token = members.shift_remove("bearer_token_env_var");
    let token = token
        .as_ref()
        .and_then(Value::as_str)
        .map(|name| ("Authorization", format!("Bearer ${{env:{name}}}")));
    let named = from_env.as_ref().and_then(Value::as_object).into_iter().flatten();
    let named =
        named.filter_map(|(header, name)| Some((header.as_str(), format!("${{env:{}}}", name.as_str()?))));
    for (header, value) in named.chain(token) {
        members.entry("headers").or_insert_with(|| json!({}))[header] = value.into();
    }
    rename(members, "enabled_tools", "allow_tools");
    rename(members, "disabled_tools", "deny_tools");
    rename(members, "tool_timeout_sec", "timeout");
    seconds(members, "timeout");
    for of_codex in ["startup_timeout_sec", "startup_timeout_ms", "required"] {
        members.shift_remove(of_codex);
    }
}

/// A number of seconds as conductor writes it.
fn seconds(members: &mut Map<String, Value>, key: &str) {
    if let Some(number) = members.get(key).and_then(Value::as_f64) {
        // Fractions of a millisecond mean nothing to anybody.
        members.insert(key.to_owned(), format!("{:.0}ms", number * 1000.0).into());
    }
}

/// All `${…}` in the texts of `value`, without their braces.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => members.values().for_each(|value| references(value, found)),
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        Value::String(text) => {
            let named = |reference: &'a str| reference.split_once('}').map_or(reference, |(name, _)| name);
            found.extend(text.split("${").skip(1).map(named));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// True for clients that pass `${…}` on as it stands.
fn expands_nothing(client: Client) -> bool {
    matches!(client, Client::ClaudeDesktop | Client::Zed | Client::Codex)
}

/// True for editors, where a name without `env:` is one of their own, such as `${workspaceFolderBasename}`.
fn names_its_own(client: Client) -> bool {
    matches!(client, Client::Cursor | Client::VsCode | Client::Windsurf)
}

/// The variable that `${reference}` stands for.
fn variable(reference: &str) -> Option<&str> {
    let name = match reference.strip_prefix("env:") {
        Some(name) => name,
        None => reference.split_once(":-").map_or(reference, |(name, _)| name),
    };
    (is_variable(name) && !is_known(reference)).then_some(name)
}

/// True for a reference that conductor knows and that names no variable.
fn is_known(reference: &str) -> bool {
    matches!(reference, "HOME" | "userHome" | "workspaceFolder" | "workspaceRoot" | "pathSeparator" | "/")
        || reference.starts_with("file:")
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests;
