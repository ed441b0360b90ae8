//! Did-you-mean.

use crate::text::clipped;
use crate::words::words;

/// Names offered at most.
const MAX_OFFERED: usize = 3;
/// How much less close than the best a name may be.
const MARGIN: f64 = 0.15;
/// Characters of a name that are compared, which bounds the time.
const MAX_CHARS: usize = 64;

/// The names that `wanted` was most likely meant to be, best first, at most three; none if nothing is near.
///
/// Near is: few letters differ, or the words are the same in another order or spelling (`issuesList`, `list-issues`).
/// Ties keep the order of `names`.
pub fn nearest<'n>(wanted: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let wanted = clipped(wanted, MAX_CHARS);
    let wanted_words = sorted_words(&wanted);
    let mut near: Vec<(f64, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let score = closeness(&wanted, &wanted_words, &clipped(name, MAX_CHARS));
            (score >= 0.6).then_some((score, name))
        })
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = near.first().map_or(0.0, |(score, _)| *score);
    near.retain(|(score, _)| *score > best - MARGIN);
    near.into_iter().take(MAX_OFFERED).map(|(_, name)| name).collect()
}

/// 1 for equal, 0 for nothing in common.
fn closeness(wanted: &str, wanted_words: &[String], name: &str) -> f64 {
    let (a, b) = (wanted.to_lowercase(), name.to_lowercase());
    let words = sorted_words(name);
    if a == b || (words == wanted_words && !words.is_empty()) {
        return 1.0;
    }
    let letters = strsim::normalized_damerau_levenshtein(&a, &b);
    // `issues` for `list_issues`: all that was said is there.
    let is_part = !wanted_words.is_empty() && wanted_words.iter().all(|word| words.contains(word));
    if is_part { letters.max(0.65) } else { letters }
}

fn sorted_words(name: &str) -> Vec<String> {
    let mut words = words(name);
    words.sort();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] =
        ["list_issues", "get_issue", "create_issue", "list_commits", "search_code", "fork_repository"];

    fn check(wanted: &str, expected: &[&str]) {
        assert_eq!(nearest(wanted, NAMES), expected, "{wanted}");
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        check("lst_issues", &["list_issues"]);
        check("listIssues", &["list_issues"]);
        check("issue-list", &["list_issues"]);
        check("getIssue", &["get_issue"]);
        check("repository", &["fork_repository"]);
        check("Search_Code", &["search_code"]);
        check("send_mail", &[]);
        check("", &[]);
    }

    #[test]
    fn one_letter_names_and_long_names_do_no_harm() {
        assert_eq!(nearest("a", ["b", "a"]), ["a"]);
        let long = "x".repeat(1_000_000);
        assert_eq!(nearest(&long, [long.as_str()]), [long.as_str()]);
    }
}
