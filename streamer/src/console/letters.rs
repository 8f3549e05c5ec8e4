//! Dead letters: what clients sent and the server refused. Seen and decided about as `headwater_admin`, which the streamer's role is
//! only where the operator made it so.

use super::Console;
use super::catalog::json;
use super::session::{Role, Session};
use crate::error::Error;
use serde_json::value::RawValue;

/// Dead letters, or why they cannot be seen.
#[derive(Debug)]
pub enum Letters {
    /// The newest ones as JSON, and how many there are.
    Found(Box<RawValue>, i64),
    /// The streamer's role may not see them; this statement allows it.
    NotGranted(String),
}

/// What to do with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Judge it again, for its sender.
    Retry,
    /// Forget it.
    Discard,
}

const GRANT: &str = "select case when pg_has_role(session_user, 'headwater_admin', 'member') then null \
     else format('grant headwater_admin to %I;', session_user) end";

const LETTERS: &str = "select coalesce(jsonb_agg(jsonb_build_object( \
       'id', r.id, 'tenant_id', r.tenant_id, 'event', r.event, 'code', r.code, 'reason', r.reason, \
       'user_id', r.claims ->> 'sub', \
       'rejected_at', to_char(r.rejected_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
     ) order by r.rejected_at desc, r.id), '[]')::text, \
     (select count(*) from headwater.rejected_event) \
     from (select * from headwater.rejected_event r order by r.rejected_at desc, r.id limit $1) r";

const RETRY: &str = "select headwater.retry_rejected($1::text::uuid, $2)::text";
const DISCARD: &str = "select headwater.discard_rejected($1::text::uuid, $2)::text, 'null'";

impl Console {
    /// The newest `limit` dead letters.
    pub async fn letters(&self, limit: i64) -> Result<Letters, Error> {
        let mut session = self.session().await?;
        if let Some(statement) = missing_grant(&mut session).await? {
            return Ok(Letters::NotGranted(statement));
        }
        let transaction = session.read(Role::Admin).await?;
        let row = transaction.query_one(LETTERS, &[&limit]).await?;
        Ok(Letters::Found(json(row.try_get(0)?)?, row.try_get(1)?))
    }

    /// Decides about one. `Err` holds the statement that is missing; the answer is what `headwater.ingest` says, or `null`.
    pub async fn decide(
        &self,
        decision: Decision,
        id: &str,
        tenant: Option<&str>,
    ) -> Result<Result<Box<RawValue>, String>, Error> {
        let mut session = self.session().await?;
        if let Some(statement) = missing_grant(&mut session).await? {
            return Ok(Err(statement));
        }
        let transaction = session.write(Role::Admin).await?;
        let answer: Option<String> = match decision {
            Decision::Retry => transaction.query_one(RETRY, &[&id, &tenant]).await?.try_get(0)?,
            Decision::Discard => transaction.query_one(DISCARD, &[&id, &tenant]).await?.try_get(1)?,
        };
        let answer = json(answer.unwrap_or_else(|| "null".to_owned()))?;
        transaction.commit().await?;
        Ok(Ok(answer))
    }
}

async fn missing_grant(session: &mut Session<'_>) -> Result<Option<String>, Error> {
    let transaction = session.read(Role::Reader).await?;
    Ok(transaction.query_one(GRANT, &[]).await?.try_get(0)?)
}
