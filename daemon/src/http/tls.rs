//! The daemon's own certificate, from files that are checked as all configuration is.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conductor_protocol::status::CertificateStatus;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::{ConfigError, HttpSection, read_trusted};
use crate::watched::WatchedFiles;

/// Why there is no encryption, and so nobody is let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error(transparent)]
    Certificate(#[from] ConfigError),
    #[error("cannot read the key {}", .path.display())]
    Key { path: PathBuf, source: io::Error },
    #[error("the key {} can be read by others\nhint: chmod 600 {}", .0.display(), .0.display())]
    Exposed(PathBuf),
    #[error("{} holds no {what} in PEM\nhint: {what} begins with -----BEGIN", .path.display())]
    Pem { path: PathBuf, what: &'static str },
    #[error("certificate and key cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// What encrypts connections.
#[derive(Clone)]
pub(super) struct Encryption {
    pub(super) acceptor: TlsAcceptor,
    pub(super) certificate: CertificateStatus,
}

/// Looks after the files of a certificate, which is renewed while the daemon runs. Without one it holds nothing.
#[derive(Debug, Default)]
pub(super) struct CertificateFiles(Option<(WatchedFiles, watch::Receiver<u64>)>);

impl CertificateFiles {
    /// Looks after the files of this section from now on. To be called each time they are read.
    pub(super) fn watch(&mut self, section: &HttpSection) {
        let mut files = section.tls_cert.iter().chain(&section.tls_key).peekable();
        if files.peek().is_none() {
            self.0 = None;
            return;
        }
        let (watched, changes) = self.0.get_or_insert_with(|| {
            let watched = WatchedFiles::default();
            let changes = watched.changes();
            (watched, changes)
        });
        changes.mark_unchanged();
        files.for_each(|file| watched.watch(file));
    }

    /// Ready when one may have changed since.
    ///
    /// # Cancel safety
    /// Cancel-safe: a change that is not seen stays unseen.
    pub(super) async fn changed(&mut self) {
        match &mut self.0 {
            // An error is impossible: the sender is here.
            Some((_, changes)) => drop(changes.changed().await),
            None => std::future::pending().await,
        }
    }
}

/// What encrypts connections as the files are now; `None` where the configuration wants nothing of it.
pub(super) fn load(section: &HttpSection) -> Result<Option<Encryption>, TlsError> {
    let (Some(cert), Some(key)) = (&section.tls_cert, &section.tls_key) else { return Ok(None) };
    let pem = |path: &Path, what| TlsError::Pem { path: path.to_owned(), what };
    let chain = CertificateDer::pem_slice_iter(read_trusted(cert)?.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| pem(cert, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&read_key(key)?).map_err(|_| pem(key, "private key"))?;
    let (not_before, not_after) = lifetime(&chain[0]);
    let certificate = CertificateStatus { path: cert.display().to_string(), not_before, not_after };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Encryption { acceptor: TlsAcceptor::from(Arc::new(config)), certificate }))
}

/// From when and until when a certificate is good. The verifier of clients is asked at both ends of time, and says it when it
/// refuses: nothing here reads certificates.
fn lifetime(certificate: &CertificateDer<'_>) -> (Option<u64>, Option<u64>) {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return (None, None) };
    let refusal = |at| {
        let (nobody, algorithms) =
            (RootCertStore::empty(), ring::default_provider().signature_verification_algorithms.all);
        let at = UnixTime::since_unix_epoch(at);
        match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], at, algorithms) {
            Err(rustls::Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        }
    };
    let not_before = match refusal(Duration::ZERO) {
        Some(CertificateError::NotValidYetContext { not_before, .. }) => Some(not_before.as_secs()),
        _ => None,
    };
    let not_after = match refusal(Duration::MAX) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => Some(not_after.as_secs()),
        _ => None,
    };
    (not_before, not_after)
}

/// A key that others can read is none.
fn read_key(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Key { path: path.to_owned(), source };
    // The same checks as for all configuration, whose text is not kept.
    drop(read_trusted(path)?);
    let mut file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(TlsError::Exposed(path.to_owned()));
    }
    let mut key = Vec::new();
    file.read_to_end(&mut key).map_err(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl ca -selfsign` for this test, good from 2026-01-01 to 2027-01-01.
    const CERTIFICATE: &str = "\
        -----BEGIN CERTIFICATE-----\n\
        MIIBNTCB3KADAgECAgEBMAoGCCqGSM49BAMCMAwxCjAIBgNVBAMMAXQwHhcNMjYw\n\
        MTAxMDAwMDAwWhcNMjcwMTAxMDAwMDAwWjAMMQowCAYDVQQDDAF0MFkwEwYHKoZI\n\
        zj0CAQYIKoZIzj0DAQcDQgAEhBy8KMMu9ZUu8Ao+BoPNCD0a01z9RFM4GY/XLkUu\n\
        oa4XhEDBY70NCUltmsylQgrhMB3FrnGee7g9AJBkTZF+WKMvMC0wDAYDVR0RBAUw\n\
        A4IBdDAdBgNVHQ4EFgQU+vRATnAdjSFaLXoluo/p8hipG7wwCgYIKoZIzj0EAwID\n\
        SAAwRQIhAMVmxe5QfMOFKqj7Ko2ThrtBpDIIsNzakRsUxb8AkqxUAiBCnaxitRaP\n\
        YH/WDCdmmPuE3mh/ny+yqZg60IXCditbMQ==\n\
        -----END CERTIFICATE-----\n";

    #[test]
    fn a_certificate_says_how_long_it_is_good() {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("is PEM");
        assert_eq!(lifetime(&certificate), (Some(1_767_225_600), Some(1_798_761_600)));
        assert_eq!(lifetime(&CertificateDer::from(vec![1, 2, 3])), (None, None));
    }
}
