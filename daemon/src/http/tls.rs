//! The daemon's own certificate, from files that are checked as all configuration is.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::{ConfigError, HttpSection, read_trusted};

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

/// What encrypts connections; `None` where the configuration wants none.
pub(super) fn load(section: &HttpSection) -> Result<Option<TlsAcceptor>, TlsError> {
    let (Some(cert), Some(key)) = (&section.tls_cert, &section.tls_key) else { return Ok(None) };
    let pem = |path: &Path, what| TlsError::Pem { path: path.to_owned(), what };
    let chain = CertificateDer::pem_slice_iter(read_trusted(cert)?.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| pem(cert, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&read_key(key)?).map_err(|_| pem(key, "private key"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
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
