//! Keys that judge tokens, each bound to one algorithm: what a token's header says never chooses how a key is used.

use crate::error::Error;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// More keys than any issuer has in use at once.
const MAX_KEYS: usize = 100;

/// RFC 7518 3.2: a key for HS256 has at least as many bits as the hash.
const LEAST_SECRET_BYTES: usize = 32;

/// A set of keys.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl Keys {
    /// HS256 with a shared secret.
    pub fn of_secret(secret: &str) -> Self {
        if secret.len() < LEAST_SECRET_BYTES {
            tracing::warn!(
                "HEADWATER_JWT_SECRET has less than {LEAST_SECRET_BYTES} bytes and could be guessed: openssl rand -base64 48 makes a better one"
            );
        }
        Self(vec![Key { id: None, algorithm: Algorithm::HS256, decoding: DecodingKey::from_secret(secret.as_bytes()) }])
    }

    /// RS256, ES256 or `EdDSA`, whichever the PEM text is a public key of.
    pub fn of_public_key(pem: &str) -> Result<Self, Error> {
        let pem = pem.as_bytes();
        let read = (DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)))
            .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
            .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)));
        let (algorithm, key) = read.map_err(|_| {
            Error::setup(
                "HEADWATER_JWT_PUBLIC_KEY is not a public key in PEM form",
                "give the text or the path of a file that begins with -----BEGIN PUBLIC KEY----- (RSA, P-256 or Ed25519)",
            )
        })?;
        Ok(Self(vec![Key { id: None, algorithm, decoding: key }]))
    }

    /// Those of a JSON Web Key Set that are meant for signatures that we know. Symmetric keys are passed over: what
    /// is published is no secret.
    pub(super) fn of_set(set: &Value) -> Option<Self> {
        let keys = set.get("keys")?.as_array()?;
        Some(Self(keys.iter().take(MAX_KEYS).filter_map(Key::of_jwk).collect()))
    }

    /// Adds the keys of another set.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key for a token's header. One that names no key is judged by the only one of its algorithm.
    pub(super) fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Option<&DecodingKey> {
        let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
        let Some(id) = id else {
            let only = fitting.next()?;
            return fitting.next().is_none().then_some(&only.decoding);
        };
        // A key that was configured by hand has no name, and may judge tokens that name theirs.
        fitting.find(|key| key.id.as_deref().is_none_or(|known| known == id)).map(|key| &key.decoding)
    }
}

impl Key {
    fn of_jwk(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return None,
        };
        let meant = match jwk.common.key_algorithm {
            None => algorithm,
            Some(KeyAlgorithm::RS256) => Algorithm::RS256,
            Some(KeyAlgorithm::ES256) => Algorithm::ES256,
            Some(KeyAlgorithm::EdDSA) => Algorithm::EdDSA,
            Some(_) => return None,
        };
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        (meant == algorithm).then(|| Self { id: jwk.common.key_id.clone(), algorithm, decoding })
    }
}
