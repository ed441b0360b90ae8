//! What a template holds open, seen from outside, and what its children are to have instead.
//!
//! Everything a template holds must be understood: a kind of descriptor that is not known here is one that its children
//! would share with it and with each other.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use conductor_fork::wire::{self, Descriptor, Role};
use rustix::process::Pid;

/// Why a process cannot be a template.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("cannot look at the template")]
    Look(#[from] io::Error),
    #[error("the template holds {0}, of which its workers could not have their own")]
    Unknown(String),
    #[error("the template has {0} event loops")]
    EventLoops(usize),
    #[error("the template holds more than {} descriptors", wire::MAX_DESCRIPTORS)]
    TooMany,
}

/// One entry of `/proc/PID/fd`.
#[derive(Clone, Debug)]
struct Open {
    fd: i32,
    /// What it is a link to: a path, `pipe:[12]`, `anon_inode:[eventpoll]`.
    link: String,
    /// `/proc/PID/fdinfo/FD`.
    details: String,
}

/// What the children of this template do with its descriptors.
pub(super) fn look_at(template: Pid) -> Result<Vec<Descriptor>, Unfit> {
    let process = format!("/proc/{}", template.as_raw_pid());
    let mut all = Vec::new();
    for entry in fs::read_dir(format!("{process}/fd"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let fd = name.parse().map_err(io::Error::other)?;
        let link = fs::read_link(entry.path())?.to_string_lossy().into_owned();
        let details = fs::read_to_string(format!("{process}/fdinfo/{name}"))?;
        all.push(Open { fd, link, details });
    }
    plan(all)
}

/// The roles, in the order of the descriptors' numbers. The template's socket has none: it is closed.
fn plan(mut all: Vec<Open>) -> Result<Vec<Descriptor>, Unfit> {
    all.sort_by_key(|open| open.fd);
    let own: BTreeMap<String, Role> =
        all.iter().filter_map(|open| Some((open.link.clone(), standard(open.fd)?))).collect();
    let registered = registrations(&all)?;
    let socket = all.iter().find(|open| open.fd == wire::SOCKET).map(|open| open.link.clone());
    let watched: Vec<_> = all
        .iter()
        .filter(|open| registered.contains_key(&open.fd) && open.link.starts_with("socket:"))
        .map(|open| open.link.clone())
        .collect();
    let mut sender = None;
    let mut descriptors = Vec::new();
    for Open { fd, link, .. } in all {
        let role = match (own.get(&link), link.as_str()) {
            _ if Some(&link) == socket.as_ref() => continue,
            (Some(role), _) => *role,
            (None, "anon_inode:[eventpoll]") => Role::Epoll,
            (None, "anon_inode:[eventfd]") => Role::Waker,
            (None, _) if watched.contains(&link) => Role::SignalReceiver,
            // The other end of the one that is watched.
            (None, _) if link.starts_with("socket:") && *sender.get_or_insert(link.clone()) == link => {
                Role::SignalSender
            }
            (None, path) if path.starts_with('/') && !path.starts_with("/memfd:") => Role::File,
            _ => return Err(Unfit::Unknown(link)),
        };
        let (events, token) = registered.get(&fd).copied().unwrap_or_default();
        descriptors.push(Descriptor { fd, role, events, token });
    }
    let wakers = descriptors.iter().filter(|it| it.role == Role::Waker).count();
    let receivers = watched.iter().collect::<std::collections::BTreeSet<_>>().len();
    if wakers != 1 || receivers > 1 || (sender.is_some() && receivers == 0) {
        return Err(Unfit::EventLoops(wakers));
    }
    if descriptors.len() > wire::MAX_DESCRIPTORS {
        return Err(Unfit::TooMany);
    }
    Ok(descriptors)
}

fn standard(fd: i32) -> Option<Role> {
    [Role::Null, Role::Stdout, Role::Stderr, Role::Commands, Role::Replies]
        .get(usize::try_from(fd).ok()?)
        .copied()
}

/// What epoll watches: events and token by descriptor. Only the waker and the signals' socket may be among it: another
/// would be something that Deno waits for.
fn registrations(all: &[Open]) -> Result<BTreeMap<i32, (u32, u64)>, Unfit> {
    let mut loops = all.iter().filter(|open| open.link == "anon_inode:[eventpoll]");
    let first = loops.next().ok_or(Unfit::EventLoops(0))?;
    // Numbers of one event loop show the same registrations; those of two do not.
    let of = |open: &Open| {
        open.details.lines().filter(|line| line.starts_with("tfd:")).map(str::to_owned).collect::<Vec<_>>()
    };
    if loops.any(|other| of(other) != of(first)) {
        return Err(Unfit::EventLoops(2));
    }
    let mut registered = BTreeMap::new();
    for line in of(first) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, fd, "events:", events, "data:", token, ..] = fields[..] else {
            return Err(Unfit::Unknown(line));
        };
        let number = |text, base| u64::from_str_radix(text, base).map_err(|_| Unfit::Unknown(line.clone()));
        let fd = i32::try_from(number(fd, 10)?).map_err(|_| Unfit::Unknown(line.clone()))?;
        // EPOLLERR and EPOLLHUP are always shown, and need not be asked for.
        let events = u32::try_from(number(events, 16)?).map_err(|_| Unfit::Unknown(line.clone()))? & !0x18;
        let known = all.iter().any(|open| {
            open.fd == fd && (open.link.starts_with("socket:") || open.link == "anon_inode:[eventfd]")
        });
        if !known {
            return Err(Unfit::Unknown(format!("an event loop that waits for descriptor {fd}")));
        }
        registered.insert(fd, (events, number(token, 16)?));
    }
    Ok(registered)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = "pos:\t0\ntfd:       10 events: 80002019 data:                1  pos:0 ino:28 sdev:9\n\
                          tfd:        6 events: 80002019 data:                a  pos:0 ino:1a sdev:10\n";

    /// What a Deno 2.9 with the harness in it holds.
    fn deno() -> Vec<Open> {
        let open = |(fd, link): (i32, &str)| Open {
            fd,
            link: link.to_owned(),
            details: if link.contains("eventpoll") { EVENTS.to_owned() } else { "pos:\t0\n".to_owned() },
        };
        [
            (24, "pipe:[103]"),
            (0, "/dev/null"),
            (1, "pipe:[101]"),
            (2, "pipe:[102]"),
            (3, "pipe:[103]"),
            (4, "pipe:[104]"),
            (5, "socket:[200]"),
            (6, "anon_inode:[eventfd]"),
            (7, "anon_inode:[eventpoll]"),
            (8, "socket:[201]"),
            (9, "socket:[202]"),
            (10, "socket:[201]"),
            (11, "/cache/dep_analysis_cache_v2"),
            (12, "anon_inode:[eventpoll]"),
            (18, "pipe:[101]"),
        ]
        .map(open)
        .into()
    }

    #[test]
    fn every_descriptor_has_its_role() {
        let plan = plan(deno()).unwrap();
        let roles: Vec<_> = plan.iter().map(|it| (it.fd, it.role)).collect();
        let expected = [
            (0, Role::Null),
            (1, Role::Stdout),
            (2, Role::Stderr),
            (3, Role::Commands),
            (4, Role::Replies),
            (6, Role::Waker),
            (7, Role::Epoll),
            (8, Role::SignalReceiver),
            (9, Role::SignalSender),
            (10, Role::SignalReceiver),
            (11, Role::File),
            (12, Role::Epoll),
            (18, Role::Stdout),
            (24, Role::Commands),
        ];
        assert_eq!(roles, expected);
        let watched: Vec<_> =
            plan.iter().filter(|it| it.events != 0).map(|it| (it.fd, it.events, it.token)).collect();
        assert_eq!(watched, [(6, 0x8000_2001, 10), (10, 0x8000_2001, 1)]);
    }

    #[test]
    fn what_is_not_understood_makes_a_template_unfit() {
        let with = |fd, link: &str, details: &str| {
            let mut all = deno();
            all.push(Open { fd, link: link.to_owned(), details: details.to_owned() });
            plan(all).unwrap_err().to_string()
        };
        for link in [
            "anon_inode:[io_uring]",
            "anon_inode:inotify",
            "anon_inode:[timerfd]",
            "anon_inode:[pidfd]",
            "pipe:[999]",
            "socket:[999]",
            "/memfd:x (deleted)",
            "net:[4026531840]",
        ] {
            assert!(with(30, link, "").contains(link), "{link}");
        }
        assert!(with(30, "anon_inode:[eventfd]", "").contains("2 event loops"));
        assert!(with(30, "anon_inode:[eventpoll]", "").contains("2 event loops"));
        let foreign = EVENTS.replace("tfd:        6", "tfd:       11");
        let mut all = deno();
        for open in all.iter_mut().filter(|open| open.link.contains("eventpoll")) {
            open.details.clone_from(&foreign);
        }
        assert!(plan(all).unwrap_err().to_string().contains("waits for descriptor 11"));
        let many = (30..200).map(|fd| Open { fd, link: "/f".into(), details: String::new() });
        assert!(matches!(plan(deno().into_iter().chain(many).collect()), Err(Unfit::TooMany)));
        assert!(matches!(plan(Vec::new()), Err(Unfit::EventLoops(0))));
    }
}
