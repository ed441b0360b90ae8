//! The service manager that started the daemon, if one did: systemd's protocols (sd_listen_fds(3), sd_notify(3),
//! sd_watchdog_enabled(3)), and launchd's activation.
//!
//! [`Service::take`] reads what the manager left in the environment and removes it there, so that no child ever sees it.
//! Owns the sockets the manager passed, until the listener takes the one, and the address to which news is told. In:
//! variables and descriptors. Out: a listening socket, datagrams. Never waits, and never makes the daemon fail because the
//! manager does not listen.
//!
//! The crate sd-notify is not used: it reads `NOTIFY_SOCKET` again for every message, so the variable would have to stay for
//! children, and a hundred lines are all there is to the protocols.

pub(crate) mod watchdog;

#[cfg(target_os = "macos")]
mod launchd;
mod notify;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(crate) use notify::Notifier;

/// First descriptor that a manager passes: SD_LISTEN_FDS_START.
const FIRST_DESCRIPTOR: i32 = 3;

/// More descriptors than any unit passes; beyond it the variable is not systemd's.
const MAX_DESCRIPTORS: i32 = 64;

/// Everything a manager sets for its service alone.
const VARIABLES: [&str; 7] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// What the manager gave the daemon; nothing when there is none.
#[derive(Debug, Default)]
pub(crate) struct Service {
    sockets: Vec<Passed>,
    pub(crate) notifier: Notifier,
    /// How often the manager wants a sign of life at the least.
    pub(crate) watchdog: Option<Duration>,
}

/// A descriptor with the name its unit gives it.
#[derive(Debug)]
struct Passed {
    name: String,
    descriptor: OwnedFd,
}

/// Why what the manager passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("the service manager's {variable}={value} makes no sense")]
    Variable { variable: &'static str, value: String },
    #[error("the service manager passed descriptor {number}, which is not open")]
    Closed { number: i32, source: nix::Error },
    #[error(
        "the service manager passed {} sockets ({names}), and conductord listens on one\nhint: keep one ListenStream= in \
         conductor.socket",
        .count
    )]
    TooMany { count: usize, names: String },
    #[cfg(target_os = "macos")]
    #[error("launchd does not hand over its socket")]
    Launchd(#[source] std::io::Error),
}

impl Service {
    /// Takes everything the manager left, out of the environment too. Call it before anything else has opened a descriptor
    /// or started a thread.
    ///
    /// # Errors
    /// What the manager left is damaged; the daemon must not listen somewhere else instead.
    pub(crate) fn take() -> Result<Self, ServiceError> {
        let set: BTreeMap<&str, String> =
            VARIABLES.iter().filter_map(|&name| Some((name, std::env::var(name).ok()?))).collect();
        for name in VARIABLES {
            // SAFETY: `main_impl` calls this before the process has a second thread, which alone makes it unsound. Removed
            // rather than left out for each child, because whoever starts one would have to remember it.
            #[expect(unsafe_code, reason = "no child may speak for the daemon, or take its socket")]
            unsafe {
                std::env::remove_var(name);
            }
        }
        let service = Self {
            sockets: passed_sockets(&set)?,
            notifier: Notifier::new(set.get("NOTIFY_SOCKET").map(String::as_str)),
            watchdog: watchdog_time(&set)?,
        };
        #[cfg(target_os = "macos")]
        let service = Self { sockets: launchd::sockets().map_err(ServiceError::Launchd)?, ..service };
        Ok(service)
    }

    /// The socket to listen on, if the manager has one for us. Gives it once.
    ///
    /// # Errors
    /// There is more than one.
    pub(crate) fn take_socket(&mut self) -> Result<Option<OwnedFd>, ServiceError> {
        let mut sockets = std::mem::take(&mut self.sockets);
        if sockets.len() > 1 {
            let names: Vec<_> = sockets.iter().map(|socket| socket.name.as_str()).collect();
            return Err(ServiceError::TooMany { count: sockets.len(), names: names.join(", ") });
        }
        Ok(sockets.pop().map(|socket| socket.descriptor))
    }
}

/// True when the variable names this process, or nobody: a parent's variables that came down to us are not ours.
fn is_for_us(pid: Option<&String>) -> bool {
    pid.is_none_or(|pid| *pid == std::process::id().to_string())
}

fn passed_sockets(set: &BTreeMap<&str, String>) -> Result<Vec<Passed>, ServiceError> {
    let Some(count) = set.get("LISTEN_FDS").filter(|_| set.contains_key("LISTEN_PID")) else {
        return Ok(Vec::new());
    };
    if !is_for_us(set.get("LISTEN_PID")) {
        return Ok(Vec::new());
    }
    let wrong = || ServiceError::Variable { variable: "LISTEN_FDS", value: count.clone() };
    let number: i32 = count.parse().map_err(|_| wrong())?;
    if !(0..=MAX_DESCRIPTORS).contains(&number) {
        return Err(wrong());
    }
    let mut names = set.get("LISTEN_FDNAMES").map(String::as_str).unwrap_or_default().split(':');
    (FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + number)
        .map(|number| {
            let name = names.next().unwrap_or("unknown").to_owned();
            Ok(Passed { name, descriptor: adopt(number)? })
        })
        .collect()
}

/// Takes ownership of a descriptor that was passed, and keeps it from the children, which managers do not.
fn adopt(number: i32) -> Result<OwnedFd, ServiceError> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::os::fd::{BorrowedFd, FromRawFd as _};
    // SAFETY: only a flag is set; a number that is not open is an error here.
    #[expect(unsafe_code, reason = "a descriptor that was inherited is known by its number only")]
    let passed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(passed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|source| ServiceError::Closed { number, source })?;
    // SAFETY: it is open, and by the protocol ours alone: nothing else has run in this process yet.
    #[expect(unsafe_code, reason = "the protocol passes ownership by number")]
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn watchdog_time(set: &BTreeMap<&str, String>) -> Result<Option<Duration>, ServiceError> {
    let Some(text) = set.get("WATCHDOG_USEC").filter(|_| is_for_us(set.get("WATCHDOG_PID"))) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(time @ 1..) => Ok(Some(Duration::from_micros(time))),
        _ => Err(ServiceError::Variable { variable: "WATCHDOG_USEC", value: text.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(pairs: &[(&'a str, &str)]) -> BTreeMap<&'a str, String> {
        pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_meant_for_another_process_is_ignored() {
        assert!(
            passed_sockets(&set(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")])).expect("ignored").is_empty()
        );
        assert!(passed_sockets(&set(&[("LISTEN_FDS", "1")])).expect("ignored").is_empty());
        let other = set(&[("WATCHDOG_USEC", "5"), ("WATCHDOG_PID", "1")]);
        assert_eq!(watchdog_time(&other).expect("ignored"), None);
    }

    #[test]
    fn values_that_make_no_sense_are_errors() {
        let us = std::process::id().to_string();
        for fds in ["", "x", "-1", "65", "99999999999"] {
            let set = set(&[("LISTEN_FDS", fds), ("LISTEN_PID", &us)]);
            assert!(matches!(passed_sockets(&set), Err(ServiceError::Variable { .. })), "{fds}");
        }
        for time in ["", "0", "1s", "-3"] {
            assert!(watchdog_time(&set(&[("WATCHDOG_USEC", time)])).is_err(), "{time}");
        }
        let time = watchdog_time(&set(&[("WATCHDOG_USEC", "1500"), ("WATCHDOG_PID", &us)]));
        assert_eq!(time.expect("a time"), Some(Duration::from_micros(1500)));
    }

    #[test]
    fn one_socket_is_taken_and_two_are_refused_by_name() {
        let passed = |name: &str| Passed {
            name: name.into(),
            descriptor: std::fs::File::open("/dev/null").expect("opens").into(),
        };
        let mut service = Service { sockets: vec![passed("a")], ..Service::default() };
        assert!(service.take_socket().expect("one").is_some());
        assert!(service.take_socket().expect("none").is_none());
        service.sockets = vec![passed("a"), passed("b")];
        let error = service.take_socket().expect_err("two").to_string();
        assert!(error.contains("2 sockets (a, b)") && error.contains("hint:"), "{error}");
    }
}
