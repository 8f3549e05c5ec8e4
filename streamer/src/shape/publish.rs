//! `--auto-publish`: a table that a client asks for is published, if our role may do that.

use super::error::ShapeError;
use super::table::TableSchema;
use crate::error::Error;
use deadpool_postgres::Object;
use std::fmt::Write as _;

/// Writers wait behind our lock while it waits behind readers: better to let go and try again.
const LOCK_TIMEOUT: &str = "2s";
const ATTEMPTS: usize = 5;

/// Puts the table's changes into the WAL whole, and into the publication.
///
/// The lock excludes writers: whoever writes from here on finds the table published, and whoever wrote before is
/// visible to every snapshot taken afterwards.
pub(super) async fn publish(client: &mut Object, table: &TableSchema, publication: &str) -> Result<(), ShapeError> {
    for attempt in 1..=ATTEMPTS {
        match attempt_once(client, table, publication).await {
            Err(error) if error.state() == Some("55P03") && attempt < ATTEMPTS => {}
            Err(error) if error.state() == Some("55P03") => {
                return Err(ShapeError::not_begun(1));
            }
            Err(error) if error.state() == Some("42501") => return Err(not_ours(table, &error)),
            other => return Ok(other?),
        }
    }
    Ok(())
}

async fn attempt_once(client: &mut Object, table: &TableSchema, publication: &str) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    let name = table.quoted();
    let mut script = format!("set local lock_timeout = '{LOCK_TIMEOUT}'; lock table {name} in access exclusive mode;");
    // By OID: names of partitions are the catalog's business.
    let members: Vec<String> = table.members.iter().map(|member| member.oid.to_string()).collect();
    let _ = write!(
        script,
        "do $$ declare member oid; begin \
           for member in select c.oid from pg_catalog.pg_class c where c.oid in ({}) and c.relreplident <> 'f' loop \
             execute format('alter table %s replica identity full', member::regclass); \
           end loop; \
           if not exists (select from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid \
                          where p.pubname = '{publication}' and r.prrelid = {}) \
              and not exists (select from pg_catalog.pg_publication p where p.pubname = '{publication}' and p.puballtables) then \
             execute format('alter publication {publication} add table %s', {}::regclass); \
           end if; \
         end $$",
        members.join(", "),
        table.oid,
        table.oid
    );
    transaction.batch_execute(&script).await?;
    transaction.commit().await?;
    tracing::info!(table = name, "published for shapes");
    Ok(())
}

fn not_ours(table: &TableSchema, error: &Error) -> ShapeError {
    tracing::warn!(%error, table = table.quoted(), "a table that a client asked for cannot be published by our role");
    let message = format!(
        "Table {} is not published, and the service may not publish it. Its owner can: select headwater.publish('{}');",
        table.quoted(),
        table.quoted().replace('\'', "''")
    );
    ShapeError::invalid("table", message)
}
