//! What code can ask of the daemon while it runs: results that earlier runs of its profile left in the store, and requests
//! to the upstream servers of its session.

use std::sync::Arc;
use std::time::Instant;

use conductor_pool::source::BoxFuture;
use conductor_pool::{HostCalls, HostError};
use serde_json::{Value, json};

use crate::store::{Store, URI_PREFIX};
use crate::upstreams::Servers;
use crate::upstreams::calls::{UpstreamCalls, unusable};

/// Reads results.
#[derive(Debug)]
pub(crate) struct StoreCalls {
    store: Arc<Store>,
    /// The profile the code runs under.
    owner: String,
}

impl StoreCalls {
    pub(crate) fn new(store: Arc<Store>, owner: String) -> Self {
        Self { store, owner }
    }

    fn result(&self, params: &Value) -> Result<Value, HostError> {
        let id = params.get("id").and_then(Value::as_str).unwrap_or_default();
        let id = id.strip_prefix(URI_PREFIX).unwrap_or(id);
        let stored = self.store.get(id, Some(&self.owner), Instant::now()).ok_or_else(|| {
            HostError::new(format!(
                "there is no result `{id}`: results are kept for an hour, as long as there is room"
            ))
        })?;
        // The worker reads JSON itself: a value of 30 MB need not be taken apart and put together here.
        Ok(json!({ "media_type": stored.media_type, "text": &*stored.text }))
    }
}

/// Answers the calls of one run.
#[derive(Debug)]
pub(crate) struct RunCalls {
    pub(crate) store: StoreCalls,
    /// Or the reason why there are none.
    pub(crate) upstreams: Result<UpstreamCalls, Servers>,
}

impl HostCalls for RunCalls {
    fn call(&self, method: &str, params: Value) -> BoxFuture<'static, Result<Value, HostError>> {
        if method == "result" {
            return Box::pin(std::future::ready(self.store.result(&params)));
        }
        let (method, upstreams) = (method.to_owned(), self.upstreams.clone());
        Box::pin(async move {
            let answer = match upstreams {
                Ok(upstreams) => upstreams.answer(&method, params).await,
                Err(servers) => unusable(&servers).map(Err),
            };
            answer.unwrap_or_else(|| Err(HostError::new(format!("there is no method `{method}`"))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::JSON;

    #[test]
    fn code_reads_what_its_own_profile_left() {
        let store = Arc::new(Store::default());
        let keep = |owner: &str, media_type, text: &str| {
            store.keep(owner, media_type, text.into(), Instant::now()).expect("fits")
        };
        let (value, text, foreign) =
            (keep("a", JSON, "[1,{}]"), keep("a", "text/plain", "[1"), keep("b", JSON, "1"));
        let calls = StoreCalls::new(store.clone(), "a".into());
        let result = |id: &str| calls.result(&json!({ "id": id }));
        assert_eq!(result(&value), Ok(json!({ "media_type": JSON, "text": "[1,{}]" })));
        let by_uri = result(&format!("{URI_PREFIX}{text}"));
        assert_eq!(by_uri, Ok(json!({ "media_type": "text/plain", "text": "[1" })));
        for id in [foreign.as_str(), "", "../x"] {
            assert!(result(id).is_err_and(|error| error.message.contains("there is no result")), "{id}");
        }
        assert!(calls.result(&Value::Null).is_err());
    }
}
