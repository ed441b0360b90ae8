//! News for the service manager: sd_notify(3).

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// Tells the manager what the daemon is at; a cheap handle. Says nothing when nobody asked for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notifier(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// `address` is `NOTIFY_SOCKET`: a path, or `@` and an abstract name. Others (`vsock:` of virtual machines) are ignored.
    pub(super) fn new(address: Option<&str>) -> Self {
        let address = address.and_then(parse);
        let manager = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that does not read must not stop the daemon.
            socket.set_nonblocking(true).ok()?;
            Some(Arc::new(Manager { socket, address }))
        });
        Self(manager)
    }

    /// Connections are served from now on, or again after a reload.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// What a person should see in the manager's list.
    pub(crate) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", one_line(status)));
    }

    /// The configuration is read; followed by [`Notifier::ready`].
    pub(crate) fn reloading(&self) {
        // The manager's own stop watch counts on this clock.
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let now = now.map(Duration::from).unwrap_or_default();
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reading the configuration",
            now.as_micros()
        ));
    }

    /// Running calls may finish, which takes at most `within`: the manager must wait that long, whatever its own limit.
    pub(crate) fn stopping(&self, within: Duration) {
        let micros = within.as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=waiting for running calls"));
    }

    /// A sign of life for the watchdog.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, message: &str) {
        let Some(manager) = &self.0 else { return };
        if let Err(error) = manager.socket.send_to_addr(message.as_bytes(), &manager.address) {
            // Without its news the manager does what it thinks right; there is nobody else to tell.
            tracing::warn!(error = %error, "the service manager cannot be told how the daemon is");
        }
    }
}

fn parse(address: &str) -> Option<SocketAddr> {
    match address.strip_prefix('@') {
        Some(name) => abstract_address(name),
        None => address.starts_with('/').then(|| SocketAddr::from_pathname(address).ok())?,
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> Option<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name).ok()
}

/// Not built or tested here: only Linux has them.
#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &str) -> Option<SocketAddr> {
    None
}

/// A line break would begin another variable.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let n = manager.recv(&mut bytes).expect("a datagram");
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    #[test]
    fn speaks_to_a_path_and_to_an_abstract_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let name = format!("conductor-test-{}", std::process::id());
        let at_name = parse(&format!("@{name}")).expect("an address");
        let managers = [
            (UnixDatagram::bind(&path).expect("binds"), path.display().to_string()),
            (UnixDatagram::bind_addr(&at_name).expect("binds"), format!("@{name}")),
        ];
        for (manager, address) in managers {
            let notifier = Notifier::new(Some(&address));
            notifier.ready("all\nis\nwell");
            assert_eq!(heard(&manager), "READY=1\nSTATUS=all is well");
            notifier.stopping(Duration::from_millis(1500));
            assert!(heard(&manager).starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\n"));
            notifier.reloading();
            let reloading = heard(&manager);
            let at = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
            assert!(at.is_some_and(|at| at.parse::<u64>().is_ok_and(|at| at > 0)), "{reloading}");
            notifier.alive();
            assert_eq!(heard(&manager), "WATCHDOG=1");
        }
    }

    #[test]
    fn nobody_to_tell_is_no_error() {
        for address in [None, Some(""), Some("vsock:2:1234"), Some("relative"), Some("/nonexistent/notify")] {
            Notifier::new(address).ready("ready");
        }
    }
}
