//! The texts of the discovery tools: short, bounded, and honest about what they leave out.
//!
//! What a model reads here it pays for on every later turn, so the texts are ladders: the most useful part in full, then
//! signatures, then names, then a count.

use serde_json::Value;

use crate::declare::{Declaration, call_signature, declare, signature, type_prefix};
use crate::entry::ToolEntry;
use crate::names::{access_server, property_name, quoted};
use crate::search::Found;
use crate::text::{clipped, comment_safe, one_line};

/// Longest text: about ten thousand tokens, where the first client begins to warn.
const MAX_TEXT_BYTES: usize = 36_000;
/// Longest schema given in full.
const MAX_SCHEMA_BYTES: usize = 16_000;
/// Longest description in a list, and longest instructions of a server.
const MAX_LINE_CHARS: usize = 160;
const MAX_INSTRUCTIONS_CHARS: usize = 600;
/// Signatures shown as a sample of a server, and names after them.
const MAX_SAMPLES: usize = 3;
const MAX_NAMES: usize = 40;

/// How much of each tool [`render_details`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// TypeScript declarations.
    Declarations,
    /// Declarations, and the JSON Schemas they were made from.
    Schemas,
}

/// A server as [`render_servers`] shows it.
#[derive(Clone, Copy, Debug)]
pub struct ServerSummary<'a> {
    /// Its name in the configuration.
    pub name: &'a str,
    /// What it is, in the words of the configuration or its own.
    pub description: Option<&'a str>,
    /// How to use it, in its own words.
    pub instructions: Option<&'a str>,
    /// Its state in a few words, with the reason where it is not usable.
    pub state: &'a str,
    /// Its tools.
    pub tools: &'a [ToolEntry],
    /// How many resources it has.
    pub n_resources: usize,
    /// How many prompts it has.
    pub n_prompts: usize,
}

/// A list of servers with sample signatures. Later servers are shorter once the text is long; none is left out unsaid.
pub fn render_servers(servers: &[ServerSummary<'_>]) -> String {
    if servers.is_empty() {
        return "No MCP servers are configured.".to_owned();
    }
    let mut text = String::from(
        "Call tools in run_deno_code: `await mcp.SERVER.TOOL({ … })`. Types: get_tool_details. Search: search_tools.\n",
    );
    for (at, server) in servers.iter().enumerate() {
        let paragraph = if text.len() < MAX_TEXT_BYTES / 2 { server.paragraph() } else { server.headline() };
        if text.len() + paragraph.len() > MAX_TEXT_BYTES {
            let n = servers.len() - at;
            text.push_str(&format!("\n… and {n} more servers, not shown: search_tools finds their tools.\n"));
            break;
        }
        text.push('\n');
        text.push_str(&paragraph);
    }
    text
}

/// The declarations of tools of one server: TypeScript as a whole, so that it can be pasted or type-checked.
///
/// Tools come in their order; those that do not fit any more are given as signatures, then as names, then counted.
pub fn render_details(server: &str, tools: &[ToolEntry], detail: Detail) -> String {
    let mut details = Details::new(server, detail);
    tools.iter().for_each(|tool| details.add(tool));
    details.finish()
}

/// What a search found, one tool per line with its first words.
pub fn render_found(query: &str, found: &[Found<'_>]) -> String {
    if found.is_empty() {
        let query = quoted(&clipped(&one_line(query), MAX_LINE_CHARS));
        return format!("No tool matches {query}. Try other words, or list_mcp_servers.");
    }
    let mut text = String::new();
    for (at, Found { tool, .. }) in found.iter().enumerate() {
        let line = format!("{}\n", call_signature(tool));
        if text.len() + line.len() > MAX_TEXT_BYTES {
            text.push_str(&format!("… and {} more, not shown.\n", found.len() - at));
            break;
        }
        text.push_str(&line);
        if let Some(summary) = summary(tool) {
            text.push_str(&format!("  {summary}\n"));
        }
    }
    text
}

impl ServerSummary<'_> {
    /// `github (running): 26 tools, 2 prompts`
    fn headline(&self) -> String {
        let counts = [(self.tools.len(), "tool"), (self.n_resources, "resource"), (self.n_prompts, "prompt")];
        let counts =
            counts.iter().filter(|(n, what)| *n > 0 || *what == "tool").map(|(n, what)| counted(*n, what));
        let state = clipped(&one_line(&comment_safe(self.state)), 300);
        format!("{} ({state}): {}\n", clipped(self.name, 100), counts.collect::<Vec<_>>().join(", "))
    }

    fn paragraph(&self) -> String {
        let mut text = self.headline();
        let line = |words: &str, max| clipped(&one_line(&comment_safe(&clipped(words, 4 * max))), max);
        if let Some(description) = self.description.filter(|it| !it.trim().is_empty()) {
            text.push_str(&format!("  {}\n", line(description, MAX_LINE_CHARS)));
        }
        if let Some(instructions) = self.instructions.filter(|it| !it.trim().is_empty()) {
            text.push_str(&format!("  Instructions: {}\n", line(instructions, MAX_INSTRUCTIONS_CHARS)));
        }
        for tool in self.tools.iter().take(MAX_SAMPLES) {
            text.push_str(&format!("  {}\n", call_signature(tool)));
        }
        if self.tools.len() > MAX_SAMPLES {
            text.push_str(&format!("  also {}\n", names(&self.tools[MAX_SAMPLES..])));
        }
        text
    }
}

/// The text of [`render_details`] while it grows.
struct Details<'s> {
    server: &'s str,
    detail: Detail,
    types: Vec<(String, String)>,
    methods: String,
    schemas: String,
    n_bytes: usize,
    n_as_signatures: usize,
    left_out: Vec<String>,
    is_cut: bool,
    is_observed: bool,
}

impl<'s> Details<'s> {
    fn new(server: &'s str, detail: Detail) -> Self {
        Self {
            server,
            detail,
            types: Vec::new(),
            methods: String::new(),
            schemas: String::new(),
            n_bytes: 0,
            n_as_signatures: 0,
            left_out: Vec::new(),
            is_cut: false,
            is_observed: false,
        }
    }

    fn add(&mut self, tool: &ToolEntry) {
        if self.n_as_signatures > 0 || !self.add_declaration(tool) {
            self.add_signature(tool);
        }
    }

    /// False if there is no room.
    fn add_declaration(&mut self, tool: &ToolEntry) -> bool {
        let declaration = self.declared(tool);
        let schemas = match self.detail {
            Detail::Declarations => String::new(),
            Detail::Schemas => schemas(tool),
        };
        let types = declaration.types.iter().filter(|ty| !self.types.contains(ty));
        let n_bytes =
            types.map(|(_, text)| text.len()).sum::<usize>() + declaration.method.len() + schemas.len();
        if self.n_bytes + n_bytes > MAX_TEXT_BYTES * 3 / 4 {
            return false;
        }
        self.is_cut |= declaration.is_cut;
        self.is_observed |= tool.output_schema.is_none() && tool.observed.is_some();
        self.n_bytes += n_bytes;
        self.methods.push_str(&format!("  {}\n", declaration.method));
        self.schemas.push_str(&schemas);
        for ty in declaration.types {
            if !self.types.contains(&ty) {
                self.types.push(ty);
            }
        }
        true
    }

    fn add_signature(&mut self, tool: &ToolEntry) {
        if self.n_bytes > MAX_TEXT_BYTES - 1_000 {
            return self.left_out.push(clipped(&one_line(&comment_safe(&clipped(&tool.name, 200))), 60));
        }
        let line = format!("  {};\n", signature(tool));
        self.n_as_signatures += 1;
        self.n_bytes += line.len();
        self.methods.push_str(&line);
    }

    /// The tool's declaration with names of types that no other tool uses for something else.
    fn declared(&self, tool: &ToolEntry) -> Declaration {
        let prefix = type_prefix(&tool.name);
        let prefixes = std::iter::once(String::new()).chain(std::iter::once(prefix.clone()));
        let numbered = (2..).map(|n| format!("{prefix}{n}"));
        let fits = |declaration: &Declaration| {
            let is_free = |(name, text): &(String, String)| {
                *name != type_prefix(self.server)
                    && self.types.iter().all(|(taken, known)| taken != name || known == text)
            };
            declaration.types.iter().all(is_free)
        };
        let mut attempts = prefixes.chain(numbered).map(|prefix| declare(tool, &prefix));
        attempts.find(fits).expect("a counter finds free names in the end")
    }

    fn finish(self) -> String {
        let interface = type_prefix(self.server);
        let mut text =
            format!("// Call in run_deno_code: await {}.TOOL({{ … }})\n", access_server(self.server));
        let note = |text: &mut String, words: String| text.push_str(&format!("// {words}\n"));
        if self.is_observed {
            note(
                &mut text,
                "Types marked observed were learnt from earlier answers: more may come.".to_owned(),
            );
        }
        if self.is_cut && self.detail == Detail::Declarations {
            note(
                &mut text,
                "Shortened where a comment says so: ask for the full schema of one tool to see all."
                    .to_owned(),
            );
        }
        if self.n_as_signatures > 0 {
            note(
                &mut text,
                format!("Without docs: the last {}. Ask for them by name.", self.n_as_signatures),
            );
        }
        if !self.left_out.is_empty() {
            let shown =
                self.left_out.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = self.left_out.len().saturating_sub(MAX_NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            note(&mut text, format!("Left out, ask for them by name: {shown}{more}."));
        }
        for (_, ty) in &self.types {
            text.push_str(ty);
            text.push('\n');
        }
        text.push_str(&format!("interface {interface} {{\n{}}}\n", self.methods));
        text.push_str(&format!("declare const mcp: {{ {}: {interface} }};\n", property_name(self.server)));
        text.push_str(&self.schemas);
        text
    }
}

/// The schemas as line comments, one line each.
fn schemas(tool: &ToolEntry) -> String {
    let name = quoted(&clipped(&tool.name, 100));
    let line = |what: &str, schema: &Value| {
        let json = schema.to_string().replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        let json = match json.len() {
            ..=MAX_SCHEMA_BYTES => json,
            n => format!("{} … cut: {n} bytes in all", &json[..json.floor_char_boundary(MAX_SCHEMA_BYTES)]),
        };
        format!("// {what} of {name}: {json}\n")
    };
    let output = tool.output_schema.as_ref().map(|schema| line("outputSchema", schema));
    format!("{}{}", line("inputSchema", &tool.input_schema), output.unwrap_or_default())
}

/// The first words of a tool's description.
fn summary(tool: &ToolEntry) -> Option<String> {
    let text = tool.description.as_deref().or(tool.title.as_deref())?;
    let line = one_line(&comment_safe(&clipped(text, 4 * MAX_LINE_CHARS)));
    (!line.is_empty()).then(|| clipped(&line, MAX_LINE_CHARS))
}

fn names(tools: &[ToolEntry]) -> String {
    let shown: Vec<String> = tools
        .iter()
        .take(MAX_NAMES)
        .map(|tool| clipped(&one_line(&comment_safe(&clipped(&tool.name, 200))), 60))
        .collect();
    let more = tools.len().saturating_sub(MAX_NAMES);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests;
