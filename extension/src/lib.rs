//! The Postgres extension `headwater`: every change of a syncable table, and every event that a client sends,
//! becomes one immutable event in the same transaction.
//!
//! * `schema`: the SQL objects, from the folder `sql/`, in the order in which they need each other
//! * `capture`: triggers; changed rows → events
//! * `append`: events straight into the event table; `heap`: how rows get there without a statement
//! * `ingest`: clients' events → the event table and the row
//! * `gather`: the streamer's walsender, which sends what belongs to a transaction together
//! * `emit`, `materialize`, `declare`, `upcast`: the other functions of the SQL surface
//! * `erase`, `retention`: what may change events
//! * `options`: the settings that the extension has
//! * `openapi`: the HTTP API and the entities, for clients to be made of
//! * `head`: where an entity's fold stands, and the fold, read from the event table; `seek`: found in its index without a statement
//! * `custom`: the application's own merge functions; `put_off`: what those whose code runs in ingest may not do
//! * `scan`: rows of users' tables, read without planning a statement
//! * `table`: what there is to know of an enabled table; `render`: its rows as JSON, its keys as text
//! * `jsonb`: JSON as Postgres stores it; `spi`, `settings`, `session`, `clock`, `raise`: what a backend needs to do all that

mod append;
mod capture;
mod clock;
mod custom;
mod declare;
mod emit;
mod erase;
mod gather;
mod head;
mod heap;
mod ingest;
mod jsonb;
mod materialize;
mod openapi;
mod options;
mod put_off;
mod raise;
mod render;
mod retention;
mod scan;
mod schema;
mod seek;
mod session;
mod settings;
mod spi;
mod table;
mod upcast;

#[cfg(any(test, feature = "pg_test"))]
mod tests;

pgrx::pg_module_magic!(name, version);

/// Runs once in every backend that loads the library.
#[allow(non_snake_case)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    table::watch_for_changes();
    put_off::watch();
    options::define();
}

/// What `cargo pgrx test` looks for.
#[cfg(test)]
pub mod pg_test {
    /// Nothing to set up.
    pub fn setup(_options: Vec<&str>) {}

    /// The settings of the test cluster.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["wal_level = logical", "max_prepared_transactions = 8", "fsync = off"]
    }
}
