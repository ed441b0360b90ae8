//! What the daemon and a template say to each other: packets of a `SOCK_SEQPACKET` socket, integers in native order. Both
//! ends are of one build, so there is no version.
//!
//! ```text
//! template -> daemon   SERVING                              it waits for requests
//! daemon -> template   SET_UP descriptor…  + [maps, task]   what children do with which descriptor
//! template -> daemon   DONE                                 or FAILED
//! daemon -> template   FORK  + [null, out, err, in, out]    the child's own descriptors
//! template -> daemon   DONE  + [pidfd]                      the child exists and waits for GO
//! daemon -> child      GO                                   on the child's descriptor 3: its system call filter
//! daemon -> template   COLLECT pid                          the child is dead, and nobody needs its pid any more
//! ```
//!
//! Until it is collected a dead child keeps its pid, so the daemon can use the number. GO is a `u32` number of bytes and
//! that many bytes of `struct sock_filter`.

/// First byte of a packet.
pub const SERVING: u8 = 1;
pub const SET_UP: u8 = 2;
pub const FORK: u8 = 3;
pub const COLLECT: u8 = 4;
pub const DONE: u8 = 5;
/// Followed by [`Step`] and an `errno`.
pub const FAILED: u8 = 6;

/// The template's descriptor of the socket: the first that a worker does not have.
pub const SOCKET: i32 = 5;

/// Descriptors that come with [`FORK`].
pub const OF_A_CHILD: usize = 5;
/// Descriptors that come with [`SET_UP`]: `/proc/PID/maps`, `/proc/PID/task`.
pub const OF_SET_UP: usize = 2;

/// Most descriptors of a template. Deno holds about twenty-five.
pub const MAX_DESCRIPTORS: usize = 128;
/// The largest packet: [`SET_UP`] with as many.
pub const MAX_PACKET: usize = 1 + MAX_DESCRIPTORS * Descriptor::BYTES;
/// Bytes of the largest filter: the kernel takes 4096 instructions of eight bytes.
pub const MAX_FILTER: usize = 4096 * 8;

/// What went wrong in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// A packet that is not one of the above.
    Request = 1,
    /// `/proc/PID/maps` could not be read.
    Maps = 2,
    /// The template has more than one thread, so a child would lack the others.
    Threads = 3,
    Fork = 4,
    Pidfd = 5,
}

impl Step {
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Request, Self::Maps, Self::Threads, Self::Fork, Self::Pidfd]
            .into_iter()
            .find(|step| *step as u8 == byte)
    }

    /// Completes "cannot ...".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "understand the request",
            Self::Maps => "prepare its memory for forks",
            Self::Threads => "fork while it has threads",
            Self::Fork => "fork",
            Self::Pidfd => "open a descriptor of the child",
        }
    }
}

/// What a child has in place of one of the template's descriptors. Those that have no entry it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// The first five are the child's own, in the order in which they come with [`FORK`].
    Null = 0,
    Stdout = 1,
    Stderr = 2,
    Commands = 3,
    Replies = 4,
    /// A new epoll instance: one that is shared would report the template's events to its children, and worse.
    Epoll = 5,
    /// A new eventfd, on the new epoll.
    Waker = 6,
    /// The two ends of a new pair of sockets; the first is on the new epoll if it has events.
    SignalReceiver = 7,
    SignalSender = 8,
    /// The same file, opened anew: an offset that is shared would be a channel between children.
    File = 9,
}

impl Role {
    const ALL: [Self; 10] = [
        Self::Null,
        Self::Stdout,
        Self::Stderr,
        Self::Commands,
        Self::Replies,
        Self::Epoll,
        Self::Waker,
        Self::SignalReceiver,
        Self::SignalSender,
        Self::File,
    ];
}

/// One of the template's descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub fd: i32,
    pub role: Role,
    /// As registered with epoll; zero if it is not.
    pub events: u32,
    /// The data of that registration.
    pub token: u64,
}

impl Descriptor {
    pub const BYTES: usize = 17;

    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend(self.fd.to_ne_bytes());
        into.push(self.role as u8);
        into.extend(self.events.to_ne_bytes());
        into.extend(self.token.to_ne_bytes());
    }

    /// `None` if the bytes are not those of one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (fd, rest) = bytes.split_first_chunk::<4>()?;
        let (role, rest) = rest.split_first()?;
        let (events, rest) = rest.split_first_chunk::<4>()?;
        let token = <[u8; 8]>::try_from(rest).ok()?;
        Some(Self {
            fd: i32::from_ne_bytes(*fd),
            role: *Role::ALL.get(usize::from(*role))?,
            events: u32::from_ne_bytes(*events),
            token: u64::from_ne_bytes(token),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_survives_the_trip() {
        for (number, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role as usize, number);
            let sent = Descriptor { fd: 7, role, events: 0x8000_2001, token: u64::MAX };
            let mut bytes = Vec::new();
            sent.encode(&mut bytes);
            assert_eq!(bytes.len(), Descriptor::BYTES);
            assert_eq!(Descriptor::decode(&bytes), Some(sent));
            assert_eq!(Descriptor::decode(&bytes[1..]), None);
        }
        assert_eq!(Descriptor::decode(&[0xff; Descriptor::BYTES]), None, "no such role");
    }

    #[test]
    fn every_step_has_its_byte() {
        let steps: Vec<Step> = (0..=u8::MAX).filter_map(Step::from_byte).collect();
        assert_eq!(steps.len(), 5);
        assert!(steps.iter().all(|step| !step.name().is_empty()));
    }
}
