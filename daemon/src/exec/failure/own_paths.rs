//! Takes the paths of conductor's own directories out of what a client is told. Pure, but for resolving links once.
//!
//! Deno names files in its messages and stacks, plain or as `file:` URL, also those of its read-only cache; a model learns
//! nothing from where they lie. Of such a path its last part is kept. What code prints and JSON values are its own business
//! and are never changed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::dirs::Dirs;
use crate::exec::result::{ErrorReport, ExecutionResult, ReturnFormat};

/// What stands in place of a directory of conductor's.
const SHOWN: &str = "<conductor>";

const URL_START: &str = "file://";

#[derive(Debug)]
pub(crate) struct OwnPaths {
    /// As configured and with links resolved: Deno shows either. Longest first, since one may lie in another.
    dirs: Vec<PathBuf>,
}

impl OwnPaths {
    pub(crate) fn new(dirs: &Dirs) -> Self {
        let own = dirs.protected().map(Path::to_owned);
        let mut dirs: Vec<_> =
            own.iter().cloned().chain(own.iter().filter_map(|dir| resolved(dir))).collect();
        dirs.sort_by_key(|dir| std::cmp::Reverse(dir.as_os_str().len()));
        dirs.dedup();
        Self { dirs }
    }

    /// Hides them in every text of the report but the code frame, which is the user's own code.
    pub(crate) fn hide_in(&self, error: &mut ErrorReport) {
        let texts = std::iter::once(&mut error.message)
            .chain(&mut error.cause)
            .chain(error.hint.as_mut())
            .chain(error.stack.as_mut());
        for text in texts {
            if let Some(hidden) = self.hidden(text) {
                *text = hidden;
            }
        }
    }

    /// Hides them in a value that is shown by the inspector, which shows errors with their stacks.
    pub(crate) fn hide_in_shown_value(&self, result: &mut ExecutionResult) {
        if result.return_value_format == ReturnFormat::Inspect
            && let Some(Value::String(text)) = &mut result.return_value
            && let Some(hidden) = self.hidden(text)
        {
            *text = hidden;
        }
    }

    /// `text` without them; `None` if there are none in it.
    fn hidden(&self, text: &str) -> Option<String> {
        let mut shown = String::new();
        let mut done = 0;
        let mut at = 0;
        while at < text.len() {
            // Paths are absolute, so their first character is a slash, or stands for one.
            let may_begin = matches!(text.as_bytes()[at], b'/' | b'%');
            let Some(end) = self.dirs.iter().filter(|_| may_begin).find_map(|dir| end_of(dir, text, at))
            else {
                at += 1;
                continue;
            };
            let before = &text[done..at];
            shown.push_str(before.strip_suffix(URL_START).unwrap_or(before));
            let path = path_at(&text[end..]);
            shown.push_str(SHOWN);
            match path.rsplit_once('/') {
                Some(("", name)) => shown.extend(["/", name]),
                Some((_, name)) => shown.extend(["/…/", name]),
                None => {}
            }
            done = end + path.len();
            at = done;
        }
        (done > 0).then(|| shown + &text[done..])
    }
}

/// Links resolved as far as the path exists.
fn resolved(dir: &Path) -> Option<PathBuf> {
    let whole = dir.canonicalize().ok();
    whole.or_else(|| Some(dir.parent()?.canonicalize().ok()?.join(dir.file_name()?)))
}

/// Where `dir` ends if it stands at `at`, plain or percent-encoded. `/a/b` does not stand in `/a/bc`.
fn end_of(dir: &Path, text: &str, at: usize) -> Option<usize> {
    let (dir, bytes) = (dir.as_os_str().as_encoded_bytes(), text.as_bytes());
    let end = if bytes[at..].starts_with(dir) { at + dir.len() } else { end_of_encoded(dir, bytes, at)? };
    match bytes[end..] {
        [b'.', next, ..] if !next.is_ascii_whitespace() => None,
        [b'-' | b'_' | b'%' | 0x80.., ..] => None,
        [next, ..] if next.is_ascii_alphanumeric() => None,
        _ => Some(end),
    }
}

fn end_of_encoded(dir: &[u8], bytes: &[u8], mut at: usize) -> Option<usize> {
    for wanted in dir {
        let (found, length) = match bytes.get(at)? {
            b'%' => (u8::from_str_radix(std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?, 16).ok()?, 3),
            plain => (*plain, 1),
        };
        if found != *wanted {
            return None;
        }
        at += length;
    }
    Some(at)
}

/// The rest of a path, up to what ends one in a sentence, a stack frame or a quoted string.
fn path_at(text: &str) -> &str {
    if !text.starts_with('/') {
        return "";
    }
    let ends = |c: char| c.is_whitespace() || "'\"`()<>,;:|".contains(c);
    let path = &text[..text.find(ends).unwrap_or(text.len())];
    path.trim_end_matches(['.', '/'])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::exec::result::ErrorType;

    fn own_paths() -> OwnPaths {
        let env = BTreeMap::from([("XDG_DATA_HOME".to_owned(), "/srv/my daten/ü%".to_owned())]);
        OwnPaths::new(&Dirs::from_env(&env, Some("/no-home/a".into())).expect("has a home"))
    }

    #[test]
    fn own_paths_are_hidden_in_every_form() {
        let own = own_paths();
        for (text, shown) in [
            ("at /no-home/a/.cache/conductor/deno/npm/ms/nope", "at <conductor>/…/nope"),
            ("'file:///no-home/a/.cache/conductor/x.js' from", "'<conductor>/x.js' from"),
            ("(file:///no-home/a/.cache/conductor/v/harness.js:356:19)", "(<conductor>/…/harness.js:356:19)"),
            ("file:///no-home/a/%2Ecache/conductor/x", "<conductor>/x"),
            ("\"/srv/my daten/ü%/conductor/deno\".", "\"<conductor>/deno\"."),
            ("file:///srv/my%20daten/%C3%BC%25/conductor/deno/a.ts", "<conductor>/…/a.ts"),
            ("file:///srv/my%20daten/%c3%bc%25/conductor", "<conductor>"),
            ("in /no-home/a/.config/conductor.", "in <conductor>."),
            ("/no-home/a/.config/conductor, /no-home/a/.cache/conductor/a/", "<conductor>, <conductor>/a/"),
        ] {
            assert_eq!(own.hidden(text).as_deref(), Some(shown), "{text}");
        }
    }

    #[test]
    fn other_paths_are_left_alone() {
        let own = own_paths();
        for text in [
            "",
            "/no-home/a/.cache/conductor2/x",
            "/no-home/a/.cache/conductor-x",
            "/no-home/a/.cache/conductor.toml",
            "/no-home/a/.cach",
            "/no-home/a/project/main.ts",
            "100 % of file:// größe %",
            "%2",
        ] {
            assert_eq!(own.hidden(text), None, "{text}");
        }
    }

    #[test]
    fn a_shown_value_is_looked_at_and_a_json_value_is_not() {
        let path = "at f (/no-home/a/.cache/conductor/npm/x.js:1:2)";
        for (format, shown) in
            [(ReturnFormat::Inspect, "at f (<conductor>/…/x.js:1:2)"), (ReturnFormat::Json, path)]
        {
            let mut result = ExecutionResult {
                return_value: Some(path.into()),
                return_value_format: format,
                ..ExecutionResult::failed(String::new(), ErrorReport::new(ErrorType::Internal, ""))
            };
            own_paths().hide_in_shown_value(&mut result);
            assert_eq!(result.return_value, Some(shown.into()));
        }
    }

    #[test]
    fn every_text_of_a_report_is_looked_at() {
        let path = "file:///no-home/a/.cache/conductor/x.js";
        let mut error = ErrorReport {
            cause: vec!["fine".into(), path.into()],
            stack: Some(path.into()),
            code_frame: Some(path.into()),
            ..ErrorReport::new(ErrorType::Runtime, path).hint(path)
        };
        own_paths().hide_in(&mut error);
        let hidden = "<conductor>/x.js";
        assert_eq!((error.message.as_str(), error.hint.as_deref()), (hidden, Some(hidden)));
        assert_eq!((error.cause, error.stack.as_deref()), (vec!["fine".into(), hidden.into()], Some(hidden)));
        assert_eq!(error.code_frame.as_deref(), Some(path), "what the user wrote");
    }
}
