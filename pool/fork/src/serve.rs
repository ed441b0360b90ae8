//! The template's loop: one request after the other, until the daemon closes the socket.

use crate::child;
use crate::sys::{self, Errno};
use crate::wire::{
    COLLECT, DONE, Descriptor, FAILED, FORK, MAX_PACKET, OF_A_CHILD, OF_SET_UP, SERVING, SET_UP, Step,
};

/// Exit status of a child that could not become a worker.
const NO_WORKER: i32 = 124;

/// Serves the daemon on `socket`. Returns in a child, with its pid; the template itself ends here.
///
/// Must be called from the only thread of the process that will be left when the first request comes.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the name is what Deno's foreign function interface looks for")]
pub extern "C" fn conductor_fork_serve(socket: i32) -> i32 {
    let mut template = Template { socket, task: -1, descriptors: Vec::new() };
    if sys::send(socket, &[SERVING], None).is_err() {
        sys::exit(0);
    }
    loop {
        match template.serve_one() {
            Ok(Served::Parent) => {}
            Ok(Served::Child) => return sys::own_pid(),
            // The daemon has no more use for this template, or is gone.
            Ok(Served::End) | Err(_) => sys::exit(0),
        }
    }
}

struct Template {
    socket: i32,
    /// `/proc/PID/task` of this process.
    task: i32,
    /// In the order of their numbers.
    descriptors: Vec<Descriptor>,
}

enum Served {
    Parent,
    Child,
    End,
}

/// What a template could not do.
struct Failure(Step, Errno);

impl Template {
    fn serve_one(&mut self) -> Result<Served, Errno> {
        let mut packet = [0; MAX_PACKET];
        let mut fds = [-1; OF_A_CHILD];
        let (length, count) = match sys::receive(self.socket, &mut packet, &mut fds) {
            Ok((0, _)) => return Ok(Served::End),
            Ok(received) => received,
            Err(sys::EINTR) => return Ok(Served::Parent),
            Err(error) => return Err(error),
        };
        let done = match (packet[0], count) {
            (COLLECT, 0) => {
                if let Ok(pid) = packet[1..length].try_into() {
                    sys::collect(i32::from_ne_bytes(pid));
                }
                return Ok(Served::Parent);
            }
            (SET_UP, OF_SET_UP) => self.set_up(&packet[1..length], fds[0], fds[1]).map(|()| None),
            (FORK, OF_A_CHILD) => match self.fork(&fds) {
                Ok(None) => return Ok(Served::Child),
                done => done,
            },
            _ => Err(Failure(Step::Request, 0)),
        };
        let own = if packet[0] == FORK { &fds[..count] } else { &[] };
        for fd in own {
            sys::close_all(*fd, fd.unsigned_abs())?;
        }
        self.answer(done)?;
        Ok(Served::Parent)
    }

    fn answer(&self, done: Result<Option<i32>, Failure>) -> Result<(), Errno> {
        match done {
            Ok(None) => sys::send(self.socket, &[DONE], None),
            Ok(Some(pidfd)) => {
                let sent = sys::send(self.socket, &[DONE], Some(pidfd));
                sys::close_all(pidfd, pidfd.unsigned_abs())?;
                sent
            }
            Err(Failure(step, errno)) => {
                let mut packet = [0; 6];
                packet[..2].copy_from_slice(&[FAILED, step as u8]);
                packet[2..].copy_from_slice(&errno.to_ne_bytes());
                sys::send(self.socket, &packet, None)
            }
        }
    }

    fn set_up(&mut self, descriptors: &[u8], maps: i32, task: i32) -> Result<(), Failure> {
        let (entries, rest) = descriptors.as_chunks::<{ Descriptor::BYTES }>();
        let decoded: Option<Vec<_>> = entries.iter().map(|entry| Descriptor::decode(entry)).collect();
        let decoded = decoded.filter(|_| rest.is_empty()).ok_or(Failure(Step::Request, 0))?;
        self.descriptors = decoded;
        self.task = task;
        // V8 forbids that its pages be copied. No JavaScript runs here from now on, so it cannot do so again.
        allow_forks(maps).map_err(|errno| Failure(Step::Maps, errno))?;
        sys::close_all(maps, maps.unsigned_abs()).map_err(|errno| Failure(Step::Maps, errno))
    }

    /// The child's pidfd; `None` in the child.
    fn fork(&self, own: &[i32; OF_A_CHILD]) -> Result<Option<i32>, Failure> {
        match sys::threads(self.task) {
            Ok(1) => {}
            Ok(_) => return Err(Failure(Step::Threads, 0)),
            Err(errno) => return Err(Failure(Step::Threads, errno)),
        }
        let template = sys::own_pid();
        let pid = sys::fork().map_err(|errno| Failure(Step::Fork, errno))?;
        if pid == 0 {
            return match child::become_worker(template, own, &self.descriptors) {
                Ok(()) => Ok(None),
                Err(_) => sys::exit(NO_WORKER),
            };
        }
        // Without one the child is told nothing and ends when its channel closes.
        sys::open_pidfd(pid).map(Some).map_err(|errno| Failure(Step::Pidfd, errno))
    }
}

/// Has every mapping in the list copied by forks.
fn allow_forks(maps: i32) -> Result<(), Errno> {
    // About a hundred lines of at most a few hundred bytes. A process with more than this has no place as a template.
    let mut text = vec![0; 1 << 20];
    let length = sys::read_fully(maps, &mut text)?;
    if length == text.len() {
        return Err(sys::EPROTO);
    }
    for (start, end) in text[..length].split(|byte| *byte == b'\n').filter_map(range) {
        sys::allow_fork(start, end - start);
    }
    Ok(())
}

/// The addresses that a line of `/proc/PID/maps` begins with.
fn range(line: &[u8]) -> Option<(usize, usize)> {
    let text = std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?;
    let (start, end) = text.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?)).filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_with_its_range() {
        let line = b"7f0000001000-7f0000003000 rw-p 00000000 00:00 0  [anon:v8]";
        assert_eq!(range(line), Some((0x7f00_0000_1000, 0x7f00_0000_3000)));
        for bad in [&b""[..], b"7f-", b"2-1 x", b"1-1 x", b"\xff-1 x", b"x-y z"] {
            assert_eq!(range(bad), None);
        }
    }

    #[test]
    fn a_forbidden_page_is_copied_again() {
        use std::os::fd::AsRawFd as _;
        let flags = || std::fs::read_to_string("/proc/self/smaps").unwrap();
        let page = nix::libc::MAP_PRIVATE | nix::libc::MAP_ANONYMOUS;
        #[expect(unsafe_code, reason = "a mapping of the test's own")]
        // SAFETY: a new mapping, of which nothing but its advice is used.
        let address = unsafe {
            let address = nix::libc::mmap(std::ptr::null_mut(), 4096, 3, page, -1, 0);
            nix::libc::madvise(address, 4096, nix::libc::MADV_DONTFORK);
            address as usize
        };
        let forbidden = || {
            let text = flags();
            let at = text.lines().position(|line| {
                range(line.as_bytes()).is_some_and(|(start, end)| (start..end).contains(&address))
            });
            let of_page = text.lines().skip(at.unwrap()).find(|line| line.starts_with("VmFlags:")).unwrap();
            of_page.split(' ').any(|flag| flag == "dc")
        };
        assert!(forbidden());
        allow_forks(std::fs::File::open("/proc/self/maps").unwrap().as_raw_fd()).unwrap();
        assert!(!forbidden());
    }
}
