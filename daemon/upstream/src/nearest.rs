//! The known name that somebody who wrote another one probably meant.

/// The nearest of `known` to `name`, if any is near: case and separators count for nothing, and about every third letter
/// may be wrong.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    ranked(name, known).into_iter().next()
}

/// Up to three near names, the nearest first.
pub(crate) fn ranked<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    const MOST: usize = 3;
    let wanted = plain(name);
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|candidate| Some((distance(&wanted, &plain(candidate))?, candidate)))
        .collect();
    near.sort_by_key(|&(distance, _)| distance);
    near.into_iter().take(MOST).map(|(_, name)| name).collect()
}

fn distance(wanted: &str, candidate: &str) -> Option<usize> {
    let distance = strsim::osa_distance(wanted, candidate);
    let longest = wanted.chars().count().max(candidate.chars().count());
    let within =
        wanted.len() >= 3 && candidate.contains(wanted) || candidate.len() >= 3 && wanted.contains(candidate);
    (distance * 3 <= longest || within).then_some(distance)
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["list_issues", "create_issue", "echo"];
        assert_eq!(nearest("listIssues", known), Some("list_issues"));
        assert_eq!(nearest("list_issue", known), Some("list_issues"));
        assert_eq!(nearest("ehco", known), Some("echo"));
        assert_eq!(nearest("ech", known), Some("echo"));
        assert_eq!(nearest("transfer", known), None);
        assert_eq!(ranked("issue", known), ["list_issues", "create_issue"]);
    }
}
