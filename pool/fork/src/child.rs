//! What a child does to itself before it runs JavaScript, in this order:
//!
//! 1. Dies with the template: `PR_SET_PDEATHSIG`, then a look whether the template is already gone. The template dies with
//!    the daemon in the same way.
//! 2. Its own descriptors in the places of the template's, its own reactor, its files opened anew; everything else closed.
//! 3. A Landlock domain of its own inside the template's: it cannot signal, inspect or trace its template and its siblings,
//!    as one spawned worker cannot another. The template can still end it.
//! 4. Waits for GO. Until then the daemon has not got hold of it, and it must do nothing.
//! 5. The system call filter that comes with GO. Last, because it forbids what the steps before do.
//!
//! Everything else of a worker's jail it has from the template: limits, capabilities, Landlock, umask, directory, and the
//! process group, which the filter keeps it from leaving. A step that fails ends the child.

use crate::sys::{self, Errno};
use crate::wire::{Descriptor, MAX_FILTER, OF_A_CHILD, Role};

const COMMANDS: i32 = 3;

pub(crate) fn become_worker(
    template: i32,
    own: &[i32; OF_A_CHILD],
    descriptors: &[Descriptor],
) -> Result<(), Errno> {
    sys::die_with_parent()?;
    if sys::parent_pid() != template {
        return Err(sys::EPROTO);
    }
    replace_descriptors(own, descriptors)?;
    close_others(descriptors)?;
    sys::enter_domain()?;
    let filter = wait_for_go()?;
    sys::install_filter(&filter)
}

/// None of the numbers that are written to is one that is read from: those in `descriptors` were all open before the
/// child's own came.
fn replace_descriptors(own: &[i32; OF_A_CHILD], descriptors: &[Descriptor]) -> Result<(), Errno> {
    let (epoll, event, [receiver, sender]) = (sys::new_epoll()?, sys::new_event()?, sys::new_pair()?);
    for descriptor in descriptors {
        let fd = descriptor.fd;
        match descriptor.role {
            Role::Null | Role::Stdout | Role::Stderr | Role::Commands | Role::Replies => {
                sys::replace(own[descriptor.role as usize], fd)?;
            }
            Role::Epoll => sys::replace(epoll, fd)?,
            Role::Waker => sys::replace(event, fd)?,
            Role::SignalReceiver => sys::replace(receiver, fd)?,
            Role::SignalSender => sys::replace(sender, fd)?,
            Role::File => match sys::reopen(fd) {
                Ok(file) => sys::replace(file, fd)?,
                // The jail does not let this process open it, so it may not have it, either.
                Err(_) => sys::close_all(fd, fd.unsigned_abs())?,
            },
        }
    }
    let watched = descriptors.iter().filter(|descriptor| descriptor.events != 0);
    for Descriptor { fd, events, token, .. } in watched.copied() {
        sys::watch(epoll, fd, events, token)?;
    }
    Ok(())
}

/// `descriptors` are in the order of their numbers.
fn close_others(descriptors: &[Descriptor]) -> Result<(), Errno> {
    let mut next = 0;
    for Descriptor { fd, .. } in descriptors {
        if *fd > next {
            sys::close_all(next, (*fd - 1).unsigned_abs())?;
        }
        next = fd + 1;
    }
    sys::close_all(next, u32::MAX)
}

fn wait_for_go() -> Result<Vec<u64>, Errno> {
    let mut length = [0; 4];
    read_exactly(&mut length)?;
    let length = u32::from_ne_bytes(length) as usize;
    if length > MAX_FILTER || !length.is_multiple_of(8) {
        return Err(sys::EPROTO);
    }
    let mut bytes = vec![0; length];
    read_exactly(&mut bytes)?;
    let (instructions, _) = bytes.as_chunks::<8>();
    Ok(instructions.iter().map(|instruction| u64::from_ne_bytes(*instruction)).collect())
}

fn read_exactly(buffer: &mut [u8]) -> Result<(), Errno> {
    if sys::read_fully(COMMANDS, buffer)? == buffer.len() { Ok(()) } else { Err(sys::EPROTO) }
}
