//! The calls of one run that wait for an answer: admits them, within bounds, and makes a frame of each answer.
//!
//! An answer is taken only when the one before it has been handed over, so a worker that does not read makes the daemon
//! hold one answer, not all. The time in which the code waited is kept: from the first unanswered call to the answer after
//! which none is unanswered, so that calls made together count once. Dropping the calls, as the end of a run does, drops what is still being worked on.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;
use tokio::time::Instant;

use super::frame::{self, Call, Command};
use crate::host::{CALL_LIMIT_ERROR, Host, HostError};
use crate::job::RunLimits;
use crate::source::BoxFuture;

/// Bytes of all parameters that are worked on; as values they take up to sixteen times as much.
pub(crate) const MAX_PARAMS_BYTES: usize = 4 << 20;

/// Calls without an answer yet, refused ones among them, before the worker counts as flooding: this many times as many as
/// are worked on.
const FLOOD: usize = 4;

#[derive(Debug)]
pub(crate) struct Calls {
    host: Option<Host>,
    max: usize,
    /// The harness keeps later ones back, so only code that writes frames itself gets to know this limit.
    max_in_flight: usize,
    unanswered: FuturesUnordered<BoxFuture<'static, Answer>>,
    in_flight: usize,
    params_bytes: usize,
    total: usize,
    waited: Duration,
    /// When the first of the calls that are in flight was made; `None` without any.
    waiting_since: Option<Instant>,
}

/// What became of one call.
struct Answer {
    id: u64,
    result: Result<Value, HostError>,
    /// Bytes of parameters that it held; `None` if it was refused.
    held: Option<usize>,
}

impl Calls {
    pub(crate) fn new(host: Option<Host>, limits: RunLimits) -> Self {
        Self {
            host,
            max: limits.max_calls,
            max_in_flight: limits.max_calls_in_flight,
            unanswered: FuturesUnordered::new(),
            in_flight: 0,
            params_bytes: 0,
            total: 0,
            waited: Duration::ZERO,
            waiting_since: None,
        }
    }

    /// Takes one call; false when the worker asks without reading the answers.
    pub(crate) fn start(&mut self, call: &Call) -> bool {
        self.total += 1;
        let id = call.id;
        match self.admit(call) {
            Ok(future) => {
                let bytes = call.params.get().len();
                self.waiting_since.get_or_insert_with(Instant::now);
                self.in_flight += 1;
                self.params_bytes += bytes;
                self.unanswered
                    .push(Box::pin(async move { Answer { id, result: future.await, held: Some(bytes) } }));
            }
            Err(error) => {
                let answer = Answer { id, result: Err(error), held: None };
                self.unanswered.push(Box::pin(std::future::ready(answer)));
            }
        }
        self.unanswered.len() <= FLOOD * self.max_in_flight
    }

    fn admit(&self, call: &Call) -> Result<BoxFuture<'static, Result<Value, HostError>>, HostError> {
        let refused = |why: String| Err(HostError::new(why));
        let over = |why| Err(HostError { name: CALL_LIMIT_ERROR.to_owned(), ..HostError::new(why) });
        let Some(host) = &self.host else {
            return refused(format!("`{}` is not available here", call.method));
        };
        if self.total > self.max {
            return over(format!(
                "a run may make {} calls (`max-upstream-calls`); this was one more",
                self.max
            ));
        }
        if self.in_flight >= self.max_in_flight {
            return over(format!(
                "a run may wait for {} calls at one time (`max-upstream-calls-in-flight`); this was one more",
                self.max_in_flight
            ));
        }
        if self.params_bytes + call.params.get().len() > MAX_PARAMS_BYTES {
            return over(format!(
                "the parameters of all calls that a run waits for may have {MAX_PARAMS_BYTES} bytes; these were more"
            ));
        }
        match serde_json::from_str(call.params.get()) {
            Ok(params) => Ok(host.call(&call.method, params)),
            Err(error) => refused(format!("the parameters are not understood: {error}")),
        }
    }

    /// How long the code has waited for the host so far.
    pub(crate) fn waiting(&self) -> Duration {
        self.waited + self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// The frame of the next answer; never ready when there is none to come.
    ///
    /// # Cancel safety
    /// A future that is dropped has taken no answer.
    pub(crate) async fn answer(&mut self) -> Vec<u8> {
        let Some(Answer { id, result, held }) = self.unanswered.next().await else {
            return std::future::pending().await;
        };
        if let Some(bytes) = held {
            self.in_flight -= 1;
            self.params_bytes -= bytes;
            if self.in_flight == 0 {
                self.waited = self.waiting();
                self.waiting_since = None;
            }
        }
        let command = match &result {
            Ok(value) => Command::Reply { id, value: Some(value), error: None },
            Err(error) => Command::Reply { id, value: None, error: Some(error) },
        };
        frame::encode(&command)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::host::HostCalls;

    /// Echoes; never answers `hang`. Counts the calls it was asked for.
    #[derive(Default)]
    struct Echo(Arc<AtomicUsize>);

    impl HostCalls for Echo {
        fn call(&self, method: &str, params: Value) -> BoxFuture<'static, Result<Value, HostError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match method {
                "echo" => Box::pin(std::future::ready(Ok(params))),
                _ => Box::pin(std::future::pending()),
            }
        }
    }

    const LIMITS: RunLimits = RunLimits {
        wall: Duration::MAX,
        compute: Duration::MAX,
        linger: Duration::ZERO,
        max_output_bytes: 0,
        max_result_bytes: 0,
        max_media_bytes: 0,
        max_calls: 300,
        max_calls_in_flight: 64,
    };

    fn with_host(host: impl HostCalls + 'static) -> Calls {
        Calls::new(Some(Host::new(host)), LIMITS)
    }

    fn call(id: u64, method: &str, params: &Value) -> Call {
        Call { id, method: method.to_owned(), params: to_raw_value(params).unwrap() }
    }

    async fn answer(calls: &mut Calls) -> Value {
        serde_json::from_slice(&calls.answer().await[4..]).unwrap()
    }

    #[tokio::test]
    async fn an_answer_bears_the_number_of_its_call_even_twice() {
        let mut calls = with_host(Echo::default());
        for id in [7, 7, u64::MAX] {
            assert!(calls.start(&call(id, "echo", &json!({ "a": id }))));
            assert_eq!(answer(&mut calls).await, json!({ "reply": { "id": id, "value": { "a": id } } }));
        }
        assert!(calls.is_empty());
    }

    #[tokio::test]
    async fn without_a_host_a_call_fails() {
        let mut calls = Calls::new(None, LIMITS);
        calls.start(&call(1, "echo", &json!(1)));
        let error = json!({ "name": "Error", "message": "`echo` is not available here" });
        assert_eq!(answer(&mut calls).await, json!({ "reply": { "id": 1, "error": error } }));
    }

    #[tokio::test]
    async fn what_is_over_a_bound_is_refused_and_never_reaches_the_host() {
        let asked = Arc::new(AtomicUsize::new(0));
        let mut calls = with_host(Echo(asked.clone()));
        for id in 0..64 {
            calls.start(&call(id, "hang", &json!(null)));
        }
        calls.start(&call(64, "echo", &json!(null)));
        let refused = answer(&mut calls).await;
        assert!(refused["reply"]["error"]["message"].as_str().unwrap().contains("64 calls"), "{refused}");
        assert_eq!(refused["reply"]["error"]["name"], CALL_LIMIT_ERROR);
        assert_eq!(asked.load(Ordering::Relaxed), 64);

        let mut calls = with_host(Echo::default());
        calls.start(&call(0, "echo", &json!("x".repeat(MAX_PARAMS_BYTES))));
        assert!(
            answer(&mut calls).await["reply"]["error"]["message"].as_str().unwrap().contains("parameters")
        );
        for id in 1..300 {
            calls.start(&call(id, "echo", &json!(null)));
            assert!(answer(&mut calls).await["reply"].get("value").is_some(), "call {id}");
        }
        calls.start(&call(0, "echo", &json!(null)));
        assert!(
            answer(&mut calls).await["reply"]["error"]["message"].as_str().unwrap().contains("300 calls")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_together_count_once_and_refused_ones_do_not() {
        struct Sleeper;
        impl HostCalls for Sleeper {
            fn call(&self, _method: &str, params: Value) -> BoxFuture<'static, Result<Value, HostError>> {
                let time = Duration::from_secs(params.as_u64().unwrap());
                Box::pin(async move {
                    tokio::time::sleep(time).await;
                    Ok(Value::Null)
                })
            }
        }
        let mut calls = with_host(Sleeper);
        assert_eq!(calls.waiting(), Duration::ZERO);
        for (id, seconds) in [(0, 3), (1, 5)] {
            calls.start(&call(id, "sleep", &json!(seconds)));
        }
        answer(&mut calls).await;
        assert_eq!(calls.waiting(), Duration::from_secs(3), "also while one is still pending");
        answer(&mut calls).await;
        // The code goes on by itself.
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(calls.waiting(), Duration::from_secs(5));
        calls.start(&call(2, "sleep", &json!(1)));
        answer(&mut calls).await;
        assert_eq!(calls.waiting(), Duration::from_secs(6));

        let mut refusing = Calls::new(None, LIMITS);
        refusing.start(&call(0, "sleep", &json!(1)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(refusing.waiting(), Duration::ZERO);
    }

    #[test]
    fn asking_without_reading_is_a_flood() {
        let mut calls = Calls::new(None, LIMITS);
        let taken = (0..).take_while(|id| calls.start(&call(*id, "echo", &json!(null)))).count();
        assert_eq!(taken, 256);
    }
}
