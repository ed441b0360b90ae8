//! The process's standard streams, unbuffered and blocking.
//!
//! Whoever started us may have left them non-blocking (the flag belongs to the pipe, not to the process, so it is not ours to
//! clear); then they are waited for here.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// One of the streams, by a descriptor of its own: std's handles lock and buffer.
#[derive(Debug)]
pub struct Stdio(File);

impl Stdio {
    /// # Errors
    /// Standard input is not open.
    pub fn input() -> io::Result<Self> {
        Ok(Self(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// # Errors
    /// Standard output is not open.
    pub fn output() -> io::Result<Self> {
        Ok(Self(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    fn wait(&self, for_what: PollFlags) -> io::Result<()> {
        match poll(&mut [PollFd::new(self.0.as_fd(), for_what)], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Read for Stdio {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLIN)?,
                done => return done,
            }
        }
    }
}

impl Write for Stdio {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT)?,
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
