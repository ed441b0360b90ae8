//! Every combination of file grants boots, runs, and gives what it says.

use conductor_pool::{Grant, Grants, Settled, WorkerSpec};
use serde_json::{Value, json};

use crate::support::{Bench, job, json as json_of, only, settled};

#[tokio::test]
async fn every_pair_of_file_grants_works() {
    let bench = Bench::new();
    let workspace = bench.workspace();
    std::fs::write(workspace.join("file"), "text").unwrap();
    let outside = bench.dir.path().join("outside");
    std::fs::write(&outside, "text").unwrap();
    let code = format!(
        "const attempt = (f) => {{ try {{ f(); return true }} catch (error) {{ return error.name }} }};
         return [attempt(() => Deno.readTextFileSync('{ws}/file')), attempt(() => Deno.readTextFileSync('{out}')),
           attempt(() => Deno.writeTextFileSync('{ws}/file', 'new')), attempt(() => Deno.writeTextFileSync('{out}', 'new'))];",
        ws = workspace.display(),
        out = outside.display(),
    );
    let no = || json!("NotCapable");
    let yes = || json!(true);
    let choices = [
        (Grant::None, [no(), no()]),
        (only(workspace.to_str().unwrap()), [yes(), no()]),
        (only("/"), [yes(), yes()]),
        (Grant::All, [yes(), yes()]),
        (Grant::Only(["/dev".to_owned(), workspace.to_str().unwrap().to_owned()].into()), [yes(), no()]),
    ];
    for (read, may_read) in &choices {
        for (write, may_write) in &choices {
            let grants = Grants { read: read.clone(), write: write.clone(), ..Grants::default() };
            let value = json_of(bench.run_with(grants, &code).await);
            let expected: Vec<Value> = may_read.iter().chain(may_write).cloned().collect();
            assert_eq!(value, Value::from(expected), "read {read:?}, write {write:?}");
        }
    }
    let report = bench.run_with(Grants { all: true, ..Grants::default() }, &code).await;
    assert_eq!(json_of(report), json!([true, true, true, true]));
}

#[tokio::test]
async fn a_protected_directory_stays_closed_under_any_grant() {
    let bench = Bench::new();
    let protected = bench.dir.path().join("protected");
    std::fs::create_dir(&protected).unwrap();
    std::fs::write(protected.join("secret"), "text").unwrap();
    let code = format!(
        "const attempt = (f) => {{ try {{ f(); return true }} catch (error) {{ return error.name }} }};
         return [attempt(() => Deno.readTextFileSync('{p}/secret')), attempt(() => Deno.writeTextFileSync('{p}/secret', 'new'))];",
        p = protected.display(),
    );
    let everywhere = |grant: Grant| Grants { read: grant.clone(), write: grant, ..Grants::default() };
    for grants in [
        Grants { all: true, ..Grants::default() },
        everywhere(Grant::All),
        everywhere(only("/")),
        everywhere(only(bench.dir.path().to_str().unwrap())),
        Grants::default(),
    ] {
        let spec = WorkerSpec { protected: [protected.clone()].into(), grants, ..bench.spec() };
        let value = json_of(bench.run_job(&spec, job(&code)).await);
        assert_eq!(value, json!(["NotCapable", "NotCapable"]), "{:?}", spec.grants);
    }
}

#[tokio::test]
async fn the_working_directory_is_the_workspace_only_if_readable() {
    let bench = Bench::new();
    let workspace = bench.workspace();
    let sub = only(workspace.to_str().unwrap());
    let code = "return [...Deno.readDirSync('.')].map((entry) => entry.name);";
    std::fs::write(workspace.join("file"), "text").unwrap();
    let report = bench.run_with(Grants { read: sub, ..Grants::default() }, code).await;
    assert_eq!(json_of(report), json!(["file"]));

    let elsewhere =
        WorkerSpec { grants: Grants { read: only("/proc/self"), ..Grants::default() }, ..bench.spec() };
    let code = "return Deno.readLinkSync('/proc/self/cwd');";
    let report = bench.run_job(&elsewhere, job(code)).await;
    match settled(&report) {
        Settled::Json { value } => assert_eq!(value, &json!(bench.dir.path().join("cache/empty"))),
        Settled::Thrown { error } => assert_eq!(error.name, "NotCapable"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn granted_variables_are_all_the_code_sees() {
    let bench = Bench::new();
    let code = "return [process.env.TOKEN ?? null, process.env.HOME ?? null, process.env.PATH ?? null];";
    let none = bench.run(code).await;
    assert_eq!(json_of(none), json!([null, null, null]));
    let spec = WorkerSpec {
        grants: Grants { env: only("TOKEN"), ..Grants::default() },
        env: [("TOKEN".to_owned(), "a=b,c".to_owned())].into(),
        ..bench.spec()
    };
    let code = "return [Deno.env.get('TOKEN'), (() => { try { return Deno.env.get('HOME') } catch (error) { return error.name } })()];";
    assert_eq!(json_of(bench.run_job(&spec, job(code)).await), json!(["a=b,c", "NotCapable"]));
}

#[tokio::test]
async fn the_environment_is_exactly_what_is_documented() {
    let bench = Bench::new();
    let spec = WorkerSpec {
        grants: Grants { env: Grant::All, ..Grants::default() },
        env: [("TOKEN", "t"), ("HOME", "/home/user"), ("DENO_DIR", "/elsewhere"), ("NO_COLOR", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..bench.spec()
    };
    let spec = WorkerSpec { grants: Grants { all: true, ..Grants::default() }, ..spec };
    // What Deno was started with; it adds a PATH of its own for programs that look for `node`.
    let code = "return Deno.readTextFileSync('/proc/self/environ').split('\\0').filter((entry) => entry !== '').sort();";
    let env: Vec<String> = serde_json::from_value(json_of(bench.run_job(&spec, job(code)).await)).unwrap();
    let deno_dir = env.iter().position(|entry| entry.starts_with("DENO_DIR=")).unwrap();
    let expected =
        ["DENO_NO_UPDATE_CHECK=1", "DENO_WEBGPU_BACKEND=none", "HOME=/nonexistent", "NO_COLOR=1", "TOKEN=t"];
    let others: Vec<_> = env.iter().filter(|entry| !entry.starts_with("DENO_DIR=")).collect();
    assert_eq!(others, expected);
    let cache = bench.dir.path().join("cache/deno-dir");
    assert!(env[deno_dir]["DENO_DIR=".len()..].starts_with(cache.to_str().unwrap()), "{}", env[deno_dir]);
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn no_grant_means_no_network_programs_or_remote_code() {
    let bench = Bench::new();
    // Written when the first worker boots.
    drop(bench.boot(&bench.spec()).await.unwrap());
    let cache = bench.dir.path().join("cache");
    let harness = files(&cache).into_iter().find(|path| path.to_string_lossy().contains("harness")).unwrap();
    let read_harness = format!("Deno.readTextFileSync({harness:?})");
    let attempts = [
        "await fetch('http://127.0.0.1:9/')",
        "await Deno.connect({ port: 9 })",
        "Deno.listen({ port: 0 })",
        "await new Deno.Command('true').output()",
        "Deno.dlopen('libc.so.6', {})",
        "Deno.hostname()",
        "Deno.kill(1, 'SIGKILL')",
        "await api.import('https://deno.land/std/version.ts')",
        "await api.import('npm:chalk')",
        "await api.import('jsr:@std/path')",
        "await api.import('file:///etc/hostname', { with: { type: 'text' } })",
        "await api.import('./main.ts')",
        "await (await import('node:child_process')).execSync('true')",
        &read_harness,
    ];
    for attempt in attempts {
        let report = bench.run(&format!("{attempt}; return 'done';")).await;
        assert!(matches!(settled(&report), Settled::Thrown { .. }), "{attempt}: {:?}", report.verdict);
    }
}

#[tokio::test]
async fn a_grant_that_could_become_another_flag_is_refused() {
    let bench = Bench::new();
    for read in ["/a,/b", "relative", "--allow-all", ""] {
        let spec = WorkerSpec { grants: Grants { read: only(read), ..Grants::default() }, ..bench.spec() };
        let error = bench.boot(&spec).await.err().unwrap();
        assert!(matches!(error, conductor_pool::SpawnError::Prepare(_)), "{read}: {error}");
    }
    let net = Grants { net: only("--allow-all"), ..Grants::default() };
    let report = bench.run_with(net, "return (await Deno.permissions.query({ name: 'run' })).state;").await;
    assert_eq!(json_of(report), json!("prompt"));
}
