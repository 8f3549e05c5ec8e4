//! The replication slot: made, found, waited for, or made anew when it is of no use any more.

use super::setup::{Database, one, text};
use super::wire::{Connection, Row};
use crate::error::Error;
use crate::slot_health::SlotWatch;
use headwater_model::cursor::Lsn;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// After a kill -9 the old walsender needs a moment to notice that its client is gone.
const OCCUPIED_PATIENCE: Duration = Duration::from_secs(10);
const OCCUPIED_POLL: Duration = Duration::from_millis(100);

/// `create_replication_slot` waits for open transactions; from here on we say so.
const CREATION_NOTICE: Duration = Duration::from_secs(3);

/// The publications that one slot reads: events, and the rows of shapes.
const PUBLICATIONS: &str = "\"headwater_events\",\"headwater_tables\"";

/// Makes sure that the slot is there and free. Answers its confirmed position, before which nothing will be sent.
pub(super) async fn prepare(connection: &mut Connection, database: &Database, watch: &SlotWatch) -> Result<Lsn, Error> {
    let name = watch.slot();
    let patience = Instant::now() + OCCUPIED_PATIENCE;
    loop {
        let Some(slot) = Slot::find(connection, name).await? else {
            create(connection, name, database.version).await?;
            continue;
        };
        slot.check(name, &database.name)?;
        if slot.lost {
            remake(connection, watch, "Postgres has removed WAL that it needed (max_slot_wal_keep_size)").await?;
            continue;
        }
        let Some(pid) = slot.active_pid else {
            if slot.failover == Some(false) {
                connection.query(&format!("ALTER_REPLICATION_SLOT \"{name}\" (FAILOVER true)")).await?;
            }
            return slot.confirmed.ok_or_else(|| Error::Protocol(format!("slot {name} has no confirmed position")));
        };
        if Instant::now() >= patience {
            return Err(occupied(connection, name, &pid).await?);
        }
        sleep(OCCUPIED_POLL).await;
    }
}

/// Opens the stream at `start`. The walsender sends what belongs to a transaction together, and we are woken once for it
/// (`extension/src/gather.rs`).
pub(super) async fn start(connection: &mut Connection, name: &str, start: Lsn) -> Result<(), Error> {
    connection.query("select headwater.gather_changes()").await?;
    let names = PUBLICATIONS;
    let sql = format!(
        "START_REPLICATION SLOT \"{name}\" LOGICAL {start} (proto_version '1', publication_names '{names}', messages 'true')"
    );
    connection.start_stream(&sql).await.map_err(lost)
}

/// Tells the errors after which a slot never works again.
///
/// 55000 `can no longer get changes from replication slot`; 42704 `publication … does not exist`: it was dropped and
/// made again behind the slot's back, and the catalog as of the slot's position does not have it.
pub(super) fn lost(error: Error) -> Error {
    match error {
        Error::Server(server) if matches!(server.code.as_str(), "55000" | "42704") => Error::SlotLost(server),
        other => other,
    }
}

/// Removes a slot that cannot go on; it is made again when it is looked for. Nobody is left silently stale.
pub(super) async fn remake(connection: &mut Connection, watch: &SlotWatch, reason: &str) -> Result<(), Error> {
    tracing::warn!(
        slot = watch.slot(),
        reason,
        "making the slot anew: clients of events go on from the table and miss nothing, clients of shapes get 409 and start again"
    );
    watch.count_remade();
    drop_slot(connection, watch.slot()).await
}

/// Removes the slot if it is there.
async fn drop_slot(connection: &mut Connection, name: &str) -> Result<(), Error> {
    match connection.query_patiently(&format!("DROP_REPLICATION_SLOT \"{name}\" WAIT")).await {
        Err(Error::Server(server)) if server.code == "42704" => Ok(()),
        other => other.map(drop),
    }
}

struct Slot {
    plugin: Option<String>,
    database: Option<String>,
    active_pid: Option<String>,
    confirmed: Option<Lsn>,
    lost: bool,
    /// Whether standbys get it too; none before Postgres 17.
    failover: Option<bool>,
}

impl Slot {
    async fn find(connection: &mut Connection, name: &str) -> Result<Option<Self>, Error> {
        let sql = format!(
            "select plugin, database, active_pid, confirmed_flush_lsn, wal_status, to_jsonb(s) ->> 'failover' \
             from pg_catalog.pg_replication_slots s where slot_name = '{name}'"
        );
        let row = connection.query(&sql).await?.into_iter().next();
        row.map(|row| Self::read(&row)).transpose()
    }

    fn read(row: &Row) -> Result<Self, Error> {
        let given = |column: usize| row.get(column).cloned().flatten();
        let confirmed = given(3).map(|lsn| lsn.parse().map_err(|_| Error::Protocol(format!("`{lsn}` is not an LSN"))));
        Ok(Self {
            plugin: given(0),
            database: given(1),
            active_pid: given(2),
            confirmed: confirmed.transpose()?,
            lost: given(4).as_deref() == Some("lost"),
            failover: given(5).map(|failover| failover == "true"),
        })
    }

    fn check(&self, name: &str, database: &str) -> Result<(), Error> {
        if self.plugin.as_deref() == Some("pgoutput") && self.database.as_deref() == Some(database) {
            return Ok(());
        }
        let (plugin, owner) = (self.plugin.as_deref().unwrap_or("none"), self.database.as_deref().unwrap_or("none"));
        Err(Error::setup(
            format!(
                "the replication slot {name} belongs to database `{owner}` (plugin {plugin}), and this is `{database}`"
            ),
            "slot names are shared by all databases of a server: choose another --replica",
        ))
    }
}

/// From Postgres 17 on standbys may take the slot over: a promotion then loses no WAL.
fn creation(name: &str, version: u32) -> String {
    let failover = if version >= 170_000 { ", FAILOVER true" } else { "" };
    format!("CREATE_REPLICATION_SLOT \"{name}\" LOGICAL pgoutput (SNAPSHOT 'nothing'{failover})")
}

async fn create(connection: &mut Connection, name: &str, version: u32) -> Result<(), Error> {
    tracing::info!(slot = name, "making the replication slot");
    let sql = creation(name, version);
    let mut creation = std::pin::pin!(connection.query_patiently(&sql));
    let made = tokio::select! {
        made = &mut creation => made,
        () = sleep(CREATION_NOTICE) => {
            tracing::warn!(slot = name, "Postgres makes the slot when every transaction that is open now has ended; waiting");
            creation.await
        }
    };
    match made {
        Ok(_) => Ok(()),
        Err(Error::Server(server)) if server.code == "53400" => Err(Error::setup(
            format!("no replication slot is left for {name}: {server}"),
            "drop a slot that nobody needs (select pg_drop_replication_slot(…)), or raise max_replication_slots and restart Postgres",
        )),
        Err(error) => Err(error),
    }
}

async fn occupied(connection: &mut Connection, name: &str, pid: &str) -> Result<Error, Error> {
    let sql = format!(
        "select coalesce((select format('application_name %L, client %s', application_name, coalesce(host(client_addr), 'local')) \
         from pg_catalog.pg_stat_activity where pid = {pid}), 'already gone')"
    );
    let who = one(connection, &sql).await?;
    Ok(Error::setup(
        format!("the replication slot {name} is in use by another connection, pid {pid} ({})", text(&who, 0)?),
        format!(
            "give each streamer a --replica of its own, or stop the other one (select pg_terminate_backend({pid});)"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fail_over_where_postgres_can() {
        assert!(!creation("s", 160_014).contains("FAILOVER"));
        assert_eq!(
            creation("s", 170_000),
            "CREATE_REPLICATION_SLOT \"s\" LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)"
        );
    }
}
