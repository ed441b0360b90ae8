//! The tools by which a model learns what upstream servers offer: `list_mcp_servers`, `get_tool_details`, `search_tools`.
//!
//! They answer in text alone: a model reads declarations, and a structured copy would hide the text from some clients.
//! Lists come from what is known; only details of a server that never ran start it.

use std::sync::Arc;

use conductor_catalog::{
    Detail, SearchIndex, ServerSummary, ToolEntry, render_details, render_found, render_servers,
};
use conductor_upstream::{CallContext, CallError, ServerRef, ServerState, ServerStatus, SessionId};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::upstreams::calls::{did_you_mean, meant};
use crate::upstreams::{Registration, Servers, UpstreamService};

pub(super) const LIST: &str = "list_mcp_servers";
pub(super) const DETAILS: &str = "get_tool_details";
pub(super) const SEARCH: &str = "search_tools";

/// Tools that a search gives unless it is asked for another number, and at most.
const FOUND: usize = 10;
const MAX_FOUND: usize = 50;

/// The tools of a session that has servers; none otherwise.
pub(super) fn tools(servers: &Servers) -> Vec<Tool> {
    match servers {
        Servers::None => Vec::new(),
        Servers::Pending | Servers::Failed(_) | Servers::Ready(_) => vec![details(), list(), search()],
    }
}

fn list() -> Tool {
    read_only(
        LIST,
        "List the MCP servers that code in run_deno_code can call as `mcp.SERVER.TOOL({...})`, with their state and some of \
         their tools.",
        json!({ "type": "object", "properties": {}, "additionalProperties": false }),
    )
}

fn details() -> Tool {
    read_only(
        DETAILS,
        "TypeScript declarations of an MCP server's tools, to call them in run_deno_code. Starts the server if its tools are \
         not known yet.",
        json!({
            "type": "object",
            "properties": {
                "server": { "type": "string", "description": "Name of the server, from list_mcp_servers." },
                "tools": {
                    "type": "array",
                    "items": { "type": "string" },
                    "description": "Names of its tools; all of them if left out."
                },
                "full": { "type": "boolean", "description": "Add the JSON Schemas." }
            },
            "required": ["server"],
            "additionalProperties": false
        }),
    )
}

fn search() -> Tool {
    read_only(
        SEARCH,
        "Find tools of all MCP servers by words of their names, descriptions and parameters; gives their signatures.",
        json!({
            "type": "object",
            "properties": {
                "query": { "type": "string", "description": "What the tool should do, in a few words." },
                "limit": { "type": "integer", "minimum": 1, "maximum": MAX_FOUND, "description": "10 if left out." }
            },
            "required": ["query"],
            "additionalProperties": false
        }),
    )
}

fn read_only(name: &'static str, description: &'static str, schema: Value) -> Tool {
    let Value::Object(schema) = schema else { unreachable!("every schema here is written as an object") };
    Tool::new(name, description, Arc::new(schema)).with_annotations(ToolAnnotations::new().read_only(true))
}

/// One session's view of its servers.
#[derive(Debug)]
pub(super) struct Discovery<'a> {
    pub(super) service: &'a UpstreamService,
    pub(super) servers: Servers,
    pub(super) session: u64,
    /// The client does not wait any more.
    pub(super) cancel: CancellationToken,
}

/// A refusal in words for the model.
type Refused = String;

impl Discovery<'_> {
    /// Answers one of the three tools; `None` when it is none of them.
    ///
    /// # Cancel safety
    /// Safe; a server that is starting goes on to.
    pub(super) async fn answer(&self, tool: &str, arguments: Option<JsonObject>) -> Option<CallToolResult> {
        let arguments = Value::Object(arguments.unwrap_or_default());
        let answer = match tool {
            LIST => self.list(),
            DETAILS => self.details(&arguments).await,
            SEARCH => self.search(&arguments),
            _ => return None,
        };
        Some(match answer {
            Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
            Err(text) => CallToolResult::error(vec![ContentBlock::text(text)]),
        })
    }

    fn registration(&self) -> Result<&Arc<Registration>, Refused> {
        match &self.servers {
            Servers::Ready(registration) => Ok(registration),
            Servers::None => Err("No MCP servers are configured.".into()),
            Servers::Pending => {
                Err("The configuration of MCP servers is still being read; try again in a moment.".into())
            }
            Servers::Failed(why) => Err(why.to_string()),
        }
    }

    /// Every server with the tools that are known of it.
    fn known(&self, registration: &Registration) -> Vec<(ServerStatus, Vec<ToolEntry>)> {
        let statuses = self.service.upstreams().status_of(&registration.id);
        let with_tools = statuses.into_iter().map(|status| {
            let server = ServerRef::new(registration.id.clone(), status.name.clone());
            let manifest = self.service.upstreams().manifest(&server).ok().flatten();
            let tools = manifest.map(|manifest| self.service.tools(&server, &manifest));
            (status, tools.unwrap_or_default())
        });
        with_tools.collect()
    }

    fn list(&self) -> Result<String, Refused> {
        let registration = self.registration()?;
        let known = self.known(registration);
        let states: Vec<String> = known.iter().map(|(status, _)| state(status)).collect();
        let instructions: Vec<Option<String>> = self.instructions(registration, &known);
        let summaries =
            known.iter().zip(&states).zip(&instructions).map(|(((status, tools), state), instructions)| {
                ServerSummary {
                    name: &status.name,
                    description: status.description.as_deref(),
                    instructions: instructions.as_deref(),
                    state,
                    tools,
                    n_resources: status.n_resources.unwrap_or_default(),
                    n_prompts: status.n_prompts.unwrap_or_default(),
                }
            });
        let mut text = render_servers(&summaries.collect::<Vec<_>>());
        for warning in &registration.warnings {
            text.push_str(&format!("\nConfiguration: {warning}\n"));
        }
        Ok(text)
    }

    fn instructions(
        &self,
        registration: &Registration,
        known: &[(ServerStatus, Vec<ToolEntry>)],
    ) -> Vec<Option<String>> {
        let of = |name: &str| {
            let server = ServerRef::new(registration.id.clone(), name);
            self.service.upstreams().manifest(&server).ok().flatten()?.instructions.clone()
        };
        known.iter().map(|(status, _)| of(&status.name)).collect()
    }

    async fn details(&self, arguments: &Value) -> Result<String, Refused> {
        let registration = self.registration()?;
        let asked =
            arguments["server"].as_str().ok_or("`server` is missing: name a server of list_mcp_servers.")?;
        let names = registration.names.iter().map(String::as_str);
        let name = meant(asked, names).unwrap_or(asked);
        let server = ServerRef::new(registration.id.clone(), name);
        let tools = self.tools_of(&server).await.map_err(|error| error.to_string())?;
        let chosen = match &arguments["tools"] {
            Value::Array(wanted) => chosen(&server.name, &tools, wanted)?,
            _ => tools,
        };
        let detail = if arguments["full"] == true { Detail::Schemas } else { Detail::Declarations };
        Ok(render_details(&server.name, &chosen, detail))
    }

    async fn tools_of(&self, server: &ServerRef) -> Result<Vec<ToolEntry>, CallError> {
        let upstreams = self.service.upstreams();
        let manifest = match upstreams.manifest(server)? {
            Some(manifest) => manifest,
            None => {
                let mut context = CallContext::new(SessionId::new(self.session.to_string()));
                context.cancel = self.cancel.clone();
                upstreams.lists(server, &context).await?
            }
        };
        Ok(self.service.tools(server, &manifest))
    }

    fn search(&self, arguments: &Value) -> Result<String, Refused> {
        let registration = self.registration()?;
        let query = arguments["query"].as_str().filter(|query| !query.trim().is_empty());
        let query = query.ok_or("`query` is missing: say in a few words what the tool should do.")?;
        let limit =
            arguments["limit"].as_u64().map_or(FOUND, |limit| usize::try_from(limit).unwrap_or(MAX_FOUND));
        let known = self.known(registration);
        let index = SearchIndex::new(known.iter().flat_map(|(_, tools)| tools));
        let mut text = render_found(query, &index.search(query, limit.clamp(1, MAX_FOUND)));
        let unknown: Vec<&str> = known
            .iter()
            .filter(|(status, _)| status.n_tools.is_none() && status.state != ServerState::Disabled)
            .map(|(status, _)| status.name.as_str())
            .collect();
        if !unknown.is_empty() {
            let names = unknown.join(", ");
            text.push_str(&format!(
                "\nNot searched, since they have not run yet: {names}. get_tool_details starts one.\n"
            ));
        }
        Ok(text)
    }
}

fn chosen(server: &str, tools: &[ToolEntry], wanted: &[Value]) -> Result<Vec<ToolEntry>, Refused> {
    let names = tools.iter().map(|tool| tool.name.as_str());
    let find = |wanted: &Value| {
        let wanted = wanted.as_str().unwrap_or_default();
        let found = meant(wanted, names.clone()).and_then(|name| tools.iter().find(|tool| tool.name == name));
        found.cloned().ok_or_else(|| {
            format!("{server} has no tool named `{wanted}`{}", did_you_mean(wanted, names.clone()))
        })
    };
    wanted.iter().map(find).collect()
}

/// The state in a few words, with the reason where the server is not usable.
fn state(status: &ServerStatus) -> String {
    let words = match status.state {
        ServerState::Disabled => "disabled",
        ServerState::Idle => "starts when it is used",
        ServerState::Starting => "starting",
        ServerState::Ready => "running",
        ServerState::Paused => "failed, is tried again when it is used",
        ServerState::Unavailable => "unavailable for now",
    };
    match &status.reason {
        Some(reason) => format!("{words}: {reason}"),
        None => words.to_owned(),
    }
}
