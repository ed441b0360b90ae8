//! What is told of a run that ended without a word of its code: a limit, a cancellation, a process that is gone. Pure.

use std::time::Duration;

use super::Packages;
use crate::exec::result::{ErrorReport, ErrorType};
use crate::profile::Profile;

/// What a run was given and what it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) packages: Packages<'a>,
    pub(crate) timeout: Duration,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

impl Usage<'_> {
    pub(crate) fn timed_out(self) -> ErrorReport {
        let message = format!("the code ran for {} ms without an end", self.timeout.as_millis());
        ErrorReport::new(ErrorType::Timeout, message).hint(format!(
            "do less in one call, or pass a longer `timeout` (at most {} ms)",
            self.profile.max_timeout.as_millis()
        ))
    }

    pub(crate) fn computed_too_long(self) -> ErrorReport {
        let [limit, cpu, wall] = [self.profile.max_compute, self.cpu, self.wall].map(|time| time.as_millis());
        let message = format!(
            "the code used {cpu} ms of CPU time, in {wall} ms of wall time; the limit is {limit} ms (`max-compute`)"
        );
        ErrorReport::new(ErrorType::ComputeLimit, message).hint(
            "do less in one call; threads of Web Workers use it up together, time spent waiting does not count",
        )
    }

    pub(crate) fn printed_too_much(self) -> ErrorReport {
        let message = format!(
            "the code printed more than {} bytes (`max-output-bytes`)",
            self.profile.max_output_bytes
        );
        ErrorReport::new(ErrorType::OutputLimit, message).hint("print less, or return a summary")
    }

    pub(crate) fn returned_too_much(self) -> ErrorReport {
        let message = format!(
            "the returned value is larger than {} bytes (`max-result-bytes`)",
            self.profile.max_result_bytes
        );
        ErrorReport::new(ErrorType::OutputLimit, message).hint("return a part of it, or a summary")
    }

    pub(crate) fn out_of_memory(self) -> ErrorReport {
        needs_less(format!("the code needed more than {} MiB of memory (`heap-mib`)", self.profile.heap_mib))
    }

    pub(crate) fn used_too_much_memory(self) -> ErrorReport {
        needs_less(format!(
            "the code, its buffers and Web Workers used more than {} MiB of memory (`max-memory-mib`)",
            self.profile.max_memory_mib
        ))
    }
}

fn needs_less(message: String) -> ErrorReport {
    ErrorReport::new(ErrorType::Memory, message).hint("work on smaller pieces, or stream the data")
}

pub(crate) fn never_settles() -> ErrorReport {
    let message = "a top-level await never settles: nothing is left that could settle it";
    ErrorReport::new(ErrorType::Runtime, message)
        .hint("check that every promise the code awaits is resolved or rejected somewhere")
}

pub(crate) fn cancelled() -> ErrorReport {
    ErrorReport::new(ErrorType::Cancelled, "the call was cancelled")
}

/// `code` is not 0.
pub(crate) fn exited(code: i32) -> ErrorReport {
    ErrorReport::new(ErrorType::Exit, format!("the code exited with code {code}"))
}

pub(crate) fn ended_by_signal(signal: Option<i32>) -> ErrorReport {
    let signal = signal.unwrap_or_default();
    ErrorReport::new(ErrorType::Exit, format!("the process was ended by signal {signal}"))
}

pub(crate) fn lost_its_result(detail: &str) -> ErrorReport {
    ErrorReport::new(ErrorType::Internal, format!("the result of the code was lost: {detail}"))
        .hint("code that closes or writes to unknown file descriptors breaks its own result channel")
}
