//! Names: how code reaches a tool, and what a client sees it as.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

/// The longest name shown to clients: the tightest known limits are 60 to 64 characters for the client's own prefix, the
/// server's name and the tool's name together.
pub const MAX_EXPOSED_NAME_CHARS: usize = 46;

/// Hexadecimal digits of the tail that tells apart names which would be the same.
const TAIL_CHARS: usize = 8;

/// The expression by which code calls a tool: `mcp.github.list_issues`, `mcp["my-server"]["get-sum"]`.
pub fn access(server: &str, tool: &str) -> String {
    format!("{}{}", access_server(server), property(tool))
}

/// The expression for a server: `mcp.github`.
pub(crate) fn access_server(server: &str) -> String {
    format!("mcp{}", property(server))
}

/// The name under which a tool, prompt or resource of `server` is shown to clients.
///
/// `prefix` is usually the server's name, and empty where there is only one server. The result has at most
/// [`MAX_EXPOSED_NAME_CHARS`] characters of `[A-Za-z0-9_-]`; where that changed the name, its tail is a hash of server
/// and tool.
pub fn exposed_name(server: &str, tool: &str, prefix: &str) -> String {
    let wanted = if prefix.is_empty() { tool.to_owned() } else { format!("{prefix}_{tool}") };
    let allowed = sanitised(&wanted);
    if allowed == wanted && !wanted.is_empty() && wanted.len() <= MAX_EXPOSED_NAME_CHARS {
        return wanted;
    }
    with_tail(&allowed, server, tool, 0)
}

/// [`exposed_name`] for several `(server, tool, prefix)` at once: no two are the same.
///
/// Names that would be equal all get the hash tail, so that none depends on the order or on which server came first.
/// Equal entries are numbered in their order.
pub fn exposed_names(entries: &[(&str, &str, &str)]) -> Vec<String> {
    let plain: Vec<String> =
        entries.iter().map(|(server, tool, prefix)| exposed_name(server, tool, prefix)).collect();
    let mut count: HashMap<&str, usize> = HashMap::new();
    for name in &plain {
        *count.entry(name).or_default() += 1;
    }
    // Names that stay as they are go first: a tail must not meet one of them by chance.
    let mut taken: HashSet<String> = plain.iter().filter(|name| count[name.as_str()] == 1).cloned().collect();
    let settle = |(name, (server, tool, _)): (&String, &(&str, &str, &str))| {
        if count[name.as_str()] == 1 {
            return name.clone();
        }
        (0..)
            .map(|attempt| with_tail(&sanitised(name), server, tool, attempt))
            .find(|candidate| taken.insert(candidate.clone()))
            .expect("a counter finds a free name in the end")
    };
    plain.iter().zip(entries).map(settle).collect()
}

/// True for what may stand after a dot, or as a property name without quotes. ASCII only: easy to copy.
pub(crate) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == '$')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
}

/// A JavaScript string literal.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// The name of a property as it is declared.
pub(crate) fn property_name(name: &str) -> String {
    if is_identifier(name) { name.to_owned() } else { quoted(name) }
}

fn property(name: &str) -> String {
    if is_identifier(name) { format!(".{name}") } else { format!("[{}]", quoted(name)) }
}

fn sanitised(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect()
}

fn with_tail(allowed: &str, server: &str, tool: &str, attempt: u32) -> String {
    let mut hash = Sha256::new().chain_update(server).chain_update([0]).chain_update(tool);
    if attempt > 0 {
        hash.update([0]);
        hash.update(attempt.to_be_bytes());
    }
    let digest = hash.finalize();
    let tail: String = digest.iter().take(TAIL_CHARS / 2).map(|byte| format!("{byte:02x}")).collect();
    let kept: String = allowed.chars().take(MAX_EXPOSED_NAME_CHARS - TAIL_CHARS - 1).collect();
    format!("{kept}_{tail}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn access_uses_dots_where_it_can() {
        assert_eq!(access("github", "list_issues"), "mcp.github.list_issues");
        assert_eq!(access("my-server", "get-sum"), r#"mcp["my-server"]["get-sum"]"#);
        assert_eq!(access("a", "x\"]; evil("), r#"mcp.a["x\"]; evil("]"#);
        assert_eq!(access("1st", ""), r#"mcp["1st"][""]"#);
        assert_eq!(access("größe", "delete"), r#"mcp["größe"].delete"#);
    }

    #[test]
    fn exposed_names_stay_when_they_may() {
        assert_eq!(exposed_name("github", "list_issues", "github"), "github_list_issues");
        assert_eq!(exposed_name("github", "get-sum", ""), "get-sum");
        let dotted = exposed_name("s", "a.b", "");
        assert!(dotted.starts_with("a_b_") && dotted.len() == 12, "{dotted}");
        assert_ne!(dotted, exposed_name("s", "a b", ""));
    }

    #[test]
    fn equal_names_all_get_a_tail() {
        let names = exposed_names(&[
            ("a", "b_c", "a"),
            ("a_b", "c", "a_b"),
            ("x", "y", "x"),
            ("x", "z", ""),
            ("x", "z", ""),
        ]);
        assert!(names[0].starts_with("a_b_c_") && names[1].starts_with("a_b_c_"), "{names:?}");
        assert_eq!(names[2], "x_y");
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 5, "{names:?}");
    }

    proptest! {
        #[test]
        fn exposed_names_are_short_allowed_and_unique(entries in prop::collection::vec(("[a_.]{0,3}", "\\PC{0,60}|[a_.]{0,3}", "[a_]{0,2}|.{0,60}"), 0..12)) {
            let borrowed: Vec<_> = entries.iter().map(|(s, t, p)| (s.as_str(), t.as_str(), p.as_str())).collect();
            let names = exposed_names(&borrowed);
            prop_assert_eq!(names.iter().collect::<HashSet<_>>().len(), entries.len());
            for name in &names {
                prop_assert!(!name.is_empty() && name.len() <= MAX_EXPOSED_NAME_CHARS);
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'));
            }
        }
    }
}
