//! Which variables a configuration of servers refers to, so that the client is asked for their values. Pure.

use std::collections::BTreeSet;

/// Names in `${env:NAME}`, `${NAME}` and `${NAME:-default}`.
pub(crate) fn of(text: &str) -> BTreeSet<String> {
    let inside = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    let names = inside.filter_map(|(reference, _)| match reference.split_once(':') {
        Some(("env", name)) => Some(name),
        Some((name, default)) if default.starts_with('-') => Some(name),
        Some(_) => None,
        None => Some(reference),
    });
    let known = ["HOME", "userHome", "workspaceFolder", "workspaceRoot", "pathSeparator"];
    names.filter(|name| is_variable(name) && !known.contains(name)).map(str::to_owned).collect()
}

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_variables_and_nothing_else() {
        let text = r#"{"a": "${env:TOKEN} ${OTHER} ${WITH:-x} ${HOME} ${file:/x} ${keyring:a/b} ${workspaceFolder} ${not a name} ${"}"#;
        assert_eq!(of(text), ["OTHER", "TOKEN", "WITH"].map(str::to_owned).into());
        assert!(of("").is_empty());
    }
}
