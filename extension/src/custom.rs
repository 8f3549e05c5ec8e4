//! The application's own functions, immutable: custom merge rules, `(state jsonb, event jsonb) → jsonb`, and custom steps
//! of upcasts, `(payload jsonb) → jsonb`.
//!
//! They are never run with the rights of the extension's owner: ingest runs them as the role that applies events,
//! `materialize` as whoever calls it. And they leave nothing behind that could run later as somebody else.

use headwater_model::event::StoredEvent;
use headwater_model::fold::State;
use headwater_model::upcast::{Shape, Upcasts};
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
    let event = json!({
        "id": event.id,
        "name": event.name,
        "timestamp": event.occurred_at.to_string(),
        "payload": event.payload,
    });
    match call(runner, &format!("select {function}($1, $2)"), &[Value::Object(state.clone()), event]) {
        None | Some(Value::Null) => None,
        Some(merged) => Some(object(merged).unwrap_or_else(|| state.clone())),
    }
}

/// A payload or a state in its present form. What a custom step makes of it, if it is no object, leaves it as it is.
pub(crate) fn lift(upcasts: &Upcasts, shape: Shape<'_>, from: i32, members: State, runner: Runner<'_>) -> State {
    let mut custom = |function: &str, members: State| {
        let lifted = call(runner, &format!("select {function}($1)"), &[Value::Object(members.clone())]);
        lifted.and_then(object).unwrap_or(members)
    };
    upcasts.lift(shape, from, members, &mut custom)
}

/// What a query gives that calls a function of the application. Its name was quoted when it was declared
/// ([`qualified`]).
fn call(runner: Runner<'_>, sql: &str, arguments: &[Value]) -> Option<Value> {
    let _acting = match runner {
        // SAFETY: reads the current role.
        Runner::Current if unsafe { pg_sys::superuser() } => ActingAs::restricted(session::default_role(), None),
        // SAFETY: as above.
        Runner::Current => ActingAs::restricted(unsafe { pg_sys::GetUserId() }, None),
        Runner::Role(role, claims) => ActingAs::restricted(role, claims),
    };
    Spi::connect(|client| {
        let arguments: Vec<_> = arguments.iter().map(|argument| JsonB(argument.clone()).into()).collect();
        let mut rows = read_once(client, sql, &arguments);
        rows.next().and_then(|row| row.get::<JsonB>(1).expect("a jsonb")).map(|json| json.0)
    })
}

/// The quoted name of an immutable function of the application that takes so many jsonb and returns one: two for a merge
/// rule, one for an upcast.
pub(crate) fn qualified(function: &str, arguments: usize) -> Result<String, String> {
    let signature = vec!["jsonb"; arguments].join(", ");
    let found = Spi::connect(|client| {
        let mut rows = read_once(
            client,
            "select format('%I.%I', n.nspname, p.proname), p.provolatile = 'i', p.prorettype = 'jsonb'::regtype
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace
             where p.oid = to_regprocedure($1) and p.prokind = 'f' and not p.proretset",
            &[format!("{function}({signature})").into()],
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
        None => Err(format!("there is no such function ({signature}); name it with its schema")),
        Some((_, _, false)) => Err("the function does not return jsonb".to_owned()),
        Some((_, false, _)) => {
            Err("the function is not immutable: the same events would not always give the same state".to_owned())
        }
        Some((name, true, true)) => Ok(name),
    }
}
