//! Where the values of a profile come from, and cutting limits down to what the policy lets them be. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::config::duration;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// The profile's own section of the configuration file.
    File,
    /// A variable of the session's environment.
    Environment(&'static str),
    /// A key of `[policy]`, which serves sessions that ask for nothing.
    Policy(&'static str),
    /// More was asked for, or set.
    Cut {
        /// The key that says how much there is, `policy.…` or one of the profile's own.
        by: &'static str,
        asked: Value,
        from: Box<Origin>,
    },
}

/// The origins of a profile's values, by the name of their key.
pub type Origins = BTreeMap<&'static str, Origin>;

/// A limit as it is shown.
pub(super) trait Shown {
    fn shown(&self) -> Value;
}

impl Shown for Duration {
    fn shown(&self) -> Value {
        duration::text(*self).into()
    }
}

impl Shown for u32 {
    fn shown(&self) -> Value {
        (*self).into()
    }
}

impl Shown for usize {
    fn shown(&self) -> Value {
        (*self).into()
    }
}

/// What is noted while a profile is worked out.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) origins: Origins,
    pub(super) warnings: Vec<String>,
}

/// Where one value may come from; the first that is there counts.
#[derive(Debug)]
pub(super) struct Sources<T> {
    pub(super) environment: Option<(&'static str, T)>,
    pub(super) file: Option<T>,
    pub(super) default: T,
}

impl<T> Sources<T> {
    pub(super) fn file(file: Option<T>, default: T) -> Self {
        Self { environment: None, file, default }
    }

    fn pick(self) -> (T, Origin) {
        match (self.environment, self.file) {
            (Some((variable, value)), _) => (value, Origin::Environment(variable)),
            (None, Some(value)) => (value, Origin::File),
            (None, None) => (self.default, Origin::Default),
        }
    }
}

impl Notes {
    /// The value of a limit, at most `cap`. `by` is the key that says the cap.
    pub(super) fn limit<T: Ord + Shown>(
        &mut self,
        key: &'static str,
        sources: Sources<T>,
        by: &'static str,
        cap: Option<T>,
    ) -> T {
        let (value, origin) = sources.pick();
        match cap {
            Some(cap) if value > cap => {
                if origin != Origin::Default {
                    let (asked, cap) = (plain(&value.shown()), plain(&cap.shown()));
                    self.warnings.push(format!("{key}: {asked} is cut to {cap}, as {by} says"));
                }
                self.origins.insert(key, Origin::Cut { by, asked: value.shown(), from: Box::new(origin) });
                cap
            }
            _ => {
                self.origins.insert(key, origin);
                value
            }
        }
    }

    pub(super) fn origin(&mut self, key: &'static str, origin: Origin) {
        self.origins.insert(key, origin);
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
