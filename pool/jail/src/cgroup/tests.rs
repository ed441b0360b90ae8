//! What is written where, on a directory that stands for a tree.

use super::*;

/// A group without the kernel behind it: files that are there hold what was written last.
fn fake(path: &Path, files: &[&str]) -> PathBuf {
    fs::create_dir_all(path).expect("makes it");
    for file in files {
        fs::write(path.join(file), "").expect("writes");
    }
    path.to_owned()
}

fn read(path: &Path, file: &str) -> String {
    fs::read_to_string(path.join(file)).expect("is there")
}

#[test]
fn counters_are_read_by_their_whole_name() {
    let events = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
    assert_eq!((field(events, "oom_kill"), field(events, "oom"), field(events, "max")), (2, 3, 0));
    assert_eq!((field("", "populated"), field("populated x\n", "populated")), (0, 0));
}

#[test]
fn what_is_no_control_group_is_not_delegated() {
    let dir = tempfile::tempdir().unwrap();
    let error = Delegation::at(dir.path().join("gone")).unwrap_err();
    assert!(matches!(error, CgroupError::NotDelegated { .. }), "{error}");
    let error = Delegation::at(dir.path().to_owned()).unwrap_err();
    assert!(matches!(error, CgroupError::NoKill), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the trial is gone");
}

#[test]
fn a_group_shares_out_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let group = fake(&dir.path().join("group"), &[SHARED_OUT]);
    assert!(share_out(&group, "memory"));
    assert_eq!(read(&group, SHARED_OUT), "+memory");
    assert!(!share_out(&dir.path().join("gone"), "memory"));
}

#[test]
fn the_limits_of_a_leaf_are_those_that_can_be_set() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["memory.max", "memory.oom.group", "memory.swap.max", "pids.max"];
    let limits = LeafLimits { memory: Some(700 << 20), tasks: Some(256) };
    let table: [(&[&'static str], [&str; 4]); 4] = [
        (&["memory", "pids"], ["734003200", "1", "0", "256"]),
        (&["memory"], ["734003200", "1", "0", ""]),
        (&["pids"], ["", "", "", "256"]),
        (&[], [""; 4]),
    ];
    for (number, (controllers, expected)) in table.into_iter().enumerate() {
        let path = fake(&dir.path().join(number.to_string()), &files);
        let branch = Branch {
            path: dir.path().to_owned(),
            home: dir.path().to_owned(),
            daemon: 1,
            controllers: controllers.iter().copied().collect(),
            next: AtomicU64::new(0),
        };
        let leaf = Leaf { path: path.clone(), limits_memory: false };
        branch.limit(&leaf, limits).unwrap();
        assert_eq!(files.map(|file| read(&path, file)), expected, "{controllers:?}");
        let lacks: Vec<_> = branch.lacks().collect();
        assert_eq!(lacks.len(), 2 - controllers.len(), "{lacks:?}");
        branch.limit(&leaf, LeafLimits::default()).unwrap();
        assert_eq!(files.map(|file| read(&path, file)), expected, "nothing was asked for");
    }
}

#[test]
fn a_death_at_the_memory_limit_is_counted_in_the_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let leaf = Leaf { path: fake(dir.path(), &[]), limits_memory: true };
    assert_eq!(leaf.events().unwrap(), Events::default(), "without controllers nothing is counted");
    fs::write(dir.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    fs::write(dir.path().join("memory.events"), "low 0\nhigh 0\nmax 41\noom 1\noom_kill 3\n").unwrap();
    fs::write(dir.path().join("pids.events"), "max 7\n").unwrap();
    let expected = Events { populated: true, oom_kills: 3, refused_tasks: 7 };
    assert_eq!(leaf.events().unwrap(), expected);
}

#[test]
fn a_branch_is_abandoned_once_its_daemon_is_not_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let branch = dir.path().join("conductor-123-0");
    assert!(is_abandoned(&branch), "it is gone");
    fake(&branch.join(DAEMON), &[PROCESSES]);
    for (members, expected) in [("", true), ("99\n123\n", false), ("1234\n12\n", true)] {
        fs::write(branch.join(DAEMON).join(PROCESSES), members).unwrap();
        assert_eq!(is_abandoned(&branch), expected, "{members:?}");
    }
}
