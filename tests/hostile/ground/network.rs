//! The network that the daemon of a [`Ground`](super::Ground) lives in, and everything in it that can be reached.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use conductor_tests::Home;
use nix::sched::{CloneFlags, unshare};

use super::names::NameServer;

/// Listeners that nobody may reach.
pub(super) struct Network {
    pub(super) tcp: TcpListener,
    pub(super) udp: UdpSocket,
    path: UnixListener,
    name: UnixListener,
    /// Where the daemon has the network to itself.
    names: Option<NameServer>,
}

impl Network {
    /// In the calling thread's network, which it makes a private one if it may.
    pub(super) fn new(home: &Home) -> Self {
        // Without the program that brings its interface up, a network of its own would prove nothing.
        let has_ip = Command::new("ip").arg("-V").output().is_ok();
        let is_private = has_ip && unshare(CloneFlags::CLONE_NEWNET).is_ok();
        if is_private {
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.is_ok_and(|status| status.success()), "the loopback interface is there");
        }
        let address = SocketAddr::from_abstract_name(home.path("name").as_os_str().as_encoded_bytes());
        let network = Self {
            tcp: TcpListener::bind("127.0.0.1:0").expect("binds"),
            udp: UdpSocket::bind("127.0.0.1:0").expect("binds"),
            path: UnixListener::bind(home.path("listener")).expect("binds"),
            name: UnixListener::bind_addr(&address.expect("a name")).expect("binds"),
            names: is_private.then(|| NameServer::start(home)),
        };
        network.tcp.set_nonblocking(true).expect("sets it");
        network.udp.set_nonblocking(true).expect("sets it");
        network.path.set_nonblocking(true).expect("sets it");
        network.name.set_nonblocking(true).expect("sets it");
        network
    }

    /// Nobody has come since the last look.
    pub(super) fn is_silent(&self) -> bool {
        self.tcp.accept().is_err()
            && self.udp.recv(&mut [0]).is_err()
            && self.path.accept().is_err()
            && self.name.accept().is_err()
    }

    /// What was resolved since the last look; unknown in a shared network.
    pub(super) fn asked(&self) -> Option<BTreeSet<String>> {
        self.names.as_ref().map(NameServer::asked)
    }

    /// Packets sent so far in the network of this process; unknown in a shared one.
    pub(super) fn packets(&self, pid: i32) -> Option<u64> {
        self.names.as_ref()?;
        let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).expect("Linux has it");
        let sent = table
            .lines()
            .filter_map(|line| line.split_once(':')?.1.split_whitespace().nth(9)?.parse::<u64>().ok());
        Some(sent.sum())
    }
}
