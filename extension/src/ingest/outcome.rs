//! What became of the events, as it is answered.

use headwater_model::clock::{ClockSkew, Micros};
use headwater_model::event::{Code, Reject};
use serde_json::{Map, Value, json};

use super::Arrived;

/// A key is taken.
pub(super) const UNIQUE_VIOLATION: &str = "23505";

/// A serialization failure.
const OVERTAKEN: &str = "40001";

/// A reject with what a client may want to know beside the reason.
#[derive(Clone, Debug)]
pub(crate) struct Rejection {
    pub(crate) reject: Reject,
    /// Members of the answer beside `id`, `code` and `reason`: `sqlstate`, `constraint`.
    pub(crate) more: Map<String, Value>,
}

impl From<Reject> for Rejection {
    fn from(reject: Reject) -> Self {
        Self::of(reject)
    }
}

impl Rejection {
    pub(crate) fn of(reject: Reject) -> Self {
        Self { reject, more: Map::new() }
    }

    /// While the row was being created, another transaction has created and deleted it.
    pub(super) fn overtaken(entity_id: &str) -> Self {
        let reason = format!("another transaction has just created {entity_id}, and deleted it");
        let more = Map::from_iter([("sqlstate".to_owned(), OVERTAKEN.into())]);
        Self { reject: Reject::new(Code::ConstraintViolation, reason), more }
    }

    /// Nobody's fault: the next try looks at what is there then.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.has_sqlstate(OVERTAKEN)
    }

    /// A unique constraint was violated: perhaps by a row that was not there yet when the entity was locked.
    pub(super) fn is_taken_key(&self) -> bool {
        self.has_sqlstate(UNIQUE_VIOLATION)
    }

    fn has_sqlstate(&self, wanted: &str) -> bool {
        self.more.get("sqlstate").is_some_and(|sqlstate| sqlstate == wanted)
    }

    /// The answer without `id` and `index`.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut answer = self.more.clone();
        answer.insert("code".to_owned(), json!(self.reject.code.as_str()));
        answer.insert("reason".to_owned(), json!(self.reject.reason));
        answer
    }
}

/// One event's verdict.
pub(crate) struct Judged {
    pub(super) index: usize,
    pub(super) id: Option<String>,
    /// The answer's members of a reject; `None` if the event was accepted.
    pub(super) rejected: Option<Map<String, Value>>,
    /// The event, if its verdict is new and has a receipt to be written in.
    pub(super) arrived: Option<Arrived>,
}

impl Judged {
    /// A new verdict.
    pub(super) fn new(arrived: Arrived, rejection: Option<Rejection>) -> Self {
        Self {
            index: arrived.index,
            id: Some(arrived.event.id.to_string()),
            rejected: rejection.map(|rejection| rejection.to_json()),
            arrived: Some(arrived),
        }
    }

    /// An event that an earlier one answers for.
    pub(super) fn as_before(arrived: &Arrived, rejected: Option<Map<String, Value>>) -> Self {
        Self { index: arrived.index, id: Some(arrived.event.id.to_string()), rejected, arrived: None }
    }

    /// An event that could not be read, or is not the sender's.
    pub(super) fn unread(index: usize, id: Option<&str>, reject: Reject) -> Self {
        let rejected = Some(Rejection::of(reject).to_json());
        Self { index, id: id.map(str::to_owned), rejected, arrived: None }
    }

    /// An event from a clock that stands too far ahead.
    pub(super) fn too_early(index: usize, id: uuid::Uuid, sent: Micros, skew: ClockSkew) -> Self {
        let reason = format!("the event is dated {sent}, but here it is {}; stamp it anew", skew.server_time);
        let mut rejected = Rejection::of(Reject::new(Code::ClockSkew, reason)).to_json();
        rejected.insert("server_time".to_owned(), json!(skew.server_time.to_string()));
        Self { index, id: Some(id.to_string()), rejected: Some(rejected), arrived: None }
    }
}

/// The answer to a batch, in the batch's order.
#[derive(Default)]
pub(super) struct Outcome(Vec<Judged>);

impl Outcome {
    pub(super) fn add(&mut self, judged: Judged) {
        self.0.push(judged);
    }

    pub(super) fn extend(&mut self, judged: impl IntoIterator<Item = Judged>) {
        self.0.extend(judged);
    }

    /// The verdict of an event that has one.
    pub(super) fn of(&self, id: uuid::Uuid) -> Option<Map<String, Value>> {
        let id = id.to_string();
        let judged = self.0.iter().find(|judged| judged.id.as_ref() == Some(&id));
        judged.and_then(|judged| judged.rejected.clone())
    }

    /// `{"accepted": [id…], "rejected": [{id, index, code, reason, …}]}`
    pub(super) fn into_json(mut self) -> Value {
        self.0.sort_by_key(|judged| judged.index);
        let mut accepted = Vec::new();
        let mut rejected = Vec::new();
        for judged in self.0 {
            match judged.rejected {
                None => accepted.push(json!(judged.id)),
                Some(mut answer) => {
                    answer.insert("id".to_owned(), json!(judged.id));
                    answer.insert("index".to_owned(), json!(judged.index));
                    rejected.push(Value::Object(answer));
                }
            }
        }
        json!({"accepted": accepted, "rejected": rejected})
    }
}
