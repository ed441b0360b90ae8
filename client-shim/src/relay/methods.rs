//! What the relay must know of methods: which may be sent twice, and what a session keeps of them.

/// Methods that change nothing, or leave the same state when they run twice.
pub fn is_repeatable(method: &str) -> bool {
    matches!(
        method,
        "initialize"
            | "ping"
            | "server/discover"
            | "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "logging/setLevel"
            | "subscriptions/listen"
    )
}

/// What of a session a method sets.
pub(super) fn sets(method: &str) -> Option<&'static str> {
    match method {
        "resources/subscribe" | "resources/unsubscribe" => Some("subscription"),
        "logging/setLevel" => Some("level"),
        _ => None,
    }
}
