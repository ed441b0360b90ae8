//! JSON Schema documents as such: where a local `$ref` points, and how big a document is.

use std::cell::OnceCell;
use std::collections::HashMap;

use serde_json::Value;

/// A schema, and what its own references point to.
#[derive(Debug)]
pub(crate) struct Document<'s> {
    root: &'s Value,
    /// Found at the first need, in one walk: a hostile schema can have as many references as values.
    anchors: OnceCell<HashMap<&'s str, &'s Value>>,
}

impl<'s> Document<'s> {
    pub(crate) fn new(root: &'s Value) -> Self {
        Self { root, anchors: OnceCell::new() }
    }

    pub(crate) fn root(&self) -> &'s Value {
        self.root
    }

    /// Where a `$ref` points: `#`, `#/json/pointer` or `#anchor`. `None` for everything outside the document.
    pub(crate) fn resolve(&self, reference: &str) -> Option<&'s Value> {
        let fragment = reference.strip_prefix('#')?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return self.root.pointer(&percent_decoded(fragment)?);
        }
        self.anchors.get_or_init(|| anchors(self.root)).get(fragment).copied()
    }
}

fn anchors(root: &Value) -> HashMap<&str, &Value> {
    let mut anchors = HashMap::new();
    for (value, _) in walk(root) {
        for key in ["$anchor", "$dynamicAnchor"] {
            if let Some(name) = value.get(key).and_then(Value::as_str) {
                anchors.entry(name).or_insert(value);
            }
        }
    }
    anchors
}

/// Every value of a document with its depth, the document itself first. Iterative: depth costs no stack.
pub(crate) fn walk(root: &Value) -> impl Iterator<Item = (&Value, usize)> {
    let mut stack = vec![(root, 0)];
    std::iter::from_fn(move || {
        let (value, depth) = stack.pop()?;
        match value {
            Value::Array(items) => stack.extend(items.iter().rev().map(|item| (item, depth + 1))),
            Value::Object(fields) => stack.extend(fields.values().rev().map(|field| (field, depth + 1))),
            _ => {}
        }
        Some((value, depth))
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn local_references_are_found() {
        let document =
            json!({"$defs": {"a/b c": {"type": "string"}, "n": {"$anchor": "here", "type": "null"}}});
        let root = Document::new(&document);
        assert_eq!(root.resolve("#/$defs/a~1b%20c"), Some(&json!({"type": "string"})));
        assert_eq!(root.resolve("#here").and_then(|it| it.get("type")), Some(&json!("null")));
        assert_eq!(root.resolve("#"), Some(&document));
        for outside in ["https://example.com/a", "other.json#/a", "#/$defs/none", "#nowhere", "#/%zz", "#/%e"]
        {
            assert_eq!(root.resolve(outside), None, "{outside}");
        }
    }
}
