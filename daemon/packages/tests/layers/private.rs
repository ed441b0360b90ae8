//! Private registries: the user's tokens serve the fetching step and go no further.

use std::ffi::OsString;
use std::fs;

use conductor_packages::FetchEnvironment;

use crate::registry::Registry;
use crate::support::{Bed, import, list};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_npmrc_is_used_and_never_kept() {
    let registry = Registry::start().await;
    registry.demand_token("hunter2");
    registry.publish(
        "@acme/tool",
        "1.0.0",
        &[("@acme/part", "^1")],
        "module.exports = require('@acme/part')",
    );
    registry.publish("@acme/part", "1.0.0", &[], "module.exports = 'part'");
    let home = tempfile::tempdir().unwrap();
    let host = registry.npm_url().trim_start_matches("http:").to_owned();
    let npmrc = format!("@acme:registry={}\n{host}:_authToken=${{ACME_TOKEN}}\n", registry.npm_url());
    fs::write(home.path().join(".npmrc"), npmrc).unwrap();
    let vars = [("HOME", home.path().as_os_str().to_owned()), ("ACME_TOKEN", OsString::from("hunter2"))];
    let vars = vars.map(|(name, value)| (name.to_owned(), value));
    let bed = Bed::with(FetchEnvironment::new(vars), |_| {});
    let listed = "npm:@acme/tool@^1";
    let layer = bed.ensure(listed).await.unwrap();
    drop(registry);
    let spelled = layer.spell(&list(listed).judge("@acme/tool").unwrap()).unwrap();
    assert_eq!(import(&layer, &spelled), "ok");
    let mut open = vec![bed.root.path().to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            assert!(!content.contains("hunter2") && !content.contains("ACME_TOKEN"), "{}", path.display());
        }
    }
    assert!(!format!("{:?}{:?}", layer, bed.layers).contains("hunter2"));
}
