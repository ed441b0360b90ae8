use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1000;

fn reader(bytes: &[u8]) -> FrameReader {
    let mut reader = FrameReader::new(LIMIT);
    reader.push(bytes);
    reader
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(body);
    bytes
}

#[test]
fn commands_are_a_length_and_json() {
    let bytes = encode(&Command::Boot {
        workspace: "/é",
        version: "1",
        revoke_read: true,
        revoke_write: false,
        spellings: &[("npm:a".to_owned(), "npm:a@^1".to_owned())].into(),
        preload: &["npm:a@^1/b".to_owned()],
        shared: &["npm:c".to_owned()],
        library: None,
    });
    let expected = r#"{"boot":{"workspace":"/é","version":"1","revoke_read":true,"revoke_write":false,"spellings":{"npm:a":"npm:a@^1"},"preload":["npm:a@^1/b"],"shared":["npm:c"],"library":null}}"#;
    assert_eq!(bytes, framed(expected.as_bytes()));
}

#[test]
fn every_reply_of_the_harness_is_understood() {
    let table = [
        (r#"{"ready":{}}"#, "Ready { drawn: None }"),
        (r#"{"ready":{"drawn":4294967295}}"#, "Ready { drawn: Some(4294967295) }"),
        (r#"{"importing":2}"#, "Importing(2)"),
        (r#"{"unfit":{"index":2,"why":"random"}}"#, "Unfit { index: Some(2), why: Random }"),
        (r#"{"unfit":{"why":"work"}}"#, "Unfit { index: None, why: Work }"),
        (r#"{"warm":{"any":[1]}}"#, "Warm(IgnoredAny)"),
        (r#"{"settled":{"kind":"none"}}"#, "Settled(None)"),
        (
            r#"{"settled":{"kind":"json","value":{"a":1}}}"#,
            r#"Settled(Json { value: Object {"a": Number(1)} })"#,
        ),
        (r#"{"settled":{"kind":"inspect","text":"x"}}"#, r#"Settled(Inspect { text: "x" })"#),
        (r#"{"settled":{"kind":"exit","code":3}}"#, "Settled(Exit { code: 3 })"),
        (
            r#"{"settled":{"kind":"thrown","error":{"message":"m"}}}"#,
            r#"Settled(Thrown { error: Thrown { name: "", message: "m", stack: "", cause: None, errors: [] } })"#,
        ),
        (r#"{"open":{"handles":["Timeout"]}}"#, r#"Open { handles: ["Timeout"] }"#),
        (
            r#"{"late":{"name":"Error"}}"#,
            r#"Late(Thrown { name: "Error", message: "", stack: "", cause: None, errors: [] })"#,
        ),
        (
            r#"{"settled":{"kind":"media","items":[{"kind":"image","media_type":"image/png","data":"AA=="}]}}"#,
            r#"Settled(Media { items: [Media { kind: Image, media_type: "image/png", name: None, data: "AA==" }] })"#,
        ),
        (r#"{"settled":{"kind":"oversized","bytes":9}}"#, "Settled(Oversized { bytes: 9 })"),
        (
            r#"{"call":{"id":1,"method":"m","params":{"a": 1}}}"#,
            r#"Call(Call { id: 1, method: "m", params: RawValue({"a": 1}) })"#,
        ),
        (r#"{"drained":{}}"#, "Drained"),
    ];
    for (json, expected) in table {
        let mut reader = reader(&framed(json.as_bytes()));
        assert_eq!(format!("{:?}", reader.next_reply().unwrap().unwrap()), expected);
        assert!(reader.next_reply().unwrap().is_none());
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_its_bytes_arrive() {
    for bytes in [LIMIT + 1, u32::MAX as usize] {
        let header = u32::try_from(bytes).unwrap().to_le_bytes();
        assert!(
            matches!(reader(&header).next_reply(), Err(FrameError::TooLarge { bytes: told }) if told == bytes)
        );
    }
}

#[test]
fn what_is_no_reply_is_garbage() {
    let deep = format!(r#"{{"settled":{{"kind":"json","value":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
    for body in
        ["", "x", "{}", "[]", r#"{"settled":{}}"#, r#"{"ready":{}} "x""#, r#"{"other":1}"#, deep.as_str()]
    {
        let result = reader(&framed(body.as_bytes())).next_reply();
        assert!(matches!(result, Err(FrameError::Garbage(_))), "{body}: {result:?}");
    }
    assert!(matches!(reader(&framed(b"\xff\xfe")).next_reply(), Err(FrameError::Garbage(_))));
}

proptest! {
    /// However the stream is cut, the same frames come out.
    #[test]
    fn cuts_do_not_matter(sizes in proptest::collection::vec(0usize..50, 1..6), cuts in proptest::collection::vec(1usize..40, 1..40)) {
        let stream: Vec<u8> = sizes
            .iter()
            .flat_map(|size| framed(format!(r#"{{"open":{{"handles":["{}"]}}}}"#, "x".repeat(*size)).as_bytes()))
            .collect();
        let mut reader = reader(&[]);
        let mut seen = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*cut));
            reader.compact();
            reader.buffer.extend(now);
            while let Some(Reply::Open { handles }) = reader.next_reply().unwrap() {
                seen.push(handles[0].len());
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(seen, sizes);
    }

    /// Any bytes give frames or an error, and never more memory than they have.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = reader(&bytes);
        while let Ok(Some(_)) = reader.next_reply() {}
        prop_assert!(reader.used <= bytes.len());
    }
}
