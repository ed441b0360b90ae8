//! Certificates for tests, and a client that trusts one of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use conductor_tests::Home;

/// A certificate for `localhost` that signs itself, and its key.
pub(super) struct Certificate {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    pub(super) fn new(home: &Home, name: &str, days: u32) -> Self {
        let (cert, key) = (home.path(&format!("{name}.pem")), home.path(&format!("{name}.key")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-days", &days.to_string(), "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .stderr(Stdio::null())
            .status()
            .expect("openssl is there");
        assert!(made.success());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("sets the mode");
        Self { cert, key }
    }

    /// The keys of `[http]` that name it.
    pub(super) fn section(&self) -> String {
        format!("tls-cert = \"{}\"\ntls-key = \"{}\"\n", self.cert.display(), self.key.display())
    }

    /// Puts it where another was, one file after the other as programs do that renew certificates.
    pub(super) fn take_the_place_of(&self, other: &Self) {
        fs::copy(&self.key, &other.key).expect("copies");
        fs::copy(&self.cert, &other.cert).expect("copies");
    }
}

/// Sends a request to a server that must have a certificate of `trusted`; gives what it answers.
pub(super) fn ask(address: SocketAddr, trusted: &Path, request: &str) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost"])
        .args(["-verify_hostname", "localhost", "-connect", &address.to_string(), "-CAfile"])
        .arg(trusted)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is there");
    let mut stdin = client.stdin.take().expect("is piped");
    // One that is not trusted is not written to.
    let _sent = stdin.write_all(request.as_bytes());
    let mut answer = String::new();
    client.stdout.take().expect("is piped").read_to_string(&mut answer).expect("is read");
    drop(stdin);
    client.wait().expect("ends");
    answer
}
