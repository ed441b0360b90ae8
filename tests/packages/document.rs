//! `docs/PACKAGES.md`: finds the parts that tests make, and compares or replaces them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use conductor_protocol::operation::PackageReport;

use crate::cases::{Case, Outcome};

/// Where the table of packages stands in the document.
const TABLE_START: &str = "<!-- made by tests/packages -->\n";
const TABLE_END: &str = "<!-- end -->\n";

/// One package in the table.
#[derive(Debug)]
pub(crate) struct Row {
    text: [String; 4],
    import_ms: Option<f64>,
    pub(crate) loaded_ms: Option<f64>,
    memory_mib: Option<f64>,
}

impl Row {
    pub(crate) fn new(case: &Case, measured: PackageReport) -> Self {
        let (works, is_measured) = match case.outcome {
            Outcome::Value(_) => ("yes".to_owned(), true),
            Outcome::Needs(permission, _, why) => {
                (format!("with the permission `{permission}`: {why}"), true)
            }
            Outcome::Refused(_, why) => (format!("no: {why}"), false),
        };
        let call = case.call.lines().map(str::trim).collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let name = format!("`{}{}`", case.name(), case.subpath);
        Self {
            text: [name, format!("`{}`", case.range()), format!("`{call}`"), works],
            import_ms: measured.import_ms.filter(|_| is_measured),
            loaded_ms: None,
            memory_mib: measured
                .memory_bytes
                .filter(|_| is_measured)
                .map(|bytes| bytes as f64 / f64::from(1 << 20)),
        }
    }

    fn line(&self) -> String {
        let number = |number: Option<f64>| number.map_or_else(String::new, |number| format!("{number:.1}"));
        let numbers = [self.import_ms, self.loaded_ms, self.memory_mib].map(number).join(" | ");
        format!("| {} | {numbers} |\n", self.text.join(" | "))
    }
}

/// Compares the table with the document's, or writes it there.
pub(crate) fn table(rows: &[Row]) {
    let head = "| package | versions | what was called | works without permissions | import, ms | import when preloaded, ms | memory, MiB |\n\
                |---|---|---|---|--:|--:|--:|\n";
    let table = head.to_owned() + &rows.iter().map(Row::line).collect::<String>();
    edit(|document| {
        let from = document.find(TABLE_START).expect("the document has the table") + TABLE_START.len();
        let to = from + document[from..].find(TABLE_END).expect("the table ends");
        let written = &document[from..to];
        assert!(
            is_updating() || without_numbers(written) == without_numbers(&table),
            "run with CONDUCTOR_UPDATE_DOCS=1; the table of docs/PACKAGES.md is\n{written}\nand should be\n{table}"
        );
        format!("{}{table}{}", &document[..from], &document[to..])
    });
}

/// The lines without the columns that hold measurements.
fn without_numbers(table: &str) -> Vec<String> {
    let line = |line: &str| line.rsplitn(5, " | ").last().unwrap_or_default().to_owned();
    table.lines().map(line).collect()
}

/// True when the document is to be written.
pub(crate) fn is_updating() -> bool {
    std::env::var_os("CONDUCTOR_UPDATE_DOCS").is_some()
}

pub(crate) fn read() -> String {
    fs::read_to_string(path()).expect("the document is there")
}

/// Lets `change` look at the document, and writes what it gives when documents are written.
pub(crate) fn edit(change: impl FnOnce(&str) -> String) {
    // Two tests write parts of one file.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let written = change(&read());
    if is_updating() {
        fs::write(path(), written).expect("the document can be written");
    }
}

fn path() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is in the repository");
    repository.join("docs/PACKAGES.md")
}
