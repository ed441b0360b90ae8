//! What the headers of a request say of its body (SEP-2243), and which revision of the protocol it is of. Pure.
//!
//! Machines between client and server route by these headers and never look into the body, so a header that says something
//! else is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use rmcp::model::{ProtocolVersion, RequestId};
use serde_json::Value;

use super::answer::{HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Refusal};

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const PARAM_PREFIX: &str = "mcp-param-";

/// The member of `_meta` that names the revision.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The member of `_meta` that says what the client can do.
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// Which protocol a request is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// Up to 2025-11-25: `initialize`, and a session.
    Sessions,
    /// From 2026-07-28 on: each request tells everything.
    Requests,
}

/// Whether a client is told at once from where it can go on: an event with an id and without data, which clients of revisions
/// before 2025-11-25 do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resumption {
    Told,
    Untold,
}

impl Resumption {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let version = headers.get(VERSION).map(|version| version.as_bytes());
        if version == Some(ProtocolVersion::V_2025_11_25.as_str().as_bytes()) {
            Self::Told
        } else {
            Self::Untold
        }
    }

    pub(super) fn is_told(self) -> bool {
        self == Self::Told
    }
}

/// A message in so far as its headers are about it.
pub(super) struct Message<'a> {
    /// Absent in answers.
    pub(super) id: Option<RequestId>,
    pub(super) method: &'a str,
    pub(super) params: Option<&'a Value>,
}

impl<'a> Message<'a> {
    pub(super) fn of(message: &'a Value) -> Option<Self> {
        let method = message.get("method")?.as_str()?;
        let id = message.get("id").and_then(|id| serde_json::from_value(id.clone()).ok());
        Some(Self { id, method, params: message.get("params") })
    }

    /// The revision that the message itself names.
    fn version(&self) -> Option<&'a str> {
        self.params?.get("_meta")?.get(META_VERSION)?.as_str()
    }

    /// Whether a request says what its client can do, as each of the newer era must. Notifications need not.
    fn has_capabilities(&self) -> bool {
        let declared = || self.params?.get("_meta")?.get(META_CAPABILITIES);
        self.id.is_none() || declared().is_some_and(Value::is_object)
    }

    fn refused(&self, code: i32, text: impl Into<String>) -> Refusal {
        Refusal::message(code, self.id.clone(), text)
    }
}

/// Which era a message belongs to, when headers and body agree on it.
///
/// # Errors
/// They do not agree, or name a revision that is none.
pub(super) fn era(headers: &HeaderMap, message: Option<&Message<'_>>) -> Result<Era, Refusal> {
    let refused = |code, text: String| match message {
        Some(message) => message.refused(code, text),
        None => Refusal::message(code, None, text),
    };
    let header = only(headers, &VERSION).map_err(|why| refused(HEADER_MISMATCH, why))?;
    let named = message.and_then(Message::version);
    let is_newer = |version: &str| version >= ProtocolVersion::V_2026_07_28.as_str();
    if let Some(message) = message.filter(|message| message.method == "initialize") {
        if named.is_some_and(is_newer) {
            let text = "the revision that _meta names has no `initialize`";
            return Err(message.refused(METHOD_NOT_FOUND, text));
        }
        let asked = message.params.and_then(|params| params["protocolVersion"].as_str());
        return match (header, asked) {
            (Some(header), Some(asked)) if header != asked => {
                let text = format!("the header MCP-Protocol-Version says {header}, and `initialize` {asked}");
                Err(message.refused(INVALID_REQUEST, text))
            }
            _ => Ok(Era::Sessions),
        };
    }
    match (header, named) {
        (None, Some(_)) => {
            let text = "the header MCP-Protocol-Version is missing, and _meta names a revision";
            Err(refused(HEADER_MISMATCH, text.into()))
        }
        (Some(header), Some(named)) if header != named => {
            let text = format!("the header MCP-Protocol-Version says {header}, and _meta {named}");
            Err(refused(HEADER_MISMATCH, text))
        }
        // What it names is judged with the request, whose error lists the revisions that there are.
        (Some(_), Some(named)) => match message {
            Some(message)
                if named == ProtocolVersion::V_2026_07_28.as_str() && !message.has_capabilities() =>
            {
                let text = format!("the request's _meta has no {META_CAPABILITIES}");
                Err(message.refused(INVALID_PARAMS, text))
            }
            _ => Ok(Era::Requests),
        },
        (header, None) => {
            let is_known = header.is_none_or(|header| {
                ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == header)
            });
            if !is_known {
                let text = format!("there is no revision {} of the protocol", header.unwrap_or_default());
                return Err(refused(INVALID_REQUEST, text));
            }
            let is_newer = header.is_some_and(is_newer);
            match message {
                Some(message)
                    if message.id.is_some() && (is_newer || message.method == "server/discover") =>
                {
                    let text = format!("the request's _meta does not name {META_VERSION}");
                    Err(message.refused(INVALID_PARAMS, text))
                }
                _ if is_newer => Ok(Era::Requests),
                _ => Ok(Era::Sessions),
            }
        }
    }
}

/// Holds the headers of a request of the newer era against its body. `schema` gives the input schema of a tool.
///
/// # Errors
/// One is missing, or says something else.
pub(super) fn check(
    headers: &HeaderMap,
    message: &Message<'_>,
    schema: impl FnOnce(&str) -> Option<Value>,
) -> Result<(), Refusal> {
    let refused = |text: String| message.refused(HEADER_MISMATCH, text);
    let value = |name: &HeaderName| only(headers, name).map_err(refused);
    match value(&METHOD)? {
        None => return Err(refused("the header Mcp-Method is missing".into())),
        Some(method) if method != message.method => {
            return Err(refused(format!(
                "the header Mcp-Method says {method}, and the body {}",
                message.method
            )));
        }
        Some(_) => {}
    }
    if let Some(name) = name_of(message) {
        let header = value(&NAME)?;
        let header = header
            .ok_or_else(|| refused(format!("the header Mcp-Name is missing for {}", message.method)))?;
        if decoded(header).as_deref() != Some(name) {
            return Err(refused(format!("the header Mcp-Name says {header}, and the body {name}")));
        }
    }
    if message.method != "tools/call" {
        return Ok(());
    }
    let Some(schema) = name_of(message).and_then(schema) else { return Ok(()) };
    let arguments = message.params.and_then(|params| params.get("arguments"));
    for (path, name) in announced(&schema) {
        let header = HeaderName::try_from(format!("{PARAM_PREFIX}{name}"))
            .map_err(|_| refused(format!("the tool's schema names a header {name}, which cannot be one")))?;
        let argument = path.iter().try_fold(arguments, |at, key| Some(at?.get(key))).flatten();
        check_argument(value(&header)?, argument.and_then(as_text).as_deref(), &name, &path.join("."))
            .map_err(refused)?;
    }
    Ok(())
}

fn check_argument(
    header: Option<&str>,
    argument: Option<&str>,
    name: &str,
    path: &str,
) -> Result<(), String> {
    match (header, argument) {
        (None, None) => Ok(()),
        (Some(header), Some(argument)) if decoded(header).as_deref() == Some(argument) => Ok(()),
        (Some(_), Some(_)) => {
            Err(format!("the header Mcp-Param-{name} says something else than the argument {path}"))
        }
        (None, Some(_)) => Err(format!("the header Mcp-Param-{name} is missing for the argument {path}")),
        (Some(_), None) => Err(format!("there is a header Mcp-Param-{name}, and no argument {path}")),
    }
}

/// What `Mcp-Name` stands for in a method that has it.
fn name_of<'a>(message: &Message<'a>) -> Option<&'a str> {
    let key = match message.method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    message.params?.get(key)?.as_str()
}

/// Arguments of a tool that come in headers too: the way to each, and the header's name.
fn announced(schema: &Value) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), schema)];
    while let Some((path, schema)) = open.pop() {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { continue };
        for (key, property) in properties {
            let path: Vec<String> = path.iter().chain([key]).cloned().collect();
            if let Some(name) = property.get("x-mcp-header").and_then(Value::as_str) {
                found.push((path.clone(), name.to_owned()));
            }
            open.push((path, property));
        }
    }
    found
}

/// How a header spells an argument.
fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What cannot be in a header is there in base64.
fn decoded(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(inner) => String::from_utf8(STANDARD.decode(inner).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

/// The one value of a header; two could be read differently by different machines.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("the header {name} comes twice"));
    }
    value.to_str().map(Some).map_err(|_| format!("the header {name} is no text"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(HeaderName::try_from(*name).expect("a name"), value.parse().expect("a value"));
        }
        headers
    }

    fn request(method: &str, params: Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
    }

    fn era_of(list: &[(&str, &str)], message: &Value) -> Result<Era, i32> {
        let message = Message::of(message).expect("has a method");
        era(&headers(list), Some(&message)).map_err(|refusal| match refusal {
            Refusal::Message { code, id, .. } => {
                assert_eq!(id, message.id, "the error answers the request");
                code
            }
            other => panic!("{other}"),
        })
    }

    #[test]
    fn the_era_is_what_header_and_body_agree_on() {
        let list = request("tools/list", json!({}));
        let meta = |version| json!({ "_meta": { META_VERSION: version, META_CAPABILITIES: {} } });
        let named = |version| request("tools/list", meta(version));
        let incapable = request("tools/list", json!({ "_meta": { META_VERSION: "2026-07-28" } }));
        let initialize = request("initialize", json!({ "protocolVersion": "2025-06-18" }));
        let version = |version| [("mcp-protocol-version", version)];
        assert_eq!(era_of(&[], &list), Ok(Era::Sessions), "revisions before the header");
        assert_eq!(era_of(&version("2025-11-25"), &list), Ok(Era::Sessions));
        assert_eq!(era_of(&version("2026-07-28"), &named("2026-07-28")), Ok(Era::Requests));
        assert_eq!(era_of(&version("2099-01-01"), &named("2099-01-01")), Ok(Era::Requests), "judged later");
        assert_eq!(era_of(&version("2026-07-28"), &incapable), Err(INVALID_PARAMS));
        let newer = request("initialize", meta("2026-07-28"));
        assert_eq!(era_of(&version("2026-07-28"), &newer), Err(METHOD_NOT_FOUND));
        assert_eq!(era_of(&version("2026-07-28"), &list), Err(INVALID_PARAMS));
        assert_eq!(era_of(&[], &request("server/discover", json!({}))), Err(INVALID_PARAMS));
        assert_eq!(era_of(&version("2099-01-01"), &list), Err(INVALID_REQUEST));
        assert_eq!(era_of(&[], &named("2026-07-28")), Err(HEADER_MISMATCH));
        assert_eq!(era_of(&version("2025-11-25"), &named("2026-07-28")), Err(HEADER_MISMATCH));
        assert_eq!(era_of(&[], &initialize), Ok(Era::Sessions));
        assert_eq!(era_of(&version("2025-11-25"), &initialize), Err(INVALID_REQUEST));
        let twice = [("mcp-protocol-version", "2025-11-25"), ("mcp-protocol-version", "2026-07-28")];
        assert_eq!(era_of(&twice, &list), Err(HEADER_MISMATCH));
    }

    fn checked(list: &[(&str, &str)], message: &Value) -> Result<(), Refusal> {
        let schema = json!({ "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "deep": { "type": "object", "properties": { "n": { "type": "integer", "x-mcp-header": "N" } } },
        } });
        check(&headers(list), &Message::of(message).expect("has a method"), |_| Some(schema))
    }

    #[test]
    fn headers_say_what_the_body_says() {
        let call = request("tools/call", json!({ "name": "t", "arguments": {} }));
        let good = [("mcp-method", "tools/call"), ("mcp-name", "t")];
        assert_eq!(checked(&good, &call), Ok(()));
        assert_eq!(checked(&[good[0], ("mcp-name", "=?base64?dA==?=")], &call), Ok(()));
        for bad in [
            vec![],
            vec![good[0]],
            vec![good[1]],
            vec![("mcp-method", "tools/list"), good[1]],
            vec![good[0], ("mcp-name", "u")],
            vec![good[0], ("mcp-name", "=?base64?!?=")],
            vec![good[0], good[0], good[1]],
            vec![good[0], good[1], ("mcp-param-region", "eu")],
        ] {
            assert!(checked(&bad, &call).is_err(), "{bad:?}");
        }
        let read = request("resources/read", json!({ "uri": "conductor://x" }));
        assert_eq!(
            checked(&[("mcp-method", "resources/read"), ("mcp-name", "conductor://x")], &read),
            Ok(())
        );
    }

    #[test]
    fn arguments_that_the_schema_announces_come_in_headers_too() {
        let call =
            request("tools/call", json!({ "name": "t", "arguments": { "region": "ü", "deep": { "n": 7 } } }));
        let base = [("mcp-method", "tools/call"), ("mcp-name", "t")];
        let with = |more: &[(&'static str, &'static str)]| checked(&[&base[..], more].concat(), &call);
        assert_eq!(with(&[("mcp-param-region", "=?base64?w7w=?="), ("mcp-param-n", "7")]), Ok(()));
        assert!(with(&[("mcp-param-region", "=?base64?w7w=?=")]).is_err());
        assert!(with(&[("mcp-param-region", "u"), ("mcp-param-n", "7")]).is_err());
    }
}
