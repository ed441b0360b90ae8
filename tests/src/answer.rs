//! What a call came to, as the client sees it.

use serde_json::Value;

/// The answer to one `tools/call` of `run_deno_code`, or to any other request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The whole JSON-RPC response.
    pub message: Value,
}

impl Answer {
    /// The `result`.
    ///
    /// # Panics
    /// The answer is a JSON-RPC error.
    #[track_caller]
    pub fn result(&self) -> &Value {
        self.message.get("result").unwrap_or_else(|| panic!("not a result: {}", self.message))
    }

    /// Code and message of a JSON-RPC error.
    ///
    /// # Panics
    /// The answer is a result.
    #[track_caller]
    pub fn rpc_error(&self) -> (i64, &str) {
        let error = self.message.get("error").unwrap_or_else(|| panic!("not an error: {}", self.message));
        let code = error["code"].as_i64().expect("an error has a code");
        (code, error["message"].as_str().expect("an error has a message"))
    }

    pub fn is_rpc_error(&self) -> bool {
        self.message.get("error").is_some()
    }

    /// `structuredContent`.
    #[track_caller]
    pub fn structured(&self) -> &Value {
        let structured = &self.result()["structuredContent"];
        assert!(structured.is_object(), "no structured content: {}", self.message);
        structured
    }

    /// The text for clients that show only text.
    #[track_caller]
    pub fn text(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {}", self.message))
    }

    /// The value of a call that succeeded; null when it has none.
    #[track_caller]
    pub fn value(&self) -> &Value {
        let structured = self.structured();
        assert_eq!(structured["status"], "success", "{structured:#}");
        assert_ne!(self.result()["isError"], true, "{}", self.message);
        structured.get("returnValue").unwrap_or(&Value::Null)
    }

    /// The `error` of a call that failed.
    #[track_caller]
    pub fn error(&self) -> &Value {
        let structured = self.structured();
        assert_eq!(structured["status"], "error", "{structured:#}");
        assert_eq!(self.result()["isError"], true, "{}", self.message);
        &structured["error"]
    }

    /// The kind of failure.
    #[track_caller]
    pub fn error_type(&self) -> &str {
        self.error()["type"].as_str().expect("an error has a type")
    }

    /// The message of the failure.
    #[track_caller]
    pub fn error_message(&self) -> &str {
        self.error()["message"].as_str().expect("an error has a message")
    }

    /// What the code printed.
    #[track_caller]
    pub fn stdout(&self) -> &str {
        self.structured()["stdout"].as_str().expect("stdout is text")
    }

    #[track_caller]
    pub fn stderr(&self) -> &str {
        self.structured()["stderr"].as_str().expect("stderr is text")
    }
}
