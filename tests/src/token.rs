//! Tokens as an issuer makes them: HS256 with a secret of the tests.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// Shared with the streamer.
pub const SECRET: &str = "a secret that only the tests know, long enough";
/// Whom the tokens are for.
pub const AUDIENCE: &str = "headwater-tests";
/// What a trusted backend presents.
pub const ADMIN: &str = "the administrators' secret of the tests";

/// What makes a streamer ask for such tokens.
pub const ARGUMENTS: [&str; 6] = ["--jwt-secret", SECRET, "--jwt-audience", AUDIENCE, "--admin-secret", ADMIN];

/// A token with these claims besides `aud` and, unless it is among them, `exp` in an hour.
pub fn sign(claims: &Value) -> String {
    let mut all = json!({"aud": AUDIENCE, "exp": in_seconds(3600)});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    encode(&Header::new(Algorithm::HS256), &all, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// A token of a tenant's user, or of one without tenant.
pub fn of(tenant: Option<&str>, user: &str) -> String {
    sign(&json!({"sub": user, "tenant_id": tenant}))
}

/// Seconds since 1970, so many from now.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}
