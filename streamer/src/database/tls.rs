//! TLS to Postgres, for the pool and for the replication connection: one set of rules, `sslmode`'s.
//!
//! `prefer` and `require` encrypt and believe any certificate, as libpq does: they protect from those who listen, not
//! from those who answer in the server's place. `verify-ca` wants a certificate from a trusted authority, `verify-full`
//! one for the host's name too.

use crate::error::Error;
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature as verify_tls12, verify_tls13_signature as verify_tls13,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

/// What `sslmode` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it.
    Prefer,
    /// TLS, whoever answers.
    Require,
    /// TLS, with a certificate from a trusted authority.
    VerifyCa,
    /// TLS, with a certificate from a trusted authority for this host.
    VerifyFull,
}

/// Which authorities are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Those that the system trusts.
    System,
    /// Those in this PEM file.
    File(PathBuf),
}

impl Roots {
    /// `sslrootcert`: a path, or `system`.
    pub fn named(text: &str) -> Self {
        if text == "system" { Self::System } else { Self::File(text.into()) }
    }
}

/// How connections are secured. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    mode: Mode,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.mode).finish()
    }
}

impl Tls {
    /// Reads the trusted certificates if they are needed.
    pub fn new(mode: Mode, roots: &Roots) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match mode {
            Mode::Disable | Mode::Prefer | Mode::Require => Arc::new(Anybody(Arc::clone(&provider))),
            Mode::VerifyCa => Arc::new(AnyName(verifier(roots, &provider)?)),
            Mode::VerifyFull => verifier(roots, &provider)?,
        };
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Protocol(error.to_string()))?
            .dangerous() // which it is only in the modes that ask for it
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self { mode, client: Arc::new(client) })
    }

    /// What was asked for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The handshake, on a connection whose server has agreed to TLS.
    pub async fn secure<S>(&self, stream: S, host: &str) -> io::Result<Secured<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{host}` is no host name")))?;
        TlsConnector::from(Arc::clone(&self.client)).connect(name, stream).await.map(Secured)
    }
}

/// Why a handshake failed, where it is the set-up's fault and not the network's.
pub fn explain_handshake(error: &io::Error, host: &str) -> Option<Error> {
    let inner = error.get_ref()?.downcast_ref::<TlsError>()?;
    let TlsError::InvalidCertificate(reason) = inner else { return None };
    let remedy = match reason {
        // The second: an authority of the same name, with another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "name the authority that issued it: sslrootcert=/path/to/ca.pem in the database URL".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "connect by a name that the certificate has, or have `{host}` put into it (subjectAltName); \
             sslmode=verify-ca does without the name"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the server's certificate, and check the clock of this machine".to_owned()
        }
        _ => "look into the server's ssl_cert_file".to_owned(),
    };
    Some(Error::setup(format!("the certificate of Postgres at {host} is not to be trusted: {reason}"), remedy))
}

fn verifier(roots: &Roots, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let trusted = Arc::new(load(roots)?);
    WebPkiServerVerifier::builder_with_provider(trusted, Arc::clone(provider))
        .build()
        .map_err(|error| Error::Protocol(error.to_string()))
}

fn load(roots: &Roots) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            // Some of the system's certificates may be unreadable; the others do.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(Error::setup(
                    "this system has no trusted certificates to check that of Postgres against",
                    "install them (apt-get install ca-certificates), or name a file: sslrootcert=/path/to/ca.pem",
                ));
            }
        }
        Roots::File(path) => {
            let wrong = |reason: &dyn fmt::Display| {
                Error::setup(
                    format!("the trusted certificates in {} cannot be read: {reason}", path.display()),
                    "sslrootcert (or --database-ca-file) names a PEM file that we may read",
                )
            };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                store.add(certificate).map_err(|error| wrong(&error))?;
            }
            if store.is_empty() {
                return Err(wrong(&"there is none"));
            }
        }
    }
    Ok(store)
}

/// Takes any certificate; the handshake still shows that the server has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes any name, if the authority is trusted.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        // The name is looked at last, when the rest is known to be good.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A secured connection.
#[derive(Debug)]
pub struct Secured<S>(tokio_rustls::client::TlsStream<S>);

impl<S> Secured<S> {
    /// What SCRAM binds itself to, so that nobody can stand in the middle (RFC 5929, `tls-server-end-point`). None for
    /// certificates whose signature has no hash of its own (Ed25519), for which the RFC defines nothing.
    pub fn end_point(&self) -> Option<Vec<u8>> {
        let certificates = self.0.get_ref().1.peer_certificates()?;
        certificates.first().and_then(|certificate| end_point(certificate))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Secured<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// One connection to be made: see [`MakeTlsConnect`].
#[derive(Clone, Debug)]
pub struct Connect {
    tls: Tls,
    host: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Secured<S>;
    type TlsConnect = Connect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Connect> {
        Ok(Connect { tls: self.clone(), host: host.to_owned() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connect {
    type Stream = Secured<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.tls.secure(stream, &self.host).await })
    }
}

/// RFC 5929, 4.1: the certificate's hash, by the hash of its own signature, but not by one weaker than SHA-256.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    // Object identifiers in DER (RFC 4055, 5758).
    match signature_algorithm(certificate)? {
        // MD5 and SHA-1 with RSA, SHA-1 with ECDSA; SHA-256 with either.
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04"
        | b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05"
        | b"\x2a\x86\x48\xce\x3d\x04\x01"
        | b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"
        | b"\x2a\x86\x48\xce\x3d\x04\x03\x02" => Some(Sha256::digest(certificate).to_vec()),
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c" | b"\x2a\x86\x48\xce\x3d\x04\x03\x03" => {
            Some(Sha384::digest(certificate).to_vec())
        }
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d" | b"\x2a\x86\x48\xce\x3d\x04\x03\x04" => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }`
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (certificate, _) = der(certificate, SEQUENCE)?;
    let (_, after_tbs) = der(certificate, SEQUENCE)?;
    let (algorithm, _) = der(after_tbs, SEQUENCE)?;
    der(algorithm, OBJECT_IDENTIFIER).map(|(identifier, _)| identifier)
}

/// One element of this tag: its contents, and what follows it (X.690, 8.1).
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        let length = digits.iter().try_fold(0_usize, |sum, digit| sum.checked_mul(256)?.checked_add((*digit).into()));
        (length?, rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    #[test]
    fn scram_binds_to_the_hash_of_the_certificates_own_signature() {
        let check = |algorithm, length: Option<usize>| {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let certificate = CertificateParams::new(["db.example".to_owned()]).and_then(|it| it.self_signed(&key));
            let der = certificate.expect("a certificate").der().to_vec();
            assert_eq!(end_point(&der).map(|hash| hash.len()), length);
            for cut in 0..der.len().min(64) {
                assert_eq!(end_point(&der[..cut]), None);
            }
        };
        check(&PKCS_ECDSA_P256_SHA256, Some(32));
        check(&PKCS_ECDSA_P384_SHA384, Some(48));
        check(&PKCS_ED25519, None);
    }
}
