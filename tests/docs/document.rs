//! Documents of the repository: read, and written anew with `CONDUCTOR_UPDATE_DOCS=1`.

use std::fs;
use std::sync::{Mutex, PoisonError};

use crate::repository;

/// True when documents are to be written.
pub(crate) fn is_updating() -> bool {
    std::env::var_os("CONDUCTOR_UPDATE_DOCS").is_some()
}

/// Lets `change` look at a document, and writes what it gives when documents are written.
pub(crate) fn edit(name: &str, change: impl FnOnce(&str) -> String) {
    // Tests that write parts of one file run at once.
    static EDITING: Mutex<()> = Mutex::new(());
    let _editing = EDITING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = repository().join(name);
    let document = fs::read_to_string(&path).expect("the document is there");
    let changed = change(&document);
    if is_updating() && changed != document {
        fs::write(&path, changed).expect("the document can be written");
    }
}

/// The same for the lines between `start` and the next `<!-- end -->`: they are to be `part`.
pub(crate) fn edit_part(name: &str, start: &str, part: &str) {
    edit(name, |document| {
        let (before, rest) = document.split_once(start).expect("the document has the part");
        let (written, after) = rest.split_once(END).expect("the part ends");
        assert!(
            is_updating() || written == part,
            "{name} has, after {start}\n{written}\nand should have\n{part}"
        );
        format!("{before}{start}{part}{END}{after}")
    });
}

const END: &str = "<!-- end -->";
