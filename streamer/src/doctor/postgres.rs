//! What Postgres must have and allow. Each check is a query of its own: one that fails is a finding, not the end.

use super::finding::Finding;
use crate::error::Error;
use crate::notify::Kind;
use std::time::{Duration, SystemTime};
use tokio_postgres::{Client, Row};

/// The oldest version that works.
const OLDEST: i32 = 150_000;

/// Tokens are judged by this machine's clock, events by Postgres'.
const CLOCKS_APART: Duration = Duration::from_secs(5);

/// A transaction that is open for longer holds back pollers, WAL and vacuum noticeably.
const LONG_TRANSACTION: &str = "5 minutes";

/// Why there is no connection.
pub(super) fn no_connection(error: &Error, user: &str) -> Finding {
    let remedy = match error.state() {
        Some("28P01") => "check the password in the database URL".to_owned(),
        Some("28000") => format!(
            "create role \"{user}\" login replication in role headwater_writer;\n\
             or allow it in pg_hba.conf, then: select pg_reload_conf();"
        ),
        Some("3D000") => "create the database, or correct its name in the database URL".to_owned(),
        Some("53300") => "raise max_connections and restart Postgres, or end connections that nobody needs".to_owned(),
        _ => "start Postgres, or correct host and port in the database URL".to_owned(),
    };
    Finding::error("connection", format!("no connection to Postgres: {error}"), remedy)
}

/// Everything, in the order in which one would mend it.
pub(super) async fn look(client: &Client, user: &str, slot: &str, redis: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let server = of("server", server(client).await);
    let primary = server.iter().all(|finding| finding.level != super::Level::Error);
    findings.extend(server);
    findings.extend(of("role", role(client, user).await));
    findings.extend(of("slots", slots(client, slot).await));
    findings.extend(of("capacity", capacity(client, slot).await));
    findings.extend(of("clock", clock(client).await));
    findings.extend(of("transactions", transactions(client, user).await));
    let extension = of("extension", extension(client).await);
    let installed = extension.iter().all(|finding| finding.level != super::Level::Error);
    findings.extend(extension);
    if installed {
        findings.extend(of("privileges", privileges(client, user).await));
        findings.extend(of("notification", notification(client, redis).await));
        if primary {
            findings.extend(of("check", own_check(client, user).await));
        }
    }
    findings
}

fn of(check: &'static str, looked: Result<Vec<Finding>, tokio_postgres::Error>) -> Vec<Finding> {
    looked.unwrap_or_else(|error| {
        let message = format!("this could not be looked at: {}", Error::from(error));
        vec![Finding::warning(check, message, "run this again as a role that may, or as a superuser")]
    })
}

async fn setting(client: &Client, name: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client.query_one("select pg_catalog.current_setting($1, true)", &[&name]).await?;
    row.try_get(0)
}

async fn server(client: &Client) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let mut findings = Vec::new();
    let version: i32 = client
        .query_one("select pg_catalog.current_setting('server_version_num')::int", &[])
        .await
        .and_then(|row| row.try_get(0))?;
    let name = setting(client, "server_version").await?.unwrap_or_default();
    findings.push(if version >= OLDEST {
        Finding::good("version", format!("Postgres {name}"))
    } else {
        Finding::error("version", format!("Postgres {name} is too old"), "upgrade to Postgres 15 or newer")
    });
    let level = setting(client, "wal_level").await?.unwrap_or_default();
    findings.push(if level == "logical" {
        Finding::good("wal_level", "wal_level is logical")
    } else {
        let message = format!("wal_level is {level}, and logical decoding needs logical");
        Finding::error("wal_level", message, "alter system set wal_level = 'logical'; -- then restart Postgres")
    });
    let standby: bool =
        client.query_one("select pg_catalog.pg_is_in_recovery()", &[]).await.and_then(|row| row.try_get(0))?;
    if standby {
        let message = "this server is a standby; slot and watermark need the primary";
        findings.push(Finding::error("primary", message, "point the database URL at the primary"));
    }
    Ok(findings)
}

async fn role(client: &Client, user: &str) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let sql = "select rolreplication or rolsuper, rolsuper from pg_catalog.pg_roles where rolname = current_user";
    let row = client.query_one(sql, &[]).await?;
    let (replicates, superuser): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    let mut findings = vec![if replicates {
        Finding::good("replication", format!("the role {user} may replicate"))
    } else {
        let message = format!("the role {user} may not replicate");
        Finding::error("replication", message, format!("alter role \"{user}\" replication;"))
    }];
    if superuser {
        findings.push(Finding::warning(
            "superuser",
            format!("the role {user} is a superuser, far more than the streamer needs"),
            "create role headwater_streamer login replication password '…' in role headwater_writer;",
        ));
    }
    Ok(findings)
}

async fn slots(client: &Client, own: &str) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let sql = "select slot_name::text, active, wal_status, pg_catalog.pg_size_pretty(w.now - restart_lsn), safe_wal_size \
         from pg_catalog.pg_replication_slots s, \
           (select case when pg_catalog.pg_is_in_recovery() then null else pg_catalog.pg_current_wal_lsn() end as now) w \
         where slot_name like 'headwater\\_%' order by 1";
    let rows = client.query(sql, &[]).await?;
    let mut findings = rows.iter().map(one_slot).collect::<Result<Vec<_>, _>>()?;
    if !rows.iter().any(|row| row.try_get::<_, String>(0).is_ok_and(|name| name == own)) {
        findings.push(Finding::good("slot", format!("the slot {own} will be made at the first start")));
    }
    if setting(client, "max_slot_wal_keep_size").await?.as_deref() == Some("-1") {
        findings.push(Finding::warning(
            "max_slot_wal_keep_size",
            "WAL is kept without bound for a streamer that stays away, until the disk is full",
            "alter system set max_slot_wal_keep_size = '20GB'; select pg_reload_conf(); -- far above --ring-wal",
        ));
    }
    Ok(findings)
}

/// Slots that nobody reads are `headwater.check`'s finding.
fn one_slot(row: &Row) -> Result<Finding, tokio_postgres::Error> {
    let (name, active): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let status = row.try_get::<_, Option<String>>(2)?.unwrap_or_else(|| "unknown".to_owned());
    let (kept, safe): (Option<String>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
    let kept = kept.unwrap_or_else(|| "nothing".to_owned());
    let use_ = if active { "in use" } else { "not in use" };
    Ok(match status.as_str() {
        "lost" => Finding::error(
            "slot",
            format!("the slot {name} is lost: Postgres removed WAL that it needed"),
            format!(
                "select pg_drop_replication_slot('{name}'); -- a streamer makes it anew by itself; raise max_slot_wal_keep_size"
            ),
        ),
        "unreserved" => Finding::warning(
            "slot",
            format!(
                "the slot {name} ({use_}) is about to be lost: it needs {kept} of WAL, more than Postgres promises to keep"
            ),
            "start its streamer, or raise max_slot_wal_keep_size: alter system set max_slot_wal_keep_size = '…'; select pg_reload_conf();",
        ),
        _ => {
            let safe = safe.map_or(String::new(), |bytes| format!(", {} MiB until it is in danger", bytes >> 20));
            Finding::good("slot", format!("the slot {name} is {use_} and keeps {kept} of WAL ({status}{safe})"))
        }
    })
}

async fn capacity(client: &Client, own: &str) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let sql = "select pg_catalog.current_setting('max_replication_slots')::int8, \
           (select count(*) from pg_catalog.pg_replication_slots), \
           pg_catalog.current_setting('max_wal_senders')::int8, \
           (select count(*) from pg_catalog.pg_stat_get_wal_senders()), \
           exists (select from pg_catalog.pg_replication_slots where slot_name = $1), \
           exists (select from pg_catalog.pg_replication_slots where slot_name = $1 and active)";
    let row = client.query_one(sql, &[&own]).await?;
    let number = |column: usize| row.try_get::<_, i64>(column);
    let (slots, slots_used, senders, senders_used) = (number(0)?, number(1)?, number(2)?, number(3)?);
    let (exists, active): (bool, bool) = (row.try_get(4)?, row.try_get(5)?);
    let of = |check, setting: &str, most: i64, used: i64, ours: bool| {
        if used < most || ours {
            return Finding::good(check, format!("{used} of {most} ({setting}) are taken"));
        }
        Finding::error(
            check,
            format!("all {most} of {setting} are taken, and the streamer needs one"),
            format!("alter system set {setting} = {}; -- then restart Postgres", most + 4),
        )
    };
    Ok(vec![
        of("max_replication_slots", "max_replication_slots", slots, slots_used, exists),
        of("max_wal_senders", "max_wal_senders", senders, senders_used, active),
    ])
}

async fn clock(client: &Client) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let before = SystemTime::now();
    let row = client.query_one("select pg_catalog.clock_timestamp()", &[]).await?;
    let theirs: SystemTime = row.try_get(0)?;
    let after = SystemTime::now();
    // Somewhere between: only what lies outside is certain.
    let apart = theirs.duration_since(after).or_else(|_| before.duration_since(theirs)).unwrap_or_default();
    Ok(vec![if apart <= CLOCKS_APART {
        Finding::good("clock", "the clocks of this machine and of Postgres agree")
    } else {
        let message = format!("the clocks of this machine and of Postgres are {} s apart", apart.as_secs());
        Finding::warning("clock", message, "timedatectl set-ntp true   # on the machine whose clock is wrong")
    }])
}

async fn transactions(client: &Client, user: &str) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let mut findings = Vec::new();
    let sql = format!(
        "select pid, coalesce(usename::text, '?'), coalesce(application_name, ''), state, \
           pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - xact_start)::text \
         from pg_catalog.pg_stat_activity \
         where datname = pg_catalog.current_database() and backend_type = 'client backend' \
           and xact_start < pg_catalog.clock_timestamp() - interval '{LONG_TRANSACTION}' order by xact_start"
    );
    for row in client.query(&sql, &[]).await? {
        let pid: i32 = row.try_get(0)?;
        let (who, application): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let state = row.try_get::<_, Option<String>>(3)?.unwrap_or_default();
        let age: String = row.try_get(4)?;
        findings.push(Finding::warning(
            "long_transaction",
            format!("a transaction of {who} ({application}, {state}) is open for {age}: it holds back pollers, WAL and vacuum"),
            format!("select pg_terminate_backend({pid});"),
        ));
    }
    // Those of this database are `headwater.check`'s finding; they hold back WAL from any.
    let sql = "select gid, database::text, prepared::text from pg_catalog.pg_prepared_xacts \
         where database <> pg_catalog.current_database() and prepared < pg_catalog.clock_timestamp() - interval '5 minutes'";
    for row in client.query(sql, &[]).await? {
        let (gid, database, since): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        findings.push(Finding::warning(
            "prepared_transaction",
            format!("the prepared transaction {gid} in database {database} is open since {since}: it keeps WAL from being removed"),
            format!("rollback prepared '{}'; -- in that database; or commit prepared", gid.replace('\'', "''")),
        ));
    }
    let sees = "select pg_catalog.pg_has_role('pg_read_all_stats', 'usage')";
    if !client.query_one(sees, &[]).await?.try_get::<_, bool>(0)? {
        let message = format!("long transactions of other roles cannot be seen by {user}");
        findings.push(Finding::warning(
            "long_transaction",
            message,
            format!("grant pg_read_all_stats to \"{user}\"; -- or run this as a superuser"),
        ));
    } else if findings.is_empty() {
        findings.push(Finding::good("long_transaction", "no transaction is open for long"));
    }
    Ok(findings)
}

/// Entities that ask for a notification backend that there is not.
async fn notification(client: &Client, redis: bool) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let sql =
        "select e.entity_type, e.notification from headwater.entity e where e.notification is not null order by 1";
    let mut findings = Vec::new();
    for row in client.query(sql, &[]).await? {
        let (entity, asked): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let remedy = match Kind::parse(&asked) {
            Some(Kind::Redis) if !redis => "pass --redis-url (HEADWATER_REDIS_URL) to headwater serve, and to doctor",
            None => "call headwater.enable again with notification => 'memory', 'noop' or 'redis'",
            Some(_) => continue,
        };
        let message = format!(
            "`{entity}` asks for the notification backend {asked}, which there is not: its events are published nowhere"
        );
        findings.push(Finding::warning("notification", message, remedy));
    }
    Ok(findings)
}

async fn extension(client: &Client) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let sql = "select (select extversion from pg_catalog.pg_extension where extname = 'headwater'), \
                      (select default_version from pg_catalog.pg_available_extensions where name = 'headwater'), \
                      pg_catalog.current_database()::text";
    let row = client.query_one(sql, &[]).await?;
    let (installed, available): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let database: String = row.try_get(2)?;
    Ok(vec![versions(installed.as_deref(), available.as_deref(), env!("CARGO_PKG_VERSION"), &database)])
}

fn versions(installed: Option<&str>, available: Option<&str>, own: &str, database: &str) -> Finding {
    match (installed, available) {
        (None, None) => Finding::error(
            "extension",
            format!("the extension headwater is not on the server, and not in the database {database}"),
            "install its files on the server, then as a superuser: create extension headwater;",
        ),
        (None, Some(_)) => Finding::error(
            "extension",
            format!("the database {database} does not have the extension headwater"),
            "create extension headwater; -- as a superuser, in this database",
        ),
        (Some(installed), _) if installed == own => {
            Finding::good("extension", format!("the extension headwater {installed} fits this binary"))
        }
        (Some(installed), Some(available)) if available == own => Finding::error(
            "extension",
            format!("the database has the extension headwater {installed}, and this binary is {own}"),
            "alter extension headwater update; -- as a superuser, in this database",
        ),
        (Some(installed), _) => Finding::error(
            "extension",
            format!("the database has the extension headwater {installed}, and this binary is {own}"),
            format!(
                "install the files of {own} on the server and: alter extension headwater update; or run the binary of {installed}"
            ),
        ),
    }
}

async fn privileges(client: &Client, user: &str) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let sql = "select pg_catalog.pg_has_role('headwater_writer', 'usage')";
    let member: bool = client.query_one(sql, &[]).await?.try_get(0)?;
    Ok(vec![if member {
        Finding::good("privileges", format!("the role {user} may use what headwater_writer may"))
    } else {
        let message = format!("the role {user} is no member of headwater_writer");
        Finding::error("privileges", message, format!("grant headwater_writer to \"{user}\";"))
    }])
}

/// What the extension finds itself: publications, triggers, keys, slots that nobody reads, prepared transactions …
async fn own_check(client: &Client, user: &str) -> Result<Vec<Finding>, tokio_postgres::Error> {
    let rows = match client.query("select problem, statement from headwater.check()", &[]).await {
        Ok(rows) => rows,
        Err(error) if error.code().is_some_and(|code| code.code() == "42501") => {
            let message = "headwater.check() cannot be called";
            return Ok(vec![Finding::error("check", message, format!("grant headwater_writer to \"{user}\";"))]);
        }
        Err(error) => return Err(error),
    };
    if rows.is_empty() {
        return Ok(vec![Finding::good("check", "headwater.check() finds nothing wrong in this database")]);
    }
    rows.iter()
        .map(|row| Ok(Finding::error("check", row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn versions_of_extension_and_binary() {
        let check = |installed: Option<&str>, available: Option<&str>, level: Level, remedy: &str| {
            let finding = versions(installed, available, "2.0.0", "app");
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.remedy.unwrap_or_default().contains(remedy), "{installed:?} {available:?}");
        };
        check(None, None, Level::Error, "install its files");
        check(None, Some("2.0.0"), Level::Error, "create extension");
        check(Some("2.0.0"), Some("2.0.0"), Level::Good, "");
        check(Some("1.0.0"), Some("2.0.0"), Level::Error, "alter extension headwater update;");
        check(Some("1.0.0"), Some("1.0.0"), Level::Error, "install the files of 2.0.0");
        check(Some("3.0.0"), Some("3.0.0"), Level::Error, "run the binary of 3.0.0");
    }
}
