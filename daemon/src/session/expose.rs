//! Servers that the client sees as its own: with `expose` in a server's configuration its tools, resources or prompts stand
//! beside conductor's, so that plain calls work too.
//!
//! Lists come from what is known of the servers, in one sorted page, as the servers wrote them ([`super::fit`] says what is
//! not). Names are changed so that they fit and differ (`conductor_catalog::exposed_names`; the prefix is `expose_prefix`, by default the server's name,
//! and none where one server is exposed). A call is passed on with its `_meta`, its progress comes back in order, and its
//! result is the server's own. URIs stay as they are: of two servers with the same one, the first by name has it. A server of
//! the newer era sees the client's capabilities in place of conductor's, so it may make a task of a call: the task's id then
//! begins with the server's name, by which later requests about it find their way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conductor_catalog::exposed_names;
use conductor_upstream::config::Expose;
use conductor_upstream::{
    CallContext, CallError, ClientTerms, Exposed, Manifest, ProfileId, Rounds, ServerRef, SessionId,
    TaskRequest, Upstreams,
};
use rmcp::RoleServer;
use rmcp::model::{CallToolResult, CompleteRequestParams, ContentBlock, ErrorCode, ErrorData, Reference};
use rmcp::service::RequestContext;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Session;
use super::discovery;
use super::fit::{Kind, fit};
use super::follow::Severity;
use super::requests::is_newer;
use super::rounds::{Answer, Asked, Call, End, Events, Retry, over};
use crate::exec::schema;
use crate::supervisor::Shared;

/// Names that no exposed tool takes.
pub(super) const OWN_TOOLS: [&str; 4] =
    [schema::TOOL_NAME, discovery::LIST, discovery::DETAILS, discovery::SEARCH];

/// Progress that waits for the client: a burst has room, and a client that does not read misses some.
const PROGRESS: usize = 256;

/// How long a server that never ran may take until its lists are known.
const FIRST_START: Duration = Duration::from_secs(120);

/// What the servers of one configuration expose, as far as it is known now.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    servers: Vec<Known>,
}

/// An exposed server and what is known of it.
#[derive(Debug)]
struct Known {
    server: ServerRef,
    what: BTreeSet<Expose>,
    prefix: String,
    manifest: Option<Arc<Manifest>>,
}

/// A tool or a prompt: the name that the client uses, its server, and what that says of it.
#[derive(Debug, PartialEq)]
pub(super) struct Named<'a> {
    pub(super) name: String,
    pub(super) server: &'a ServerRef,
    pub(super) listed: &'a Value,
}

/// A request that is passed on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) server: ServerRef,
    pub(super) of: Of,
}

/// What is asked for, as the server names it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Of {
    Tool(String),
    Prompt(String),
    Resource(String),
    Completion(Box<CompleteRequestParams>),
    Task(String, TaskRequest),
}

/// Between the name of a server and the id that it gave a task.
const TASK_SEPARATOR: char = '/';

/// The code of an error that says that the server has no such method.
const NO_METHOD: i32 = -32_601;

impl Catalogue {
    pub(super) fn new(upstreams: &Upstreams, servers: &ProfileId) -> Self {
        let exposed = upstreams.exposed(servers);
        let is_single = exposed.len() == 1;
        let view = |Exposed { server, what, prefix }| {
            let prefix =
                prefix.unwrap_or_else(|| if is_single { String::new() } else { server.name.clone() });
            let manifest = upstreams.manifest(&server).ok().flatten();
            Known { server, what, prefix, manifest }
        };
        Self { servers: exposed.into_iter().map(view).collect() }
    }

    /// Servers that have to run once before anything is known of them.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &ServerRef> {
        self.servers.iter().filter(|exposed| exposed.manifest.is_none()).map(|exposed| &exposed.server)
    }

    pub(super) fn tools(&self) -> Vec<Named<'_>> {
        self.named(Expose::Tools, |manifest| &manifest.tools, &OWN_TOOLS)
    }

    pub(super) fn prompts(&self) -> Vec<Named<'_>> {
        self.named(Expose::Prompts, |manifest| &manifest.prompts, &[])
    }

    pub(super) fn resources(&self) -> Vec<Value> {
        self.by_key(Kind::Resource, "uri", |manifest| &manifest.resources)
    }

    pub(super) fn templates(&self) -> Vec<Value> {
        self.by_key(Kind::Template, "uriTemplate", |manifest| &manifest.resource_templates)
    }

    pub(super) fn tool(&self, name: &str) -> Option<Target> {
        target(self.tools(), name, Of::Tool)
    }

    pub(super) fn prompt(&self, name: &str) -> Option<Target> {
        target(self.prompts(), name, Of::Prompt)
    }

    /// The server that lists the URI, or has the template with the longest beginning in common; the only one that exposes
    /// resources is asked for any URI, since not all lists are complete.
    pub(super) fn resource(&self, uri: &str) -> Option<Target> {
        let exposing: Vec<&Known> = self.with(Expose::Resources).collect();
        let lists = |exposed: &&&Known| {
            let resources = exposed.manifest.iter().flat_map(|manifest| &manifest.resources);
            resources.into_iter().any(|resource| resource["uri"] == uri)
        };
        let of_template = || {
            let matched = exposing.iter().filter_map(|exposed| Some((exposed.matching(uri)?, exposed)));
            // The first of several that are as long.
            matched.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, exposed)| exposed)
        };
        let only = || if let [only] = exposing.as_slice() { Some(only) } else { None };
        let exposed = exposing.iter().find(lists).or_else(of_template).or_else(only)?;
        Some(Target { server: exposed.server.clone(), of: Of::Resource(uri.to_owned()) })
    }

    /// Whoever has the prompt, or the template or resource, whose argument is to be completed.
    pub(super) fn completion(&self, request: &CompleteRequestParams) -> Option<Target> {
        let mut request = request.clone();
        let server = match &mut request.r#ref {
            Reference::Prompt(prompt) => {
                let Target { server, of: Of::Prompt(name) } = self.prompt(&prompt.name)? else { return None };
                prompt.name = name;
                server
            }
            Reference::Resource(resource) => {
                let has = |exposed: &&Known| {
                    let templates = exposed.manifest.iter().flat_map(|manifest| &manifest.resource_templates);
                    templates.into_iter().any(|template| template["uriTemplate"] == *resource.uri)
                };
                match self.with(Expose::Resources).find(has) {
                    Some(exposed) => exposed.server.clone(),
                    None => self.resource(&resource.uri)?.server,
                }
            }
            _ => return None,
        };
        Some(Target { server, of: Of::Completion(Box::new(request)) })
    }

    /// The server that made the task; only one whose tools are exposed can have made one for the client.
    pub(super) fn task(&self, id: &str, request: TaskRequest) -> Option<Target> {
        let of = |exposed: &Known| {
            let own = id.strip_prefix(&*exposed.server.name)?.strip_prefix(TASK_SEPARATOR)?;
            Some((exposed.server.clone(), own.to_owned()))
        };
        // Where one server's name begins with another's, the longer is meant.
        let (server, own) =
            self.with(Expose::Tools).filter_map(of).max_by_key(|(server, _)| server.name.len())?;
        Some(Target { server, of: Of::Task(own, request) })
    }

    fn with(&self, what: Expose) -> impl Iterator<Item = &Known> {
        self.servers.iter().filter(move |exposed| exposed.what.contains(&what))
    }

    fn named(&self, what: Expose, list: fn(&Manifest) -> &Vec<Value>, own: &[&str]) -> Vec<Named<'_>> {
        let mut found: Vec<(&Known, &str, &Value)> = Vec::new();
        for exposed in self.with(what) {
            let Some(manifest) = exposed.manifest.as_deref() else { continue };
            found.extend(
                list(manifest).iter().filter_map(|listed| Some((exposed, listed["name"].as_str()?, listed))),
            );
        }
        let own = own.iter().map(|own| ("", *own, ""));
        let wanted = found
            .iter()
            .map(|(exposed, name, _)| (exposed.server.name.as_str(), *name, exposed.prefix.as_str()));
        let names = exposed_names(&own.clone().chain(wanted).collect::<Vec<_>>());
        let names = names.into_iter().skip(own.len());
        let mut named: Vec<Named<'_>> = names
            .zip(found)
            .map(|(name, (exposed, _, listed))| Named { name, server: &exposed.server, listed })
            .collect();
        named.sort_by(|a, b| a.name.cmp(&b.name));
        named
    }

    fn by_key(&self, kind: Kind, key: &str, list: fn(&Manifest) -> &Vec<Value>) -> Vec<Value> {
        let mut found = BTreeMap::new();
        for manifest in self.with(Expose::Resources).filter_map(|exposed| exposed.manifest.as_deref()) {
            for listed in list(manifest) {
                if let Some(key) = listed[key].as_str() {
                    found.entry(key.to_owned()).or_insert_with(|| fit(kind, listed.clone()));
                }
            }
        }
        found.into_values().collect()
    }
}

impl Known {
    /// How long a beginning the URI has in common with a template.
    fn matching(&self, uri: &str) -> Option<usize> {
        let templates = self.manifest.iter().flat_map(|manifest| &manifest.resource_templates);
        let beginnings = templates.filter_map(|template| template["uriTemplate"].as_str()?.split('{').next());
        beginnings.filter(|beginning| uri.starts_with(beginning)).map(str::len).max()
    }
}

impl Named<'_> {
    /// As the client is to see it.
    pub(super) fn shown(&self, kind: Kind) -> Value {
        let mut shown = fit(kind, self.listed.clone());
        shown["name"] = json!(self.name);
        shown
    }
}

fn target(named: Vec<Named<'_>>, name: &str, of: impl Fn(String) -> Of) -> Option<Target> {
    let found = named.into_iter().find(|named| named.name == name)?;
    Some(Target { server: found.server.clone(), of: of(found.listed["name"].as_str()?.to_owned()) })
}

/// Passes a request on; an error is what it is answered with at once.
pub(super) fn start(
    session: &Arc<Session>,
    shared: &Arc<Shared>,
    asked: Asked,
    retry: Retry,
    target: Target,
    context: &RequestContext<RoleServer>,
) -> Result<Call, End> {
    let Target { server, of } = target;
    let log_level = context.meta.log_level().or_else(|| session.link.level().map(Severity::level));
    let client = ClientTerms { capabilities: context.client_capabilities().unwrap_or_default(), log_level };
    let refused = |why: &str| refusal(&of, why);
    let profile = session.profile(shared).map_err(|why| refused(&why))?;
    let id = shared.executor.next_id();
    let in_flight = session.call_started(&profile, &id).map_err(|why| refused(&why.to_string()))?;
    let (progress, events) = match context.meta.get_progress_token() {
        Some(_) => {
            let (sender, receiver) = mpsc::channel(PROGRESS);
            (Some(sender), Events::Progress(receiver))
        }
        None => (None, Events::None),
    };
    let cancel = in_flight.cancel.clone();
    let call_context = CallContext {
        execution: Some(id.as_str().into()),
        cancel: cancel.clone(),
        progress,
        meta: serde_json::to_value(&context.meta).ok().and_then(|meta| meta.as_object().cloned()),
        client: Some(client),
        rounds: if is_newer(context) { Rounds::PassedOn(retry.into()) } else { Rounds::Answered },
        ..CallContext::new(SessionId::new(session.id.to_string()))
    };
    let questions = session.open_call(&id, Some(&server.name), context);
    let arguments = asked.arguments.clone().unwrap_or_default();
    let shared = shared.clone();
    let work = async move {
        let _in_flight = in_flight;
        let upstreams = shared.upstreams.upstreams();
        let result = match of.clone() {
            Of::Tool(name) => upstreams.call_tool(&server, &call_context, &name, arguments).await,
            Of::Prompt(name) => upstreams.get_prompt(&server, &call_context, &name, arguments).await,
            Of::Resource(uri) => upstreams.read_resource(&server, &call_context, &uri).await,
            Of::Completion(params) => upstreams.complete(&server, &call_context, *params).await,
            Of::Task(id, request) => upstreams.task(&server, &call_context, &id, request).await,
        };
        match result {
            Ok(Value::Object(members)) => Ok(Answer::Raw(with_task_of(&server, members))),
            Ok(_) => refusal(&of, "the server's result is no object"),
            Err(CallError::Over) => Err(over()),
            Err(CallError::JsonRpc { code: NO_METHOD, .. }) if matches!(of, Of::Completion(_)) => {
                Ok(Answer::Raw(page("completion", json!({ "values": [] }))))
            }
            // The server's own words, code and data.
            Err(CallError::JsonRpc { code, message, data }) => {
                Err(ErrorData::new(ErrorCode(code), message, data))
            }
            Err(error) => refusal(&of, &error.to_string()),
        }
    };
    Ok(Call::start(asked, id, work, events, questions, cancel))
}

/// The result with the id by which the client asks for a task that is in it.
fn with_task_of(server: &ServerRef, mut members: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::String(id)) = members.get_mut("taskId") {
        *id = format!("{}{TASK_SEPARATOR}{id}", server.name);
    }
    members
}

/// Models read results of tools; errors of the protocol often do not reach them.
fn refusal(of: &Of, why: &str) -> End {
    match of {
        Of::Tool(_) => Ok(Answer::Result(Box::new(CallToolResult::error(vec![ContentBlock::text(why)])))),
        Of::Prompt(_) | Of::Resource(_) | Of::Completion(_) | Of::Task(..) => {
            Err(ErrorData::internal_error(why.to_owned(), None))
        }
    }
}

/// Starts the exposed servers of which nothing is known yet; ready when each has told its lists or failed.
///
/// # Cancel safety
/// Safe; servers that are starting go on to.
pub(super) async fn learn_unknown(session: &Session, shared: &Arc<Shared>, servers: &ProfileId) {
    let mut starting = JoinSet::new();
    for server in Catalogue::new(shared.upstreams.upstreams(), servers).unknown().cloned() {
        let mut context = CallContext::new(SessionId::new(session.id.to_string()));
        context.deadline = Some(tokio::time::Instant::now() + FIRST_START);
        let shared = shared.clone();
        starting.spawn(async move {
            if let Err(error) = shared.upstreams.upstreams().lists(&server, &context).await {
                tracing::warn!(upstream = server.name, %error, "what it exposes is not known");
            }
        });
    }
    while starting.join_next().await.is_some() {}
}

/// The members of a result that lists.
pub(super) fn page(key: &str, items: Value) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), items)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, prefix: &str, manifest: Value) -> Known {
        let mut all = json!({ "era": "initialize", "protocolVersion": "2025-11-25" });
        all.as_object_mut().expect("an object").extend(manifest.as_object().expect("an object").clone());
        Known {
            server: ServerRef::new(ProfileId::new("p"), name),
            what: [Expose::Tools, Expose::Resources, Expose::Prompts].into(),
            prefix: prefix.to_owned(),
            manifest: Some(Arc::new(serde_json::from_value(all).expect("a manifest"))),
        }
    }

    fn names(named: &[Named<'_>]) -> Vec<String> {
        named.iter().map(|named| named.name.clone()).collect()
    }

    #[test]
    fn no_exposed_tool_takes_a_name_of_conductors_own() {
        let tools = json!({ "tools": [{ "name": "search_tools" }, { "name": "plain" }, { "name": "a.b" }] });
        let catalogue = Catalogue { servers: vec![known("s", "", tools)] };
        let names = names(&catalogue.tools());
        assert!(names.is_sorted() && names.contains(&"plain".to_owned()), "{names:?}");
        assert!(names.iter().all(|name| !OWN_TOOLS.contains(&name.as_str())), "{names:?}");
        for name in &names {
            let target = catalogue.tool(name).expect("each is found by its name");
            assert!(matches!(target.of, Of::Tool(tool) if tool == "plain" || tool != *name));
        }
        assert_eq!(catalogue.tool("search_tools"), None);
    }

    #[test]
    fn only_what_the_configuration_names_is_exposed() {
        let lists = json!({ "tools": [{ "name": "t" }], "prompts": [{ "name": "p" }], "resources": [{ "uri": "r:1" }] });
        let mut server = known("s", "x", lists);
        server.what = [Expose::Prompts].into();
        let catalogue = Catalogue { servers: vec![server] };
        assert_eq!(names(&catalogue.prompts()), ["x_p"]);
        assert_eq!((catalogue.tools().len(), catalogue.resources().len()), (0, 0));
        assert_eq!(catalogue.resource("r:1"), None);
    }

    #[test]
    fn a_task_goes_to_the_server_that_its_id_names() {
        let tools = json!({ "tools": [{ "name": "t" }] });
        let catalogue = Catalogue { servers: vec![known("a", "a", tools.clone()), known("a/b", "b", tools)] };
        let of = |id: &str| match catalogue.task(id, TaskRequest::Get)? {
            Target { server, of: Of::Task(own, TaskRequest::Get) } => Some((server.name, own)),
            _ => None,
        };
        assert_eq!(of("a/b/c"), Some(("a/b".to_owned(), "c".to_owned())));
        assert_eq!(of("a/c/d"), Some(("a".to_owned(), "c/d".to_owned())));
        assert_eq!((of("c"), of("b/c")), (None, None));
        let members = with_task_of(&ServerRef::new(ProfileId::new("p"), "a"), page("taskId", json!("c/d")));
        assert_eq!(members["taskId"], "a/c/d");
    }

    #[test]
    fn a_completion_goes_to_the_server_of_the_prompt_under_its_own_name() {
        let lists =
            json!({ "prompts": [{ "name": "p" }], "resourceTemplates": [{ "uriTemplate": "f:/{x}" }] });
        let catalogue = Catalogue { servers: vec![known("s", "x", lists)] };
        let asks = |reference| {
            let argument = serde_json::from_value(json!({ "name": "n", "value": "v" })).expect("an argument");
            catalogue.completion(&CompleteRequestParams::new(reference, argument))
        };
        let Some(Target { of: Of::Completion(request), .. }) = asks(Reference::for_prompt("x_p")) else {
            panic!("no target");
        };
        assert_eq!(request.r#ref, Reference::for_prompt("p"));
        assert!(asks(Reference::for_prompt("p")).is_none());
        assert!(asks(Reference::for_resource("f:/{x}")).is_some());
    }

    #[test]
    fn a_uri_goes_to_the_server_that_lists_it_or_has_the_closest_template() {
        let template = |uri: &str| json!({ "uriTemplate": uri });
        let a = json!({ "resources": [{ "uri": "f:/one" }], "resourceTemplates": [template("f:/{path}")] });
        let b =
            json!({ "resources": [{ "uri": "f:/one" }], "resourceTemplates": [template("f:/deep/{path}")] });
        let mut catalogue = Catalogue { servers: vec![known("a", "a", a), known("b", "b", b)] };
        let of = |catalogue: &Catalogue, uri: &str| catalogue.resource(uri).map(|target| target.server.name);
        assert_eq!(of(&catalogue, "f:/one").as_deref(), Some("a"));
        assert_eq!(of(&catalogue, "f:/two").as_deref(), Some("a"));
        assert_eq!(of(&catalogue, "f:/deep/er").as_deref(), Some("b"));
        assert_eq!(of(&catalogue, "g:/none"), None, "two could have it");
        assert_eq!(catalogue.resources().len(), 1);
        catalogue.servers.pop();
        assert_eq!(of(&catalogue, "g:/none").as_deref(), Some("a"), "its list may be incomplete");
    }
}
