//! The structured result of `run_deno_code`, as `conductorctl` needs it.

use std::collections::BTreeMap;

use conductor_protocol::MAX_MESSAGE_BYTES;
use serde::Deserialize;
use serde_json::Value;

use super::super::client::ClientError;

/// The largest resource that is asked for, bytes. It comes in one message, in which each of its characters may take two.
const MAX_RESOURCE_BYTES: usize = MAX_MESSAGE_BYTES / 2 - 1024;

/// The structured result of `run_deno_code`. Fields it does not have yet are ignored, fields it lacks are empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::ctl) struct RunResult {
    pub(super) status: String,
    pub(super) return_value: Value,
    pub(super) return_value_format: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(in crate::ctl) error: Option<RunError>,
    pub(in crate::ctl) timings: Timings,
    pub(super) notes: Vec<String>,
    /// What was cut, by field.
    pub(super) truncated: BTreeMap<String, Cut>,
    /// Where what was cut can be read.
    resources: Vec<Resource>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Cut {
    pub(super) total_bytes: u64,
    pub(super) omitted_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resource {
    uri: String,
    /// The field it belongs to.
    name: String,
    mime_type: String,
    bytes: usize,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::ctl) struct RunError {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(in crate::ctl) message: String,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
    pub(super) code_frame: Option<String>,
    pub(super) stack: Option<String>,
    pub(super) cause: Vec<String>,
    pub(in crate::ctl) hint: Option<String>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::ctl) struct Timings {
    pub(in crate::ctl) total: f64,
    pub(super) queue: f64,
    pub(super) run: f64,
}

impl RunResult {
    pub(in crate::ctl) fn read(document: &Value) -> Result<Self, ClientError> {
        Self::deserialize(document).map_err(|_| ClientError::Protocol { expected: "the result of a run" })
    }

    /// Puts the whole of what was cut in its place, as far as `read` can get it.
    pub(super) fn complete(&mut self, read: &mut dyn FnMut(&str) -> Result<String, ClientError>) {
        for resource in std::mem::take(&mut self.resources) {
            if resource.bytes <= MAX_RESOURCE_BYTES
                && let Ok(text) = read(&resource.uri)
                && self.replace(&resource, text)
            {
                self.truncated.remove(&resource.name);
            }
        }
    }

    fn replace(&mut self, resource: &Resource, text: String) -> bool {
        match (resource.name.as_str(), resource.mime_type.as_str()) {
            ("stdout", _) => self.stdout = text,
            ("stderr", _) => self.stderr = text,
            ("returnValue", "application/json") => match serde_json::from_str(&text) {
                Ok(value) => (self.return_value, self.return_value_format) = (value, "json".into()),
                Err(_) => return false,
            },
            ("returnValue", _) => {
                (self.return_value, self.return_value_format) = (text.into(), "inspect".into());
            }
            _ => return false,
        }
        true
    }

    /// True when nothing of the value or the output is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.truncated.is_empty()
    }

    pub(in crate::ctl) fn is_success(&self) -> bool {
        self.status == "success"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cut(bytes: usize) -> RunResult {
        let resource =
            |name: &str, media: &str| json!({ "uri": name, "name": name, "mimeType": media, "bytes": bytes });
        let cut = json!({ "totalBytes": bytes, "omittedBytes": 1 });
        let document = json!({
            "status": "success", "returnValue": "[1…", "returnValueFormat": "preview", "stdout": "o…",
            "truncated": { "returnValue": cut, "stdout": cut },
            "resources": [resource("returnValue", "application/json"), resource("stdout", "text/plain")],
        });
        RunResult::read(&document).expect("a result")
    }

    #[test]
    fn what_was_cut_is_read_whole() {
        let mut result = cut(9);
        result.complete(&mut |uri| Ok(if uri == "stdout" { "out".into() } else { "[1,2]".into() }));
        assert!(result.is_whole());
        assert_eq!((result.return_value, result.stdout.as_str()), (json!([1, 2]), "out"));
        assert_eq!(result.return_value_format, "json");
    }

    #[test]
    fn what_cannot_be_read_stays_cut() {
        let mut lost = cut(9);
        lost.complete(&mut |_| Err(ClientError::Lost));
        assert_eq!(lost.truncated.len(), 2);
        let mut garbage = cut(9);
        garbage.complete(&mut |_| Ok("[1".into()));
        assert_eq!(garbage.truncated.into_keys().collect::<Vec<_>>(), ["returnValue"]);
        let mut large = cut(MAX_RESOURCE_BYTES + 1);
        large.complete(&mut |_| panic!("is too large to be asked for"));
        assert!(!large.is_whole());
    }
}
