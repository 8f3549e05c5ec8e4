//! Who is calling: the holder of a token, a trusted backend, or anybody where no authentication is asked for.
//!
//! A tenant is never guessed: a token either names one as text, or has none.

mod jwks;
mod keys;
mod operators;
mod secret;
mod token;

pub use jwks::Jwks;
pub use keys::Keys;
pub use operators::{AdminClaim, Operators};
pub use secret::Secret;
pub use token::{LEEWAY, Tokens};

use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::SystemTime;

/// A longer one is refused unread: nobody's claims need more, and each has to be hashed.
pub const MAX_CREDENTIAL_BYTES: usize = 16 * 1024;

/// Whose rows a caller may reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Everybody's: a trusted backend, or a service without authentication.
    Everything,
    /// One tenant's, and those of tables that tenants share. Without a tenant: the rows that have none.
    Tenant(Option<Arc<str>>),
}

/// Who is calling.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Whose rows it may reach.
    pub reach: Reach,
    /// The user, `sub`.
    pub user: Option<String>,
    /// When it stops being valid; none for a trusted caller.
    pub expires: Option<SystemTime>,
    /// All claims of the token.
    claims: Map<String, Value>,
}

/// Why a caller is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No credentials.
    #[error("send a token: authorization: Bearer …")]
    Missing,
    /// The token was good once.
    #[error("the token has expired: get a new one")]
    Expired,
    /// They are not good.
    #[error("{0}")]
    Invalid(String),
    /// It cannot be told just now.
    #[error("{0}")]
    Unavailable(&'static str),
}

/// Lets callers in, or not.
#[derive(Debug)]
pub enum Guard {
    /// Everybody is trusted (`--insecure`).
    Open,
    /// A token or the administrators' secret is needed.
    Closed {
        /// What a trusted backend presents in place of a token.
        admin: Option<Secret>,
        /// How tokens are judged.
        tokens: Option<Box<Tokens>>,
    },
}

impl Guard {
    /// Whether everybody is trusted.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Who presents `bearer`, the text behind `Bearer ` in the header `authorization`.
    pub async fn identify(&self, bearer: Option<&str>) -> Result<Identity, Refusal> {
        let Self::Closed { admin, tokens } = self else { return Ok(Identity::trusted()) };
        let bearer = bearer.ok_or(Refusal::Missing)?;
        if bearer.len() > MAX_CREDENTIAL_BYTES {
            return Err(Refusal::Invalid(format!("a token has {MAX_CREDENTIAL_BYTES} bytes at most")));
        }
        if admin.as_ref().is_some_and(|admin| admin.is(bearer)) {
            return Ok(Identity::trusted());
        }
        match tokens {
            Some(tokens) => tokens.judge(bearer).await,
            None => Err(Refusal::Invalid("this is not the administrators' secret, and tokens are off".to_owned())),
        }
    }
}

impl Identity {
    /// A caller that may act for every tenant and user.
    pub fn trusted() -> Self {
        Self { reach: Reach::Everything, user: None, expires: None, claims: Map::new() }
    }

    /// From the claims of a token that was found good. `expires` includes the leeway.
    fn of_claims(claims: Map<String, Value>, expires: SystemTime) -> Result<Self, Refusal> {
        let tenant = text(&claims, "tenant_id")?;
        let user = text(&claims, "sub")?;
        text(&claims, "role")?;
        Ok(Self { reach: Reach::Tenant(tenant.map(Into::into)), user, expires: Some(expires), claims })
    }

    /// What `headwater.ingest` gets: the token's claims, and by whose rights rows are written.
    pub fn ingest_claims(&self, apply_role: &str) -> Value {
        let mut claims = self.claims.clone();
        // Last: a token that claims this itself must not get it.
        claims.insert("trusted".to_owned(), json!(self.reach == Reach::Everything));
        if !claims.get("role").is_some_and(Value::is_string) {
            claims.insert("role".to_owned(), json!(apply_role));
        }
        Value::Object(claims)
    }
}

/// A claim that is text or not there. A tenant `7` must neither become `"7"` nor no tenant at all.
fn text(claims: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.contains('\0') => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::Invalid(format!("the token's claim `{name}` must be text"))),
    }
}

#[cfg(test)]
mod tests;
