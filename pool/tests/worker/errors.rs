//! What code throws arrives with name, message, stack, causes and members, whenever and however it is thrown.

use conductor_pool::{RunReport, Settled, Thrown, USER_LINE_OFFSET, USER_SCRIPT_URL, Verdict};

use crate::support::{Bench, job, settled};

fn thrown(report: &RunReport) -> &Thrown {
    match settled(report) {
        Settled::Thrown { error } => error,
        other => panic!("not thrown: {other:?}"),
    }
}

fn late(report: &RunReport) -> &Thrown {
    match &report.verdict {
        Verdict::Settled { late: Some(late), .. } => late,
        other => panic!("nothing late: {other:?}"),
    }
}

#[tokio::test]
async fn thrown_values_keep_their_shape() {
    let bench = Bench::new();
    let table = [
        ("throw new TypeError('bad')", "TypeError", "bad"),
        ("class Mine extends Error { name = 'Mine' } throw new Mine('m')", "Mine", "m"),
        ("null.x", "TypeError", "Cannot read properties of null (reading 'x')"),
        ("await Promise.reject(new RangeError('r'))", "RangeError", "r"),
        ("throw 'text'", "", "text"),
        ("throw 5", "", "5"),
        ("throw undefined", "", "undefined"),
        ("throw { code: 1 }", "", "{ code: 1 }"),
        ("throw new DOMException('d', 'AbortError')", "AbortError", "d"),
        (
            "Deno.readTextFileSync('/etc/hostname')",
            "NotCapable",
            "Requires read access to \"/etc/hostname\", run again with the --allow-read flag",
        ),
        ("throw Object.assign(new Error('m'), { name: 5, stack: null })", "Error", "m"),
        ("throw new Proxy(new Error('p'), { get() { throw 1 } })", "Error", ""),
        (
            "const e = new Error('x'); for (const k of ['name', 'message', 'stack', 'cause']) Object.defineProperty(e, k, { get() { throw 1 } }); throw e",
            "Error",
            "",
        ),
        (
            "throw { get a() { throw 1 }, [Symbol.for('Deno.customInspect')]() { throw 2 } }",
            "",
            "[value that cannot be shown: inspecting it throws]",
        ),
        ("Error.prepareStackTrace = () => { throw 1 }; throw new Error('prepared')", "Error", "prepared"),
        ("throw new Error('\\ud800')", "Error", "\u{fffd}"),
        ("await new Promise((_, no) => setTimeout(() => no(new Error('later')), 5))", "Error", "later"),
        ("syntax error here", "SyntaxError", "Unexpected identifier 'error'"),
    ];
    for (code, name, message) in table {
        let report = bench.run(code).await;
        let error = thrown(&report);
        if message.is_empty() {
            assert_eq!(
                (error.name.as_str(), error.message.is_empty()),
                (name, name == "Error"),
                "{code}: {error:?}"
            );
        } else {
            assert_eq!((error.name.as_str(), error.message.as_str()), (name, message), "{code}");
        }
    }
}

#[tokio::test]
async fn stack_positions_are_those_of_the_code() {
    let bench = Bench::new();
    let report = bench.run("const a = 1;\nfunction inner() {\n  throw new Error('here');\n}\ninner();").await;
    let stack = &thrown(&report).stack;
    for (line, frame) in [(3, "at inner"), (5, "at eval")] {
        let position = format!("{USER_SCRIPT_URL}:{}:", line + USER_LINE_OFFSET);
        assert!(
            stack.lines().any(|l| l.contains(&position) && l.contains(frame)),
            "no {frame} at {position} in {stack}"
        );
    }
}

#[tokio::test]
async fn causes_and_members_are_followed_within_bounds() {
    let bench = Bench::new();
    let report = bench.run("throw new Error('a', { cause: new TypeError('b', { cause: 'c' }) })").await;
    let cause = thrown(&report).cause.as_ref().unwrap();
    assert_eq!((cause.name.as_str(), cause.message.as_str()), ("TypeError", "b"));
    assert_eq!(cause.cause.as_ref().unwrap().message, "c");

    let report = bench.run("throw new AggregateError([new Error('x'), 'y'], 'all')").await;
    let messages: Vec<_> = thrown(&report).errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(messages, ["x", "y"]);

    let report = bench.run("const e = new Error('loop'); e.cause = e; throw e").await;
    let mut depth = 0;
    let mut error = thrown(&report);
    while let Some(cause) = &error.cause {
        depth += 1;
        error = cause;
    }
    assert_eq!(depth, 8);

    let code = "const e = new AggregateError([], 'm'); e.errors = Array(1e6).fill(e); e.cause = e; e.stack = 'x'.repeat(1e7); throw e";
    let report = bench.run(code).await;
    fn count(error: &Thrown) -> usize {
        1 + error.cause.as_deref().map_or(0, count) + error.errors.iter().map(count).sum::<usize>()
    }
    assert!(count(thrown(&report)) <= 40);
}

#[tokio::test]
async fn an_error_nobody_catches_ends_the_run_as_if_thrown() {
    let bench = Bench::new();
    let table = [
        "setTimeout(() => { throw new Error('lost') }, 1); await new Promise(f => setTimeout(f, 10000));",
        "Promise.reject(new Error('lost')); await new Promise(f => setTimeout(f, 10000));",
        "queueMicrotask(() => { throw new Error('lost') }); await new Promise(f => setTimeout(f, 10000));",
        "reportError(new Error('lost')); await new Promise(f => setTimeout(f, 10000));",
        "(async () => { await 1; throw new Error('lost') })(); await new Promise(() => {});",
    ];
    for code in table {
        let report = bench.run(code).await;
        let error = thrown(&report);
        assert_eq!(error.message, "lost", "{code}");
        assert!(error.stack.contains(USER_SCRIPT_URL), "{code}: {}", error.stack);
        assert_eq!(String::from_utf8_lossy(&report.stderr), "", "{code}");
        assert!(report.wall.as_secs() < 5, "{code}");
    }
}

#[tokio::test]
async fn an_error_after_the_value_is_late() {
    let bench = Bench::new();
    let table = [
        "setTimeout(() => { throw new Error('lost') }, 20); return 1;",
        "(async () => { await new Promise(f => setTimeout(f, 20)); throw new Error('lost') })(); return 1;",
        "setTimeout(() => { console.log('before'); Promise.reject(new Error('lost')) }, 20); return 1;",
    ];
    for code in table {
        let report = bench.run(code).await;
        assert_eq!(late(&report).message, "lost", "{code}");
        assert!(matches!(settled(&report), Settled::Json { value } if value == 1), "{code}");
    }
}

#[tokio::test]
async fn a_floating_rejection_does_not_overtake_the_value() {
    // In the same turn the value is first: `Promise.reject()` floats until microtasks have run.
    let bench = Bench::new();
    let report = bench.run("Promise.reject(new Error('floating')); return 1;").await;
    match &report.verdict {
        Verdict::Settled { settled: Settled::Json { .. }, late: Some(late), .. } => {
            assert_eq!(late.message, "floating");
        }
        Verdict::Settled { settled: Settled::Thrown { error }, .. } => assert_eq!(error.message, "floating"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn handled_errors_do_not_end_the_run() {
    let bench = Bench::new();
    let wait = "await new Promise(f => setTimeout(f, 30)); return 'survived';";
    let table = [
        "addEventListener('error', e => e.preventDefault()); setTimeout(() => { throw 1 }, 1);",
        "addEventListener('unhandledrejection', e => e.preventDefault()); Promise.reject(1);",
        "process.on('uncaughtException', () => {}); setTimeout(() => { throw 1 }, 1);",
        "process.on('unhandledRejection', () => {}); Promise.reject(1);",
        "const p = Promise.reject(1); p.catch(() => {});",
        "dispatchEvent(new Event('error')); dispatchEvent(new Event('unhandledrejection'));",
    ];
    for code in table {
        let report = bench.run(&format!("{code} {wait}")).await;
        assert!(
            matches!(settled(&report), Settled::Json { value } if value == "survived"),
            "{code}: {:?}, {}",
            report.verdict,
            String::from_utf8_lossy(&report.stderr)
        );
    }
}

#[tokio::test]
async fn errors_fit_the_result_limit() {
    let bench = Bench::new();
    let mut job = job(
        "throw new AggregateError(Array(50).fill(new Error('\\u0001'.repeat(1e6))), '\\u0002'.repeat(1e6))",
    );
    job.limits.max_result_bytes = 3000;
    let report = bench.run_job(&bench.spec(), job).await;
    assert_eq!(thrown(&report).name, "AggregateError");
}
