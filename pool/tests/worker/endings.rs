//! Every way a run can end gives its own verdict, at the time the limits say.

use std::time::{Duration, Instant};

use conductor_pool::{RunLimits, RunReport, Settled, Verdict};
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, job, settled};

const SIGKILL: i32 = 9;
const SIGABRT: i32 = 6;

/// Runs with a limit that is reached, which is twice as long each time until the code has come as far as it must by then: how
/// far it comes depends on what else the machine does.
async fn run_as_far_as(
    bench: &Bench,
    code: &str,
    limit: impl Fn(&mut RunLimits, Duration),
    is_far: impl Fn(&RunReport) -> bool,
) -> RunReport {
    bench.json("return 1;").await; // makes what is made once
    let mut time = Duration::from_millis(300);
    loop {
        let mut job = job(code);
        limit(&mut job.limits, time);
        let started = Instant::now();
        let report = bench.run_job(&bench.spec(), job).await;
        assert!(report.wall >= time, "{code}: {:?} of {time:?}", report.wall);
        assert!(started.elapsed() < time + Duration::from_secs(5), "{code}: {:?}", started.elapsed());
        if is_far(&report) || time > Duration::from_secs(5) {
            return report;
        }
        time *= 2;
    }
}

#[tokio::test]
async fn code_that_does_not_stop_ends_at_its_time_limit() {
    let bench = Bench::new();
    let table = [
        "console.log('partial'); for (;;);",
        "console.log('partial'); await new Promise(f => setTimeout(f, 1e6));",
        "console.log('partial'); const turn = () => process.nextTick(turn); turn(); await new Promise(() => {});",
        "console.log('partial'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);",
        "console.log('partial'); Deno.addSignalListener('SIGTERM', () => {}); process.kill(process.pid, 'SIGSTOP'); for (;;);",
        "console.log('partial'); /(a+)+$/.test('a'.repeat(40) + 'b');",
        "console.log('partial'); throw { get a() { for (;;); }, [Symbol.for('Deno.customInspect')]() { for (;;); } };",
        "console.log('partial'); return { then() {} }, new Promise(f => setInterval(() => {}, 1000));",
    ];
    for code in table {
        let has_begun = |report: &RunReport| !report.stdout.is_empty();
        let report = run_as_far_as(&bench, code, |limits, time| limits.wall = time, has_begun).await;
        assert!(matches!(report.verdict, Verdict::Timeout), "{code}: {:?}", report.verdict);
        assert_eq!(report.stdout, b"partial\n", "{code}");
    }
}

#[tokio::test]
async fn busy_code_is_charged_for_cpu_and_waiting_code_is_not() {
    let bench = Bench::new();
    let work = "let s = 0; for (let i = 0; i < 3e8; i++) s = (s + i * 7) % 1000003; return s;";
    let busy = bench.run(work).await;
    assert!(busy.cpu > Duration::from_millis(100), "{:?}", busy.cpu);
    let waiting = bench.run("await new Promise(f => setTimeout(f, 500)); return 1;").await;
    assert!(waiting.wall >= Duration::from_millis(500) && waiting.cpu < waiting.wall / 2, "{waiting:?}");
}

/// Memory for the isolates of a few Web Workers, each of which reserves some of its own.
fn for_threads(bench: &Bench) -> conductor_pool::WorkerSpec {
    conductor_pool::WorkerSpec { heap_mib: 2048, max_memory_mib: 2496, ..bench.spec() }
}

/// Burns CPU in `threads` threads at once, this one among them.
fn burn(threads: usize) -> String {
    format!(
        "console.log('partial');
         const code = 'data:text/javascript,for(;;);';
         for (let i = 1; i < {threads}; i++) new Worker(code, {{ type: 'module' }});
         await new Promise((f) => setTimeout(f, 50));
         for (;;);"
    )
}

#[tokio::test]
async fn code_that_computes_too_long_ends_at_its_compute_limit() {
    let bench = Bench::new();
    let limit = Duration::from_millis(400);
    for threads in [1, 3] {
        let mut job = job(&burn(threads));
        job.limits.compute = limit;
        let report = bench.run_job(&for_threads(&bench), job).await;
        assert!(matches!(report.verdict, Verdict::ComputeLimit), "{threads}: {:?}", report.verdict);
        assert_eq!(report.stdout, b"partial\n", "{threads}");
        assert!(report.cpu >= limit, "{threads}: {:?}", report.cpu);
        // Far beyond what a look comes late, on a machine that is busy with other things too.
        assert!(report.cpu < limit + Duration::from_secs(2), "{threads}: {:?}", report.cpu);
    }
}

#[tokio::test]
async fn threads_use_up_the_compute_limit_together() {
    let bench = Bench::new();
    // The code's own thread only waits. How fast others compute meanwhile depends on what else the machine does.
    let mut job = job("const code = 'data:text/javascript,for(;;);';
         for (let i = 0; i < 3; i++) new Worker(code, { type: 'module' });
         await new Promise((f) => setTimeout(f, 1e6));");
    job.limits.compute = Duration::from_millis(600);
    let report = bench.run_job(&for_threads(&bench), job).await;
    assert!(matches!(report.verdict, Verdict::ComputeLimit), "{:?}", report.verdict);
    let cpus = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    assert!(report.wall * cpus >= report.cpu && report.cpu >= Duration::from_millis(600), "{report:?}");
}

#[tokio::test]
async fn a_value_outlives_the_compute_limit_and_waiting_costs_nothing() {
    let bench = Bench::new();
    let mut busy = job("setTimeout(() => { for (;;); }, 1); return 1;");
    busy.limits.compute = Duration::from_millis(300);
    busy.limits.linger = Duration::from_secs(60);
    let report = bench.run_job(&bench.spec(), busy).await;
    assert!(
        matches!(
            report.verdict,
            Verdict::Settled { settled: Settled::Json { .. }, open_handles: Some(_), .. }
        ),
        "{:?}",
        report.verdict
    );
    let mut idle = job("await new Promise((f) => setTimeout(f, 1000)); return 1;");
    idle.limits.compute = Duration::from_millis(300);
    let report = bench.run_job(&bench.spec(), idle).await;
    assert!(matches!(settled(&report), Settled::Json { .. }), "{:?}", report.verdict);
    assert!(report.wall >= Duration::from_secs(1));
}

#[tokio::test]
async fn cancelling_kills_at_once() {
    let bench = Bench::new();
    let worker = bench.boot(&bench.spec()).await.unwrap();
    let cancel = CancellationToken::new();
    let (events, mut received) = tokio::sync::mpsc::channel(4);
    let running =
        tokio::spawn(worker.run(job("console.log('started'); for (;;);"), Some(events), cancel.clone()));
    received.recv().await.unwrap();
    let cancelled = Instant::now();
    cancel.cancel();
    let (report, reaped) = running.await.unwrap();
    reaped.await;
    assert!(matches!(report.verdict, Verdict::Cancelled));
    assert_eq!(report.stdout, b"started\n");
    assert!(cancelled.elapsed() < Duration::from_secs(2), "{:?}", cancelled.elapsed());
}

#[tokio::test]
async fn a_run_cancelled_before_it_starts_reports_so() {
    let bench = Bench::new();
    let worker = bench.boot(&bench.spec()).await.unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (report, reaped) = worker.run(job("return 1;"), None, cancel).await;
    reaped.await;
    assert!(matches!(report.verdict, Verdict::Cancelled));
}

#[tokio::test]
async fn death_by_memory_is_told_from_other_deaths() {
    let bench = Bench::new();
    let spec = conductor_pool::WorkerSpec { heap_mib: 32, ..bench.spec() };
    let code = "const a = []; for (;;) a.push(new Array(1000).fill({}));";
    let report = bench.run_job(&spec, job(code)).await;
    assert!(
        matches!(report.verdict, Verdict::Exited { code: None, signal: Some(_), out_of_memory: true }),
        "{:?}",
        report.verdict
    );

    let report = bench.run("process.abort();").await;
    assert!(
        matches!(report.verdict, Verdict::Exited { signal: Some(SIGABRT), out_of_memory: false, .. }),
        "{:?}",
        report.verdict
    );

    let report =
        bench.run("console.log('last words'); process.kill(process.pid, 'SIGKILL'); for (;;);").await;
    assert!(
        matches!(report.verdict, Verdict::Exited { code: None, signal: Some(SIGKILL), out_of_memory: false }),
        "{:?}",
        report.verdict
    );
    assert_eq!(report.stdout, b"last words\n");
}

/// What a process has in memory while it runs, at its highest.
fn watch(pid: i32) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) {
            let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
            peak = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024;
            std::thread::yield_now();
        }
        peak
    })
}

#[tokio::test]
async fn memory_outside_the_heap_ends_at_its_limit() {
    let bench = Bench::new();
    let spec = conductor_pool::WorkerSpec { heap_mib: 64, max_memory_mib: 400, ..bench.spec() };
    let fill =
        "const fill = (bytes) => { for (let n = 0; n < bytes.length; n += 4096) bytes[n] = 1; return bytes };
                console.log('partial'); const all = [];";
    for code in [
        "for (;;) all.push(fill(new Uint8Array(1 << 24)));",
        "for (;;) all.push(fill(new Uint8Array(new SharedArrayBuffer(1 << 24))));",
        "for (;;) all.push(fill(new Uint8Array(new WebAssembly.Memory({ initial: 256 }).buffer)));",
        "const part = fill(new Uint8Array(1 << 24)); for (;;) all.push(new Blob([part]));",
        "const part = fill(new Uint8Array(1 << 24)); for (;;) all.push(structuredClone(part));",
        "const code = `const all = []; for (;;) all.push(new Uint8Array(1 << 24).fill(1));`;
         const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
         new Worker(url, { type: 'module' }); new Worker(url, { type: 'module' });
         await new Promise((f) => setTimeout(f, 1e6));",
    ] {
        let worker = bench.boot(&spec).await.unwrap();
        let peak = watch(worker.identity().pid);
        let (report, reaped) =
            worker.run(job(&format!("{fill}\n{code}")), None, CancellationToken::new()).await;
        reaped.await;
        assert!(matches!(report.verdict, Verdict::MemoryLimit), "{code}: {:?}", report.verdict);
        assert_eq!(report.stdout, b"partial\n", "{code}");
        let peak = peak.join().unwrap();
        // Far beyond what a look comes late, on a machine that is busy with other things too.
        assert!(peak < 1000, "{code}: {peak} MiB");
    }
}

#[tokio::test]
async fn memory_up_to_its_limit_is_fine() {
    let bench = Bench::new();
    let code = "const all = []; for (let n = 0; n < 32; n++) all.push(new Uint8Array(1 << 24).fill(1));
                await new Promise((f) => setTimeout(f, 300)); return all.length;";
    assert_eq!(bench.json(code).await, 32);
}

#[tokio::test]
async fn a_death_that_code_fakes_is_told_by_its_wait_status() {
    const LAST_WORDS: &str = "console.error('#\\n# Fatal JavaScript out of memory: Reached heap limit\\nmemory allocation of 9 bytes failed');";
    let bench = Bench::new();
    for code in [70, 134, 137, 139] {
        for exit in ["Deno.exit", "process.reallyExit"] {
            let report = bench.run(&format!("{LAST_WORDS} {exit}({code});")).await;
            let Settled::Exit { code: told } = settled(&report) else { panic!("{report:?}") };
            assert_eq!(*told, code, "{exit}");
        }
    }
    // The words alone are no memory either; with the signal they go with, they deceive whoever wrote them.
    for (signal, memory) in
        [("SIGKILL", false), ("SIGHUP", false), ("SIGTERM", false), ("SIGTRAP", true), ("SIGABRT", true)]
    {
        let report =
            bench.run(&format!("{LAST_WORDS} process.kill(process.pid, '{signal}'); for (;;);")).await;
        let Verdict::Exited { code: None, signal: Some(_), out_of_memory } = report.verdict else {
            panic!("{signal}: {:?}", report.verdict)
        };
        assert_eq!(out_of_memory, memory, "{signal}");
    }
    let report = bench.run(&format!("{LAST_WORDS} throw new Error('after all');")).await;
    assert!(matches!(settled(&report), Settled::Thrown { .. }), "{:?}", report.verdict);
}

#[tokio::test]
async fn an_exit_in_the_middle_of_a_frame_is_no_success() {
    let bench = Bench::new();
    for part in ["\\x40\\0\\0\\0{\"set", "\\x40\\0\\0", "\\xff\\0\\0\\0"] {
        let code = format!(
            "const {{ Pipe, constants }} = process.binding('pipe_wrap'); const {{ WriteWrap }} = process.binding('stream_wrap');
             const pipe = new Pipe(constants.SOCKET); pipe.open(4);
             const request = new WriteWrap(); request.oncomplete = () => {{}}; pipe.writeLatin1String(request, '{part}');
             await new Promise((done) => setTimeout(done, 50)); process.reallyExit(0);"
        );
        let report = bench.run(&code).await;
        assert!(
            matches!(report.verdict, Verdict::BrokenChannel { .. } | Verdict::ResultLimit),
            "{part}: {:?}",
            report.verdict
        );
    }
}

#[tokio::test]
async fn a_flood_of_output_is_cut_at_the_limit() {
    let bench = Bench::new();
    let table = [
        ("for (;;) console.log('x'.repeat(1000));", true),
        ("for (;;) console.error('x');", false),
        ("Deno.stdout.writeSync(new Uint8Array(40e6)); for (;;);", true),
        ("for (let i = 0; i < 300; i++) console.log('x'.repeat(1000)); return 1;", true),
    ];
    for (code, on_stdout) in table {
        let mut job = job(code);
        job.limits.max_output_bytes = 100_000;
        let report = bench.run_job(&bench.spec(), job).await;
        assert!(matches!(report.verdict, Verdict::OutputLimit), "{code}: {:?}", report.verdict);
        let (full, empty) =
            if on_stdout { (report.stdout, report.stderr) } else { (report.stderr, report.stdout) };
        assert_eq!((full.len(), empty.len()), (100_000, 0), "{code}");
    }
}

#[tokio::test]
async fn output_up_to_the_limit_is_fine() {
    let bench = Bench::new();
    let mut job = job("console.log('x'.repeat(99_999)); return 1;");
    job.limits.max_output_bytes = 100_000;
    let report = bench.run_job(&bench.spec(), job).await;
    assert_eq!(report.stdout.len(), 100_000);
    assert!(matches!(settled(&report), Settled::Json { .. }));
}

#[tokio::test]
async fn a_result_over_the_limit_is_refused_without_being_read() {
    let bench = Bench::new();
    for code in ["return 'x'.repeat(50e6);", "return Array.from({ length: 1e6 }, (_, i) => i);"] {
        let report = bench.run(code).await;
        assert!(matches!(report.verdict, Verdict::ResultLimit), "{code}: {:?}", report.verdict);
    }
}

#[tokio::test]
async fn waiting_for_nothing_is_not_a_timeout() {
    let bench = Bench::new();
    for code in [
        "await new Promise(() => {});",
        "await { then() {} };",
        "setTimeout(() => console.log('done'), 10); await new Promise(() => {});",
        "const timer = setTimeout(() => {}, 1e6); Deno.unrefTimer(timer); await new Promise(() => {});",
    ] {
        let report = bench.run(code).await;
        assert!(matches!(report.verdict, Verdict::NeverSettles), "{code}: {:?}", report.verdict);
        assert!(report.wall < Duration::from_secs(5), "{code}");
    }
}

#[tokio::test]
async fn exits_carry_their_code() {
    let bench = Bench::new();
    let table = [
        ("Deno.exit();", 0),
        ("Deno.exit(0);", 0),
        ("Deno.exit(3);", 3),
        ("process.exit(4);", 4),
        ("process.exitCode = 5; process.exit();", 5),
        ("Deno.exitCode = 6; Deno.exit();", 6),
        ("process.reallyExit(7);", 7),
        ("Deno.exit(137);", 137),
        ("setTimeout(() => Deno.exit(8), 10); await new Promise(f => setTimeout(f, 1e6));", 8),
        ("addEventListener('unload', () => { console.log('unload'); }); Deno.exit(9);", 9),
        ("try { Deno.exit(10); } finally { console.log('never'); }", 10),
    ];
    for (code, expected) in table {
        let report = bench.run(&format!("console.log('out'); {code}")).await;
        assert!(
            matches!(settled(&report), Settled::Exit { code } if *code == expected),
            "{code}: {:?}",
            report.verdict
        );
        let unload = if code.contains("'unload'") { "out\nunload\n" } else { "out\n" };
        assert_eq!(String::from_utf8_lossy(&report.stdout), unload, "{code}");
    }
}

#[tokio::test]
async fn an_exit_that_goes_around_the_hook_is_still_seen() {
    let bench = Bench::new();
    let report = bench.run("const { promise } = Promise.withResolvers(); Object.defineProperty(Deno, 'exit', { value: () => {} }); new Worker('data:text/javascript,0', { type: 'module', deno: { permissions: 'none' } }); await promise;").await;
    // An unstable option ends the process at once, without an exception.
    assert!(
        matches!(report.verdict, Verdict::Exited { code: Some(70), signal: None, out_of_memory: false }),
        "{:?}",
        report.verdict
    );
}

#[tokio::test]
async fn open_handles_end_after_linger_and_are_named() {
    let bench = Bench::new();
    let code = "setInterval(() => {}, 1000); return 'value';";
    // The worker names them a moment after the value.
    let are_named = |report: &RunReport| matches!(&report.verdict, Verdict::Settled { open_handles: Some(handles), .. } if !handles.is_empty());
    let report = run_as_far_as(&bench, code, |limits, time| limits.linger = time, are_named).await;
    let Verdict::Settled { settled: Settled::Json { value }, open_handles: Some(handles), late: None } =
        report.verdict
    else {
        panic!("{:?}", report.verdict)
    };
    assert_eq!((value, handles), ("value".into(), vec!["Timeout".to_owned()]));
}

#[tokio::test]
async fn work_after_the_value_that_ends_in_time_is_no_open_handle() {
    let bench = Bench::new();
    let report = bench.run("setTimeout(() => console.log('later'), 150); return 1;").await;
    assert!(
        matches!(report.verdict, Verdict::Settled { open_handles: None, late: None, .. }),
        "{:?}",
        report.verdict
    );
    assert_eq!(report.stdout, b"later\n");
}

#[tokio::test]
async fn a_value_outlives_the_time_limit() {
    let bench = Bench::new();
    let limit = |limits: &mut RunLimits, time| (limits.wall, limits.linger) = (time, Duration::from_secs(60));
    let has_value = |report: &RunReport| !matches!(report.verdict, Verdict::Timeout);
    let code = "setTimeout(() => { for (;;); }, 1); return 1;";
    let report = run_as_far_as(&bench, code, limit, has_value).await;
    assert!(
        matches!(
            report.verdict,
            Verdict::Settled { settled: Settled::Json { .. }, open_handles: Some(_), .. }
        ),
        "{:?}",
        report.verdict
    );
}

#[tokio::test]
async fn a_death_after_the_value_is_late() {
    let bench = Bench::new();
    let table = [
        ("setTimeout(() => process.kill(process.pid, 'SIGKILL'), 20); return 1;", "signal 9"),
        ("setTimeout(() => Deno.exit(3), 20); return 1;", "exit status 3"),
    ];
    for (code, expected) in table {
        let report = bench.run(code).await;
        let Verdict::Settled { settled: Settled::Json { .. }, late: Some(late), .. } = report.verdict else {
            panic!("{code}: {:?}", report.verdict)
        };
        assert!(late.message.contains(expected), "{code}: {}", late.message);
    }
}

#[tokio::test]
async fn handlers_that_want_to_live_on_do_not_delay_the_answer() {
    let bench = Bench::new();
    let table = [
        "addEventListener('beforeunload', (e) => { e.preventDefault(); for (;;); }); return 1;",
        "addEventListener('unload', () => { for (;;); }); return 1;",
        "process.on('exit', () => { for (;;); }); return 1;",
        "process.on('beforeExit', () => { setTimeout(() => {}, 1e6); }); return 1;",
        "for (const s of ['SIGTERM', 'SIGINT', 'SIGHUP']) { const h = () => {}; Deno.addSignalListener(s, h); Deno.removeSignalListener(s, h); } return 1;",
    ];
    for code in table {
        let mut job = job(code);
        job.limits.linger = Duration::from_secs(30);
        let report = bench.run_job(&bench.spec(), job).await;
        assert!(matches!(settled(&report), Settled::Json { .. }), "{code}: {:?}", report.verdict);
        assert!(report.wall < Duration::from_secs(5), "{code}: {:?}", report.wall);
    }
}
