//! The daemon's end of a template's socket ([`conductor_fork::wire`]).
//!
//! One request is answered after the other. A caller that goes away leaves an answer behind, which the next one throws
//! away first; what it throws away may hold a child, which is then ended like any other.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use conductor_fork::wire::{self, Step};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::Mutex;

/// Why a template did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the template has ended or does not answer")]
    Broken(#[source] io::Error),
    #[error("the template cannot {}{}", .step.name(), cause(.errno))]
    Failed { step: Step, errno: i32 },
    #[error("the template has not answered within {0:?}")]
    Silent(Duration),
    #[error("the template answered with something that is no answer")]
    Garbage,
}

fn cause(errno: &i32) -> String {
    if *errno == 0 { String::new() } else { format!(": {}", io::Error::from_raw_os_error(*errno)) }
}

#[derive(Debug)]
pub(super) struct Link {
    /// In truth of the kind that also tells when the other end is closed (`SOCK_SEQPACKET`).
    socket: UnixDatagram,
    /// Answers that are due.
    due: Mutex<u32>,
}

impl Link {
    /// And the template's end.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let ours = std::os::unix::net::UnixDatagram::from(ours);
        ours.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(ours)?;
        // The template's first packet is one that nobody asks for.
        Ok((Self { socket, due: Mutex::new(1) }, theirs))
    }

    /// Waits for the template to serve.
    pub(super) async fn serving(&self) -> Result<(), LinkError> {
        let mut due = self.due.lock().await;
        let (packet, _) = self.receive().await?;
        *due -= 1;
        if packet == [wire::SERVING] { Ok(()) } else { Err(LinkError::Garbage) }
    }

    /// Sends a packet and waits for its answer; the descriptor in it, if there is one. `orphan` gets those of answers
    /// that nobody waits for any more.
    ///
    /// # Cancel safety
    /// The request is then carried out all the same, and what comes of it goes to the `orphan` of the next.
    pub(super) async fn request(
        &self,
        packet: &[u8],
        fds: &[BorrowedFd<'_>],
        orphan: impl Fn(OwnedFd),
    ) -> Result<Option<OwnedFd>, LinkError> {
        let mut due = self.due.lock().await;
        self.send(packet, fds).await?;
        *due += 1;
        loop {
            let (answer, fd) = self.receive().await?;
            *due -= 1;
            if *due == 0 {
                return outcome(&answer).map(|()| fd);
            }
            if let Some(fd) = fd {
                orphan(fd);
            }
        }
    }

    /// True when it is sent, or never will be.
    pub(super) fn collect(&self, pid: Pid) -> bool {
        let mut packet = vec![wire::COLLECT];
        packet.extend(pid.as_raw_pid().to_ne_bytes());
        !matches!(send_now(&self.socket, &packet, &[]), Err(Errno::EAGAIN))
    }

    async fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let send = || Ok(send_now(&self.socket, packet, fds)?);
        self.socket.async_io(Interest::WRITABLE, send).await.map_err(LinkError::Broken)
    }

    async fn receive(&self) -> Result<(Vec<u8>, Option<OwnedFd>), LinkError> {
        self.socket
            .async_io(Interest::READABLE, || receive_now(&self.socket))
            .await
            .map_err(LinkError::Broken)
    }
}

fn outcome(answer: &[u8]) -> Result<(), LinkError> {
    match answer {
        [wire::DONE] => Ok(()),
        [wire::FAILED, step, errno @ ..] => {
            let (step, errno) = (Step::from_byte(*step), <[u8; 4]>::try_from(errno));
            let (Some(step), Ok(errno)) = (step, errno) else { return Err(LinkError::Garbage) };
            Err(LinkError::Failed { step, errno: i32::from_ne_bytes(errno) })
        }
        _ => Err(LinkError::Garbage),
    }
}

fn send_now(socket: &impl AsRawFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(packet)], control, flags, None).map(drop)
}

/// One packet and the descriptor that came with it.
fn receive_now(socket: &impl AsRawFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    // The longest answer is six bytes; one that is longer is cut, and then none.
    let mut packet = [0; 8];
    let mut control = nix::cmsg_space!([i32; 1]);
    let mut vectors = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut vectors, Some(&mut control), flags)?;
    let mut fd = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            for received in fds {
                #[expect(unsafe_code, reason = "nix hands received descriptors over as numbers")]
                // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
                fd.replace(unsafe { OwnedFd::from_raw_fd(received) });
            }
        }
    }
    let length = received.bytes;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((packet[..length].to_vec(), fd))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn answer(template: &OwnedFd, packet: &[u8], fd: bool) {
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds = [null.as_fd()];
        send_now(template, packet, if fd { &fds } else { &[] }).unwrap();
    }

    #[tokio::test]
    async fn an_answer_that_nobody_took_is_not_the_next_ones() {
        let (link, template) = Link::pair().unwrap();
        answer(&template, &[wire::SERVING], false);
        link.serving().await.unwrap();
        let orphans = AtomicUsize::new(0);
        let orphan = |_| {
            orphans.fetch_add(1, Ordering::Relaxed);
        };
        let request = link.request(&[wire::FORK], &[], orphan);
        tokio::time::timeout(std::time::Duration::ZERO, request).await.unwrap_err();
        answer(&template, &[wire::DONE], true);
        answer(&template, &[wire::DONE], false);
        let second = link.request(&[wire::FORK], &[], orphan).await.unwrap();
        assert!(second.is_none());
        assert_eq!(orphans.into_inner(), 1);
    }

    #[tokio::test]
    async fn every_kind_of_answer_is_told_from_the_others() {
        let (link, template) = Link::pair().unwrap();
        answer(&template, &[wire::SERVING], false);
        link.serving().await.unwrap();
        let failed = [wire::FAILED, Step::Fork as u8, 11, 0, 0, 0];
        for (packet, expected) in [
            (&failed[..], "cannot fork: "),
            (&[wire::FAILED, 99, 0, 0, 0, 0], "no answer"),
            (&[wire::FAILED], "no answer"),
            (&[wire::DONE, 0], "no answer"),
            (&[9; 20], "no answer"),
        ] {
            answer(&template, packet, false);
            let error = link.request(&[wire::FORK], &[], drop).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{packet:?}: {error}");
        }
        drop(template);
        let error = link.request(&[wire::FORK], &[], drop).await.unwrap_err();
        assert!(matches!(error, LinkError::Broken(_)), "{error}");
        assert!(link.collect(Pid::INIT), "nobody is left to tell");
    }
}
