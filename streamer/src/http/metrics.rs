//! `GET /metrics`: for Prometheus. On the API's port for trusted callers only; on a port of its own (`--metrics-listen`)
//! for whoever reaches that.

use super::App;
use super::access::Caller;
use super::problem::Problem;
use crate::identity::Reach;
use crate::log::Feed;
use crate::metrics::Moment;
use crate::tally::Reason;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

/// States of a slot (`pg_replication_slots.wal_status`).
const SLOT_STATES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

pub(super) async fn get(State(app): State<App>, Caller(caller): Caller) -> Result<impl IntoResponse, Problem> {
    if caller.reach != Reach::Everything {
        return Err(Problem::forbidden("metrics are for trusted callers: present the administrators' secret"));
    }
    Ok(text(&app).await)
}

pub(super) async fn open(State(app): State<App>) -> impl IntoResponse {
    text(&app).await
}

async fn text(app: &App) -> impl IntoResponse + use<> {
    look(app).await;
    let headers =
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (headers, app.metrics.text())
}

async fn look(app: &App) {
    let moment = app.metrics.moment();
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);

    let tip = app.log.tip();
    moment.up.set(i64::from(*app.log.feed().borrow() == Feed::Streaming));
    moment.head_lsn.set(signed(tip.head.0));
    moment.confirmed_lsn.set(signed(app.log.confirmed().0));
    moment.ring_bytes.set(count(tip.bytes));
    moment.ring_start_lsn.set(signed(tip.start.0));
    moment.watermark_position.set(tip.watermark.map_or(0, |watermark| watermark.position.0));
    moment.watermark_age.set(app.events.watermark_age().as_secs_f64());
    moment.joins.set(count(app.events.joins()));
    let counts = app.log.counts();
    Moment::set_count(&moment.log_transactions, counts.transactions);
    Moment::set_count(&moment.log_events, counts.events);

    let tally = app.events.tally();
    Moment::set_count(&moment.catch_ups, tally.catch_ups());
    for reason in Reason::ALL {
        let ended = moment.streams_ended.get_or_create(&[("reason", reason.name())]);
        Moment::set_count(&ended, tally.ended(reason));
    }
    if let Some(publisher) = &app.publisher {
        moment.publisher_connected.set(i64::from(publisher.is_connected()));
        moment.publisher_lsn.set(signed(publisher.lsn()));
        Moment::set_count(&moment.published, publisher.published());
        Moment::set_count(&moment.publisher_gaps, publisher.gaps());
        Moment::set_count(&moment.publisher_rewinds, publisher.rewinds());
    }

    let found = app.vitals.look().await;
    moment.database_up.set(i64::from(found.wal_end.is_some()));
    if let Some(end) = found.wal_end {
        moment.lag_bytes.set(signed(end.saturating_sub(tip.head.0)));
        let slot = found.slot.as_ref();
        moment.slot_active.set(i64::from(slot.is_some_and(|slot| slot.active)));
        moment.slot_retained_bytes.set(slot.and_then(|slot| slot.retained_bytes).unwrap_or(-1));
        for state in SLOT_STATES {
            let is = slot.is_some_and(|slot| slot.wal_status == state);
            moment.slot_status.get_or_create(&[("status", state)]).set(i64::from(is));
        }
    }

    let pool = app.database.pool();
    moment.pool_connections.get_or_create(&[("state", "idle")]).set(count(pool.available));
    moment.pool_connections.get_or_create(&[("state", "busy")]).set(count(pool.size.saturating_sub(pool.available)));
    moment.pool_connections.get_or_create(&[("state", "most")]).set(count(pool.max_size));
    moment.pool_waiting.set(count(pool.waiting));
    moment.look_at_process();
}
