//! Results that reach the client as an upstream server gave them.
//!
//! rmcp's models drop what they do not know: a content type of tomorrow, a hint on a tool. [`RawService`] stands between
//! rmcp and the [`ToolServer`]: a handler may [`give`](Raw::give) the members of its result as JSON, beside a typed result
//! that is empty. rmcp fits the empty one to the client's revision of the protocol (`resultType`, caching hints), and the
//! members given go over it.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use rmcp::RoleServer;
use rmcp::model::{
    ClientNotification, ClientRequest, CustomResult, ErrorData, ProtocolVersion, ServerConfig, ServerResult,
};
use rmcp::service::{NotificationContext, RequestContext, Service};
use serde_json::{Map, Value, json};

use super::lock;
use super::requests::is_newer;
use super::state::Bound;
use super::tools::ToolServer;

/// The session's service as rmcp runs it.
#[derive(Debug)]
pub(crate) struct RawService(pub(super) ToolServer);

/// Where the handler of one request puts the members of its result.
#[derive(Clone, Debug, Default)]
pub(super) struct Raw(Arc<Mutex<Option<Map<String, Value>>>>);

impl Raw {
    /// Puts `members` over the result that the request's handler returns.
    pub(super) fn give(context: &RequestContext<RoleServer>, members: Map<String, Value>) {
        if let Some(raw) = context.extensions.get::<Self>() {
            *lock(&raw.0) = Some(members);
        }
    }
}

impl Service<RoleServer> for RawService {
    async fn handle_request(
        &self,
        mut request: ClientRequest,
        mut context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        let bound = Bound::open(self.0.session_id(), &mut request)?;
        // A client's first `server/discover` comes before there is a way back to it.
        if !matches!(request, ClientRequest::DiscoverRequest(_)) {
            self.0.met(&context);
        }
        let raw = Raw::default();
        context.extensions.insert(raw.clone());
        let is_newer = is_newer(&context);
        let result = Service::handle_request(&self.0, request, context).await?;
        let Some(mut members) = lock(&raw.0).take() else { return Ok(result) };
        if let Some(bound) = bound {
            bound.seal(&mut members);
        }
        let frame = serde_json::to_value(result)
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(ServerResult::CustomResult(CustomResult(merged(frame, members, is_newer))))
    }

    async fn handle_notification(
        &self,
        notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Service::handle_notification(&self.0, notification, context).await
    }

    fn get_info(&self) -> ServerConfig {
        Service::get_info(&self.0)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Service::supported_protocol_versions(&self.0)
    }
}

fn merged(mut frame: Value, mut members: Map<String, Value>, is_newer: bool) -> Value {
    if !is_newer {
        // Other kinds say more than an older client can see from the rest.
        if members.get("resultType").is_some_and(|kind| kind == "complete") {
            members.remove("resultType");
        }
        older_output(&mut members);
        older_tools(&mut members);
    }
    if let Value::Object(frame) = &mut frame {
        frame.extend(members);
    }
    frame
}

/// Structured content was an object until 2025-11-25; any other goes into the text.
fn older_output(members: &mut Map<String, Value>) {
    let Some(value) = members.get("structuredContent").filter(|value| !value.is_object()).cloned() else {
        return;
    };
    members.remove("structuredContent");
    let Some(Value::Array(content)) = members.get_mut("content") else { return };
    let text = content.first().and_then(|part| part["text"].as_str());
    let is_told =
        text.and_then(|text| serde_json::from_str::<Value>(text).ok()).is_some_and(|told| told == value);
    if !is_told {
        content.insert(0, json!({ "type": "text", "text": value.to_string() }));
    }
}

/// So was what an output schema describes.
fn older_tools(members: &mut Map<String, Value>) {
    let Some(Value::Array(tools)) = members.get_mut("tools") else { return };
    for tool in tools.iter_mut().filter_map(Value::as_object_mut) {
        if tool.get("outputSchema").is_some_and(|schema| schema["type"] != "object") {
            tool.remove("outputSchema");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn what_a_server_gave_stands_in_the_frame_of_the_clients_revision() {
        let given =
            json!({ "content": [{ "type": "hologram", "x": 1 }], "resultType": "complete", "new": true });
        let newer = json!({ "resultType": "complete", "content": [], "isError": false });
        let answer = merged(newer, members(given.clone()), true);
        assert_eq!(answer["content"], given["content"]);
        assert_eq!((&answer["resultType"], &answer["new"]), (&json!("complete"), &json!(true)));
        let older = merged(json!({ "content": [] }), members(given), false);
        assert_eq!((older.get("resultType"), &older["new"]), (None, &json!(true)));
    }

    #[test]
    fn older_clients_get_objects_as_structured_content() {
        let given = json!({ "content": [{ "type": "text", "text": "two" }], "structuredContent": [1, 2] });
        let answer = merged(json!({}), members(given.clone()), false);
        assert_eq!(answer.get("structuredContent"), None);
        assert_eq!(answer["content"][0]["text"], "[1,2]");
        assert_eq!(merged(json!({}), members(given.clone()), true), given);
        let tools = json!({ "tools": [{ "name": "a", "outputSchema": { "type": "array" } }] });
        assert_eq!(merged(json!({}), members(tools), false), json!({ "tools": [{ "name": "a" }] }));
    }
}
