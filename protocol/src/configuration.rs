//! What `conductord` says of a configuration file when it is asked without being started as a daemon. Crosses as JSON on its
//! stdout; fields may be added, never renamed, and a reader fills fields it does not get with their defaults.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The file, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigReport {
    pub path: String,
    pub exists: bool,
    /// Why the file cannot be read or is not trusted, with a line `hint: …`.
    pub error: Option<String>,
    /// In the order of the text.
    pub problems: Vec<ConfigProblem>,
    /// What is in effect; empty while something is wrong.
    pub settings: Vec<ConfigSetting>,
    /// The profile whose settings these are.
    pub profile: String,
    /// Why a session with this environment would be refused.
    pub refusal: Option<String>,
    /// What a session with this environment would be warned of.
    pub warnings: Vec<String>,
}

/// Something wrong in the text of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigProblem {
    /// From 1.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
    /// Dotted; empty where it is about no key.
    pub key: String,
    pub what: String,
    pub hint: Option<String>,
    /// All of it as text: place, what, the line with a mark, the cure.
    pub text: String,
}

/// One key with the value that is in effect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigSetting {
    /// The table's heading, such as `pool` or `profiles.web`; empty at the top.
    pub section: String,
    pub key: String,
    /// Absent where there is none, and where it is secret.
    pub value: Option<Value>,
    /// What is instead of a value, in words.
    pub words: Option<String>,
    pub secret: bool,
    pub origin: ConfigOrigin,
}

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigOrigin {
    /// `default`, `file`, `environment`, `policy`, `limit`.
    pub kind: String,
    /// The line of the file, for those that stand there.
    pub line: Option<u64>,
    /// The variable of `environment`; the key of `policy` and `limit`.
    pub name: Option<String>,
    /// What was asked for where it was cut.
    pub asked: Option<Value>,
    /// Where that came from.
    pub asked_by: Option<Box<ConfigOrigin>>,
}
