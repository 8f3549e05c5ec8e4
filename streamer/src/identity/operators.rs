//! Who may see everything that the console shows: whoever presents the administrators' secret, or a token with the claim
//! that was agreed upon.
//!
//! No claim counts unless it was named: an issuer whose users choose their claims must not open the console by accident.

use super::{Guard, Refusal, Secret};
use serde_json::{Map, Value};
use std::str::FromStr;

/// A claim that makes an operator of a token's holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminClaim {
    name: String,
    /// The text that it must be, or that must be among its members; none: it must be `true`.
    value: Option<String>,
}

/// Who operates this service.
#[derive(Debug, Default)]
pub struct Operators {
    secret: Option<Secret>,
    claim: Option<AdminClaim>,
}

impl FromStr for AdminClaim {
    type Err = String;

    /// `name`, or `name=value`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || value == Some("") {
            return Err("a claim's name, as headwater_admin, or name=value, as role=operator".to_owned());
        }
        Ok(Self { name: name.to_owned(), value: value.map(str::to_owned) })
    }
}

impl AdminClaim {
    /// Whether these claims have it.
    fn is_in(&self, claims: &Map<String, Value>) -> bool {
        match (claims.get(&self.name), &self.value) {
            (Some(Value::Bool(is)), None) => *is,
            (Some(Value::String(text)), Some(wanted)) => text == wanted,
            (Some(Value::Array(list)), Some(wanted)) => list.iter().any(|one| one.as_str() == Some(wanted)),
            _ => false,
        }
    }
}

impl Operators {
    /// Those who know the secret, and those whose tokens have the claim.
    pub fn new(secret: Option<Secret>, claim: Option<AdminClaim>) -> Self {
        Self { secret, claim }
    }

    /// Whether there can be any.
    pub fn may_exist(&self) -> bool {
        self.secret.is_some() || self.claim.is_some()
    }

    /// Whether `bearer` is an operator's. An error where it is nobody's. Without authentication of the API (`--insecure`) too, only the
    /// secret opens this door.
    pub async fn admit(&self, guard: &Guard, bearer: Option<&str>) -> Result<bool, Refusal> {
        let bearer = bearer.ok_or(Refusal::Missing)?;
        if self.secret.as_ref().is_some_and(|secret| secret.is(bearer)) {
            return Ok(true);
        }
        if guard.is_open() {
            return Err(Refusal::Invalid("this is not the administrators' secret".to_owned()));
        }
        let caller = guard.identify(Some(bearer)).await?;
        Ok(self.claim.as_ref().is_some_and(|claim| claim.is_in(&caller.claims)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_claim_that_was_named_makes_an_operator() {
        let check = |claim: &str, claims: Value, expected: bool| {
            let claim: AdminClaim = claim.parse().expect("a claim");
            assert_eq!(claim.is_in(claims.as_object().expect("claims")), expected, "{claim:?} {claims}");
        };
        check("admin", json!({"admin": true}), true);
        for wrong in [json!(false), json!("true"), json!(1), json!(null), json!([true]), json!({"admin": true})] {
            check("admin", json!({"admin": wrong}), false);
        }
        check("admin", json!({"Admin": true}), false);
        check("role=operator", json!({"role": "operator"}), true);
        check("role=operator", json!({"role": ["staff", "operator"]}), true);
        check("role=operator", json!({"role": "operators"}), false);
        check("role=operator", json!({"role": true}), false);
        check("role=a=b", json!({"role": "a=b"}), true);
        for wrong in ["", "=", "role=", "=operator"] {
            assert!(wrong.parse::<AdminClaim>().is_err(), "{wrong}");
        }
    }
}
