//! `docs/OPERATIONS.md` names every error that an operator can meet. The list is taken from the sources.

use std::fs;

use super::repository;

/// The enumerations whose errors reach operators. Other errors come as the cause behind one of these.
const ERRORS: [(&str, &str); 23] = [
    ("daemon/src/supervisor.rs", "StartError"),
    ("daemon/src/listener.rs", "ClaimError"),
    ("daemon/src/service.rs", "ServiceError"),
    ("daemon/src/config.rs", "ConfigError"),
    ("daemon/src/profile/resolve.rs", "ProfileError"),
    ("daemon/src/http/answer.rs", "Refusal"),
    ("daemon/src/http/tokens.rs", "TokenError"),
    ("daemon/src/http/tls.rs", "TlsError"),
    ("daemon/packages/src/error.rs", "LayerError"),
    ("client-shim/src/autostart.rs", "StartError"),
    ("client-shim/src/autostart/directory.rs", "DirectoryError"),
    ("client-shim/src/connect.rs", "ConnectError"),
    ("client-shim/src/handshake.rs", "HandshakeError"),
    ("client-shim/src/ctl/config.rs", "ConfigFailure"),
    ("client-shim/src/ctl/manager.rs", "ManagerError"),
    ("pool/deno/src/fetch/error.rs", "FetchError"),
    ("pool/deno/src/search.rs", "FindError"),
    ("pool/deno/src/search.rs", "ObtainError"),
    ("pool/src/fork/descriptors.rs", "Unfit"),
    ("pool/src/fork/link.rs", "LinkError"),
    ("pool/src/fork/template.rs", "ForkError"),
    ("pool/src/lease.rs", "LeaseError"),
    ("pool/src/source.rs", "SpawnError"),
];

/// Shorter pieces are found anywhere and prove nothing.
const LEAST_PIECE: usize = 8;

/// The messages of an enumeration, as its `#[error("…")]` have them.
fn messages(source: &str, name: &str) -> Vec<String> {
    let start = source.find(&format!("enum {name} {{")).unwrap_or_else(|| panic!("{name} is there"));
    let body = &source[start..start + source[start..].find("\n}\n").expect("it ends")];
    let attributes = body.split("#[error(").skip(1).map(str::trim_start);
    let literals = attributes.filter_map(|rest| rest.strip_prefix('"'));
    literals
        .map(|rest| {
            let end = rest.char_indices().find(|(at, c)| *c == '"' && !rest[..*at].ends_with('\\'));
            rest[..end.expect("a literal ends").0].replace("\\\"", "\"")
        })
        .collect()
}

/// The longest part of a message's first line that is the same each time.
fn fixed(message: &str) -> String {
    let first = message.split("\\n").next().unwrap_or_default();
    let mut pieces = vec![String::new()];
    let mut depth = 0;
    for c in first.chars() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                pieces.push(String::new());
            }
            // Names are set in code there.
            '`' if depth == 0 => pieces.push(String::new()),
            c if depth == 0 => pieces.last_mut().expect("has one").push(c),
            _ => {}
        }
    }
    let pieces = pieces.iter().map(|piece| piece.trim().trim_end_matches([':', '(', ',']).trim());
    pieces.max_by_key(|piece| piece.len()).unwrap_or_default().to_owned()
}

#[test]
fn every_error_an_operator_can_meet_has_its_cure() {
    let document = fs::read_to_string(repository().join("docs/OPERATIONS.md")).expect("is there");
    let mut missing = Vec::new();
    let mut n_found = 0;
    for (path, name) in ERRORS {
        let source = fs::read_to_string(repository().join(path)).expect(path);
        for message in messages(&source, name) {
            let fixed = fixed(&message);
            if fixed.len() < LEAST_PIECE {
                continue;
            }
            match document.contains(&fixed) {
                true => n_found += 1,
                false => missing.push(format!("{name} ({path}): {fixed:?} of {message:?}")),
            }
        }
    }
    assert!(missing.is_empty(), "docs/OPERATIONS.md does not name {missing:#?}");
    assert!(n_found > 80, "only {n_found} messages were found in the sources");
}

#[test]
fn every_type_of_error_of_a_call_has_its_cure() {
    let document = fs::read_to_string(repository().join("docs/OPERATIONS.md")).expect("is there");
    for error in conductor_daemon::exec::result::ErrorType::ALL {
        assert!(document.contains(&format!("`{}`", error.name())), "{}", error.name());
    }
}

#[test]
fn the_configuration_in_it_is_right() {
    let document = fs::read_to_string(repository().join("docs/OPERATIONS.md")).expect("is there");
    for block in document.split("```toml\n").skip(1) {
        let text = block.split("```").next().expect("a block ends");
        conductor_daemon::config::Config::parse(text, std::path::Path::new("c.toml")).expect("is right");
    }
}
