//! The servers of `examples/mcp-config.json`, started from what the tests have installed instead of by `npx` and `uvx`.

use std::env;
use std::fs;
use std::sync::Arc;

use conductor_deno::testing::packages;
use conductor_tests::Home;
use serde_json::{Value, json};

use crate::repository;

/// A home with the servers of the example in the default place. `None`, after a loud notice, where they cannot be had.
pub(crate) fn home() -> Option<Arc<Home>> {
    let home = Home::new();
    let mut config = example();
    for entry in config["mcpServers"].as_object_mut().expect("has servers").values_mut() {
        install(entry)?;
    }
    write(&home, &config);
    Some(home)
}

/// Writes a configuration of servers where the daemon looks for it.
pub(crate) fn write(home: &Home, config: &Value) {
    let directory = home.home().join(".mcp-conductor");
    fs::create_dir_all(&directory).expect("makes the directory");
    fs::write(directory.join("mcp-config.json"), config.to_string()).expect("writes the configuration");
}

fn example() -> Value {
    let path = repository().join("examples/mcp-config.json");
    let text = fs::read_to_string(path).expect("the example is there");
    serde_json::from_str(&text).expect("the example is JSON")
}

/// Puts the installed program in the place of `npx -y PACKAGE` or `uvx PACKAGE`; all else in the entry stays.
fn install(entry: &mut Value) -> Option<()> {
    let args: Vec<String> = serde_json::from_value(entry["args"].take()).expect("arguments are texts");
    entry["env"]["PATH"] = json!(env::var("PATH").expect("a PATH"));
    match entry["command"].as_str() {
        Some("npx") => {
            let program =
                args[1].strip_prefix("@modelcontextprotocol/").expect("a server of the reference set");
            let directory = packages::npm("upstream-npm", &NPM)?;
            entry["command"] = json!(directory.join("node_modules/.bin").join(format!("mcp-{program}")));
            entry["args"] = json!(args[2..]);
        }
        Some("uvx") => {
            let module = args[0].replace('-', "_");
            entry["env"]["PYTHONPATH"] = json!(packages::pip("upstream-python", &PYTHON)?.join("packages"));
            entry["command"] = json!("python3");
            entry["args"] = json!([&["-B".into(), "-s".into(), "-m".into(), module], &args[1..]].concat());
        }
        other => panic!("{other:?} is neither npx nor uvx"),
    }
    Some(())
}

const NPM: [(&str, &str); 2] = [
    ("package.json", include_str!("../../daemon/upstream/tests/servers/npm/package.json")),
    ("package-lock.json", include_str!("../../daemon/upstream/tests/servers/npm/package-lock.json")),
];

const PYTHON: [(&str, &str); 1] =
    [("requirements.txt", include_str!("../../daemon/upstream/tests/servers/python/requirements.txt"))];
