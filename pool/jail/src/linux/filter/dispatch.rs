//! The filter's first part: decides by the call's number alone, where that is enough.
//!
//! The compiler library tests one number after the other. With some two hundred of them that costs twice: each call it has
//! to look at walks the list, and when the filter is installed the kernel walks it for every number there is (half a
//! millisecond of a worker's boot). So numbers are found by bisection here, and only the few calls whose arguments
//! matter go on to the compiled rules.

use nix::libc;
use seccompiler::{BpfProgram, sock_filter};

/// What a number alone decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    Deny,
    /// As if the kernel did not have the call.
    Unknown,
    /// The arguments decide: on to the rules.
    Arguments,
}

// `struct seccomp_data` begins with the number and the architecture.
const LOAD_NUMBER: sock_filter = instruction(0x20, 0, 0, 0);
const LOAD_ARCHITECTURE: sock_filter = instruction(0x20, 0, 0, 4);
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The whole filter: calls of another architecture's interface kill the process, each number has its decision, all above
/// are unknown, and `rules` decide the rest.
pub(super) fn dispatch(architecture: u32, decisions: &[Decision], rules: BpfProgram) -> BpfProgram {
    let mut runs: Vec<(u32, Decision)> = Vec::new();
    for (number, decision) in (0..).zip(decisions.iter().copied().chain([Decision::Unknown])) {
        if runs.last().is_none_or(|(_, last)| *last != decision) {
            runs.push((number, decision));
        }
    }
    let filter = vec![
        LOAD_ARCHITECTURE,
        instruction(JUMP_IF_EQUAL, 1, 0, architecture),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        LOAD_NUMBER,
    ];
    let mut tree = Tree { filter, ends: Vec::new() };
    tree.grow(&runs);
    tree.finish(rules)
}

/// Tests of a number, whose ends are shared and come after them.
struct Tree {
    filter: BpfProgram,
    /// Tests that lead to a decision: where, on which outcome, to which.
    ends: Vec<(usize, Outcome, Decision)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Below,
    NotBelow,
}

/// How the ends are laid out. First the one for a program without tests, which must not let anything through; last the one
/// that the rules follow.
const ENDS: [Decision; 4] = [Decision::Deny, Decision::Unknown, Decision::Allow, Decision::Arguments];

impl Tree {
    /// Appends the tests that tell `runs` apart, those of the lower half first.
    fn grow(&mut self, runs: &[(u32, Decision)]) {
        if runs.len() < 2 {
            return;
        }
        let (lower, upper) = runs.split_at(runs.len() / 2);
        let test = self.filter.len();
        self.filter.push(instruction(JUMP_IF_NOT_LESS, 0, 0, upper[0].0));
        self.grow(lower);
        self.filter[test].jt = near(self.filter.len() - test - 1);
        self.grow(upper);
        for (half, outcome) in [(lower, Outcome::Below), (upper, Outcome::NotBelow)] {
            if let [(_, decision)] = half {
                self.ends.push((test, outcome, *decision));
            }
        }
    }

    /// Appends the ends and the rules, and connects them.
    fn finish(self, rules: BpfProgram) -> BpfProgram {
        let Self { mut filter, ends } = self;
        let first = filter.len();
        for (test, outcome, decision) in ends {
            let end = first + ENDS.iter().position(|each| *each == decision).expect("all are listed");
            let skip = near(end - test - 1);
            match outcome {
                Outcome::Below => filter[test].jf = skip,
                Outcome::NotBelow => filter[test].jt = skip,
            }
        }
        filter.extend(ENDS.into_iter().filter_map(Decision::end));
        filter.extend(rules);
        filter
    }
}

/// The reach of a test.
fn near(instructions: usize) -> u8 {
    u8::try_from(instructions).expect("the tables are a tenth of what a tree within reach can tell apart")
}

impl Decision {
    /// `None`: the rules end it.
    fn end(self) -> Option<sock_filter> {
        let errno = |errno: libc::c_int| libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        let value = match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Deny => errno(libc::EPERM),
            Self::Unknown => errno(libc::ENOSYS),
            Self::Arguments => return None,
        };
        Some(instruction(RETURN, 0, 0, value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ALLOW, DENY, UNKNOWN, data, execute};
    use super::*;

    const RULES: u32 = libc::SECCOMP_RET_LOG;

    #[test]
    fn every_number_ends_where_it_should() {
        let patterns: [fn(usize) -> Decision; 4] = [
            |_| Decision::Allow,
            |number| if number % 2 == 0 { Decision::Deny } else { Decision::Allow },
            |number| [Decision::Arguments, Decision::Deny, Decision::Unknown][number % 3],
            |number| if number < 100 { Decision::Arguments } else { Decision::Deny },
        ];
        for decide in patterns {
            let decisions: Vec<_> = (0..200).map(decide).collect();
            let filter = dispatch(7, &decisions, vec![instruction(RETURN, 0, 0, RULES)]);
            for number in (0..210).chain([u32::MAX]) {
                let decision = decisions.get(number as usize).copied().unwrap_or(Decision::Unknown);
                let expected = match decision {
                    Decision::Allow => ALLOW,
                    Decision::Deny => DENY,
                    Decision::Unknown => UNKNOWN,
                    Decision::Arguments => RULES,
                };
                assert_eq!(execute(&filter, &data(7, number, &[])), expected, "{number}");
            }
            assert_eq!(execute(&filter, &data(8, 1, &[])), libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}
