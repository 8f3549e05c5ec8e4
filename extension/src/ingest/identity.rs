//! Who sends: the claims of the token, or what the events say themselves if a trusted backend vouches for them.

use headwater_model::event::{Code, NewEvent, Reject};
use pgrx::pg_sys::Oid;
use serde_json::Value;

use crate::session;

/// The caller of ingest.
pub(super) struct Identity {
    /// `sub`
    pub(super) user: Option<String>,
    tenant: Option<String>,
    trusted: bool,
    /// The role under which rows are written.
    pub(super) role: Oid,
    /// The claims as JSON text, for the application's own policies.
    pub(super) claims: String,
}

impl Identity {
    /// Reads `{"sub", "tenant_id", "role", "trusted"}`. Raises an error if the caller may not act as the role.
    pub(super) fn of(claims: &Value) -> Self {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let role = text("role");
        Self {
            user: text("sub"),
            tenant: text("tenant_id"),
            trusted: claims.get("trusted").and_then(Value::as_bool).unwrap_or(false),
            role: session::role_open_to_caller(role.as_deref().unwrap_or(session::DEFAULT_ROLE)),
            claims: claims.to_string(),
        }
    }

    /// Fills in whose the event is; what it claims itself must be the same.
    pub(super) fn claim(&self, event: &mut NewEvent) -> Result<(), Reject> {
        if self.trusted {
            event.tenant_id = event.tenant_id.take().or_else(|| self.tenant.clone());
            event.user_id = event.user_id.take().or_else(|| self.user.clone());
            return Ok(());
        }
        for (name, claimed, actual) in
            [("tenant_id", &mut event.tenant_id, &self.tenant), ("user_id", &mut event.user_id, &self.user)]
        {
            if claimed.is_some() && claimed != actual {
                return Err(Reject::new(Code::Forbidden, format!("{name} is not the token's; leave it out")));
            }
            claimed.clone_from(actual);
        }
        Ok(())
    }
}
