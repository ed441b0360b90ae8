//! Fetching with tools that serve, fail, lie and hang.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use conductor_deno::{
    AttemptError, FetchError, FetchOptions, FindError, Installer, Origin, PINNED, Phase, Pin, fetch_pin, find,
};
use support::{
    IN_TARBALL, Machine, fake_deno, in_wheel, is_running, pin_of, place_deno, tarball, touch, wait_for, wheel,
};

/// What a busy machine may need for something that takes less than a second on an idle one.
const LONGEST: Duration = Duration::from_secs(60);

/// Fetches and returns the phases that were gone through.
fn fetch(machine: &Machine, pin: &Pin, options: &FetchOptions) -> Result<Vec<Phase>, FetchError> {
    let mut phases = Vec::new();
    let deno = fetch_pin(&machine.data(), pin, options, |progress| phases.push(progress.phase))?;
    assert_eq!(deno.path, machine.data().join(format!("deno/{PINNED}/deno")));
    assert_eq!((deno.version, deno.origin), (PINNED, Origin::Managed));
    assert_eq!(fs::metadata(&deno.path).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(machine.store(), [".lock", PINNED.to_string().as_str()]);
    assert_eq!(fs::read_dir(deno.path.parent().unwrap()).unwrap().count(), 1);
    phases.dedup();
    Ok(phases)
}

/// Fetches, fails, and leaves nothing.
fn fail(machine: &Machine, pin: &Pin, options: &FetchOptions) -> FetchError {
    let error = fetch(machine, pin, options).unwrap_err();
    assert_eq!(machine.store(), [".lock"], "{error}");
    assert!(error.hint().contains("CONDUCTOR_DENO=/path/to/deno"), "{}", error.hint());
    error
}

fn good_tarball() -> Vec<u8> {
    tarball(&[("package/package.json", b"{}"), (IN_TARBALL, &fake_deno()), ("package/README.md", b"Deno")])
}

fn good_wheel() -> Vec<u8> {
    wheel(&[("deno/__init__.py", b""), (in_wheel().as_str(), &fake_deno())])
}

#[test]
fn npm_comes_first_and_all_it_does_stays_in_the_staging_directory() {
    let machine = Machine::new();
    machine.serve("npm", &good_tarball());
    machine.serve("python3", &good_wheel());
    let plan = machine.path("bin/npm.plan");
    let record = machine.path("record");
    let told = format!(
        "{}; (pwd; echo $TMPDIR; echo $destination; cat) > '{}'",
        fs::read_to_string(&plan).unwrap(),
        record.display()
    );
    fs::write(&plan, told).unwrap();

    let phases = fetch(&machine, &pin_of(&fake_deno()), &machine.options()).unwrap();
    assert_eq!(phases, [Phase::Downloading(Installer::Npm), Phase::Unpacking, Phase::Verifying]);
    let record = fs::read_to_string(record).unwrap();
    let staging = machine.data().join("deno/.staging-");
    assert_eq!(record.lines().count(), 3, "its input is empty: {record}");
    assert!(record.lines().all(|line| line.starts_with(staging.to_str().unwrap())), "{record}");
    assert_eq!(fs::metadata(machine.data()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!machine.path("python3.runs").exists());
}

#[test]
fn pip_serves_where_npm_fails() {
    let machine = Machine::new();
    machine.tool("npm", "exit 1");
    machine.serve("python3", &good_wheel());
    let phases = fetch(&machine, &pin_of(&fake_deno()), &machine.options()).unwrap();
    let downloads = [Phase::Downloading(Installer::Npm), Phase::Downloading(Installer::Pip)];
    assert_eq!(phases, [&downloads[..], &[Phase::Unpacking, Phase::Verifying]].concat());
}

#[test]
fn pip_serves_where_npm_hangs() {
    let machine = Machine::new();
    machine.tool("npm", "exec sleep 1000");
    machine.serve("python3", &good_wheel());
    let mut limit = Duration::from_secs(4);
    // npm takes half of it. The other half must do for pip, which needs longer on a busy machine.
    while let Err(error) =
        fetch(&machine, &pin_of(&fake_deno()), &FetchOptions { limit, ..machine.options() })
    {
        assert!(matches!(error, FetchError::TimedOut { .. }) && limit < LONGEST, "{error}");
        limit *= 4;
    }
}

#[test]
fn a_python_without_pip_is_passed_over() {
    let machine = Machine::new();
    machine.tool("python3", "exit 1");
    touch(&machine.path("bin/python3.broken"));
    machine.serve("pip3", &good_wheel());
    fetch(&machine, &pin_of(&fake_deno()), &machine.options()).unwrap();
}

#[test]
fn without_npm_and_pip_it_says_what_to_install() {
    let machine = Machine::new();
    let error = fail(&machine, &pin_of(b"x"), &machine.options());
    assert!(matches!(error, FetchError::NoInstaller { .. }), "{error}");
    assert!(error.hint().contains("install npm or pip"), "{}", error.hint());
}

#[test]
fn when_both_fail_the_message_shows_the_last_lines_of_both() {
    let machine = Machine::new();
    machine.tool("npm", "for i in 1 2 3 4 5 6 7 8 9; do echo npm says $i; done; exit 7");
    machine.tool("python3", "echo pip says no >&2; exit 1");
    let error = fail(&machine, &pin_of(b"x"), &machine.options());
    let text = error.to_string();
    for part in
        ["npm: it failed (exit status: 7)", "npm says 9", "pip: it failed (exit status: 1)", "pip says no"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("npm says 1"), "{text}");
}

#[test]
fn wrong_bytes_are_never_kept() {
    let machine = Machine::new();
    let mut wrong = fake_deno();
    *wrong.last_mut().unwrap() ^= 1;
    machine.serve("npm", &tarball(&[(IN_TARBALL, &wrong)]));
    let pin = pin_of(&fake_deno());
    let error = fail(&machine, &pin, &machine.options());
    let FetchError::WrongHash { installer: Installer::Npm, expected, found, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((expected, found), (pin.sha256.clone(), pin_of(&wrong).sha256));

    // The other registry may have the right ones.
    machine.serve("python3", &good_wheel());
    fetch(&machine, &pin, &machine.options()).unwrap();
}

#[test]
fn an_executable_longer_than_pinned_is_not_read_to_its_end() {
    let machine = Machine::new();
    let long = vec![0; 50_000_000];
    machine.serve("npm", &tarball(&[(IN_TARBALL, &long)]));
    let error = fail(&machine, &pin_of(&long[..1000]), &machine.options());
    let FetchError::WrongHash { found, .. } = error else { panic!("{error}") };
    assert_eq!(found, pin_of(&long[..1001]).sha256);
}

#[test]
fn packages_that_cannot_be_unpacked_are_failures_of_the_tool() {
    let good = good_tarball();
    let whole = good_wheel();
    let tarballs: [&[u8]; 5] =
        [b"", b"garbage", &good[..good.len() / 2], &tarball(&[]), &tarball(&[("deno", b"x")])];
    let wheels: [&[u8]; 5] =
        [b"", b"garbage", &whole[..whole.len() / 2], &wheel(&[]), &wheel(&[("deno", b"x")])];
    for (tarball, wheel) in tarballs.into_iter().zip(wheels) {
        let machine = Machine::new();
        machine.serve("npm", tarball);
        machine.serve("python3", wheel);
        let error = fail(&machine, &pin_of(&fake_deno()), &machine.options());
        let FetchError::AllFailed { attempts, .. } = error else { panic!("{error}") };
        let bad = |attempt: &conductor_deno::FailedAttempt| {
            matches!(attempt.error, AttemptError::BadArchive { .. })
        };
        assert!(attempts.len() == 2 && attempts.iter().all(bad), "{attempts:?}");
    }
}

#[test]
fn a_tool_that_leaves_no_package_has_failed() {
    let machine = Machine::new();
    machine.tool("npm", "exit 0");
    let error = fail(&machine, &pin_of(b"x"), &machine.options());
    let FetchError::AllFailed { attempts, .. } = error else { panic!("{error}") };
    assert!(
        matches!(attempts[..], [_, _]) && matches!(attempts[0].error, AttemptError::NoPackage),
        "{attempts:?}"
    );
    assert!(matches!(attempts[1].error, AttemptError::Absent), "{attempts:?}");
}

#[test]
fn names_in_a_package_lead_nowhere() {
    let machine = Machine::new();
    let evil = machine.path("evil");
    let absolute = evil.to_str().unwrap();
    let deno = fake_deno();
    let in_wheel = in_wheel();
    let climbing = "../".repeat(9) + absolute;
    let names =
        ["../../evil", absolute, &climbing, "package/../deno", "package/./deno", "/package/deno", "deno"];
    let mut files: Vec<(&str, &[u8])> =
        names.iter().filter(|name| name.len() <= 100).map(|name| (*name, &b"evil"[..])).collect();
    files.push((IN_TARBALL, &deno));
    machine.serve("npm", &tarball(&files));
    fetch(&machine, &pin_of(&deno), &machine.options()).unwrap();

    fs::remove_dir_all(machine.data()).unwrap();
    fs::remove_file(machine.path("bin/npm")).unwrap();
    files.pop();
    files.push((&in_wheel, &deno));
    machine.serve("python3", &wheel(&files));
    fetch(&machine, &pin_of(&deno), &machine.options()).unwrap();
    assert!(!evil.exists());
}

#[test]
fn past_the_deadline_the_whole_process_group_is_killed() {
    let machine = Machine::new();
    let record = machine.path("pids");
    machine.tool("npm", &format!("sleep 1000 & echo $$ $! > '{}'; wait", record.display()));
    let mut limit = Duration::from_secs(2);
    // Until it is long enough for the tool to come so far: a busy machine may need longer to start it.
    let pids = loop {
        let started = Instant::now();
        let error = fail(&machine, &pin_of(b"x"), &FetchOptions { limit, ..machine.options() });
        assert!(matches!(error, FetchError::TimedOut { .. }), "{error}");
        assert!(started.elapsed() < limit + LONGEST, "what hangs was waited for");
        match fs::read_to_string(&record) {
            Ok(pids) if pids.ends_with('\n') => break pids,
            _ => assert!(limit < LONGEST, "the tool does not start"),
        }
        limit *= 4;
    };
    for pid in pids.split_whitespace().map(|pid| pid.parse().unwrap()) {
        wait_for("the end of the tool and of its child", || !is_running(pid));
    }
}

#[test]
fn it_can_be_cancelled() {
    let machine = Machine::new();
    machine.tool("npm", "sleep 1000");
    let options = machine.options();
    let error = fetch_pin(&machine.data(), &pin_of(b"x"), &options, |_| {
        options.cancel.store(true, Ordering::Relaxed);
    });
    assert!(matches!(error, Err(FetchError::Cancelled)));
    assert_eq!(machine.store(), [".lock"]);
}

#[test]
fn a_full_disk_is_named() {
    let machine = Machine::new();
    machine.tool("npm", "echo 'npm error nospc ENOSPC: no space left on device, write'; exit 1");
    machine.serve("python3", &good_wheel());
    let error = fail(&machine, &pin_of(b"x"), &machine.options());
    assert!(matches!(error, FetchError::NoSpace { .. }), "{error}");

    let huge = Pin { size: u64::MAX / 4, ..pin_of(b"x") };
    let error = fail(&machine, &huge, &machine.options());
    assert!(matches!(error, FetchError::NoSpace { .. }), "before anything is downloaded: {error}");
    assert!(!machine.path("python3.runs").exists());
}

#[test]
fn an_executable_that_does_not_run_is_not_installed() {
    let machine = Machine::new();
    machine.serve("npm", &tarball(&[(IN_TARBALL, b"no program")]));
    let error = fail(&machine, &pin_of(b"no program"), &machine.options());
    assert!(matches!(error, FetchError::Unusable { .. }), "{error}");
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let machine = Machine::new();
    touch(&machine.data());
    let error = fetch_pin(&machine.data(), &pin_of(b"x"), &machine.options(), |_| {}).unwrap_err();
    assert!(error.to_string().contains(machine.data().to_str().unwrap()), "{error}");
    assert!(matches!(error, FetchError::DataDir { .. }), "{error}");
}

#[test]
fn an_installed_one_that_works_is_kept_and_one_that_does_not_is_replaced() {
    let machine = Machine::new();
    machine.serve("npm", &good_tarball());
    let installed = machine.data().join(format!("deno/{PINNED}/deno"));
    place_deno(&installed, &PINNED.to_string());
    let pin = pin_of(&fake_deno());
    fetch_pin(&machine.data(), &pin, &machine.options(), |_| panic!("it is there")).unwrap();
    assert!(!machine.path("npm.runs").exists());

    fs::remove_file(&installed).unwrap();
    touch(&installed);
    assert!(matches!(find(&machine.search()), Err(FindError::NotFound { skipped }) if skipped.len() == 1));
    fetch(&machine, &pin, &machine.options()).unwrap();
    assert!(find(&machine.search()).is_ok());
}

#[test]
fn threads_and_processes_that_fetch_at_once_share_one_download() {
    let machine = Machine::new();
    machine.serve("npm", &good_tarball());
    let pin = pin_of(&fake_deno());
    let children: Vec<Child> = (0..3).map(|_| fetch_in_a_child(&machine)).collect();
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| fetch_pin(&machine.data(), &pin, &machine.options(), |_| {}).unwrap());
        }
    });
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(fs::read_to_string(machine.path("npm.runs")).unwrap(), "run\n");
    assert_eq!(machine.store(), [".lock", PINNED.to_string().as_str()]);
}

#[test]
fn a_killed_fetch_leaves_nothing_visible_and_the_next_one_cleans_up() {
    let machine = Machine::new();
    let pid = machine.path("pid");
    machine.tool("npm", &format!("echo $$ > '{0}.new'; mv '{0}.new' '{0}'; exec sleep 1000", pid.display()));
    let mut child = fetch_in_a_child(&machine);
    wait_for("the start of the tool", || pid.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(find(&machine.search()), Err(FindError::NotFound { skipped }) if skipped.is_empty()));
    assert_eq!(machine.store().len(), 2, "the lock and a leftover: {:?}", machine.store());

    let orphan = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(orphan).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    fs::remove_file(machine.path("bin/npm")).unwrap();
    machine.serve("npm", &good_tarball());
    fetch(&machine, &pin_of(&fake_deno()), &machine.options()).unwrap();
}

#[test]
fn a_fetch_killed_at_any_time_leaves_all_or_nothing() {
    let machine = Machine::new();
    machine.serve("npm", &good_tarball());
    for delay in (0..100).step_by(5).map(Duration::from_millis) {
        let mut child = fetch_in_a_child(&machine);
        // The moment of the kill is the input of this test; a whole fetch takes some 50 ms.
        thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        match find(&machine.search()) {
            Ok(found) => fs::remove_dir_all(found.deno.path.parent().unwrap()).unwrap(),
            Err(error) => {
                assert!(matches!(&error, FindError::NotFound { skipped } if skipped.is_empty()), "{error}")
            }
        }
    }
    // One that still works for a killed fetch keeps its directory from being removed.
    wait_for("the end of the orphaned tools", || !machine.has_processes());
    fetch(&machine, &pin_of(&fake_deno()), &machine.options()).unwrap();
}

#[test]
fn waiting_for_another_process_has_an_end() {
    let machine = Machine::new();
    machine.serve("npm", &good_tarball());
    fs::create_dir_all(machine.data().join("deno")).unwrap();
    let lock = fs::File::create(machine.data().join("deno/.lock")).unwrap();
    lock.lock().unwrap();
    let mut phases = Vec::new();
    let options = FetchOptions { limit: Duration::from_millis(200), ..machine.options() };
    let error = fetch_pin(&machine.data(), &pin_of(b"x"), &options, |progress| phases.push(progress.phase));
    assert!(matches!(error, Err(FetchError::TimedOut { .. })), "{error:?}");
    phases.dedup();
    assert_eq!(phases, [Phase::Waiting]);
    lock.unlock().unwrap();
    fetch(&machine, &pin_of(&fake_deno()), &machine.options()).unwrap();
}

const CHILD_MACHINE: &str = "CONDUCTOR_TEST_MACHINE";

/// Another process that fetches on the same machine: this test program, told to run the one test below.
fn fetch_in_a_child(machine: &Machine) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "fetches_as_the_child_of_another_test"])
        .env(CHILD_MACHINE, machine.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "other tests start it as a process of its own"]
fn fetches_as_the_child_of_another_test() {
    let machine = std::path::PathBuf::from(std::env::var_os(CHILD_MACHINE).unwrap());
    let options =
        FetchOptions { path: Some(machine.join("bin").into_os_string()), ..FetchOptions::default() };
    fetch_pin(&machine.join("data"), &pin_of(&fake_deno()), &options, |_| {}).unwrap();
}
