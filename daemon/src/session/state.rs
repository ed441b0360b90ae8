//! `requestState` as it leaves the daemon and comes back: sealed, and bound to what it was made for.
//!
//! What a client sends back is a claim, and a client may know what another was sent. So each state, whether it names a call
//! that waits here or is a server's own, gets a seal under a key that this process alone has, and opens in the session that
//! it was given to, for the request that it was an answer to, within [`LIFETIME`].

use std::sync::OnceLock;
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{ClientRequest, RequestStateCodec, SealOptions};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::rounds::Asked;

/// How long a person may take, all rounds of a question together.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

const MEMBER: &str = "requestState";

/// What a state is good for.
#[derive(Debug)]
pub(super) struct Bound(Vec<u8>);

impl Bound {
    /// Opens the state that a request brings along; `None` for a request that has none.
    ///
    /// # Errors
    /// The seal is broken, or it is that of another session or request.
    pub(super) fn open(session: u64, request: &mut ClientRequest) -> Result<Option<Self>, ErrorData> {
        let (asked, state) = match request {
            ClientRequest::CallToolRequest(call) => {
                (Asked::tool(&call.params).0, &mut call.params.request_state)
            }
            ClientRequest::GetPromptRequest(get) => {
                (Asked::prompt(&get.params).0, &mut get.params.request_state)
            }
            ClientRequest::ReadResourceRequest(read) => {
                (Asked::resource(&read.params).0, &mut read.params.request_state)
            }
            _ => return Ok(None),
        };
        let bound = Self::to(session, &asked);
        if let Some(sealed) = state {
            let opened = codec().and_then(|codec| codec.open_with(sealed, &bound.0).ok());
            let opened = opened.and_then(|opened| String::from_utf8(opened).ok());
            *sealed = opened.and_then(|opened| in_time(&opened)).ok_or_else(super::rounds::over)?;
        }
        Ok(Some(bound))
    }

    fn to(session: u64, asked: &Asked) -> Self {
        let arguments =
            asked.arguments.as_ref().map(|arguments| Value::Object(arguments.clone()).to_string());
        let mut hash = Sha256::new();
        for part in
            [&session.to_string(), asked.method, &asked.name, arguments.as_deref().unwrap_or_default()]
        {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().to_vec())
    }

    /// Seals the state in the members of a result, if there is one.
    pub(super) fn seal(&self, members: &mut Map<String, Value>) {
        let Some(Value::String(state)) = members.get_mut(MEMBER) else { return };
        let options = SealOptions::new().associated_data(&self.0);
        let dated = format!("{} {state}", age().as_secs());
        // Without randomness there is no key, and no state opens.
        *state = codec().map(|codec| codec.seal_with(dated.as_bytes(), &options)).unwrap_or_default();
    }
}

/// The state, if it was not sealed too long ago.
fn in_time(dated: &str) -> Option<String> {
    let (sealed_at, state) = dated.split_once(' ')?;
    let sealed_at = Duration::from_secs(sealed_at.parse().ok()?);
    (age().saturating_sub(sealed_at) <= LIFETIME).then(|| state.to_owned())
}

/// A time that outlives nothing but this process, as the key does. The codec's own is the clock of the day, which jumps.
fn age() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Seals for as long as this process lives; `None` where the system has no randomness.
fn codec() -> Option<&'static RequestStateCodec> {
    static CODEC: OnceLock<Option<RequestStateCodec>> = OnceLock::new();
    let codec =
        CODEC.get_or_init(|| RequestStateCodec::try_new(crate::random::bytes::<32>().ok()?.to_vec()).ok());
    codec.as_ref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(tool: &str, arguments: Value, state: Option<&str>) -> ClientRequest {
        let params = json!({ "name": tool, "arguments": arguments, "requestState": state });
        serde_json::from_value(json!({ "method": "tools/call", "params": params })).expect("a call")
    }

    fn state(request: &ClientRequest) -> Option<&str> {
        match request {
            ClientRequest::CallToolRequest(call) => call.params.request_state.as_deref(),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_opens_for_its_lifetime_and_no_longer() {
        let bound =
            Bound::open(1, &mut call("t", json!({}), None)).expect("has no state").expect("may have one");
        let mut members = Map::from_iter([(MEMBER.to_owned(), json!("call 7"))]);
        bound.seal(&mut members);
        let opened = || {
            let mut request = call("t", json!({}), members[MEMBER].as_str());
            Bound::open(1, &mut request).map(|_| state(&request).map(str::to_owned))
        };
        tokio::time::advance(LIFETIME - Duration::from_secs(1)).await;
        assert_eq!(opened(), Ok(Some("call 7".into())));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(opened().is_err());
    }

    #[test]
    fn a_state_opens_for_its_own_request_in_its_own_session_alone() {
        let bound = Bound::open(1, &mut call("t", json!({ "a": 1 }), None))
            .expect("has no state")
            .expect("may have one");
        let result = json!({ "resultType": "input_required", "requestState": "call-7.1" });
        let Value::Object(mut members) = result else { unreachable!("it is written as an object") };
        bound.seal(&mut members);
        let sealed = members[MEMBER].as_str().expect("a text").to_owned();
        assert_ne!(sealed, "call-7.1");

        let opened = |session, mut request: ClientRequest| {
            Bound::open(session, &mut request).map(|_| state(&request).map(str::to_owned))
        };
        assert_eq!(opened(1, call("t", json!({ "a": 1 }), Some(&sealed))), Ok(Some("call-7.1".into())));
        let mut forged = sealed.clone().into_bytes();
        let middle = forged.len() / 2;
        forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).expect("is text");
        for (session, request) in [
            (2, call("t", json!({ "a": 1 }), Some(&sealed))),
            (1, call("u", json!({ "a": 1 }), Some(&sealed))),
            (1, call("t", json!({ "a": 2 }), Some(&sealed))),
            (1, call("t", json!({ "a": 1 }), Some(&forged))),
            (1, call("t", json!({ "a": 1 }), Some("call-7.1"))),
            (1, call("t", json!({ "a": 1 }), Some(""))),
        ] {
            assert!(opened(session, request).is_err());
        }
    }
}
