//! The client that the conformance suite drives: conductor's own upstream connections, used as a session and its user would.
//!
//! In: the URL of the suite's server, and the scenario's name and data from the environment. It lists the tools and calls
//! each, answers what the server asks, and logs in wherever a login is wanted, in a browser that agrees to everything. It
//! knows of scenarios only which arguments their tools take.

use std::env;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use conductor_upstream::config::{Expansion, ServerSet};
use conductor_upstream::keyring::NoKeyring;
use conductor_upstream::secret::Secret;
use conductor_upstream::{
    Ask, CallContext, CallError, ClientRequests, LoginRequest, Manifest, ProfileId, ServerAsks, ServerRef,
    SessionId, Upstreams, UpstreamsOptions,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// How often a user logs in because of one request before he gives up.
const MAX_LOGINS: usize = 3;

/// Much longer than a login takes: a loaded machine is slow, a hang is for ever.
const LOGIN_TIME: Duration = Duration::from_secs(60);

/// A document that describes the client, which the suite knows; nobody fetches it.
const CLIENT_METADATA: &str = "https://conformance-test.local/client-metadata.json";

struct Client {
    upstreams: Upstreams,
    server: ServerRef,
    context: CallContext,
    scenario: String,
    /// What the scenario tells besides.
    data: Value,
}

/// Does all there is to do at the suite's server.
///
/// # Errors
/// What went wrong first.
pub async fn run(url: &str) -> Result<(), String> {
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut options = UpstreamsOptions::new(home.path().join("state"), home.path());
    options.client_requests = Some(Arc::new(Agreeable));
    let upstreams = Upstreams::new(options);
    let profile = ProfileId::new("suite");
    let servers = json!({ "mcpServers": { "suite": { "url": url, "scope": "session" } } }).to_string();
    let nothing = |_: &str| None;
    let expansion = Expansion { env: &nothing, home: home.path(), workspace: None, keyring: &NoKeyring };
    let set = ServerSet::parse(&servers, &expansion).map_err(|error| error.to_string())?;
    upstreams.set(&profile, set).await;
    let data = env::var("MCP_CONFORMANCE_CONTEXT").ok().and_then(|text| serde_json::from_str(&text).ok());
    let client = Client {
        upstreams: upstreams.clone(),
        server: ServerRef::new(profile, "suite"),
        context: CallContext::new(SessionId::new("session")),
        scenario: env::var("MCP_CONFORMANCE_SCENARIO").unwrap_or_default(),
        data: data.unwrap_or_default(),
    };
    let done = client.use_all().await;
    upstreams.shutdown(Instant::now() + Duration::from_secs(5)).await;
    done
}

impl Client {
    async fn use_all(&self) -> Result<(), String> {
        let lists = || self.upstreams.lists(&self.server, &self.context);
        let mut known = self.logged_in(lists).await?;
        // What a user reads of it.
        if known.problems.iter().any(|problem| problem.contains("conductorctl auth login")) {
            self.log_in().await?;
            known = self.logged_in(lists).await?;
        }
        let mut failure = None;
        for (tool, arguments) in self.calls(&known) {
            let call = || self.upstreams.call_tool(&self.server, &self.context, &tool, arguments.clone());
            failure = self.logged_in(call).await.err().or(failure);
        }
        for uri in known.resources.iter().filter_map(|resource| resource["uri"].as_str()) {
            let read = || self.upstreams.read_resource(&self.server, &self.context, uri);
            failure = self.logged_in(read).await.err().or(failure);
        }
        for prompt in known.prompts.iter().filter_map(|prompt| prompt["name"].as_str()) {
            let get = || self.upstreams.get_prompt(&self.server, &self.context, prompt, Map::new());
            failure = self.logged_in(get).await.err().or(failure);
        }
        failure.map_or(Ok(()), Err)
    }

    /// The calls that the scenario names, else one of each tool.
    fn calls(&self, known: &Manifest) -> Vec<(String, Map<String, Value>)> {
        if let Some(calls) = self.data["toolCalls"].as_array() {
            let call = |call: &Value| {
                Some((call["name"].as_str()?.to_owned(), call["arguments"].as_object()?.clone()))
            };
            return calls.iter().filter_map(call).collect();
        }
        known.tools.iter().filter_map(|tool| self.call_of(tool, known)).collect()
    }

    fn call_of(&self, tool: &Value, known: &Manifest) -> Option<(String, Map<String, Value>)> {
        let name = tool["name"].as_str()?;
        let arguments = match (name, self.scenario.as_str()) {
            ("add_numbers", _) => json!({ "a": 5, "b": 3 }),
            // Wants to see the other tool's schema as it came.
            (_, "json-schema-2020-12-preservation") => {
                let other = known.tools.iter().find(|other| other["name"] != tool["name"])?;
                json!({ "schema": other["inputSchema"] })
            }
            _ => json!({}),
        };
        Some((name.to_owned(), arguments.as_object()?.clone()))
    }

    /// Makes a request, and again after each login that it wants.
    async fn logged_in<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        mut request: impl FnMut() -> F,
    ) -> Result<T, String> {
        for _ in 0..MAX_LOGINS {
            match request().await {
                Err(CallError::Auth { .. }) => self.log_in().await?,
                other => return other.map_err(|error| error.to_string()),
            }
        }
        Err("each login is followed by another".to_owned())
    }

    async fn log_in(&self) -> Result<(), String> {
        let text = |key: &str| self.data[key].as_str().map(str::to_owned);
        let by_document = (self.scenario == "auth/basic-cimd").then(|| CLIENT_METADATA.to_owned());
        let request = LoginRequest {
            client_id: text("client_id").or(by_document),
            client_secret: text("client_secret").map(Secret::new),
            ..LoginRequest::default()
        };
        let begun = self.upstreams.begin_login(&self.server, &request).await;
        let login = begun.map_err(|error| error.to_string())?;
        let page = login.url().to_owned();
        // Its redirects lead back to the login, which waits for them.
        let browser = tokio::spawn(async move { reqwest::get(page).await.map(|_| ()) });
        let finished =
            self.upstreams.finish_login(login, LOGIN_TIME).await.map_err(|error| error.to_string());
        browser.abort();
        finished.map(|_| ())
    }
}

/// Answers everything with yes.
struct Agreeable;

impl ClientRequests for Agreeable {
    fn ask(
        &self,
        _: SessionId,
        request: ServerAsks,
    ) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send>> {
        let answer = match request.what {
            Ask::Elicitation => {
                json!({ "action": "accept", "content": defaults(&request.params["requestedSchema"]) })
            }
            Ask::Sampling => json!({
                "role": "assistant", "model": "none", "content": { "type": "text", "text": "yes" }
            }),
            Ask::Roots => json!({ "roots": [] }),
        };
        Box::pin(async { Ok(answer) })
    }

    fn log(&self, _: &SessionId, _: &str, _: &str, _: Option<&str>, _: &Value) {}

    fn updated(&self, _: &SessionId, _: &str) {}
}

/// A form that was sent off as it was.
fn defaults(schema: &Value) -> Map<String, Value> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties.filter_map(|(name, of)| Some((name.clone(), of.get("default")?.clone()))).collect()
}
