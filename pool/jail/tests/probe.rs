//! The jail from the inside: whole, with one layer off, and without any; as root (where the tests run as root) and as an
//! ordinary user.
//!
//! A layer that is active must stop all it claims to stop, whatever else is on. A layer that is off must be missed: that is
//! what shows that it was the layer, and not the machine, that stopped anything.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use conductor_jail::probe::{SelfTest, probes};
use conductor_jail::{Layer, State};
use nix::libc;

/// The uid of `nobody`, who owns nothing.
const NOBODY: u32 = 65534;

/// Runs the self-test as one user, from a copy of its program that he may execute.
struct Bench {
    dir: tempfile::TempDir,
    user: Option<u32>,
}

impl Bench {
    fn new(user: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        mode(dir.path(), 0o755);
        let bench = Self { dir, user };
        // By a process of its own: what another test starts just then would hold the copy open for writing, and Linux executes
        // no such file.
        let mut install = Command::new("install");
        install.args(["--mode=755", env!("CARGO_BIN_EXE_conductor-jail-probe")]).arg(bench.program());
        assert!(install.status().unwrap().success());
        std::fs::create_dir(bench.home()).unwrap();
        mode(&bench.home(), 0o777);
        bench
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("probe")
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn run(&self, layers: &[Layer]) -> SelfTest {
        self.run_with(layers, None)
    }

    fn run_with(&self, layers: &[Layer], more: Option<&str>) -> SelfTest {
        let mut command = Command::new(self.program());
        command.args(more);
        command.args(layers.iter().map(|layer| layer.name())).env_clear().env("TMPDIR", self.home());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let output = command.current_dir("/").output().unwrap();
        assert!(output.status.success(), "{layers:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// The users to test: nobody as well, if the tests' own user is root.
fn users() -> Vec<Bench> {
    let root = nix::unistd::geteuid().is_root();
    [Some(None), root.then_some(Some(NOBODY))].into_iter().flatten().map(Bench::new).collect()
}

fn but(left_out: Layer) -> Vec<Layer> {
    Layer::DEFAULT.into_iter().filter(|layer| *layer != left_out).collect()
}

/// Names of the probes that got past everything, among those that a layer claims to stop.
fn through(test: &SelfTest) -> BTreeSet<&'static str> {
    assert_eq!(test.findings.len(), probes().count());
    probes()
        .zip(&test.findings)
        .filter(|(probe, finding)| !probe.stopped_by.is_empty() && probe.got_through(finding.errno))
        .map(|(probe, _)| probe.name)
        .collect()
}

#[test]
fn the_whole_jail_stops_every_attempt() {
    for bench in users() {
        let test = bench.run(&Layer::DEFAULT);
        assert_eq!(test.broken(), Vec::<String>::new(), "user {:?}", bench.user);
        for layer in Layer::DEFAULT {
            assert_eq!(
                test.report.layers[&layer],
                State::Active,
                "{layer}: this machine cannot show the whole jail"
            );
        }
        let compiler = "make written memory executable";
        assert_eq!(through(&test), [compiler].into(), "V8's compiler needs it");
        let stopped = probes().filter(|probe| !probe.stopped_by.is_empty()).count() - 1;
        assert!(stopped >= 180, "only {stopped} attempts");
        let hardened = bench.run(&Layer::ALL);
        assert_eq!((hardened.broken(), through(&hardened)), (vec![], BTreeSet::new()));
    }
}

/// What a template may and its copies may not, the copy's own filter takes away.
#[test]
fn a_copy_of_a_process_that_forks_is_in_the_same_jail() {
    for bench in users() {
        let (worker, copy) = (bench.run(&Layer::DEFAULT), bench.run_with(&Layer::DEFAULT, Some("forks")));
        assert_eq!(copy.broken(), Vec::<String>::new(), "user {:?}", bench.user);
        assert_eq!((&copy.report.layers, through(&copy)), (&worker.report.layers, through(&worker)));
    }
}

#[test]
fn what_is_active_holds_whatever_else_is_off() {
    for bench in users() {
        let mut sets: Vec<Vec<Layer>> = Layer::ALL.map(|layer| vec![layer]).into();
        sets.extend(Layer::DEFAULT.map(but));
        sets.push(vec![]);
        for layers in sets {
            let test = bench.run(&layers);
            assert_eq!(test.broken(), Vec::<String>::new(), "user {:?}, {layers:?}", bench.user);
            for layer in Layer::ALL {
                let expected = if layers.contains(&layer) { State::Active } else { State::Off };
                assert_eq!(test.report.layers[&layer], expected, "{layer} of {layers:?}");
            }
        }
    }
}

#[test]
fn what_a_read_only_mount_refuses_is_not_missed() {
    let mut test = Bench::new(None).run(&Layer::DEFAULT);
    let mut refuse = |name: &str| {
        test.findings.iter_mut().find(|finding| finding.probe == name).unwrap().errno = Some(libc::EROFS);
        test.broken()
    };
    assert_eq!(refuse("change the out-of-memory score"), Vec::<String>::new());
    assert_eq!(refuse("start a thread").len(), 1, "a control must work");
}

/// For each layer, attempts that succeed as soon as it alone is missing, and how many there are at least.
const CARRIES: [(Layer, usize, &[&str]); 4] = [
    (
        Layer::Limits,
        5,
        &[
            "grow a file that was open before",
            "use more memory than granted",
            "use more descriptors than granted",
            "compute for ever",
            "come before the user's own programs",
        ],
    ),
    (
        Layer::Capabilities,
        2,
        &["read a file that only root may", "have a capability", "change the own groups"],
    ),
    (
        Layer::Landlock,
        20,
        &[
            "read /etc/passwd",
            "read through a link in a granted directory",
            "read the own environment",
            "open a granted file to write",
            "create a file in a closed directory",
            "write the own memory by file",
            "change the out-of-memory score",
        ],
    ),
    (
        Layer::Seccomp,
        90,
        &[
            "fork",
            "fork by the new call",
            "fork into a new user namespace",
            "make a UDP socket",
            "make a netlink socket",
            "connect to a socket in the file system",
            "send a datagram from a socket that was open before",
            "open the parent as a descriptor",
            "look at the parent's limits",
            "change a file's mode",
            "outlive the daemon",
            "call SYS_unshare",
            "call SYS_shmget",
            "call SYS_keyctl",
        ],
    ),
];

#[test]
fn each_layer_is_missed_when_it_is_gone() {
    for bench in users() {
        let root = bench.user.is_none() && nix::unistd::geteuid().is_root();
        for (layer, least, names) in CARRIES {
            if layer == Layer::Capabilities && !root {
                // An ordinary user has none to lose.
                continue;
            }
            let test = bench.run(&but(layer));
            let through = through(&test);
            for name in names {
                assert!(
                    through.contains(name),
                    "user {:?}: without {layer}, {name:?} is still stopped",
                    bench.user
                );
            }
            assert!(through.len() >= least, "without {layer} only these get through: {through:?}");
        }
    }
}

#[test]
fn without_a_jail_nearly_everything_is_possible() {
    for bench in users() {
        let test = bench.run(&[]);
        let stopped = probes().filter(|probe| !probe.stopped_by.is_empty()).count() - through(&test).len();
        assert!(
            stopped <= 40,
            "this machine itself stops {stopped} attempts, so the other tests show little"
        );
    }
}
