//! Keeps an answer within the size a client takes inline: what is larger is kept in the store, shown as an excerpt, and
//! linked. Nothing is cut without saying how much and where the rest is.

use std::time::Instant;

use serde_json::Value;

use super::excerpt::{Excerpt, excerpt};
use super::result::{ExecutionResult, ResourceLink, ReturnFormat, Truncated};
use crate::store::{JSON, Store, URI_PREFIX};

/// Characters shown of a value that is kept in the store: enough to see what it is, not enough to work on.
const PREVIEW_BYTES: usize = 4096;

/// Who may read what is kept, and how much may stay in the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inline<'a> {
    pub(crate) store: &'a Store,
    /// The profile the code ran under.
    pub(crate) owner: &'a str,
    /// Bytes of the value, of stdout and of stderr, each.
    pub(crate) limit: usize,
}

impl Inline<'_> {
    pub(crate) fn apply(self, result: &mut ExecutionResult) {
        let mut truncated = Truncated::default();
        if let Some(value) = result.return_value.take() {
            let (value, format, cut) = self.value(value, result.return_value_format, &mut result.resources);
            result.return_value = Some(value);
            result.return_value_format = format;
            truncated.return_value = cut;
        }
        truncated.stdout = self.stream(&mut result.stdout, "stdout", &mut result.resources);
        truncated.stderr = self.stream(&mut result.stderr, "stderr", &mut result.resources);
        result.truncated = truncated.into_option();
    }

    fn value(
        self,
        value: Value,
        format: ReturnFormat,
        resources: &mut Vec<ResourceLink>,
    ) -> (Value, ReturnFormat, Option<Excerpt>) {
        let (text, media_type) = match (value, format) {
            (Value::String(text), ReturnFormat::Inspect) => (text, "text/plain"),
            (value, _) => {
                let text = value.to_string();
                if text.len() <= self.limit {
                    return (value, format, None);
                }
                (text, JSON)
            }
        };
        match excerpt(&text, self.limit) {
            None => (Value::String(text), format, None),
            Some(_) => {
                let (shown, mut cut) = excerpt(&text, PREVIEW_BYTES.min(self.limit))
                    .expect("a smaller limit cuts at least as much");
                cut.resource = self.keep("returnValue", media_type, text, resources);
                (Value::String(shown), ReturnFormat::Preview, Some(cut))
            }
        }
    }

    fn stream(
        self,
        text: &mut String,
        name: &'static str,
        resources: &mut Vec<ResourceLink>,
    ) -> Option<Excerpt> {
        let (shown, mut cut) = excerpt(text, self.limit)?;
        cut.resource = self.keep(name, "text/plain", std::mem::replace(text, shown), resources);
        Some(cut)
    }

    fn keep(
        self,
        name: &'static str,
        media_type: &'static str,
        text: String,
        resources: &mut Vec<ResourceLink>,
    ) -> Option<String> {
        let bytes = text.len();
        let id = self.store.keep(self.owner, media_type, text, Instant::now())?;
        let uri = format!("{URI_PREFIX}{id}");
        resources.push(ResourceLink { uri: uri.clone(), id, name, mime_type: media_type, bytes });
        Some(uri)
    }
}
