//! Arguments are checked before they are sent.
//!
//! A model that misspells a parameter is told so at once, with the name it meant, instead of by whatever the server makes
//! of it. In: the tool's input schema and the arguments. Out: nothing, or [`InvalidArguments`]. A check never stands in the
//! way of a call: a schema that is broken, refers to other documents, or costs too much is not checked, with a reason
//! ([`Unchecked`]); the server has the last word anyway. Nothing is ever fetched.

mod fuel;
mod message;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::schema::{Document, walk};

/// Values in a schema; hundreds of times an ordinary one.
const MAX_SCHEMA_VALUES: usize = 20_000;
/// Levels of nesting in a schema: bounds the stack of its compilation.
const MAX_SCHEMA_DEPTH: usize = 96;
/// Bytes of one regular expression, and regular expressions of one schema.
const MAX_PATTERN_BYTES: usize = 2_000;
const MAX_PATTERNS: usize = 200;
/// Bytes of one compiled regular expression.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// Steps of a regular expression that needs backtracking (look-around, back-references), per match.
const MAX_BACKTRACKS: usize = 10_000;
/// Values of arguments.
const MAX_VALUES: usize = 200_000;
/// Problems that are reported; a model repairs a few at a time.
const MAX_PROBLEMS: usize = 8;
/// Compiled schemas kept. A thousand tools of ordinary size take some ten megabytes.
const MAX_CACHED: usize = 1_024;

/// Checks arguments against one input schema. Cheap to clone.
#[derive(Clone)]
pub struct ArgumentChecker(Arc<State>);

enum State {
    Checks { validator: Box<Validator>, schema: Value },
    Unchecked(Unchecked),
}

/// Why a schema is not checked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unchecked {
    /// Too many values or levels.
    #[error("the input schema is too large to check")]
    TooLarge,
    /// A reference that leads out of the schema, or nowhere; nothing is fetched.
    #[error("the input schema refers to something outside itself: {reference}")]
    Remote {
        /// The reference as it is written, shortened.
        reference: String,
    },
    /// Regular expressions that are too long, too many, or too costly.
    #[error("the input schema has regular expressions that are too costly")]
    Patterns,
    /// It is no schema.
    #[error("the input schema is not valid: {reason}")]
    Invalid {
        /// What the validator says, shortened.
        reason: String,
    },
}

/// Arguments that the schema forbids.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct InvalidArguments {
    /// What is wrong, at most eight.
    pub problems: Vec<Problem>,
    /// How many more problems there are.
    pub n_more: usize,
}

/// One thing that is wrong with arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `labels[0].name`; empty for the arguments as a whole.
    pub path: String,
    /// What was expected, what was given, what may have been meant.
    pub message: String,
}

impl ArgumentChecker {
    /// Compiles a schema. It always gives a checker; one that checks nothing says why.
    ///
    /// Ordinary schemas take well below a millisecond, the largest that are compiled some hundred.
    pub fn compile(schema: &Value) -> Self {
        Self(Arc::new(match validator(schema) {
            Ok(validator) => State::Checks { validator: Box::new(validator), schema: schema.clone() },
            Err(reason) => State::Unchecked(reason),
        }))
    }

    /// Why nothing is checked, if so.
    pub fn unchecked(&self) -> Option<&Unchecked> {
        match &*self.0 {
            State::Checks { .. } => None,
            State::Unchecked(reason) => Some(reason),
        }
    }

    /// Checks arguments. `Ok` too where the check would cost too much.
    ///
    /// # Errors
    /// The schema forbids them.
    pub fn check(&self, arguments: &Value) -> Result<(), InvalidArguments> {
        let State::Checks { validator, schema } = &*self.0 else { return Ok(()) };
        let is_small =
            walk(arguments).nth(MAX_VALUES).is_none() && walk(arguments).all(|(_, depth)| depth < 200);
        if !is_small || !fuel::is_affordable(schema, arguments) || validator.is_valid(arguments) {
            return Ok(());
        }
        let mut problems: Vec<Problem> = Vec::new();
        let mut n_more = 0;
        for error in validator.iter_errors(arguments) {
            for problem in message::problems(&error, schema, arguments) {
                if problems.contains(&problem) {
                    continue;
                }
                if problems.len() < MAX_PROBLEMS {
                    problems.push(problem);
                } else {
                    n_more += 1;
                }
            }
            if n_more > 1_000 {
                break;
            }
        }
        // A pattern that gave up after its last allowed step says nothing about the arguments.
        if problems.is_empty() { Ok(()) } else { Err(InvalidArguments { problems, n_more }) }
    }
}

impl fmt::Debug for ArgumentChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArgumentChecker").field("unchecked", &self.unchecked()).finish_non_exhaustive()
    }
}

impl fmt::Display for InvalidArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid arguments")?;
        for Problem { path, message } in &self.problems {
            let colon = if path.is_empty() { "" } else { ": " };
            write!(f, "\n- {path}{colon}{message}")?;
        }
        if self.n_more > 0 {
            write!(f, "\n- and {} more", self.n_more)?;
        }
        Ok(())
    }
}

/// Compiled schemas by their text, shared by all sessions. Bounded: when it is full it starts anew.
#[derive(Debug, Default)]
pub struct CheckerCache(Mutex<HashMap<[u8; 32], ArgumentChecker>>);

impl CheckerCache {
    /// The checker of a schema, compiled once.
    pub fn get(&self, schema: &Value) -> ArgumentChecker {
        let key: [u8; 32] = Sha256::digest(schema.to_string()).into();
        if let Some(checker) = self.lock().get(&key) {
            return checker.clone();
        }
        // Compiled without the lock: a large schema must not hold up the others.
        let checker = ArgumentChecker::compile(schema);
        let mut checkers = self.lock();
        if checkers.len() >= MAX_CACHED {
            checkers.clear();
        }
        checkers.entry(key).or_insert(checker).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], ArgumentChecker>> {
        // A map of finished values is whole even if a thread died holding the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn validator(schema: &Value) -> Result<Validator, Unchecked> {
    let patterns = inspected(schema)?;
    let linear = PatternOptions::regex().size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES);
    let options = jsonschema::options().offline().should_validate_formats(false);
    let build = |options: jsonschema::ValidationOptions<'_>| options.build(schema);
    match build(options.clone().with_pattern_options(linear)) {
        Ok(validator) => Ok(validator),
        Err(error) if patterns == 0 => Err(invalid(&error)),
        // Look-around and back-references need the other engine, which can be slow: few steps, few patterns.
        Err(_) if patterns > 16 => Err(Unchecked::Patterns),
        Err(_) => {
            let backtracking = PatternOptions::fancy_regex()
                .backtrack_limit(MAX_BACKTRACKS)
                .size_limit(MAX_COMPILED_BYTES)
                .dfa_size_limit(MAX_COMPILED_BYTES);
            build(options.with_pattern_options(backtracking)).map_err(|error| invalid(&error))
        }
    }
}

fn invalid(error: &jsonschema::ValidationError<'_>) -> Unchecked {
    Unchecked::Invalid { reason: crate::text::clipped(&error.masked().to_string(), 200) }
}

/// Refuses what could hang or overflow the compiler; gives the number of regular expressions.
fn inspected(schema: &Value) -> Result<usize, Unchecked> {
    let document = Document::new(schema);
    let mut n_patterns = 0;
    let mut count = |pattern: &str| {
        n_patterns += 1;
        if pattern.len() > MAX_PATTERN_BYTES || n_patterns > MAX_PATTERNS {
            Err(Unchecked::Patterns)
        } else {
            Ok(())
        }
    };
    for (at, (value, depth)) in walk(schema).enumerate() {
        if at >= MAX_SCHEMA_VALUES || depth > MAX_SCHEMA_DEPTH {
            return Err(Unchecked::TooLarge);
        }
        for key in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(reference) = value.get(key).and_then(Value::as_str)
                && document.resolve(reference).is_none()
            {
                return Err(Unchecked::Remote { reference: crate::text::clipped(reference, 100) });
            }
        }
        // A nested `$id` changes where the references around it lead.
        if depth > 0 && value.get("$id").is_some_and(Value::is_string) {
            return Err(Unchecked::Remote { reference: "$id".to_owned() });
        }
        value.get("pattern").and_then(Value::as_str).map_or(Ok(()), &mut count)?;
        let named = value.get("patternProperties").and_then(Value::as_object);
        named.into_iter().flat_map(|named| named.keys()).try_for_each(|pattern| count(pattern))?;
    }
    Ok(n_patterns)
}

#[cfg(test)]
mod tests;
