//! Names that cannot clash with the user's: all begin with a prefix that the source does not contain.

/// Makes names for one program.
#[derive(Debug)]
pub(crate) struct Names {
    prefix: String,
    made: u32,
}

impl Names {
    pub(crate) fn new(source: &str) -> Self {
        let prefix = std::iter::once("$c".to_owned())
            .chain((0_u32..).map(|n| format!("$c{n}_")))
            .find(|prefix| !source.contains(prefix.as_str()))
            .expect("a source of finite length does not contain every prefix");
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
