//! Code that wants out: every class of attack that is known, through a real shim and daemon into a real worker.
//!
//! [`classes`] is the table: 127 classes, each with code and the letter of what must become of it. After every case
//! [`ground`] looks whether anything else has changed: an innocent call is answered at once and finds a worker as new, the
//! pool is full again, there was one answer, and no process, descriptor, file, packet or secret is where it was not before.
//! Each section runs on this machine and on one whose kernel has neither Landlock nor seccomp.
//!
//! With `CONDUCTOR_TEST_WORKER=fork` workers are forked, where a set of grants allows that, and what they are forked from
//! must be the same process after each case. `CONDUCTOR_HOSTILE_CLASSES=13,57` runs some classes alone, `CONDUCTOR_HOSTILE_ROUNDS=20` each of them so often.

#![cfg(target_os = "linux")]

mod case;
mod classes;
mod ground;

use case::Case;
use ground::{Ground, Machine};

/// Old-space limit of workers, MiB, where memory is not what is attacked.
const HEAP_MIB: u32 = 256;

fn run(section: &[Case], machine: Machine, heap_mib: u32) {
    let selected = chosen(section);
    if selected.is_empty() {
        return;
    }
    let rounds =
        std::env::var("CONDUCTOR_HOSTILE_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number"));
    let mut ground = Ground::new(machine, heap_mib);
    let mut failures = Vec::new();
    for _ in 0..rounds {
        failures.extend(selected.iter().filter_map(|case| ground.play(case).err()));
    }
    assert!(failures.is_empty(), "{} cases went wrong:\n{}", failures.len(), failures.join("\n"));
    ground.finish();
}

fn chosen(section: &[Case]) -> Vec<&Case> {
    let classes = std::env::var("CONDUCTOR_HOSTILE_CLASSES").unwrap_or_default();
    let classes: Vec<u16> = classes.split(',').filter_map(|class| class.trim().parse().ok()).collect();
    section.iter().filter(|case| classes.is_empty() || classes.contains(&case.class)).collect()
}

macro_rules! sections {
    ($($section:ident $cases:ident $heap:expr;)*) => {
        $(
            mod $section {
                use super::*;

                #[test]
                fn in_the_jail() {
                    run(classes::$section::$cases, Machine::Jailed, $heap);
                }

                #[test]
                fn without_landlock_and_seccomp() {
                    run(classes::$section::$cases, Machine::Bare, $heap);
                }
            }
        )*

        #[test]
        fn every_class_has_a_case() {
            let cases = [$(classes::$section::$cases),*];
            let classes: std::collections::BTreeSet<u16> = cases.into_iter().flatten().map(|case| case.class).collect();
            assert_eq!(classes, (1..=127).collect());
        }
    };
}

sections! {
    files CASES HEAP_MIB;
    imports CASES HEAP_MIB;
    escalation CASES HEAP_MIB;
    network CASES HEAP_MIB;
    processes CASES HEAP_MIB;
    time CASES HEAP_MIB;
    // A smaller heap is full sooner.
    memory CASES 32;
    output CASES HEAP_MIB;
    results CASES HEAP_MIB;
    harness CASES HEAP_MIB;
    forks CASES HEAP_MIB;
}
