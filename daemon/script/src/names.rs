//! Names that cannot clash with the user's: all begin with a prefix that the source does not contain.

use std::collections::HashSet;

/// Makes names for one program.
#[derive(Debug)]
pub(crate) struct Names {
    prefix: String,
    made: u32,
}

impl Names {
    pub(crate) fn new(source: &str) -> Self {
        let used: HashSet<&str> =
            source.match_indices("$c").filter_map(|(at, _)| number(&source[at + 2..])).collect();
        let prefix = if source.contains("$c") {
            let free = (0_u32..).map(|n| n.to_string()).find(|n| !used.contains(n.as_str()));
            format!("$c{}_", free.expect("a source of finite length does not contain every number"))
        } else {
            "$c".to_owned()
        };
        Self { prefix, made: 0 }
    }

    /// The parameter of the async function.
    pub(crate) fn api(&self) -> &str {
        &self.prefix
    }

    /// The variable that holds the completion value.
    pub(crate) fn value(&self) -> String {
        format!("{}v", self.prefix)
    }

    /// A name that was not given before.
    pub(crate) fn fresh(&mut self) -> String {
        self.made += 1;
        format!("{}{}", self.prefix, self.made)
    }
}

/// The digits at the start of `text`, when an underscore follows them.
fn number(text: &str) -> Option<&str> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    text[digits..].starts_with('_').then(|| &text[..digits])
}
