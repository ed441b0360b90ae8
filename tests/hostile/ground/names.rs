//! A name server of the daemon's network, to which the resolver's files lead: what was asked, and by whom it was not.
//!
//! Owns port 53 of the loopback address, over UDP and TCP, and the names that reached it. Knows two names and refuses the
//! rest as unknown. Nothing that it is sent makes it send anything anywhere but back.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use conductor_tests::Home;
use nix::sched::{CloneFlags, unshare};

const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 53);

/// What there is. The second name leads to this machine, as a name does whose owner is an attacker.
const KNOWN: [(&str, Ipv4Addr); 2] =
    [("granted.example.com", Ipv4Addr::new(192, 0, 2, 7)), ("rebound.example.com", Ipv4Addr::LOCALHOST)];

/// Seen where somebody speaks to it in another way than with a question of DNS.
const GARBAGE: &str = "something that is no question";

/// Largest datagram that is looked at, bytes; the rest of a larger one is lost, but not that it came.
const MAX_BYTES: usize = 4096;

const HEADER_BYTES: usize = 12;

#[derive(Debug)]
pub(super) struct NameServer {
    udp: UdpSocket,
    tcp: TcpListener,
    asked: Arc<Mutex<BTreeSet<String>>>,
    serving: Option<JoinHandle<()>>,
}

impl NameServer {
    /// In the calling thread's network, which must be its own; from now on the thread and what it starts have files of the
    /// resolver that name this server and no other.
    pub(super) fn start(home: &Home) -> Self {
        lead_here(home);
        let udp = UdpSocket::bind(HERE).expect("the network is new");
        let tcp = TcpListener::bind(HERE).expect("the network is new");
        tcp.set_nonblocking(true).expect("sets it");
        let asked = Arc::<Mutex<BTreeSet<String>>>::default();
        let (socket, names) = (udp.try_clone().expect("a second handle"), asked.clone());
        let serving = thread::spawn(move || serve(&socket, &names));
        Self { udp, tcp, asked, serving: Some(serving) }
    }

    /// What has reached it since the last look.
    pub(super) fn asked(&self) -> BTreeSet<String> {
        let mut asked = std::mem::take(&mut *lock(&self.asked));
        match self.tcp.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => drop(asked.insert("a connection".into())),
        }
        asked
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // An empty datagram from its own socket is the end: nobody else can send from there.
        self.udp.send_to(&[], HERE).expect("it is bound");
        if let Some(serving) = self.serving.take() {
            serving.join().expect("it takes any bytes");
        }
    }
}

/// Puts files of the resolver that know this server alone over the machine's, for the calling thread and what it starts.
fn lead_here(home: &Home) {
    unshare(CloneFlags::CLONE_NEWNS).expect("root may");
    mount(["--make-rprivate".as_ref(), "/".as_ref()]);
    let files = [
        ("resolv.conf", "nameserver 127.0.0.1\noptions attempts:1\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ];
    for (name, text) in files {
        let file = home.path(name);
        fs::write(&file, text).expect("writes");
        // It may be a link to where a service keeps it.
        let place = fs::canonicalize(Path::new("/etc").join(name)).expect("the machine resolves names");
        mount(["--bind".as_ref(), file.as_os_str(), place.as_os_str()]);
    }
}

fn mount<const N: usize>(arguments: [&OsStr; N]) {
    let status = Command::new("mount").args(arguments).status().expect("every Linux has it");
    assert!(status.success(), "mount {arguments:?}: {status}");
}

fn serve(socket: &UdpSocket, asked: &Mutex<BTreeSet<String>>) {
    let own = socket.local_addr().expect("it is bound");
    let mut bytes = [0; MAX_BYTES];
    loop {
        let (n, from) = socket.recv_from(&mut bytes).expect("the socket is open");
        if from == own {
            return;
        }
        match Question::read(&bytes[..n]) {
            Some(question) => {
                let answer = question.answer();
                lock(asked).insert(question.name);
                // Whoever asked may be gone.
                socket.send_to(&answer, from).ok();
            }
            None => drop(lock(asked).insert(GARBAGE.into())),
        }
    }
}

fn lock<T>(asked: &Mutex<T>) -> MutexGuard<'_, T> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One question of one datagram: RFC 1035, section 4.
struct Question<'a> {
    id: &'a [u8],
    name: String,
    is_for_ipv4: bool,
    /// Name, type and class, as they came.
    bytes: &'a [u8],
}

impl<'a> Question<'a> {
    fn read(datagram: &'a [u8]) -> Option<Self> {
        let rest = datagram.get(HEADER_BYTES..)?;
        let (mut labels, mut at) = (Vec::new(), 0);
        loop {
            let n = usize::from(*rest.get(at)?);
            at += 1;
            if n == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(rest.get(at..at + n)?).to_ascii_lowercase());
            at += n;
        }
        let is_for_ipv4 = rest.get(at..at + 2)? == [0, 1];
        Some(Self { id: &datagram[..2], name: labels.join("."), is_for_ipv4, bytes: rest.get(..at + 4)? })
    }

    fn answer(&self) -> Vec<u8> {
        let known = KNOWN.iter().find(|(name, _)| *name == self.name);
        let address = known.filter(|_| self.is_for_ipv4).map(|(_, address)| address.octets());
        // An answer, with recursion; code 3: there is no such name.
        let flags = [0x81, if known.is_some() { 0x80 } else { 0x83 }];
        let counts = [0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0];
        let mut answer = [self.id, &flags, &counts, self.bytes].concat();
        if let Some(address) = address {
            // The name of the question, type A, class IN, for no time, four bytes.
            answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            answer.extend(address);
        }
        answer
    }
}
