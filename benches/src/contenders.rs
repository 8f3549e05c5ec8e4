//! Who records changes of a table: nobody, Headwater, and what people use instead.

use crate::measured::{Bound, Measured};

/// What is attached to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Nothing: what the change itself costs.
    None,
    Headwater,
    /// A PL/pgSQL trigger for each row.
    Audit,
    /// Debian's `postgresql-15-tablelog`.
    TableLog,
}

/// All of them.
pub(crate) const ALL: [Contender; 4] = [Contender::None, Contender::Headwater, Contender::Audit, Contender::TableLog];

impl Contender {
    /// As it stands in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no trigger",
            Self::Headwater => "headwater",
            Self::Audit => "plpgsql audit trigger",
            Self::TableLog => "table_log",
        }
    }

    /// As part of a database's name.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Headwater => "headwater",
            Self::Audit => "audit",
            Self::TableLog => "table_log",
        }
    }

    /// The statements that a database needs once, before tables are attached.
    pub(crate) fn install(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Headwater => "create extension headwater",
            Self::Audit => include_str!("../sql/audit.sql"),
            Self::TableLog => "create extension table_log",
        }
    }

    /// The statements that attach it to a table in `public`.
    pub(crate) fn attach(self, table: &str, key: &str, enable_arguments: &str) -> String {
        match self {
            Self::None => String::new(),
            Self::Headwater => format!("select headwater.enable('{table}'{enable_arguments})"),
            Self::Audit => format!(
                "create trigger audit after insert or update or delete on {table} for each row execute function audit('{key}')"
            ),
            // Five columns of its own: a number, the operation, the time, old or new, the user.
            Self::TableLog => format!("select table_log_init(5, 'public', '{table}', 'public', '{table}_log')"),
        }
    }
}

/// Headwater over no trigger, with bounds; over the others, and the others over no trigger, for scale.
pub(crate) fn claims(measured: Measured, must: Option<Bound>, goal: Option<Bound>) -> Measured {
    let name = Contender::name;
    let (none, headwater) = (name(Contender::None), name(Contender::Headwater));
    [Contender::Audit, Contender::TableLog]
        .into_iter()
        .fold(measured.claim(headwater, none, must, goal), |measured, peer| {
            measured.claim(name(peer), none, None, None).claim(headwater, name(peer), None, None)
        })
}
