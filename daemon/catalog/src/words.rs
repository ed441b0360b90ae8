//! Text and names as words to search by.

/// The words of a text: lower case, names split (`listIssues`, `list_issues` → `list`, `issue`), plurals made singular.
///
/// Scripts without blanks between words (Chinese, Japanese, Korean, Thai) give one word per character.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before = Kind::Other;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let kind = Kind::of(c);
        // `HTMLPage` is `html`, `page`: the last capital of a row belongs to what follows.
        let starts_lower =
            kind == Kind::Upper && chars.peek().is_some_and(|&next| Kind::of(next) == Kind::Lower);
        let splits = match (before, kind) {
            (_, Kind::Other | Kind::Alone) | (Kind::Alone, _) | (Kind::Lower | Kind::Digit, Kind::Upper) => {
                true
            }
            (Kind::Upper, Kind::Upper) => starts_lower,
            _ => false,
        };
        if splits {
            finish(&mut word, &mut words);
        }
        if kind != Kind::Other {
            word.extend(c.to_lowercase());
        }
        before = kind;
    }
    finish(&mut word, &mut words);
    words
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Lower,
    Upper,
    Digit,
    /// A word by itself.
    Alone,
    Other,
}

impl Kind {
    fn of(c: char) -> Self {
        match c {
            '\u{0e00}'..='\u{0e7f}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7af}' => Self::Alone,
            c if c.is_numeric() => Self::Digit,
            c if c.is_uppercase() => Self::Upper,
            c if c.is_alphabetic() => Self::Lower,
            _ => Self::Other,
        }
    }
}

fn finish(word: &mut String, words: &mut Vec<String>) {
    if !word.is_empty() {
        words.push(singular(std::mem::take(word)));
    }
}

/// English plurals and third persons, roughly: `issues` and `issue` are one word, `files`, `entities`, `searches` too.
fn singular(mut word: String) -> String {
    if word.len() > 4 && word.ends_with("ies") {
        word.truncate(word.len() - 3);
        word.push('y');
    } else if word.len() > 4 && ["sses", "ches", "shes", "xes", "zes"].iter().any(|end| word.ends_with(end)) {
        word.truncate(word.len() - 2);
    } else if word.len() > 3
        && word.ends_with('s')
        && !["ss", "us", "is"].iter().any(|end| word.ends_with(end))
    {
        word.truncate(word.len() - 1);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(words(text), expected, "{text}");
    }

    #[test]
    fn names_are_split() {
        check("list_issues", &["list", "issue"]);
        check("listPullRequests", &["list", "pull", "request"]);
        check("get-HTMLPage2.v3", &["get", "html", "page2", "v3"]);
        check("  ¡Größe! ", &["größe"]);
        check("搜索files", &["搜", "索", "file"]);
        check("", &[]);
    }

    #[test]
    fn plurals_are_one_word_with_singulars() {
        check(
            "entities searches boxes classes status this address files",
            &["entity", "search", "box", "class", "status", "this", "address", "file"],
        );
    }
}
