//! What was learnt of the answers of tools that declare no type of their own: shapes, never values.
//!
//! Kept in a small file of the state directory by the server's identity and the tool's name, so that servers of one name in
//! different profiles learn nothing of each other. A file that is broken, or full, is started anew.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use conductor_catalog::Observed;
use serde_json::Value;

/// Tools of which something is kept, those of some dozens of servers. More have come of configurations that are gone.
const MAX_TOOLS: usize = 2048;

/// Answers of one tool after which its shape is taken as known.
const MAX_SAMPLES: u64 = 200;

#[derive(Debug)]
pub(super) struct Learnt {
    file: PathBuf,
    shapes: Mutex<Shapes>,
}

#[derive(Debug, Default)]
struct Shapes {
    by_tool: BTreeMap<String, Observed>,
    is_saved: bool,
}

impl Learnt {
    pub(super) fn open(file: PathBuf) -> Self {
        let by_tool = match std::fs::read(&file).and_then(|json| Ok(serde_json::from_slice(&json)?)) {
            Ok(by_tool) => by_tool,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(%error, "what was learnt of tools cannot be read and starts anew");
                BTreeMap::new()
            }
        };
        Self { file, shapes: Mutex::new(Shapes { by_tool, is_saved: true }) }
    }

    pub(super) fn of(&self, server: &str, tool: &str) -> Option<Observed> {
        self.shapes().by_tool.get(&key(server, tool)).cloned()
    }

    /// Learns from one answer; true when that is worth saving.
    pub(super) fn learn(&self, server: &str, tool: &str, value: &Value) -> bool {
        let mut shapes = self.shapes();
        let key = key(server, tool);
        if !shapes.by_tool.contains_key(&key) && shapes.by_tool.len() >= MAX_TOOLS {
            shapes.by_tool.clear();
        }
        let observed = shapes.by_tool.entry(key).or_default();
        if observed.n_samples() >= MAX_SAMPLES {
            return false;
        }
        let changed = observed.learn(value);
        shapes.is_saved &= !changed;
        changed
    }

    /// Writes what changed, as a whole or not at all.
    pub(super) fn save(&self) {
        let mut shapes = self.shapes();
        if shapes.is_saved {
            return;
        }
        shapes.is_saved = true;
        let json = serde_json::to_vec(&shapes.by_tool).expect("shapes always encode");
        drop(shapes);
        if let Err(error) = conductor_files::replace(&self.file, &json) {
            tracing::warn!(%error, "what was learnt of tools cannot be kept");
            self.shapes().is_saved = false;
        }
    }

    fn shapes(&self) -> MutexGuard<'_, Shapes> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(server: &str, tool: &str) -> String {
    format!("{server}\n{tool}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shapes_outlive_the_daemon_and_a_broken_file_does_no_harm() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("state/learnt.json");
        let learnt = Learnt::open(file.clone());
        assert!(learnt.of("s", "t").is_none());
        assert!(learnt.learn("s", "t", &json!({ "secret": "value" })));
        learnt.save();
        let again = Learnt::open(file.clone());
        assert!(again.of("s", "t").is_some() && again.of("s", "u").is_none());
        let kept = std::fs::read_to_string(&file).expect("is there");
        assert!(!kept.contains("value"), "values are not kept: {kept}");
        std::fs::write(&file, "{").expect("writes");
        assert!(Learnt::open(file).of("s", "t").is_none());
    }
}
