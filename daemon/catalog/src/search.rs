//! Search over tools by relevance: BM25 with weighted fields.
//!
//! Own code, some hundred lines of it: the `bm25` crate pulls in `fxhash`, which is unmaintained (RUSTSEC-2025-0057), knows one
//! field per document where a tool's name must count for more than a word in a description, and hashes words to 32 bits.
//! The order is the same on every run: equal scores keep the order of the tools.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::entry::ToolEntry;
use crate::schema::walk;
use crate::words::words;

/// Saturation of repeated words, and how much the length of a text counts: the usual values (Robertson and Zaragoza,
/// "The Probabilistic Relevance Framework: BM25 and Beyond", 2009).
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// A word in the name says more than one in the description.
const NAME_WEIGHT: f64 = 4.0;
const SERVER_WEIGHT: f64 = 2.0;
const TITLE_WEIGHT: f64 = 2.0;
const PARAMETER_WEIGHT: f64 = 0.7;
/// A word that only begins like the one asked for (`repo`, `repository`).
const PREFIX_WEIGHT: f64 = 0.5;
/// A word that says the same in other words ([`SYNONYMS`]).
const SYNONYM_WEIGHT: f64 = 0.5;
/// A tool that says it is deprecated comes after the one that replaces it.
const DEPRECATED_WEIGHT: f64 = 0.5;
/// Shortest beginning of a word that counts.
const MIN_PREFIX_CHARS: usize = 3;

/// Bytes of a description, and values of a schema, that are read: hostile ones are endless.
const MAX_TEXT_BYTES: usize = 4_000;
const MAX_SCHEMA_VALUES: usize = 2_000;
/// Different words of a query.
const MAX_QUERY_WORDS: usize = 32;

/// Words of questions that say nothing about tools.
const STOP_WORDS: [&str; 25] = [
    "a", "an", "and", "are", "at", "by", "can", "do", "for", "from", "how", "i", "in", "is", "it", "its",
    "my", "of", "on", "or", "the", "to", "what", "which", "with",
];

/// Words that stand for each other in questions about tools; most are verbs, since whoever wrote a tool chose one of several.
const SYNONYMS: [&[&str]; 16] = [
    &["find", "search", "look", "locate"],
    &["delete", "remove", "forget", "erase"],
    &["create", "make", "new", "add"],
    &["show", "list", "display", "view"],
    &["get", "fetch", "retrieve"],
    &["several", "multiple", "many"],
    &["change", "edit", "update", "modify"],
    &["folder", "directory"],
    &["rename", "move"],
    &["save", "write", "store"],
    &["history", "log"],
    &["bug", "issue", "ticket"],
    &["size", "big", "large"],
    &["remember", "store", "add"],
    &["undo", "reset", "revert"],
    &["switch", "checkout"],
];

/// A tool that a query found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found<'t> {
    /// The tool.
    pub tool: &'t ToolEntry,
    /// Its relevance; comparable only within one answer.
    pub score: f64,
}

/// Tools prepared for searching.
#[derive(Debug)]
pub struct SearchIndex<'t> {
    documents: Vec<Document<'t>>,
    mean_length: f64,
    /// In how many documents a word stands.
    frequency: HashMap<String, usize>,
}

#[derive(Debug)]
struct Document<'t> {
    tool: &'t ToolEntry,
    /// Each word's weighted count.
    counts: HashMap<String, f64>,
    length: f64,
}

/// The `limit` tools most relevant to `query`, best first; those that share no word with it are left out.
pub fn search<'t>(tools: &'t [ToolEntry], query: &str, limit: usize) -> Vec<Found<'t>> {
    SearchIndex::new(tools).search(query, limit)
}

impl<'t> SearchIndex<'t> {
    /// Reads the words of all tools.
    pub fn new(tools: impl IntoIterator<Item = &'t ToolEntry>) -> Self {
        let documents: Vec<Document<'t>> = tools.into_iter().map(Document::new).collect();
        let mut frequency: HashMap<String, usize> = HashMap::new();
        for word in documents.iter().flat_map(|document| document.counts.keys()) {
            *frequency.entry(word.clone()).or_default() += 1;
        }
        let total: f64 = documents.iter().map(|document| document.length).sum();
        #[expect(clippy::cast_precision_loss, reason = "there are no 2^52 tools")]
        let mean_length = (total / documents.len().max(1) as f64).max(1.0);
        Self { documents, mean_length, frequency }
    }

    /// As [`search`].
    pub fn search(&self, query: &str, limit: usize) -> Vec<Found<'t>> {
        let mut asked: BTreeSet<String> = words(prefix(query, MAX_TEXT_BYTES)).into_iter().collect();
        if asked.iter().any(|word| !is_stop_word(word)) {
            asked.retain(|word| !is_stop_word(word));
        }
        let terms = self.terms(asked.into_iter().take(MAX_QUERY_WORDS).map(stem).collect());
        let score = |document: &Document<'_>| {
            let norm = K1 * (1.0 - B + B * document.length / self.mean_length);
            let of_term = |(word, weight): (&String, &f64)| {
                let count = document.counts.get(word)?;
                Some(weight * self.rarity(word) * count * (K1 + 1.0) / (count + norm))
            };
            document.weight() * terms.iter().filter_map(of_term).sum::<f64>()
        };
        let mut found: Vec<Found<'t>> = self
            .documents
            .iter()
            .map(|document| Found { tool: document.tool, score: score(document) })
            .filter(|found| found.score > 0.0)
            .collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(limit);
        found
    }

    /// The words of tools that a query stands for, each with its largest weight. In a fixed order: sums of floating point
    /// numbers depend on it.
    fn terms(&self, asked: BTreeSet<String>) -> BTreeMap<String, f64> {
        let mut terms = BTreeMap::new();
        let mut add = |word: &str, weight: f64| {
            let known: &mut f64 = terms.entry(word.to_owned()).or_default();
            *known = known.max(weight);
        };
        for word in &asked {
            add(word, 1.0);
            if word.chars().count() >= MIN_PREFIX_CHARS {
                let longer = self.frequency.keys().filter(|longer| longer.starts_with(word.as_str()));
                longer.for_each(|longer| add(longer, if longer == word { 1.0 } else { PREFIX_WEIGHT }));
            }
            let groups = SYNONYMS.iter().map(|group| group.iter().map(|it| stem((*it).to_owned())));
            for group in groups.filter(|group| group.clone().any(|it| it == *word)) {
                group.filter(|it| it != word).for_each(|it| add(&it, SYNONYM_WEIGHT));
            }
        }
        terms
    }

    #[expect(clippy::cast_precision_loss, reason = "there are no 2^52 tools")]
    fn rarity(&self, word: &str) -> f64 {
        let with = self.frequency.get(word).copied().unwrap_or(0) as f64;
        (1.0 + (self.documents.len() as f64 - with + 0.5) / (with + 0.5)).ln()
    }
}

impl<'t> Document<'t> {
    fn new(tool: &'t ToolEntry) -> Self {
        let mut document = Self { tool, counts: HashMap::new(), length: 0.0 };
        document.add(&tool.name, NAME_WEIGHT);
        document.add(&tool.server, SERVER_WEIGHT);
        document.add(tool.title.as_deref().unwrap_or_default(), TITLE_WEIGHT);
        document.add(tool.description.as_deref().unwrap_or_default(), 1.0);
        for (value, _) in walk(&tool.input_schema).take(MAX_SCHEMA_VALUES) {
            if let Some(properties) = value.get("properties").and_then(Value::as_object) {
                properties
                    .keys()
                    .take(MAX_SCHEMA_VALUES)
                    .for_each(|name| document.add(name, PARAMETER_WEIGHT));
            }
            if let Some(text) = value.get("description").and_then(Value::as_str) {
                document.add(text, PARAMETER_WEIGHT);
            }
        }
        document
    }

    fn weight(&self) -> f64 {
        if self.counts.contains_key(&stem("deprecated".to_owned())) { DEPRECATED_WEIGHT } else { 1.0 }
    }

    fn add(&mut self, text: &str, weight: f64) {
        for word in words(prefix(text, MAX_TEXT_BYTES)) {
            *self.counts.entry(stem(word)).or_default() += weight;
            self.length += weight;
        }
    }
}

/// A word without the endings of English verbs, roughly: `merging`, `merged` and `merge` are one word.
fn stem(mut word: String) -> String {
    let has_vowel = |stem: &str| stem.chars().any(|c| "aeiouy".contains(c));
    for ending in ["ing", "ed"] {
        let Some(stem) = word.strip_suffix(ending).filter(|stem| stem.len() >= 3 && has_vowel(stem)) else {
            continue;
        };
        let length = stem.len();
        word.truncate(length);
        // `getting`, but not `calling` or `passing`.
        let mut last = word.chars().rev();
        let is_double = last.next().is_some_and(|c| !"sl".contains(c) && last.next() == Some(c));
        if is_double && length > 3 {
            word.pop();
        }
        break;
    }
    if word.len() > 3 && word.ends_with('e') {
        word.pop();
    }
    word
}

fn is_stop_word(word: &str) -> bool {
    STOP_WORDS.contains(&word)
}

/// At most so many bytes, whole characters.
fn prefix(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{all_tools, tool};

    /// The tool is among the first `within` found.
    fn check(query: &str, wanted: &str, within: usize) {
        let tools = all_tools();
        let found = search(&tools, query, within);
        let names: Vec<String> =
            found.iter().map(|it| format!("{}.{}", it.tool.server, it.tool.name)).collect();
        assert!(names.iter().any(|name| name == wanted), "{query}: {names:?}");
    }

    #[test]
    fn real_tools_are_found_by_what_a_model_would_ask() {
        check("list issues", "github.list_issues", 1);
        check("github list issues in a repository", "github.list_issues", 1);
        check("read a text file from disk", "filesystem.read_text_file", 1);
        check("what is the current time in Tokyo", "time.get_current_time", 1);
        check("commit staged changes", "git.git_commit", 3);
        check("knowledge graph add entities", "memory.create_entities", 3);
        check("pull request review", "github.create_pull_request_review", 2);
        check("createIssue", "github.create_issue", 1);
        check("repo fork", "github.fork_repository", 1);
        check("sum two numbers", "everything.get-sum", 1);
        check("think step by step", "sequential-thinking.sequentialthinking", 1);
    }

    #[test]
    fn questions_in_other_words_find_their_tool_among_the_first_three() {
        for (query, wanted) in [
            ("find a file by its name", "filesystem.search_files"),
            ("search for files matching a pattern", "filesystem.search_files"),
            ("look up a file", "filesystem.search_files"),
            ("rename a file", "filesystem.move_file"),
            ("show what is in a folder", "filesystem.list_directory"),
            ("make a new folder", "filesystem.create_directory"),
            ("change part of a file", "filesystem.edit_file"),
            ("save text to a file", "filesystem.write_file"),
            ("reading several files at once", "filesystem.read_multiple_files"),
            ("how big is a file", "filesystem.get_file_info"),
            ("show the git history", "git.git_log"),
            ("switch to another branch", "git.git_checkout"),
            ("new branch in git", "git.git_create_branch"),
            ("undo staged changes", "git.git_reset"),
            ("create a bug report on github", "github.create_issue"),
            ("comment on an issue", "github.add_issue_comment"),
            ("merging a pull request", "github.merge_pull_request"),
            ("find repositories", "github.search_repositories"),
            ("find code", "github.search_code"),
            ("get the content of a file in a repository", "github.get_file_contents"),
            ("remember a fact", "memory.add_observations"),
            ("forget an entity", "memory.delete_entities"),
            ("find nodes in the graph", "memory.search_nodes"),
            ("convert a time between time zones", "time.convert_time"),
            ("what time is it", "time.get_current_time"),
        ] {
            check(query, wanted, 3);
        }
    }

    #[test]
    fn forms_of_a_word_are_one_word() {
        let stem = |word: &str| super::stem(word.to_owned());
        for forms in [
            ["merge", "merging", "merged"],
            ["get", "getting", "get"],
            ["call", "calling", "called"],
            ["read", "reading", "read"],
        ] {
            assert!(forms.windows(2).all(|two| stem(two[0]) == stem(two[1])), "{forms:?}");
        }
        assert_eq!(
            (stem("string").as_str(), stem("red").as_str(), stem("ring").as_str()),
            ("string", "red", "ring")
        );
    }

    #[test]
    fn nothing_in_common_finds_nothing() {
        let tools = all_tools();
        assert!(search(&tools, "zzzz qqqq", 5).is_empty());
        assert!(search(&tools, "", 5).is_empty());
        assert!(search(&[], "file", 5).is_empty());
        assert!(search(&tools, "file", 0).is_empty());
    }

    #[test]
    fn ties_keep_the_order_of_the_tools() {
        let tools: Vec<ToolEntry> = (0..20).map(|n| tool(&format!("s{n}"), "read", json!({}))).collect();
        for _ in 0..5 {
            let found = search(&tools, "read", 20);
            assert!(found.iter().zip(&tools).all(|(found, tool)| found.tool == tool));
        }
    }

    #[test]
    fn hostile_tools_are_read_in_part() {
        let mut huge =
            tool("s", "huge", json!({"properties": {"a": {"description": "needle ".repeat(1_000_000)}}}));
        huge.description = Some("hay ".repeat(1_000_000));
        assert_eq!(search(&[huge], &"needle ".repeat(100_000), 1).len(), 1);
    }
}
