//! Receipts: an event sent again gets its first answer, also when both copies arrive at the same time.

use std::collections::{HashMap, HashSet};

use headwater_model::event::{Code, NewEvent, Reject};
use pgrx::prelude::*;
use pgrx::{FromDatum, Uuid, pg_sys};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Arrived;
use super::outcome::{Judged, Rejection, UNIQUE_VIOLATION};
use crate::clock::pg_uuid;
use crate::heap::{BATCH_ROWS, Rows, copied, optional, varlena};
use crate::jsonb::JsonB;
use crate::spi::{self, SetStatement, for_each_row, run_once};

/// Tells an event from another of the same id or idempotency key: SHA-256 of what it says, its id left out.
pub(super) fn digest(event: &NewEvent) -> Vec<u8> {
    let content = (
        &event.event_type,
        &event.entity_type,
        &event.entity_id,
        &event.payload,
        event.timestamp.0,
        event.schema_version,
        &event.tenant_id,
        &event.user_id,
    );
    Sha256::digest(serde_json::to_vec(&content).expect("texts and JSON values")).to_vec()
}

/// Columns of `headwater.receipt`.
const COLUMNS: usize = 9;

/// The table `headwater.receipt`.
pub(super) struct Receipts;

/// What [`Receipts::reserve`] sorts a batch into.
pub(super) struct Reserved {
    /// Judged before, or at odds with what was.
    pub(super) judged: Vec<Judged>,
    /// To be judged now.
    pub(super) new: Vec<Arrived>,
    /// Retries of one of the others under another id, with that other's id: its verdict is theirs.
    pub(super) twins: Vec<(Arrived, uuid::Uuid)>,
}

/// An earlier verdict.
struct Earlier {
    digest: Vec<u8>,
    rejected: Option<Map<String, Value>>,
}

type ById = HashMap<(Option<String>, uuid::Uuid), Earlier>;
type ByKey = HashMap<(Option<String>, String), Earlier>;

impl Receipts {
    /// Sorts out the events that were judged before. The others get a receipt that says "accepted" until
    /// [`Receipts::settle`] knows better; who sends the same ones meanwhile waits for this transaction.
    pub(super) fn reserve(arrived: Vec<Arrived>) -> Reserved {
        let mut judged = Vec::new();
        let mut new: Vec<Arrived> = Vec::new();
        // A batch that holds an event twice, by its id or by its key: the second is a retry of the first.
        let mut twins = Vec::new();
        let mut first_by_id = HashMap::new();
        let mut first_by_key = HashMap::new();
        for one in arrived {
            let id = (one.event.tenant_id.clone(), one.event.id);
            let key = one.event.idempotency_key.clone().map(|key| (one.event.tenant_id.clone(), key));
            let first = first_by_id.get(&id).or_else(|| first_by_key.get(key.as_ref()?)).copied();
            match first {
                None => {
                    first_by_id.insert(id, new.len());
                    first_by_key.extend(key.map(|key| (key, new.len())));
                    new.push(one);
                }
                Some(first) if new[first].digest != one.digest => judged.push(conflict(&one)),
                // The answer names each id once.
                Some(first) if new[first].event.id == one.event.id => {}
                Some(first) => twins.push((one, new[first].event.id)),
            }
        }

        let reserved: HashSet<_> = insert(&new).into_iter().collect();
        if reserved.len() == new.len() {
            return Reserved { judged, new, twins };
        }
        let (earlier, unjudged): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|one| !reserved.contains(&(one.event.tenant_id.clone(), one.event.id)));
        let (by_id, by_key) = read(&earlier);
        for one in &earlier {
            let tenant = one.event.tenant_id.clone();
            let key = one.event.idempotency_key.clone();
            let found =
                by_id.get(&(tenant.clone(), one.event.id)).or_else(|| key.and_then(|key| by_key.get(&(tenant, key))));
            judged.push(match found {
                Some(earlier) if earlier.digest == one.digest => Judged::as_before(one, earlier.rejected.clone()),
                _ => conflict(one),
            });
        }
        Reserved { judged, new: unjudged, twins }
    }

    /// Of an entity that was erased nothing is kept: whatever an event of it was refused for, it is refused as erased, for a
    /// reason that does not quote it.
    pub(super) fn forget_erased(judged: &mut [Judged]) {
        let refused = judged.iter().enumerate().filter(|(_, judged)| judged.rejected.is_some());
        let refused = refused.filter_map(|(place, judged)| Some((place, &judged.arrived.as_ref()?.event)));
        let (places, entities): (Vec<_>, Vec<_>) =
            refused.map(|(place, event)| (place, (event.entity_type.clone(), event.entity_id.clone()))).unzip();
        if places.is_empty() {
            return;
        }
        let (types, ids): (Vec<_>, Vec<_>) = entities.into_iter().unzip();
        let erased: Vec<i64> = Spi::connect_mut(|client| {
            // Who erases from here on waits, and deletes what is written now.
            let lock = "select headwater.lock_snapshots(t, false) from (select distinct t from unnest($1::text[]) t order by t) t";
            run_once(client, lock, &[types.clone().into()]);
            run_once(
                client,
                "select u.place from unnest($1::text[], $2::text[]) with ordinality u (entity_type, entity_id, place)
                 join headwater.erased x using (entity_type, entity_id)",
                &[types.into(), ids.into()],
            )
            .map(|row| row.get(1).expect("a bigint").expect("places are not null"))
            .collect()
        });
        for place in erased {
            let place = usize::try_from(place - 1).expect("places count from one");
            judged[places[place]].rejected = Some(Rejection::of(super::apply::erased()).to_json());
        }
    }

    /// Writes the rejects into their receipts and among the dead letters, but for those of erased entities.
    pub(super) fn settle(judged: &[Judged], claims: &str) {
        let rejected: Vec<_> =
            judged.iter().filter_map(|judged| judged.rejected.as_ref().zip(judged.arrived.as_ref())).collect();
        if rejected.is_empty() {
            return;
        }
        let text = |answer: &Map<String, Value>, name: &str| {
            answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let ids: Vec<_> = rejected.iter().map(|(_, one)| pg_uuid(one.event.id)).collect();
        let tenants: Vec<_> = rejected.iter().map(|(_, one)| one.event.tenant_id.clone()).collect();
        let codes: Vec<_> = rejected.iter().map(|(answer, _)| text(answer, "code")).collect();
        let reasons: Vec<_> = rejected.iter().map(|(answer, _)| text(answer, "reason")).collect();
        let answers: Vec<_> = rejected.iter().map(|(answer, _)| Value::Object((*answer).clone()).to_string()).collect();
        let events: Vec<_> = rejected.iter().map(|(_, one)| one.to_retry().to_string()).collect();
        Spi::connect_mut(|client| {
            run_once(
                client,
                "update headwater.receipt r
                 set code = u.code, reject = u.reject::jsonb, entity_type = u.entity_type, entity_id = u.entity_id
                 from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
                      u (id, tenant_id, code, reject, entity_type, entity_id)
                 where r.event_id = u.id and r.tenant_id is not distinct from u.tenant_id",
                &[
                    ids.clone().into(),
                    tenants.clone().into(),
                    codes.clone().into(),
                    answers.into(),
                    rejected.iter().map(|(_, one)| one.event.entity_type.clone()).collect::<Vec<_>>().into(),
                    rejected.iter().map(|(_, one)| one.event.entity_id.clone()).collect::<Vec<_>>().into(),
                ],
            );
            // To try it again is of no use, and its payload is to be forgotten.
            run_once(
                client,
                "insert into headwater.rejected_event (id, tenant_id, code, reason, event, claims)
                 select u.id, u.tenant_id, u.code, u.reason, u.event::jsonb, $6::jsonb
                 from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) u (id, tenant_id, code, reason, event)
                 where u.code <> 'erased'
                 on conflict do nothing",
                &[ids.into(), tenants.into(), codes.into(), reasons.into(), events.into(), claims.into()],
            );
        });
    }
}

fn conflict(one: &Arrived) -> Judged {
    let reason = "this id, or this idempotency key, was used before for a different event";
    Judged::as_before(one, Some(Rejection::of(Reject::new(Code::Conflict, reason)).to_json()))
}

/// Inserts receipts in the order of ids, the same in every transaction; returns those that were new.
///
/// Mostly all are. To look for each before it is written, and to let go of it if another writes it at the same moment, costs
/// half of the insert: that is left until one is there already.
fn insert(new: &[Arrived]) -> Vec<(Option<String>, uuid::Uuid)> {
    thread_local! {
        static THE_NEW: SetStatement = SetStatement::new(
            "insert into headwater.receipt (event_id, tenant_id, idempotency_key, digest)
             select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) u (id, tenant_id, key, digest)
             order by id, tenant_id collate \"C\" nulls first
             on conflict do nothing returning tenant_id, event_id",
        );
    }
    if new.is_empty() {
        return Vec::new();
    }
    match spi::attempt(|| insert_all(new), |()| true) {
        Ok(()) => return new.iter().map(|one| (one.event.tenant_id.clone(), one.event.id)).collect(),
        Err(error) if error.sqlstate() == UNIQUE_VIOLATION => {}
        Err(error) => error.rethrow(),
    }
    let ids: Vec<_> = new.iter().map(|one| pg_uuid(one.event.id)).collect();
    let tenants: Vec<_> = new.iter().map(|one| one.event.tenant_id.clone()).collect();
    let keys: Vec<_> = new.iter().map(|one| one.event.idempotency_key.clone()).collect();
    let digests: Vec<_> = new.iter().map(|one| one.digest.clone()).collect();
    let arguments = [ids.into(), tenants.into(), keys.into(), digests.into()];
    let mut inserted = Vec::with_capacity(new.len());
    Spi::connect_mut(|client| {
        THE_NEW.with(|insert| insert.run(client, &arguments));
        for_each_row(client, |values, nulls| {
            // SAFETY: a text and a uuid.
            let (tenant, id) = unsafe {
                (String::from_datum(values[0], nulls[0]), Uuid::from_datum(values[1], nulls[1]).expect("not null"))
            };
            inserted.push((tenant, uuid::Uuid::from_bytes(*id.as_bytes())));
        });
    });
    inserted
}

/// Inserts a receipt for each; raises a unique violation if one is there already.
fn insert_all(new: &[Arrived]) {
    let mut ordered: Vec<_> = new.iter().map(|one| &one.event).zip(new).collect();
    ordered.sort_unstable_by_key(|(event, _)| (event.id, event.tenant_id.as_deref()));
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    let mut rows = Rows::open(c"receipt", COLUMNS);
    for (event, one) in ordered {
        if rows.waiting() == BATCH_ROWS {
            rows.flush(|_| ());
        }
        rows.put(|values, nulls| {
            // What it is refused for, and of which entity, is written where it is refused.
            nulls[4..].fill(true);
            values[0] = optional(event.tenant_id.as_ref().map(String::as_bytes), &mut nulls[0]);
            values[1] = copied(event.id.as_bytes());
            values[2] = optional(event.idempotency_key.as_ref().map(String::as_bytes), &mut nulls[2]);
            values[3] = varlena(&one.digest);
            (values[6], nulls[6]) = (pg_sys::Datum::from(now), false);
        });
    }
    rows.flush(|_| ());
    rows.close();
}

fn read(earlier: &[Arrived]) -> (ById, ByKey) {
    let ids: Vec<_> = earlier.iter().map(|one| pg_uuid(one.event.id)).collect();
    let keys: Vec<_> = earlier.iter().filter_map(|one| one.event.idempotency_key.clone()).collect();
    let mut by_id = ById::new();
    let mut by_key = ByKey::new();
    Spi::connect_mut(|client| {
        let rows = run_once(
            client,
            "select tenant_id, event_id, idempotency_key, digest, reject from headwater.receipt where event_id = any ($1)
             union
             select tenant_id, event_id, idempotency_key, digest, reject from headwater.receipt where idempotency_key = any ($2)",
            &[ids.into(), keys.into()],
        );
        for row in rows {
            let get = "the columns of receipts are known";
            let tenant: Option<String> = row.get(1).expect(get);
            let id: Uuid = row.get(2).expect(get).expect(get);
            let digest: Vec<u8> = row.get(4).expect(get).expect(get);
            let rejected = row.get::<JsonB>(5).expect(get).and_then(|json| crate::head::object(json.0));
            if let Some(key) = row.get::<String>(3).expect(get) {
                by_key.insert((tenant.clone(), key), Earlier { digest: digest.clone(), rejected: rejected.clone() });
            }
            by_id.insert((tenant, uuid::Uuid::from_bytes(*id.as_bytes())), Earlier { digest, rejected });
        }
    });
    (by_id, by_key)
}
