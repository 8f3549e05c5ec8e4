//! Judges JSON Web Tokens (RFC 7519): signature, audience, issuer and time. `exp` and `aud` are required.

use super::{Identity, Jwks, Keys, Refusal};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, decode, decode_header};
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime};

/// How far the issuer's clock and ours may differ.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// What a token may be signed with.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// How tokens are judged.
#[derive(Debug)]
pub struct Tokens {
    keys: Keys,
    jwks: Option<Jwks>,
    audience: Vec<String>,
    issuer: Option<String>,
}

impl Tokens {
    /// Tokens for one of `audience`, signed with one of the keys; from `issuer`, if one is given.
    pub fn new(keys: Keys, jwks: Option<Jwks>, audience: Vec<String>, issuer: Option<String>) -> Self {
        Self { keys, jwks, audience, issuer }
    }

    /// Whose token this is.
    pub(super) async fn judge(&self, token: &str) -> Result<Identity, Refusal> {
        let header = decode_header(token).map_err(|_| invalid("this is not a token (JWT) that we can read"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(invalid("the token's algorithm must be HS256, RS256, ES256 or EdDSA"));
        }
        // Extensions that must be understood (RFC 7515 4.1.11): we know none.
        if header.crit.is_some() {
            return Err(invalid("the token has critical headers that are not understood"));
        }
        let key = self.key(header.alg, header.kid.as_deref()).await?;
        let decoded: TokenData<Map<String, Value>> =
            decode(token, &key, &self.validation(header.alg)).map_err(|error| refusal(&error))?;
        let expires = decoded.claims.get("exp").and_then(Value::as_f64).and_then(time);
        Identity::of_claims(decoded.claims, expires.ok_or_else(|| invalid("the token's claim `exp` is not a time"))?)
    }

    async fn key(&self, algorithm: Algorithm, id: Option<&str>) -> Result<DecodingKey, Refusal> {
        if let Some(key) = self.keys.find(algorithm, id) {
            return Ok(key.clone());
        }
        if let Some(jwks) = self.jwks.as_ref().filter(|_| algorithm != Algorithm::HS256) {
            if let Some(key) = jwks.keys().await?.find(algorithm, id) {
                return Ok(key.clone());
            }
            if let Some(key) = jwks.newest().await?.find(algorithm, id) {
                return Ok(key.clone());
            }
        }
        Err(invalid("no key is known for the token's algorithm and key id"))
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_audience(&self.audience);
        let mut required = vec!["exp", "aud"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// Seconds since 1970, and the leeway. Nothing expires later than in a century, which is the same as never.
fn time(seconds: f64) -> Option<SystemTime> {
    const LATEST_SECONDS: f64 = 7.0e9;
    let since = Duration::try_from_secs_f64(seconds.min(LATEST_SECONDS)).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since + LEEWAY)
}

fn invalid(reason: &str) -> Refusal {
    Refusal::Invalid(reason.to_owned())
}

/// Says what the holder can mend, and nothing about keys.
fn refusal(error: &Error) -> Refusal {
    match error.kind() {
        ErrorKind::ExpiredSignature => Refusal::Expired,
        ErrorKind::ImmatureSignature => invalid("the token is not valid yet (`nbf`)"),
        ErrorKind::InvalidAudience => invalid("the token is for another audience (`aud`)"),
        ErrorKind::InvalidIssuer => invalid("the token is from another issuer (`iss`)"),
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            Refusal::Invalid(format!("the token lacks a sound claim `{claim}`"))
        }
        ErrorKind::InvalidSignature => invalid("the token's signature is wrong"),
        _ => invalid("this is not a token (JWT) that we can read"),
    }
}
