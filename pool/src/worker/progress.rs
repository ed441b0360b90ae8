//! What is known about a run, and what that makes of its end. Pure.

use crate::job::{Settled, Thrown, Verdict};
use crate::worker::frame::{FrameError, Reply, USER_SCRIPT_URL};
use crate::worker::process::Status;

/// Frames that count for something in one run are at most four. A worker that sends many more floods the daemon.
const MAX_REPLIES: usize = 256;

/// Why the daemon stopped watching a run.
#[derive(Debug)]
pub(crate) enum End {
    /// The worker said that its event loop is empty.
    Drained,
    /// The process ended.
    Exited {
        status: Status,
        out_of_memory: bool,
    },
    /// `linger` or the wall limit is over.
    Deadline,
    ComputeLimit,
    MemoryLimit,
    Cancelled,
    OutputLimit,
    ResultLimit,
    Broken(FrameError),
    ChannelClosed,
    Flooded,
}

impl End {
    /// The daemon ended the run for a reason that stands, whatever else the worker had done by then.
    pub(crate) fn is_by_limit(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Deadline | Self::ComputeLimit | Self::MemoryLimit)
    }
}

/// The claims a worker has made about its run.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    settled: Option<Settled>,
    late: Option<Thrown>,
    open: Vec<String>,
    replies: usize,
}

impl Progress {
    /// Takes one reply; some end when it is the last that counts. The first of each kind counts, others are ignored.
    pub(crate) fn on_reply(&mut self, reply: Reply) -> Option<End> {
        self.replies += 1;
        match reply {
            Reply::Settled(mut settled) if self.settled.is_none() => {
                if let Settled::Thrown { error } = &mut settled {
                    tidy_stacks(error);
                }
                self.settled = Some(settled);
            }
            Reply::Late(mut thrown) if self.late.is_none() => {
                tidy_stacks(&mut thrown);
                self.late = Some(thrown);
            }
            Reply::Open { handles } => self.open = handles,
            Reply::TooLarge {} => return Some(End::ResultLimit),
            Reply::Drained {} => return Some(End::Drained),
            Reply::Warm(_) | Reply::Ready { .. } | Reply::Importing(_) | Reply::Unfit { .. } => {}
            Reply::Settled(_) | Reply::Late(_) | Reply::Call(_) => {}
        }
        (self.replies > MAX_REPLIES).then_some(End::Flooded)
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.is_some()
    }

    pub(crate) fn verdict(self, end: End) -> Verdict {
        match end {
            End::Cancelled => Verdict::Cancelled,
            End::OutputLimit => Verdict::OutputLimit,
            End::Drained => self.settled_or(|| Verdict::NeverSettles),
            End::Deadline => self.still_open_or(|| Verdict::Timeout),
            End::ComputeLimit => self.still_open_or(|| Verdict::ComputeLimit),
            End::MemoryLimit => self.still_open_or(|| Verdict::MemoryLimit),
            End::Exited { status, out_of_memory } => self.exited(status, out_of_memory),
            // Once the value is known, no bytes can take it back.
            End::ResultLimit => self.settled_or(|| Verdict::ResultLimit),
            End::Broken(error) => {
                self.settled_or(|| Verdict::BrokenChannel { detail: format!("it sent {error}") })
            }
            End::ChannelClosed => self
                .settled_or(|| Verdict::BrokenChannel { detail: "it closed its result channel".to_owned() }),
            End::Flooded => self
                .settled_or(|| Verdict::BrokenChannel { detail: "it flooded its result channel".to_owned() }),
        }
    }

    fn settled_or(self, otherwise: impl FnOnce() -> Verdict) -> Verdict {
        match self.settled {
            Some(settled) => Verdict::Settled { settled, open_handles: None, late: self.late },
            None => otherwise(),
        }
    }

    fn still_open_or(self, otherwise: impl FnOnce() -> Verdict) -> Verdict {
        match self.settled {
            Some(settled) => Verdict::Settled { settled, open_handles: Some(self.open), late: self.late },
            None => otherwise(),
        }
    }

    fn exited(mut self, status: Status, out_of_memory: bool) -> Verdict {
        match (&mut self.settled, status) {
            // The frame tells an exit from a crash, the kernel tells its code.
            (Some(Settled::Exit { code }), Status { code: Some(real), .. }) => *code = real,
            (Some(Settled::Exit { .. }), _) => self.settled = None,
            (Some(_), Status { code: Some(0), .. }) => {}
            (Some(_), _) if self.late.is_none() => self.late = Some(ended_late(status, out_of_memory)),
            _ => {}
        }
        self.settled_or(|| Verdict::Exited { code: status.code, signal: status.signal, out_of_memory })
    }
}

/// Makes `URL:line:column` of what Deno prints for a frame of the job's code, which to it is evaluated text.
fn tidy_stacks(thrown: &mut Thrown) {
    let evaluated = format!("{USER_SCRIPT_URL}, <anonymous>:");
    if thrown.stack.contains(&evaluated) {
        thrown.stack = thrown.stack.replace(&evaluated, &format!("{USER_SCRIPT_URL}:"));
    }
    thrown.cause.iter_mut().map(Box::as_mut).chain(&mut thrown.errors).for_each(tidy_stacks);
}

/// A process that ends itself after its value is known did not throw, but did not go well either.
fn ended_late(status: Status, out_of_memory: bool) -> Thrown {
    let cause = if out_of_memory { ", out of memory" } else { "" };
    Thrown {
        message: format!("the program ended with {status}{cause} after its value was known"),
        ..Thrown::default()
    }
}

#[cfg(test)]
mod tests;
