//! What upstream servers say of their tools.

use conductor_catalog::{
    ArgumentChecker, Detail, ToolEntry, declare, render_details, render_found, search, signature,
};
use conductor_script::prepare;
use serde_json::{Value, json};

pub(super) const SCHEMA_WORDS: &[&str] = &[
    "\"type\":\"object\"",
    "\"properties\":{",
    "\"required\":[",
    "\"$ref\":\"#\"",
    "\"$defs\":{",
    "\"$ref\":\"#/$defs/a\"",
    "\"anyOf\":[",
    "\"allOf\":[",
    "\"oneOf\":[",
    "\"not\":",
    "\"enum\":[",
    "\"const\":",
    "\"pattern\":\"(a+)+$\"",
    "\"items\":",
    "\"additionalProperties\":",
    "\"description\":\"*/ x\"",
    "\"name\":\"",
    "\"inputSchema\":",
    "\"outputSchema\":",
    "\"format\":",
    "\"minimum\":",
    "\"maxItems\":1e300",
    "\"$anchor\":\"a\"",
    "\"$dynamicRef\":\"#a\"",
    "\"\\u2028\"",
    "`",
    "${",
    "null",
    "{}",
    "[]",
    "true",
    "\"default\":",
];

/// More than the longest name and the longest signature together.
const MAX_SIGNATURE_BYTES: usize = 2000;

/// More than the longest list of declarations.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// A tool as a server lists it, with arguments for it as `arguments`: what is made of it is TypeScript of a bounded size, and
/// its check ends, with a reason when it refuses.
pub(super) fn schema(bytes: &[u8]) {
    let Ok(listed) = serde_json::from_slice::<Value>(bytes) else { return };
    let Some(tool) = ToolEntry::from_listed("server", &listed) else { return };
    let line = signature(&tool);
    assert!(!line.contains(['\n', '\r']) && line.len() <= MAX_SIGNATURE_BYTES, "{line:?}");
    assert_typescript(&format!("interface Tools {{ {line} }}"));
    let declaration = declare(&tool, "");
    let types: Vec<&str> = declaration.types.iter().map(|(_, text)| text.as_str()).collect();
    assert_typescript(&format!("{}\ninterface Tools {{ {} }}", types.join("\n"), declaration.method));
    let tools = [tool];
    let details = render_details("server", &tools, Detail::Declarations);
    assert!(details.len() <= MAX_TEXT_BYTES);
    assert_typescript(&details);
    let found = search(&tools, listed["description"].as_str().unwrap_or("tool"), 3);
    assert!(found.len() <= 1 && render_found("tool", &found).len() <= MAX_TEXT_BYTES);
    let checker = ArgumentChecker::compile(&tools[0].input_schema);
    if let Some(reason) = checker.unchecked() {
        assert!(!reason.to_string().is_empty());
    }
    for arguments in [&listed["arguments"], &json!({}), &listed] {
        if let Err(invalid) = checker.check(arguments) {
            assert!(!invalid.problems.is_empty() && invalid.to_string().len() <= MAX_TEXT_BYTES);
        }
    }
}

fn assert_typescript(text: &str) {
    if let Err(error) = prepare(text) {
        panic!("{error}\n{text}");
    }
}
