//! Lists of a server, page by page, within bounds.

use std::collections::HashSet;
use std::time::Duration;

use rmcp::model::{ServerCapabilities, SubscriptionFilter};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::connection::live::Live;
use crate::connection::open::Era;
use crate::connection::request::{Limits, ListOf, Operation};
use crate::error::CallError;
use crate::manifest::{Manifest, headers};

/// Pages of one list. A server with more, or with an endless chain of cursors, is cut off.
pub(crate) const MAX_PAGES: usize = 100;

/// Entries of one list.
pub(crate) const MAX_ENTRIES: usize = 10_000;

/// All pages of one list, in bytes.
pub(crate) const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

/// How long one page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The part of a page that all lists share.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    next_cursor: Option<String>,
    #[serde(flatten)]
    members: serde_json::Map<String, Value>,
}

/// Everything that `live` says of itself. Lists that it does not have are empty; those that fail are cut and say why. `None`
/// when it ended meanwhile: what was known of it before is better than a part.
pub(crate) async fn fetch(live: &Live, server: &str, max_bytes: usize) -> Option<Manifest> {
    let info = &live.info;
    let capabilities = &info.capabilities;
    let mut manifest = Manifest {
        era: live.era,
        protocol_version: info.protocol_version.to_string(),
        server_info: serde_json::to_value(&info.server_info).unwrap_or_default(),
        instructions: info.instructions.clone(),
        capabilities: serde_json::to_value(capabilities).unwrap_or_default(),
        tools: Vec::new(),
        prompts: Vec::new(),
        resources: Vec::new(),
        resource_templates: Vec::new(),
        problems: Vec::new(),
    };
    let lists = [
        (ListOf::Tools, capabilities.tools.is_some()),
        (ListOf::Prompts, capabilities.prompts.is_some()),
        (ListOf::Resources, capabilities.resources.is_some()),
        (ListOf::ResourceTemplates, capabilities.resources.is_some()),
    ];
    for (of, offered) in lists {
        if !offered {
            continue;
        }
        let (mut entries, problem) = list(live, server, of, max_bytes).await?;
        // Over stdio nobody reads headers.
        if of == ListOf::Tools && live.era == Era::Discover && live.pid.is_none() {
            manifest.problems.extend(headers::take_out(&mut entries));
        }
        *manifest.list_mut(of) = entries;
        manifest.problems.extend(problem.map(|problem| format!("{}: {problem}", of.method())));
    }
    Some(manifest)
}

/// One list, and why it is cut if it is; `None` when the server ended.
async fn list(
    live: &Live,
    server: &str,
    of: ListOf,
    max_bytes: usize,
) -> Option<(Vec<Value>, Option<String>)> {
    let mut list = List::new(of);
    let mut cursor = None;
    loop {
        let limits = Limits::internal(PAGE_TIMEOUT, max_bytes);
        match live.send(server, Operation::List(of, cursor), &limits).await {
            // Servers without templates often offer resources.
            Err(CallError::JsonRpc { code: -32_601, .. }) if of == ListOf::ResourceTemplates => {
                return Some((list.entries, None));
            }
            Err(_) if live.has_ended() => return None,
            Err(error) => return Some((list.entries, Some(error.to_string()))),
            Ok(page) => match list.take(&page) {
                Ok(Some(next)) => cursor = Some(next),
                Ok(None) => return Some((list.entries, None)),
                Err(problem) => return Some((list.entries, Some(problem))),
            },
        }
    }
}

/// The pages of one list so far.
pub(crate) struct List {
    of: ListOf,
    pub(crate) entries: Vec<Value>,
    cursors: HashSet<String>,
    bytes: usize,
    n_pages: usize,
}

impl List {
    pub(crate) fn new(of: ListOf) -> Self {
        Self { of, entries: Vec::new(), cursors: HashSet::new(), bytes: 0, n_pages: 0 }
    }

    /// Takes a page; gives the cursor of the next, if there is one, or why the list is cut here.
    pub(crate) fn take(&mut self, page: &RawValue) -> Result<Option<String>, String> {
        self.n_pages += 1;
        self.bytes += page.get().len();
        let page: Page = serde_json::from_str(page.get())
            .map_err(|error| format!("its page is not understood: {error}"))?;
        let Some(Value::Array(entries)) = { page.members }.swap_remove(self.of.member()) else {
            return Err(format!("its page has no `{}`", self.of.member()));
        };
        self.entries.extend(entries);
        if self.entries.len() > MAX_ENTRIES || self.bytes > MAX_LIST_BYTES {
            self.entries.truncate(MAX_ENTRIES);
            return Err(format!("it has more than {MAX_ENTRIES} entries or 16 MiB; the rest is left out"));
        }
        let Some(cursor) = page.next_cursor.filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
        if self.n_pages >= MAX_PAGES {
            return Err(format!("it has more than {MAX_PAGES} pages; the rest is left out"));
        }
        if !self.cursors.insert(cursor.clone()) {
            return Err("its pages go round in a circle".to_owned());
        }
        Ok(Some(cursor))
    }
}

/// What a server announces changes of; `None` if of nothing.
pub(crate) fn announced(capabilities: &ServerCapabilities) -> Option<SubscriptionFilter> {
    let mut filter = SubscriptionFilter::default();
    let yes = |changed: Option<Option<bool>>| changed.flatten().filter(|changed| *changed);
    filter.tools_list_changed = yes(capabilities.tools.as_ref().map(|tools| tools.list_changed));
    filter.prompts_list_changed = yes(capabilities.prompts.as_ref().map(|prompts| prompts.list_changed));
    filter.resources_list_changed =
        yes(capabilities.resources.as_ref().map(|resources| resources.list_changed));
    (filter != SubscriptionFilter::default()).then_some(filter)
}
