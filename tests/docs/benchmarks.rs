//! Plots and tables of `docs/BENCHMARKS.md` and the README are those of the samples beside them: what the benchmark writes.

use std::fs;

use conductor_tests::bench::document;

use crate::document::is_updating;
use crate::repository;

#[test]
fn plots_and_tables_are_those_of_the_samples() {
    let root = repository();
    let samples = fs::read_to_string(root.join(document::SAMPLES)).expect("the samples are there");
    let files = document::files(&root, &samples).expect("the documents have their places for results");
    assert!(files.len() >= 7, "samples, plots and two documents");
    for (path, text) in files {
        if is_updating() {
            fs::write(&path, text).expect("the document can be written");
        } else {
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(found == text, "{} is not what the benchmark writes of its samples", path.display());
        }
    }
}
