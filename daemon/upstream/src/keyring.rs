//! Secrets that the user keeps in the desktop's keyring.
//!
//! The system's own tool is asked: `secret-tool` of libsecret on Linux, `security` on macOS. A library of our own would
//! bring a D-Bus client into the daemon for a value that is read when a configuration changes.

use std::fmt;
use std::io::{self, Read as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use thiserror::Error;

/// How long a keyring may take; a locked one asks its user.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most that is read of a value, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Where `${keyring:SERVICE/ACCOUNT}` is looked up.
pub trait Keyring: Send + Sync {
    /// Blocks until the keyring has answered.
    ///
    /// # Errors
    /// There is no keyring, it holds no such value, or it does not answer.
    fn get(&self, service: &str, account: &str) -> Result<String, KeyringError>;
}

/// Why the keyring gives no value.
#[derive(Debug, Error)]
pub enum KeyringError {
    #[error("there is no keyring here\nhint: use ${{env:NAME}} or ${{file:PATH}}")]
    None,
    #[error("the keyring has no value for {service}/{account}\nhint: {hint}")]
    NotFound { service: String, account: String, hint: String },
    #[error(
        "the keyring cannot be asked: {tool} does not start\nhint: install {tool}, or use ${{env:NAME}} or ${{file:PATH}}"
    )]
    Tool { tool: &'static str, source: io::Error },
    #[error("the keyring did not answer within 10 seconds\nhint: is it locked?")]
    Timeout,
}

/// No keyring at all.
#[derive(Debug, Clone, Copy)]
pub struct NoKeyring;

/// The keyring of the desktop that the user is logged in to.
#[derive(Debug, Clone, Copy)]
pub struct SystemKeyring;

impl Keyring for NoKeyring {
    fn get(&self, _: &str, _: &str) -> Result<String, KeyringError> {
        Err(KeyringError::None)
    }
}

impl Keyring for SystemKeyring {
    fn get(&self, service: &str, account: &str) -> Result<String, KeyringError> {
        let (tool, args, hint) = question(service, account);
        let mut child = Command::new(tool)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| KeyringError::Tool { tool, source })?;
        let stdout = child.stdout.take().expect("it was asked for");
        let value = std::thread::spawn(move || {
            let mut value = String::new();
            stdout.take(MAX_BYTES).read_to_string(&mut value).map(|_| value)
        });
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                _ => {
                    child.kill().ok();
                    child.wait().ok();
                    return Err(KeyringError::Timeout);
                }
            }
        };
        match value.join() {
            Ok(Ok(value)) if status.success() && !value.is_empty() => {
                Ok(value.trim_end_matches(['\n', '\r']).to_owned())
            }
            _ => {
                Err(KeyringError::NotFound { service: service.to_owned(), account: account.to_owned(), hint })
            }
        }
    }
}

/// The tool, its arguments, and how a user puts a value there.
fn question<'a>(service: &'a str, account: &'a str) -> (&'static str, Vec<&'a str>, String) {
    if cfg!(target_os = "macos") {
        let hint = format!("security add-generic-password -s {service} -a {account} -w");
        ("security", vec!["find-generic-password", "-w", "-s", service, "-a", account], hint)
    } else {
        let hint = format!("secret-tool store --label={service} service {service} account {account}");
        ("secret-tool", vec!["lookup", "service", service, "account", account], hint)
    }
}

impl fmt::Debug for dyn Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")
    }
}
