//! Custom rules: the application's own merge functions, `(state jsonb, event jsonb) → jsonb`, immutable.
//!
//! They are never run with the rights of the extension's owner: ingest runs them as the role that applies events,
//! `materialize` as whoever calls it.

use headwater_model::event::StoredEvent;
use headwater_model::fold::State;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use serde_json::{Value, json};

use crate::head::object;
use crate::jsonb::JsonB;
use crate::session::{self, ActingAs};
use crate::spi::read_once;

/// As whom custom functions are called.
#[derive(Clone, Copy)]
pub(crate) enum Runner<'a> {
    /// The current role; `headwater_client` in its place if that is a superuser.
    Current,
    /// The role that applies events, for the token with these claims.
    Role(Oid, Option<&'a str>),
}

/// The state that `function` makes. Null ends the entity; what is no object leaves it as it is.
pub(crate) fn merge(runner: Runner<'_>, function: &str, state: &State, event: &StoredEvent) -> Option<State> {
    let _acting = match runner {
        // SAFETY: reads the current role.
        Runner::Current if unsafe { pg_sys::superuser() } => {
            Some(ActingAs::role(session::role_open_to_caller(session::DEFAULT_ROLE), None))
        }
        Runner::Current => None,
        Runner::Role(role, claims) => Some(ActingAs::role(role, claims)),
    };
    let event = json!({
        "id": event.id,
        "name": event.name,
        "timestamp": event.occurred_at.to_string(),
        "payload": event.payload,
    });
    let merged = Spi::connect(|client| {
        // The name was quoted when the rule was declared (`qualified`).
        let arguments = [JsonB(Value::Object(state.clone())).into(), JsonB(event).into()];
        let mut rows = read_once(client, &format!("select {function}($1, $2)"), &arguments);
        rows.next().and_then(|row| row.get::<JsonB>(1).expect("a jsonb"))
    });
    match merged.map(|merged| merged.0) {
        None | Some(Value::Null) => None,
        Some(merged) => Some(object(merged).unwrap_or_else(|| state.clone())),
    }
}

/// The quoted name of a function that can be a rule: of that signature, and immutable.
pub(crate) fn qualified(function: &str) -> Result<String, &'static str> {
    let found = Spi::connect(|client| {
        let mut rows = read_once(
            client,
            "select format('%I.%I', n.nspname, p.proname), p.provolatile = 'i', p.prorettype = 'jsonb'::regtype
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace
             where p.oid = to_regprocedure($1 || '(jsonb, jsonb)') and p.prokind = 'f' and not p.proretset",
            &[function.into()],
        );
        let get = "the catalog's columns are not null";
        rows.next().map(|row| {
            let name: String = row.get(1).expect(get).expect(get);
            let immutable: bool = row.get(2).expect(get).expect(get);
            let returns_jsonb: bool = row.get(3).expect(get).expect(get);
            (name, immutable, returns_jsonb)
        })
    });
    match found {
        None => Err("there is no such function (jsonb, jsonb); name it with its schema"),
        Some((_, _, false)) => Err("the function does not return jsonb"),
        Some((_, false, _)) => {
            Err("the function is not immutable: the same events would not always give the same state")
        }
        Some((name, true, true)) => Ok(name),
    }
}
