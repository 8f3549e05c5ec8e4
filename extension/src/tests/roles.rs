//! Promise: which role may do what is decided for every function and table; what is new without a decision fails here.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use std::collections::BTreeMap;

    use pgrx::prelude::*;

    use crate::tests::tests::{failure, orders, rows, run};

    /// Who may call: the first letter of reader, writer, admin and client, and p for PUBLIC. Writers and
    /// admins are readers and clients too.
    const FUNCTIONS: &[(&str, &str)] = &[
        ("apply_retention", "a"),
        ("as_field", ""),
        ("attach_capture", ""),
        ("attach_member", ""),
        ("backfill", "a"),
        ("backfill_batch", "a"),
        ("begin_backfill", "a"),
        ("caller", "rwa"),
        ("capture", ""),
        ("change_allowed", ""),
        ("check", "rwa"),
        ("check_definitions", "rwa"),
        ("check_rows", "rwa"),
        ("check_sequences", "rwa"),
        ("check_snapshots", "rwa"),
        ("chunks", ""),
        ("columns_of", ""),
        ("compact", "a"),
        ("compact_range", "a"),
        ("differences", ""),
        ("digest_of_events", "rwa"),
        ("digest_of_snapshot", "rwa"),
        ("disable", "a"),
        ("disable_all", "a"),
        ("discard_rejected", "a"),
        ("drop_events", "a"),
        ("drop_receipts", "a"),
        ("emit", "wa"),
        ("enable", "a"),
        ("enable_table", ""),
        ("end_backfill", "a"),
        ("ensure_publications", "w"),
        ("erase", "a"),
        ("event_writers", "a"),
        ("find_row", ""),
        ("fold_to", ""),
        ("follow", ""),
        ("follow_columns", ""),
        ("follow_ddl", ""),
        ("follow_drop", ""),
        ("follow_partitions", ""),
        ("follow_types", ""),
        ("following", ""),
        ("gather_changes", "w"),
        ("grant_client", ""),
        ("greatest_key", ""),
        ("history", "rwa"),
        ("ingest", "w"),
        ("invalidate", ""),
        ("is_captured", "rwa"),
        ("key_of", ""),
        ("leaves", ""),
        ("lift", "rwa"),
        ("lock_briefly", ""),
        ("lock_snapshots", ""),
        ("materialize", "rwa"),
        ("members", "rwa"),
        ("min_horizon", "a"),
        ("open_states", "w"),
        ("openapi", "rwa"),
        ("parse_rules", ""),
        ("place_of", ""),
        ("publish", "a"),
        ("raise_horizon", "a"),
        ("reconcile", "a"),
        ("record_differences", ""),
        ("record_entities", ""),
        ("record_rows", ""),
        ("refuse_change", ""),
        ("release", ""),
        ("remember", ""),
        ("rename_fields", ""),
        ("replace_meta", ""),
        ("require_capturable", ""),
        ("require_horizon", "a"),
        ("require_owner", ""),
        ("require_read_committed", ""),
        ("retry_rejected", "a"),
        ("rows", ""),
        ("set_identity", ""),
        ("set_trigger_modes", ""),
        ("settable_columns", ""),
        ("singular", "rwa"),
        ("state_within", ""),
        ("syncable_tables", "rwa"),
        ("tell_streamer", ""),
        ("to_json", ""),
        ("type_schema", ""),
        ("upcast", "a"),
        ("uuid_v7", ""),
        ("why_not_capturable", ""),
        ("write_baselines", ""),
    ];

    /// Who may read; nobody writes but through functions.
    const RELATIONS: &[(&str, &str)] = &[
        ("backfill_progress", "rwa"),
        ("entity", "rwa"),
        ("erased", "rwa"),
        ("event", "rwa"),
        ("event_position_seq", "rwa"),
        ("member", ""),
        ("meta", "rwa"),
        ("past_entity", "rwa"),
        ("receipt", ""),
        ("rejected_event", "a"),
        ("snapshot", "rwa"),
    ];

    fn decided(decisions: &[(&str, &str)]) -> BTreeMap<String, String> {
        decisions.iter().map(|(name, who)| ((*name).to_owned(), (*who).to_owned())).collect()
    }

    /// `name` and `who` of each row that the query gives.
    fn found(sql: &str) -> BTreeMap<String, String> {
        let rows = rows(sql);
        let text = |row: &serde_json::Value, name: &str| row[name].as_str().expect("a text").to_owned();
        rows.as_array().expect("rows").iter().map(|row| (text(row, "name"), text(row, "who"))).collect()
    }

    const WHO: &str = "(values (1, 'r', 'headwater_reader'), (2, 'w', 'headwater_writer'), (3, 'a', 'headwater_admin'),
                               (4, 'c', 'headwater_client'), (5, 'p', 'nobody_in_particular')) r (place, letter, role)";

    #[pg_test]
    fn who_may_do_what_is_decided_for_everything() {
        run("create role nobody_in_particular");
        let functions = found(&format!(
            "select p.proname as name, coalesce(string_agg(r.letter, '' order by r.place) filter
                      (where has_schema_privilege(r.role, 'headwater', 'usage') and has_function_privilege(r.role, p.oid, 'execute')), '') as who
             from pg_proc p cross join {WHO} where p.pronamespace = 'headwater'::regnamespace group by 1"
        ));
        assert_eq!(functions, decided(FUNCTIONS), "a function without a decision, or another than decided");
        let relations = |privilege: &str| {
            found(&format!(
                "select c.relname as name, coalesce(string_agg(r.letter, '' order by r.place) filter
                          (where has_schema_privilege(r.role, 'headwater', 'usage') and has_table_privilege(r.role, c.oid, '{privilege}')), '') as who
                 from pg_class c cross join {WHO}
                 where c.relnamespace = 'headwater'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') group by 1"
            ))
        };
        assert_eq!(relations("select"), decided(RELATIONS), "a table without a decision, or another than decided");
        for privilege in ["insert", "update", "delete", "truncate", "references", "trigger"] {
            for (name, who) in relations(privilege) {
                assert_eq!(who, "", "{privilege} on {name}");
            }
        }
    }

    /// What a role may call it can use: nothing beneath is closed to it.
    #[pg_test]
    fn what_a_role_may_call_works_for_it() {
        orders();
        run("insert into orders (tenant_id) values ('a'); create role owner_of_mine; grant create on schema public to owner_of_mine;
             grant headwater_admin to owner_of_mine");
        for role in ["headwater_reader", "headwater_writer", "headwater_admin"] {
            run(&format!("set local role {role}"));
            run("select * from headwater.check(); select * from headwater.syncable_tables(); select headwater.singular('orders'), headwater.caller();
                 select * from headwater.event e, headwater.history('order', e.entity_id); select headwater.materialize('order', entity_id) from headwater.event;
                 select headwater.members(relation), headwater.is_captured(relation) from headwater.entity; select * from headwater.snapshot, headwater.meta");
        }
        run(
            "set local role headwater_writer; select headwater.ensure_publications(); select headwater.ingest('[]', '{}')",
        );
        run("set local role owner_of_mine; create table mine (id int primary key, n int); select headwater.enable('mine'), headwater.publish('mine');
             insert into mine values (1, 1); select headwater.reconcile('mine'), headwater.emit('mine.noted', '1'); select headwater.disable('mine')");
        for theirs in ["enable", "disable", "publish", "reconcile"] {
            let (code, message, _) = failure(&format!("select headwater.{theirs}('orders')"));
            assert!(code == "42501" && message.contains("must be owner"), "{theirs}: {code} {message}");
        }
    }
}
