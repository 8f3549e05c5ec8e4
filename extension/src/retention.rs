//! What may change events, for they are immutable: `headwater.drop_events`, and `headwater.erase`.

use std::cell::Cell;

use pgrx::prelude::*;

use crate::spi::run_once;

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the trigger that keeps events immutable lets a change pass.
#[pg_extern(sql = false)]
fn change_allowed() -> bool {
    ALLOWED.get()
}

/// Lets `work` change events. However it ends, they are immutable afterwards.
pub(crate) fn changing_events<T>(work: impl FnOnce() -> T) -> T {
    struct Forbid;
    impl Drop for Forbid {
        fn drop(&mut self) {
            ALLOWED.set(false);
        }
    }
    let _forbid = Forbid;
    ALLOWED.set(true);
    work()
}

/// An entity's floor is the first snapshot at or behind the last event dropped: what lies beneath it is of no use any
/// more, for nothing leads from there to the present.
const DROP: &str = "
    with dropped as (
      delete from headwater.event e
      where e.position between $1 and $2 and e.recorded_at < $3
        and (not e.applies or exists (
          select from headwater.snapshot s
          where s.entity_type = e.entity_type and s.entity_id = e.entity_id and s.tenant_id is not distinct from e.tenant_id
            and (s.occurred_at, s.id) >= (e.occurred_at, e.id)))
      returning e.entity_type, e.entity_id, e.tenant_id, e.applies, e.occurred_at, e.id, e.position
    ), highest as (
      update headwater.meta m set dropped_position = greatest(m.dropped_position, (select max(position) from dropped))
      where exists (select from dropped)
    ), last as (
      select distinct on (entity_type, entity_id, tenant_id) * from dropped where applies
      order by entity_type, entity_id, tenant_id, occurred_at desc, id desc
    ), floor as (
      select f.* from last l cross join lateral (
        select s.entity_type, s.entity_id, s.tenant_id, s.occurred_at, s.id from headwater.snapshot s
        where s.entity_type = l.entity_type and s.entity_id = l.entity_id and s.tenant_id is not distinct from l.tenant_id
          and (s.occurred_at, s.id) >= (l.occurred_at, l.id)
        order by s.occurred_at, s.id limit 1
      ) f
    ), beneath as (
      delete from headwater.snapshot s using floor f
      where s.entity_type = f.entity_type and s.entity_id = f.entity_id and s.tenant_id is not distinct from f.tenant_id
        and (s.id is null or (s.occurred_at, s.id) < (f.occurred_at, f.id))
    ), marked as (
      update headwater.snapshot s set is_floor = true from floor f
      where s.entity_type = f.entity_type and s.entity_id = f.entity_id and s.tenant_id is not distinct from f.tenant_id
        and s.id = f.id
    )
    select count(*) from dropped";

#[pg_extern(sql = false)]
fn drop_events(first_position: i64, last_position: i64, recorded_before: TimestampWithTimeZone) -> i64 {
    Spi::connect_mut(|client| {
        run_once(client, "select headwater.require_horizon(now() - $1)", &[recorded_before.into()]);
        let arguments = [first_position.into(), last_position.into(), recorded_before.into()];
        changing_events(|| run_once(client, DROP, &arguments).first().get_one()).expect("a count").unwrap_or(0)
    })
}
