use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use serde_json::value::RawValue;

use super::fetch::{List, MAX_ENTRIES, MAX_PAGES};
use super::*;
use crate::secret::Secret;

fn manifest() -> Manifest {
    Manifest {
        era: Era::Initialize,
        protocol_version: "2025-11-25".to_owned(),
        server_info: json!({ "name": "s" }),
        instructions: Some("do".to_owned()),
        capabilities: json!({}),
        tools: vec![
            json!({ "name": "zebra", "execution": { "z": 1.0, "a": 2 } }),
            json!({ "name": "apple" }),
        ],
        prompts: Vec::new(),
        resources: Vec::new(),
        resource_templates: Vec::new(),
        problems: Vec::new(),
    }
}

fn page(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

#[test]
fn a_manifest_is_kept_as_it_is_for_its_user_only() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("sub/x.json");
    assert_eq!(store::load(&file), None);
    store::save(&file, &manifest()).expect("saved");
    assert_eq!(store::load(&file), Some(manifest()));
    let text = fs::read_to_string(&file).expect("readable");
    assert!(text.contains(r#"{"name":"zebra","execution":{"z":1.0,"a":2}}"#), "{text}");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(file.parent().expect("a parent")).expect("there").permissions().mode() & 0o777,
        0o700
    );
    for broken in
        ["", "{", "{\"format\":1}", &text.replace("\"format\":1", "\"format\":99"), &text[..text.len() / 2]]
    {
        fs::write(&file, broken).expect("written");
        assert_eq!(store::load(&file), None, "{broken}");
    }
}

#[test]
fn what_a_server_repeats_of_a_secret_is_not_kept() {
    let mut manifest = manifest();
    manifest.tools.push(json!({ "name": "x", "description": "uses s3cr\"et-value" }));
    let blanked = Redactor::new([&Secret::new("s3cr\"et-value")]).blanked(&manifest).expect("JSON");
    assert_eq!(blanked.tools[2]["description"], "uses [redacted]");
}

#[test]
fn tools_that_may_not_be_called_are_not_shown() {
    let manifest = Arc::new(manifest());
    let deny =
        globset::GlobSet::builder().add(globset::Glob::new("z*").expect("a glob")).build().expect("a set");
    let filter = ToolFilter { allow: None, deny: Some(deny) };
    assert_eq!(manifest.filtered(&filter).tool_names().collect::<Vec<_>>(), ["apple"]);
    assert!(Arc::ptr_eq(&manifest, &manifest.filtered(&ToolFilter::default())));
}

#[test]
fn pages_are_joined_and_endless_ones_are_cut() {
    let mut list = List::new(ListOf::Tools);
    let next = list.take(&page(r#"{"tools":[{"name":"a"}],"nextCursor":"2","ttlMs":5}"#));
    assert_eq!(next, Ok(Some("2".to_owned())));
    assert_eq!(list.take(&page(r#"{"tools":[{"name":"b"}],"nextCursor":null}"#)), Ok(None));
    assert_eq!(list.entries, [json!({ "name": "a" }), json!({ "name": "b" })]);

    let mut list = List::new(ListOf::Tools);
    let circle = page(r#"{"tools":[],"nextCursor":"1"}"#);
    assert_eq!(list.take(&circle), Ok(Some("1".to_owned())));
    assert!(list.take(&circle).expect_err("a circle").contains("circle"));

    let mut list = List::new(ListOf::Tools);
    let error =
        (0..).find_map(|n| list.take(&page(&format!(r#"{{"tools":[{{}}],"nextCursor":"{n}"}}"#))).err());
    assert!(error.expect("cut").contains("100 pages"));
    assert_eq!(list.entries.len(), MAX_PAGES);

    let mut list = List::new(ListOf::Tools);
    let many = format!(r#"{{"tools":[{}{{}}]}}"#, "{},".repeat(MAX_ENTRIES));
    assert!(list.take(&page(&many)).expect_err("too many").contains("entries"));
    assert_eq!(list.entries.len(), MAX_ENTRIES);

    for broken in ["[]", r#"{"prompts":[]}"#, r#"{"tools":7}"#, r#"{"tools":[],"nextCursor":7}"#] {
        assert!(List::new(ListOf::Tools).take(&page(broken)).is_err(), "{broken}");
    }
}
