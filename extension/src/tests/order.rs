//! Promise: whatever triggers and functions do to a statement's own rows, the fold of a row's events is the row.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;
    use serde_json::json;

    use crate::tests::tests::{one, rows, run};

    /// Rows of `table`, or folds of its entities, that have no equal on the other side.
    fn assert_folds(table: &str, key: &str) {
        let sql = format!(
            "select coalesce(t.id, e.entity_id) as id, t.state as row, headwater.state_within('{table}', coalesce(t.id, e.entity_id), null) as fold
             from (select {key}::text as id, to_jsonb({table}) as state from {table}) t
             full join (select distinct entity_id from headwater.event where entity_type = '{table}') e on e.entity_id = t.id
             where t.state is distinct from headwater.state_within('{table}', coalesce(t.id, e.entity_id), null)"
        );
        assert_eq!(rows(&sql), json!([]), "{table}");
    }

    fn events(table: &str) -> i64 {
        one(&format!("select count(*) from headwater.event where entity_type = '{table}'")).expect("a count")
    }

    #[pg_test]
    fn a_trigger_before_the_row_that_deletes_what_the_insert_replaces() {
        for when in ["before insert on st for each row", "before insert on st for each statement"] {
            run(
                "create table st (id int primary key, v int); select headwater.enable('st', 'st'); insert into st values (1, 1)",
            );
            run(&format!(
                "create or replace function st_del() returns trigger language plpgsql as $$ begin delete from st where id = 1; return new; end $$;
                 create trigger zz {when} execute function st_del(); insert into st values (1, 2)"
            ));
            assert_folds("st", "id");
            assert_eq!(
                one::<String>("select headwater.materialize('st', '1')::text").as_deref(),
                Some(r#"{"v": 2, "id": 1}"#)
            );
            run("drop table st");
        }
    }

    #[pg_test]
    fn triggers_that_write_the_row_again_before_and_behind() {
        run("create table tw (id int primary key, v int, n int default 0); select headwater.enable('tw', 'tw'); insert into tw values (1, 0), (2, 0), (3, 0);
             create function tw_before() returns trigger language plpgsql as $$ begin
               if pg_trigger_depth() = 1 and new.v = 7 then update tw set n = 70 where id = 1; end if; return null; end $$;
             create function tw_after() returns trigger language plpgsql as $$ begin
               if pg_trigger_depth() < 3 and new.v < 5 then update tw set v = new.v + 1 where id = new.id; end if; return null; end $$;
             create trigger tw_after after update on tw for each row execute function tw_after();
             update tw set v = 1; update tw set v = 3 where id > 1");
        assert_folds("tw", "id");
        // One event for each change: the order showed without another look.
        assert_eq!(events("tw"), 3 + 9 + 6);
    }

    #[pg_test]
    fn an_action_of_a_foreign_key_whose_rows_a_trigger_writes_again() {
        run("create table par (id int primary key, v int); create table chi (id int primary key, p int references par on delete set null on update cascade, v int default 0);
             select headwater.enable('chi', 'chi'); insert into par values (0), (1), (2); insert into chi values (1, 1), (2, 2);
             create function chi_t() returns trigger language plpgsql as $$ begin
               if new.p is null then update chi set p = 0 where id = new.id; end if; return null; end $$;
             create trigger chi_t after update on chi for each row execute function chi_t();
             delete from par where id = 1");
        assert_folds("chi", "id");
        // What a cascade leaves open is not there for a later statement of the transaction.
        run("create function par_t() returns trigger language plpgsql as $$ begin update chi set v = new.v where id = 2; return null; end $$;
             create trigger par_t after update on par for each row execute function par_t();
             update par set id = 3 where id = 2; update par set v = 100 where id = 3;
             create function chi_again() returns trigger language plpgsql as $$ begin
               if new.v = 101 then update chi set v = 7 where id = new.id; end if; return null; end $$;
             create trigger chi_again after update on chi for each row execute function chi_again();
             update par set v = 101 where id = 3");
        assert_folds("chi", "id");
        assert_eq!(one::<i32>("select v from chi where id = 2"), Some(7));
    }

    #[pg_test]
    fn a_function_in_the_statement_that_writes_its_table() {
        run("create table fd (id int primary key, v int); select headwater.enable('fd', 'fd'); insert into fd values (1, 0), (2, 0);
             create function fdf(i int) returns int language plpgsql volatile as $$ begin
               if i = 2 then update fd set v = 100 where id = 1; end if; return i * 10; end $$;
             update fd set v = fdf(id) where id in (1, 2)");
        assert_folds("fd", "id");
        // Both kinds of changes of one statement stand as they are.
        let before = events("fd");
        run("insert into fd values (1, 5), (9, 5) on conflict (id) do update set v = excluded.v");
        assert_eq!(events("fd") - before, 2);
        assert_folds("fd", "id");
    }

    #[pg_test]
    fn a_row_that_leaves_its_partition_and_is_swallowed() {
        run("create table pt (id int primary key, v text) partition by range (id);
             create table pt1 partition of pt for values from (0) to (100); create table pt2 partition of pt for values from (100) to (200);
             select headwater.enable('pt', 'pt');
             create function swallow() returns trigger language plpgsql as $$ begin return case when new.id <> 105 then null else new end; end $$;
             create trigger swallow before insert on pt2 for each row execute function swallow();
             insert into pt values (2, 'x'), (3, 'y'), (5, 'z'), (50, 'k'); update pt set id = id + 100 where id in (2, 3, 5)");
        assert_folds("pt", "id");
        run("update pt set id = case when id = 50 then 50 else id + 60 end, v = 'new' where id in (50, 105)");
        assert_folds("pt", "id");
    }

    #[pg_test]
    fn a_partitioned_table_is_captured_once_under_any_replication_role() {
        run("create table pr (id int primary key, v text) partition by range (id);
             create table pr1 partition of pr for values from (0) to (100); select headwater.enable('pr', 'pr');
             set session_replication_role = replica; insert into pr values (1, 'a'); update pr set v = 'b' where id = 1; delete from pr;
             set session_replication_role = origin");
        assert_eq!(events("pr"), 3);
    }

    #[pg_test]
    fn a_column_that_went_does_not_come_back_with_its_values() {
        run("create table dc (id int primary key, a int, dead int); select headwater.enable('dc', 'dc'); insert into dc values (1, 1, 5);
             alter table dc drop column dead");
        assert_folds("dc", "id");
        run("alter table dc add column dead bool");
        assert_eq!(one::<String>("select (headwater.materialize('dc', '1') -> 'dead')::text"), None);
        run("alter table dc add column n int generated always as identity");
        assert_eq!(one::<String>("select headwater.materialize('dc', '1') ->> 'n'").as_deref(), Some("1"));
    }
}
