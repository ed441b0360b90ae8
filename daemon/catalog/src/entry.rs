//! What the catalog knows of one tool.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::observed::Observed;

/// One tool of one upstream server, as its `tools/list` gives it, and what was learnt of its answers since.
///
/// All of it is written by the server: every text may be hostile, every schema may be of any size or shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolEntry {
    /// The server's name in the configuration.
    pub server: String,
    /// The tool's name as its server gives it.
    pub name: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What the tool does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the arguments.
    pub input_schema: Value,
    /// JSON Schema of the structured result, if the server declares one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// The type of the answers seen so far; used where the server declares none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
}

impl ToolEntry {
    /// Reads one element of the `tools` of a `tools/list` result; `None` if it has no name.
    pub fn from_listed(server: &str, tool: &Value) -> Option<Self> {
        let text = |key: &str| tool.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            server: server.to_owned(),
            name: text("name")?,
            title: text("title"),
            description: text("description"),
            input_schema: tool.get("inputSchema").cloned().unwrap_or(Value::Bool(true)),
            output_schema: tool.get("outputSchema").filter(|schema| !schema.is_null()).cloned(),
            observed: None,
        })
    }
}
