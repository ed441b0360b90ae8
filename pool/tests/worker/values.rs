//! What code returns, throws and prints arrives as what it is.

use crate::support::{self, Bench};
use serde_json::json;

#[tokio::test]
async fn first() {
    let bench = Bench::new();
    for _ in 0..5 {
        let t = std::time::Instant::now();
        let worker = bench.boot(&bench.spec()).await.unwrap_or_else(|e| panic!("{}", support::chain(&e)));
        println!("boot {:?}", t.elapsed());
        let t = std::time::Instant::now();
        let (report, reaped) =
            worker.run(support::job("console.log('hi'); return {a: 1}"), None, Default::default()).await;
        println!("run {:?} {report:?}", t.elapsed());
        reaped.await;
        println!("reap {:?}", t.elapsed());
        assert_eq!(support::json(report), json!({"a": 1}));
    }
}
