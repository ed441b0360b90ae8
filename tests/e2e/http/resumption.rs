//! A client whose connection breaks goes on where it was, and nothing is lost, done or said twice.

use std::fs;
use std::path::PathBuf;

use conductor_tests::http::{HttpBed, HttpClient, Stream, request, wait_until_busy};
use serde_json::{Value, json};

/// Notes that it runs, says so, waits for a file and says that.
const GATED: &str = "await Deno.writeTextFile('ran', 'x', { append: true }); console.log('one');
while (!(await Deno.stat('gate').catch(() => null))) await new Promise((r) => setTimeout(r, 20));
console.log('two'); 'done'";

struct Bed {
    http: HttpBed,
    client: HttpClient,
    workspace: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let http = HttpBed::new("[profiles.b]\npackages = []\nrun-args = \"allow-read=.,allow-write=.\"\n");
        let client = http.another("bob", "b");
        let workspace = http.home.home().join(".mcp-conductor/workspaces/b");
        Self { http, client, workspace }
    }

    fn open_the_gate(&self) {
        fs::write(self.workspace.join("gate"), "").expect("writes");
    }

    fn n_ran(&self) -> usize {
        fs::read_to_string(self.workspace.join("ran")).expect("it ran").len()
    }

    /// Starts the call and loses the connection after the first line it says; gives the last event's id.
    fn cut_off(&self, session: &str) -> String {
        let mut params = json!({ "name": "run_deno_code", "arguments": { "deno_code": GATED } });
        params["_meta"] = json!({ "progressToken": "p" });
        let message = request(7, "tools/call", params);
        let mut stream = self.client.stream("POST", &in_session(session), Some(&message));
        let (beginning, nothing) = stream.event().expect("the stream can be resumed from its beginning");
        assert_eq!((beginning.as_str().ends_with("-0"), nothing), (true, None));
        loop {
            let (id, message) = stream.event().expect("something is said");
            if message.is_some_and(|message| message["params"]["message"] == "one") {
                return id;
            }
        }
    }

    fn resume(&self, session: &str, last: &str) -> Stream {
        let mut headers = in_session(session).to_vec();
        headers.push(("Last-Event-ID", last));
        self.client.stream("GET", &headers, None)
    }
}

fn in_session(session: &str) -> [(&str, &str); 2] {
    [("Mcp-Session-Id", session), ("MCP-Protocol-Version", "2025-11-25")]
}

/// Reads to the end: what the stream says, and the value that it answers with, once.
#[track_caller]
fn read(mut stream: Stream) -> (Vec<String>, Vec<Value>, Vec<String>) {
    let (mut ids, mut answers, mut said) = (Vec::new(), Vec::new(), Vec::new());
    while let Some((id, message)) = stream.event() {
        let message = message.expect("a message");
        ids.push(id);
        match message.get("result") {
            Some(result) => answers.push(result["structuredContent"]["returnValue"].clone()),
            None => said.extend(message["params"]["message"].as_str().map(str::to_owned)),
        }
    }
    (ids, answers, said)
}

#[test]
fn an_answer_waits_for_a_client_that_was_cut_off_and_comes_once() {
    let bed = Bed::new();
    let session = bed.client.initialize(json!({}));
    let last = bed.cut_off(&session);
    wait_until_busy(&bed.http.daemon, 1);
    bed.open_the_gate();
    wait_until_busy(&bed.http.daemon, 0);
    let (ids, answers, said) = read(bed.resume(&session, &last));
    assert_eq!(answers, ["done"], "{ids:?}");
    assert!(said.contains(&"two".to_owned()) && !said.contains(&"one".to_owned()), "{said:?}");
    assert_eq!(bed.n_ran(), 1, "a broken connection runs nothing twice");

    let newest = ids.last().expect("the answer has an id");
    assert_eq!(
        read(bed.resume(&session, newest)),
        (Vec::new(), Vec::new(), Vec::new()),
        "nothing came after it"
    );
    for unknown in ["r999-1", "nonsense", ""] {
        let mut headers = in_session(&session).to_vec();
        headers.push(("Last-Event-ID", unknown));
        let refused = bed.client.send("GET", &headers, "");
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.contains("hint: open another stream"), "{refused:?}");
    }
    // Who has another token has no way to it, and in another session there is none.
    let mut headers = in_session(&session).to_vec();
    headers.push(("Last-Event-ID", &last));
    assert_eq!(bed.http.client.send("GET", &headers, "").status, 404);
    let other = bed.client.initialize(json!({}));
    let mut headers = in_session(&other).to_vec();
    headers.push(("Last-Event-ID", &last));
    assert_eq!(bed.client.send("GET", &headers, "").status, 400);
}

#[test]
fn a_client_that_comes_back_in_time_hears_the_rest() {
    let bed = Bed::new();
    let session = bed.client.initialize(json!({}));
    let last = bed.cut_off(&session);
    // Twice: the second time the connection was only believed to be broken.
    let (stream_id, _) = last.split_once('-').expect("stream and number");
    let mut lingering = bed.resume(&session, &format!("{stream_id}-0"));
    assert!(lingering.event().is_some(), "what was said before is said again");
    let resumed = bed.resume(&session, &last);
    let (_, answers, _) = read(lingering);
    assert_eq!(answers, Vec::<Value>::new(), "who came first hears the end");
    bed.open_the_gate();
    let (ids, answers, said) = read(resumed);
    assert_eq!(answers, ["done"]);
    assert!(said.contains(&"two".to_owned()) && !said.contains(&"one".to_owned()), "{said:?}");
    assert!(ids.iter().collect::<std::collections::BTreeSet<_>>().len() == ids.len(), "each once: {ids:?}");
    assert_eq!(bed.n_ran(), 1);
}

#[test]
fn clients_of_older_revisions_are_told_nothing_that_they_do_not_know() {
    let bed = Bed::new();
    let session = bed.client.initialize(json!({}));
    let call = json!({ "name": "run_deno_code", "arguments": { "deno_code": GATED } });
    let headers = [("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", "2025-06-18")];
    let mut stream = bed.client.stream("POST", &headers, Some(&request(7, "tools/call", call)));
    wait_until_busy(&bed.http.daemon, 1);
    bed.open_the_gate();
    while let Some((id, message)) = stream.event() {
        assert!(message.is_some(), "{id} is an event without data");
    }
}
