//! TLS: the certificate of `--tls-cert` and `--tls-key`, and its successors while we run.

use crate::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at: whoever renews certificates need not know how to signal us.
const LOOK: Duration = Duration::from_secs(5);

/// HTTP/2 first: a browser opens six HTTP/1.1 connections to a host, and each stream would take one.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What connections are encrypted with.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    settings: Arc<ServerConfig>,
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// Reads a chain of certificates, the server's own first, and the private key; both PEM.
    pub fn load(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, Error> {
        let (certificate, key) = (certificate.into(), key.into());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = Arc::new(Current(RwLock::new(read(&certificate, &key, &provider)?)));
        let mut settings = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::setup(format!("TLS does not work here: {error}"), "report this"))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        settings.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(Self { certificate, key, provider, current, settings: Arc::new(settings) })
    }

    pub(super) fn settings(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.settings)
    }

    /// Takes a renewed certificate, when its files change or at SIGHUP, for the connections that come after. What cannot
    /// be read is reported, and the old one stays in use.
    pub async fn follow(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut hangup = signal(SignalKind::hangup()).map_err(Error::io("listen to SIGHUP"))?;
        let mut seen = self.stamps();
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = hangup.recv() => true,
                () = sleep(LOOK) => false,
            };
            let now = self.stamps();
            if asked || now != seen {
                seen = now;
                self.reload();
            }
        }
    }

    fn reload(&self) {
        match read(&self.certificate, &self.key, &self.provider) {
            Ok(renewed) => {
                *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = renewed;
                tracing::info!(file = %self.certificate.display(), "the certificate was read anew");
            }
            Err(error) => tracing::error!(%error, "the certificate cannot be read anew; the old one stays in use"),
        }
    }

    /// Of what the paths lead to: tools that renew often turn a link.
    fn stamps(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        })
    }
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let wrong = |path: &Path, reason: &dyn std::fmt::Display, remedy: &str| {
        Error::setup(format!("the file {} cannot be used for TLS: {reason}", path.display()), remedy)
    };
    let of_certificate = "--tls-cert names a PEM file with the server's certificate first, then the intermediate ones";
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(certificate, &error, of_certificate))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"it holds no certificate", of_certificate));
    }
    let of_key =
        "--tls-key names a PEM file with the unencrypted private key of that certificate, readable for this user";
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error, of_key))?;
    let both = CertifiedKey::from_der(chain, private, provider).map_err(|error| wrong(key, &error, of_key))?;
    Ok(Arc::new(both))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_do_not_do() {
        let folder = std::env::temp_dir().join(format!("headwater-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let made = |name: &str| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let (certificate, key) = made("one.example");
        let (_, other) = made("two.example");
        let path = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let check = |certificate: &Path, key: &Path, expected: Result<(), &str>| {
            let loaded = Tls::load(certificate, key).map(drop).map_err(|error| error.to_string());
            match (loaded, expected) {
                (Ok(()), Ok(())) => {}
                (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
                (loaded, _) => panic!("{loaded:?}"),
            }
        };
        let (certificate, key) = (path("cert.pem", &certificate), path("key.pem", &key));
        check(&certificate, &key, Ok(()));
        check(&certificate, &path("other.pem", &other), Err("other.pem cannot be used"));
        check(&certificate, &folder.join("none.pem"), Err("--tls-key"));
        check(&path("empty.pem", ""), &key, Err("no certificate"));
        check(&key, &certificate, Err("--tls-cert"));
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
