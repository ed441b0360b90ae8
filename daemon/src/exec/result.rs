//! What one execution came to, and how it is told: as structured content and as text. Pure.
//!
//! Some clients show the model only one of the two, so each stands alone. The structured form follows `outputSchema` in
//! [`super::schema`]; fields may be added, never renamed.

use std::fmt::Write;

use conductor_pool::{MediaKind, WorkerIdentity, WorkerKind};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rmcp::model::{CallToolResult, ContentBlock, Resource, ResourceContents};
use serde::Serialize;
use serde_json::Value;

use super::excerpt::Excerpt;

/// The answer to one `run_deno_code` call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionResult {
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_value: Option<Value>,
    pub return_value_format: ReturnFormat,
    pub stdout: String,
    pub stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    pub execution_id: String,
    pub timings: Timings,
    /// The images, sounds and files that the code returned; their data is content of the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<MediaItem>,
    /// What of the value and the output is not in this answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
    /// Where what is not in this answer can be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceLink>,
    /// What a reader should know: a cut timeout, handles that were left open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How the worker was made that ran the code; absent if none did.
    #[serde(rename = "worker", skip_serializing_if = "Option::is_none")]
    pub kind: Option<WorkerKind>,
    /// Which process ran the code; for logs and status, not for the client.
    #[serde(skip)]
    pub worker: Option<WorkerIdentity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Success,
    Error,
}

/// How `returnValue` shows the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReturnFormat {
    /// The JSON value itself.
    Json,
    /// A string: what `Deno.inspect` shows of a value that JSON cannot hold.
    Inspect,
    /// A string: the beginning and end of a value that is too large for an answer; `resources` has all of it.
    Preview,
    /// The value is images, sounds or files: they are content of the answer, `media` lists them.
    Media,
    /// There is no value.
    None,
}

/// What was cut, by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Truncated {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_value: Option<Excerpt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Excerpt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Excerpt>,
}

impl Truncated {
    /// `None` when nothing was cut.
    pub(crate) fn into_option(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// An image, a sound or a file that the code returned.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaItem {
    pub kind: MediaKind,
    pub mime_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub bytes: usize,
    /// Base64; travels as content, not in the structured form.
    #[serde(skip)]
    pub data: String,
}

impl MediaItem {
    fn content(&self) -> ContentBlock {
        match self.kind {
            MediaKind::Image => ContentBlock::image(self.data.clone(), self.mime_type.clone()),
            MediaKind::Audio => ContentBlock::audio(self.data.clone(), self.mime_type.clone()),
            MediaKind::File => {
                let name = self.name.as_deref().unwrap_or("unnamed");
                let uri = format!("conductor://file/{}", utf8_percent_encode(name, &RESERVED));
                let contents = ResourceContents::blob(self.data.clone(), uri);
                ContentBlock::resource(contents.with_mime_type(self.mime_type.clone()))
            }
        }
    }

    fn in_words(&self) -> String {
        let kind = match self.kind {
            MediaKind::Image => "image",
            MediaKind::Audio => "sound",
            MediaKind::File => "file",
        };
        let name = self.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("[{kind}{name}: {}, {} bytes]", self.mime_type, self.bytes)
    }
}

/// What stands for itself in a URI (RFC 3986: unreserved); all else of a file's name is encoded, so that it is one segment.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A stored text, readable with MCP `resources/read`, `conductorctl result ID`, and `conductor.result(ID)` in a later run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceLink {
    pub uri: String,
    pub id: String,
    /// The field it belongs to.
    pub name: &'static str,
    pub mime_type: &'static str,
    pub bytes: usize,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timings {
    /// From the daemon's receipt of the call to its answer.
    pub total: f64,
    /// Reading and rewriting the code.
    pub prepare: f64,
    /// Waiting for a worker.
    pub queue: f64,
    /// Wall time in the worker.
    pub run: f64,
    /// CPU time of the worker.
    pub compute: f64,
    /// Part of `run`: while at least one call of the code to the daemon was not answered.
    pub waiting: f64,
}

/// Kinds of failure; clients and models branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    Syntax,
    Runtime,
    Permission,
    Timeout,
    ComputeLimit,
    Memory,
    OutputLimit,
    /// Too many calls to upstream servers.
    CallLimit,
    Exit,
    Cancelled,
    Dependency,
    Busy,
    /// The arguments of the call are wrong.
    InvalidArguments,
    /// The session's configuration is wrong or refused; an administrator must act.
    Configuration,
    Internal,
}

impl ErrorType {
    pub const ALL: [Self; 15] = [
        Self::Syntax,
        Self::Runtime,
        Self::Permission,
        Self::Timeout,
        Self::ComputeLimit,
        Self::Memory,
        Self::OutputLimit,
        Self::CallLimit,
        Self::Exit,
        Self::Cancelled,
        Self::Dependency,
        Self::Busy,
        Self::InvalidArguments,
        Self::Configuration,
        Self::Internal,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Runtime => "runtime",
            Self::Permission => "permission",
            Self::Timeout => "timeout",
            Self::ComputeLimit => "compute_limit",
            Self::Memory => "memory",
            Self::OutputLimit => "output_limit",
            Self::CallLimit => "call_limit",
            Self::Exit => "exit",
            Self::Cancelled => "cancelled",
            Self::Dependency => "dependency",
            Self::Busy => "busy",
            Self::InvalidArguments => "invalid_arguments",
            Self::Configuration => "configuration",
            Self::Internal => "internal",
        }
    }
}

/// What went wrong, where, and what to do about it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorReport {
    #[serde(rename = "type")]
    pub kind: ErrorType,
    pub message: String,
    /// 1-based, in the code as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// 1-based.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_frame: Option<String>,
    /// Frames of the sent code only, named `main.ts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// The messages of the error's causes and members, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cause: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ErrorReport {
    pub fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            line: None,
            column: None,
            code_frame: None,
            stack: None,
            cause: Vec::new(),
            hint: None,
        }
    }

    /// Splits `text` at its `hint:` line, as conductor's own errors write it.
    pub fn from_text(kind: ErrorType, text: &str) -> Self {
        match text.split_once("\nhint: ") {
            Some((message, hint)) => Self::new(kind, message).hint(hint),
            None => Self::new(kind, text),
        }
    }

    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl ExecutionResult {
    /// An answer to a call that never reached a worker.
    pub fn failed(execution_id: String, error: ErrorReport) -> Self {
        Self {
            status: Status::Error,
            return_value: None,
            return_value_format: ReturnFormat::None,
            stdout: String::new(),
            stderr: String::new(),
            error: Some(error),
            execution_id,
            timings: Timings::default(),
            media: Vec::new(),
            truncated: None,
            resources: Vec::new(),
            notes: Vec::new(),
            kind: None,
            worker: None,
        }
    }

    pub fn into_call_result(self) -> CallToolResult {
        let text = self.text();
        let is_error = self.status == Status::Error;
        let links = self.resources.iter().map(|link| {
            let size = u64::try_from(link.bytes).unwrap_or(u64::MAX);
            let resource =
                Resource::new(link.uri.clone(), link.name).with_mime_type(link.mime_type).with_size(size);
            ContentBlock::resource_link(resource)
        });
        let media = self.media.iter().map(MediaItem::content);
        let content = std::iter::once(ContentBlock::text(text)).chain(media).chain(links).collect();
        let structured =
            serde_json::to_value(&self).expect("string keys and finite numbers always serialize");
        let mut result =
            if is_error { CallToolResult::error(content) } else { CallToolResult::success(content) };
        result.structured_content = Some(structured);
        result
    }

    /// The result in words, for clients that show only text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match &self.error {
            Some(error) => write_error(&mut text, error),
            None => text.push_str(&self.value_text()),
        }
        write_section(&mut text, "stdout", &self.stdout);
        write_section(&mut text, "stderr", &self.stderr);
        for link in &self.resources {
            let (name, bytes, id) = (link.name, link.bytes, &link.id);
            write_line(
                &mut text,
                &format!(
                    "note: all {bytes} bytes of {name} are at {} for an hour; in code: await conductor.result(\"{id}\")",
                    link.uri
                ),
            );
        }
        for note in &self.notes {
            write_line(&mut text, &format!("note: {note}"));
        }
        text
    }

    fn value_text(&self) -> String {
        match (&self.return_value, self.return_value_format) {
            (Some(Value::String(text)), ReturnFormat::Inspect | ReturnFormat::Preview) => text.clone(),
            // Compact: a model pays for every token of it.
            (Some(value), _) => value.to_string(),
            (None, ReturnFormat::Media) => {
                self.media.iter().map(MediaItem::in_words).collect::<Vec<_>>().join("\n")
            }
            (None, _) if self.stdout.is_empty() && self.stderr.is_empty() => "(no value, no output)".into(),
            (None, _) => "(no value)".into(),
        }
    }
}

fn write_error(text: &mut String, error: &ErrorReport) {
    write_line(text, &format!("error ({}): {}", error.kind.name(), error.message));
    for cause in &error.cause {
        write_line(text, &format!("caused by: {cause}"));
    }
    if let Some(frame) = &error.code_frame {
        write_line(text, frame);
    }
    if let Some(stack) = &error.stack {
        write_line(text, stack);
    }
    if let Some(hint) = &error.hint {
        write_line(text, &format!("hint: {hint}"));
    }
}

fn write_section(text: &mut String, name: &str, body: &str) {
    if !body.is_empty() {
        write_line(text, &format!("\n{name}:\n{}", body.strip_suffix('\n').unwrap_or(body)));
    }
}

fn write_line(text: &mut String, line: &str) {
    let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write!(text, "{separator}{line}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn success() -> ExecutionResult {
        ExecutionResult {
            status: Status::Success,
            return_value: Some(json!({"a": 1})),
            return_value_format: ReturnFormat::Json,
            stdout: "hi\n".into(),
            error: None,
            ..ExecutionResult::failed("x1".into(), ErrorReport::new(ErrorType::Internal, ""))
        }
    }

    #[test]
    fn the_text_alone_tells_everything() {
        assert_eq!(success().text(), "{\"a\":1}\n\nstdout:\nhi");
        let mut failed = success();
        failed.error = Some(ErrorReport {
            line: Some(2),
            code_frame: Some("> 2 | boom()".into()),
            stack: Some("    at main.ts:2:1".into()),
            cause: vec!["Error: inner".into()],
            ..ErrorReport::new(ErrorType::Runtime, "Error: outer").hint("do not")
        });
        assert_eq!(
            failed.text(),
            "error (runtime): Error: outer\ncaused by: Error: inner\n> 2 | boom()\n    at main.ts:2:1\nhint: do not\n\n\
             stdout:\nhi"
        );
    }

    #[test]
    fn a_string_value_is_told_from_an_inspected_one() {
        let text = |value: &str, format| {
            ExecutionResult {
                return_value: Some(json!(value)),
                return_value_format: format,
                stdout: String::new(),
                ..success()
            }
            .text()
        };
        assert_eq!(text("a", ReturnFormat::Json), "\"a\"");
        assert_eq!(text("Map(0) {}", ReturnFormat::Inspect), "Map(0) {}");
    }

    #[test]
    fn names_of_files_are_one_segment_of_a_uri() {
        for (name, uri) in [
            (Some("a b/ü?#%\".csv"), "conductor://file/a%20b%2F%C3%BC%3F%23%25%22.csv"),
            (Some("A-z_0.~"), "conductor://file/A-z_0.~"),
            (None, "conductor://file/unnamed"),
        ] {
            let item = MediaItem {
                kind: MediaKind::File,
                mime_type: "text/csv".into(),
                name: name.map(String::from),
                bytes: 0,
                data: String::new(),
            };
            assert_eq!(json!(item.content())["resource"]["uri"], uri);
        }
    }

    #[test]
    fn the_structured_form_has_the_documented_names() {
        let result = success().into_call_result();
        assert_eq!(result.is_error, Some(false));
        let structured = result.structured_content.expect("is there");
        assert_eq!(structured["status"], "success");
        assert_eq!(structured["returnValueFormat"], "json");
        assert_eq!(structured["executionId"], "x1");
        assert!(structured.get("error").is_none() && structured.get("worker").is_none());
    }

    #[test]
    fn names_and_serialized_names_of_error_types_agree() {
        for kind in ErrorType::ALL {
            assert_eq!(json!(kind), json!(kind.name()));
        }
    }

    #[test]
    fn own_errors_carry_their_hint_apart() {
        let report = ErrorReport::from_text(ErrorType::InvalidArguments, "bad\nhint: do this");
        assert_eq!((report.message.as_str(), report.hint.as_deref()), ("bad", Some("do this")));
    }
}
