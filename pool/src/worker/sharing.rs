//! What a template imports for its children, and what came of that. The template runs code of packages meanwhile: all that it
//! says is a claim, and the worst that comes of a false one is that a package is shared or not.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::frame::Reply;

/// What makes a package unfit to be shared by the children of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flaw {
    /// It cannot be imported.
    Failed,
    /// It draws random numbers, which all children would have.
    Random,
    /// It sets a timer.
    Timer,
    /// It leaves something open.
    Open,
    /// Something goes on after all imports.
    Work,
}

/// The imports of one template.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    /// Imported by the template.
    pub(crate) shared: Vec<String>,
    /// Imported by each of its children, before it has a job.
    pub(crate) each: Vec<String>,
    /// Which of `shared` the template has begun last.
    pub(crate) begun: Option<usize>,
    /// By position in `shared`.
    pub(crate) flaws: BTreeMap<usize, Flaw>,
    /// Of all together.
    pub(crate) flaw: Option<Flaw>,
}

impl Sharing {
    /// Takes a reply if it is about imports.
    pub(super) fn note(&mut self, reply: &Reply) {
        match *reply {
            Reply::Importing(index) if index < self.shared.len() => self.begun = Some(index),
            Reply::Unfit { index: Some(index), why } if index < self.shared.len() => {
                self.flaws.insert(index, why);
            }
            Reply::Unfit { index: None, why } => self.flaw = Some(why),
            _ => {}
        }
    }

    /// Whether the template has said nothing against what it shares.
    pub(crate) fn is_good(&self) -> bool {
        self.flaws.is_empty() && self.flaw.is_none()
    }
}
