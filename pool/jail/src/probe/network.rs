//! Attempts on the network and on sockets of this machine.

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use nix::libc::*;
use nix::sys::socket::{SockaddrLike as _, UnixAddr};

use super::attempt::{Errno, call_with, number, raw, socket, word};
use super::{Attempt, Probe, Scene};
use crate::Layer::{Capabilities, Landlock, Seccomp};

const SOCKET: &[(crate::Layer, Errno)] = &[(Seccomp, EPERM)];
const TCP: &[(crate::Layer, Errno)] = &[(Seccomp, EPERM), (Landlock, EACCES)];
const ABSTRACT: &[(crate::Layer, Errno)] = &[(Seccomp, EPERM), (Landlock, EPERM)];
const RAW: &[(crate::Layer, Errno)] = &[(Seccomp, EPERM), (Capabilities, EPERM)];

macro_rules! probe {
    ($name:literal, $stopped_by:expr, $attempt:expr) => {
        Probe { name: $name, stopped_by: $stopped_by, attempt: Attempt::Do($attempt) }
    };
}

pub(super) const PROBES: &[Probe] = &[
    // Control: Deno's signal handling is such a pair.
    probe!("make a pair of sockets", &[], |_, _| UnixStream::pair().map(drop).map_err(|error| raw(&error))),
    // New sockets.
    probe!("connect by TCP", TCP, |scene, _| {
        TcpStream::connect((Ipv4Addr::LOCALHOST, scene.tcp)).map(drop).map_err(|error| raw(&error))
    }),
    probe!("listen by TCP", TCP, |_, _| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop).map_err(|error| raw(&error))
    }),
    probe!("make a UDP socket", SOCKET, |_, _| {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map(drop).map_err(|error| raw(&error))
    }),
    probe!("make an IPv6 socket", SOCKET, |_, _| socket(AF_INET6, SOCK_DGRAM, 0).map(drop)),
    probe!("make a raw socket", RAW, |_, _| socket(AF_INET, SOCK_RAW, IPPROTO_ICMP).map(drop)),
    probe!("make a packet socket", RAW, |_, _| socket(AF_PACKET, SOCK_RAW, 0).map(drop)),
    probe!("make a netlink socket", SOCKET, |_, _| socket(AF_NETLINK, SOCK_RAW, 0).map(drop)),
    probe!("make a vsock socket", SOCKET, |_, _| socket(AF_VSOCK, SOCK_STREAM, 0).map(drop)),
    probe!("make a socket of the kernel's cryptography", SOCKET, |_, _| socket(AF_ALG, SOCK_SEQPACKET, 0)
        .map(drop)),
    probe!("make an MPTCP socket", SOCKET, |_, _| socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP).map(drop)),
    probe!("connect to a socket in the file system", SOCKET, |scene, _| {
        UnixStream::connect(scene.path("listener")).map(drop).map_err(|error| raw(&error))
    }),
    probe!("connect to an abstract socket", ABSTRACT, |scene, _| {
        UnixStream::connect_addr(&abstract_name(scene, "")?).map(drop).map_err(|error| raw(&error))
    }),
    probe!("listen on a socket in the file system", TCP, |scene, _| {
        UnixListener::bind(scene.path("granted/listener")).map(drop).map_err(|error| raw(&error))
    }),
    probe!("listen on an abstract socket", SOCKET, |scene, _| {
        UnixListener::bind_addr(&abstract_name(scene, "2")?).map(drop).map_err(|error| raw(&error))
    }),
    probe!("make a datagram socket of this machine", SOCKET, |_, _| {
        UnixDatagram::unbound().map(drop).map_err(|error| raw(&error))
    }),
    // Sockets that were open before.
    probe!("connect a socket that was open before", TCP, |scene, handles| {
        let address = sockaddr_in {
            sin_family: sa_family_t::try_from(AF_INET).map_err(|_| EIO)?,
            sin_port: scene.tcp.to_be(),
            sin_addr: in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
            sin_zero: [0; 8],
        };
        let length = size_of_val(&address);
        call_with(SYS_connect, [number(&handles.stream), (&raw const address) as usize, length]).map(drop)
    }),
    probe!("connect a local socket that was open before", SOCKET, |scene, handles| {
        let address = UnixAddr::new(&scene.path("listener")).map_err(|errno| errno as Errno)?;
        let length = address.len() as usize;
        call_with(SYS_connect, [number(&handles.local), address.as_ptr() as usize, length]).map(drop)
    }),
    probe!("accept from a listener that was open before", SOCKET, |_, handles| {
        handles.listener.accept().map(drop).map_err(|error| raw(&error))
    }),
    probe!("listen again on a socket that was open before", SOCKET, |_, handles| {
        call_with(SYS_listen, [number(&handles.listener), 1]).map(drop)
    }),
    probe!("send a datagram from a socket that was open before", SOCKET, |scene, handles| {
        handles
            .datagram
            .send_to(b"1", (Ipv4Addr::LOCALHOST, scene.udp))
            .map(drop)
            .map_err(|error| raw(&error))
    }),
    probe!("send a message from a socket that was open before", SOCKET, |_, handles| {
        call_with(SYS_sendmsg, [number(&handles.datagram), usize::MAX, 0]).map(drop)
    }),
    probe!("make a pair that could be connected elsewhere", SOCKET, |_, _| {
        UnixDatagram::pair().map(drop).map_err(|error| raw(&error))
    }),
    probe!("make a pair of another family", SOCKET, |_, _| {
        let mut pair = [0i32; 2];
        call_with(SYS_socketpair, [word(AF_TIPC), word(SOCK_STREAM), 0, pair.as_mut_ptr() as usize]).map(drop)
    }),
];

fn abstract_name(scene: &Scene, suffix: &str) -> Result<SocketAddr, Errno> {
    let name = [scene.dir.as_os_str().as_bytes(), suffix.as_bytes()].concat();
    SocketAddr::from_abstract_name(name).map_err(|error| raw(&error))
}
