//! What Deno says when it refuses an import that was computed while code ran, said so that a model can act on it.
//!
//! Imports that are written out are judged before the code runs; only computed ones get as far as Deno. Its texts speak of
//! lock files and flags, which code cannot change. They are those of 2.9, each held by a test with the real program.

use super::Layer;
use crate::refusal::{Refusal, RefusalKind, quoted};
use crate::specifier::{Package, Registry};

impl Layer {
    /// The refusal behind the text of an error that an import threw; `None` when it is about something else.
    pub fn explain(&self, text: &str) -> Option<Refusal> {
        if let Some((_, changes)) = text.split_once("The lockfile is out of date") {
            let names = quotations(changes).filter(|quoted| Registry::of(quoted).is_some());
            // Deno lists what it would have to add, and goes on listing it for every import after the first.
            return names.map(|name| self.refuse_spelling(name)).next();
        }
        if let Some((_, rest)) = text.split_once("npm package not found in cache: ") {
            let name = quotations(rest).next()?;
            return Some(self.refuse_spelling(&format!("npm:{name}")));
        }
        if let Some((_, rest)) = text.split_once("JSR package manifest for '") {
            let name = rest.split_once('\'')?.0;
            return Some(self.refuse_spelling(&format!("jsr:{name}")));
        }
        if text.contains("Requires import access to") {
            let host = quotations(text).next()?;
            let message = format!("code cannot be imported from {}", quoted(host));
            let hint = Some("import an allowed package by its name".to_owned());
            return Some(Refusal::new(RefusalKind::Scheme, message, hint));
        }
        let (_, rest) = text.split_once("Import \"")?;
        let (name, rest) = rest.split_once('"')?;
        rest.contains("not a dependency").then(|| self.refuse_spelling(name))
    }

    /// A package that was named in a way that is not the locked one.
    fn refuse_spelling(&self, written: &str) -> Refusal {
        let bare = written.strip_suffix("@*").unwrap_or(written);
        let key = Package::parse(bare).map_or_else(|_| format!("npm:{bare}"), |package| package.key());
        let spelling =
            self.packages().iter().find(|package| package.key == key).map(|package| &package.spelling);
        let quoted_bare = quoted(bare);
        match spelling {
            Some(spelling) => Refusal::new(
                RefusalKind::Version,
                format!("a computed import of {quoted_bare} must spell it {}", quoted(spelling)),
                Some(format!("import {} instead", quoted(spelling))),
            ),
            None => Refusal::new(
                RefusalKind::NotAllowed,
                format!("the package {quoted_bare} is not allowed here"),
                None,
            ),
        }
    }
}

impl Registry {
    fn of(specifier: &str) -> Option<Self> {
        [Self::Npm, Self::Jsr].into_iter().find(|registry| specifier.starts_with(registry.scheme()))
    }
}

/// What stands between double quotes.
fn quotations(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}
