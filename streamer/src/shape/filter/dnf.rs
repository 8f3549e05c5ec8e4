//! A filter with subqueries in disjunctive normal form: its atoms get positions, each disjunct of a row gets a tag, so that
//! a client can tell which of its rows a value that leaves a subquery takes along.

use super::Filter;
use super::error::WhereError;
use super::expr::{Expr, Kind};
use super::render;
use super::subquery::Subquery;
use crate::shape::table::TableSchema;

/// Most disjuncts: each is a tag of every row.
const MAX_DISJUNCTS: usize = 64;
/// Most positions: each is a slot of every tag.
const MAX_POSITIONS: usize = 64;

/// The normal form.
#[derive(Clone, Debug)]
pub struct Dnf {
    /// The distinct atoms.
    pub positions: Vec<Position>,
    /// Each a conjunction of positions, ascending.
    pub disjuncts: Vec<Vec<usize>>,
}

/// An atom, negated or not.
#[derive(Clone, Debug)]
pub struct Position {
    /// `NOT` stands before it.
    pub negated: bool,
    /// The subquery by its place among the filter's; none of a condition without any.
    pub subquery: Option<usize>,
    condition: Expr,
    /// What it says, with which equal ones are found.
    sql: String,
}

/// One slot of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The position is not in the disjunct.
    Absent,
    /// A condition without a subquery.
    Plain,
    /// The row's value for a subquery: texts as the WAL has them.
    Value(Vec<Option<String>>),
}

enum Tree {
    One(usize),
    And(Vec<Tree>),
    Or(Vec<Tree>),
}

fn has_atom(expr: &Expr) -> bool {
    matches!(expr.kind, Kind::Atom(_)) || expr.parts().into_iter().any(has_atom)
}

struct Builder<'a> {
    table: &'a TableSchema,
    subqueries: &'a [Subquery],
    positions: Vec<Position>,
}

impl Builder<'_> {
    fn position(&mut self, expr: &Expr, negated: bool) -> Result<Tree, WhereError> {
        let sql = render::sql(expr, self.table, self.subqueries);
        let subquery = match expr.kind {
            Kind::Atom(place) => Some(place),
            _ => None,
        };
        if let Some(known) = self.positions.iter().position(|known| known.sql == sql && known.negated == negated) {
            return Ok(Tree::One(known));
        }
        let inner = |place: usize| self.subqueries.get(place).map(Subquery::to_sql);
        let opposite = |known: &Position| {
            known.negated != negated
                && known.subquery.is_some()
                && known.subquery.and_then(inner) == subquery.and_then(inner)
        };
        if subquery.is_some() && self.positions.iter().any(opposite) {
            return Err(WhereError::whole("a subquery cannot stand behind IN and behind NOT IN in one filter"));
        }
        if self.positions.len() >= MAX_POSITIONS {
            return Err(WhereError::whole(format!("a filter with subqueries has at most {MAX_POSITIONS} conditions")));
        }
        self.positions.push(Position { negated, subquery, condition: expr.clone(), sql });
        Ok(Tree::One(self.positions.len() - 1))
    }

    /// Negations pushed down to the atoms, which three-valued logic allows.
    fn tree(&mut self, expr: &Expr, negated: bool) -> Result<Tree, WhereError> {
        if !has_atom(expr) || matches!(expr.kind, Kind::Atom(_)) {
            return self.position(expr, negated);
        }
        match &expr.kind {
            Kind::Not(of) => self.tree(of, !negated),
            Kind::And(all) | Kind::Or(all) => {
                let parts = all.iter().map(|one| self.tree(one, negated)).collect::<Result<Vec<_>, _>>()?;
                let and = matches!(expr.kind, Kind::And(_)) != negated;
                Ok(if and { Tree::And(parts) } else { Tree::Or(parts) })
            }
            _ => Err(WhereError::whole("subqueries are supported under AND, OR and NOT only")),
        }
    }
}

fn too_many() -> WhereError {
    WhereError::whole(format!("a filter with subqueries has at most {MAX_DISJUNCTS} alternatives"))
}

fn disjuncts(tree: &Tree) -> Result<Vec<Vec<usize>>, WhereError> {
    let mut all: Vec<Vec<usize>> = match tree {
        Tree::One(position) => vec![vec![*position]],
        Tree::Or(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(disjuncts(part)?);
            }
            all
        }
        Tree::And(parts) => {
            let mut all = vec![Vec::new()];
            for part in parts {
                let more = disjuncts(part)?;
                if all.len() * more.len() > MAX_DISJUNCTS * MAX_DISJUNCTS {
                    return Err(too_many());
                }
                all = all.iter().flat_map(|a| more.iter().map(move |b| [a.as_slice(), b].concat())).collect();
            }
            all
        }
    };
    for disjunct in &mut all {
        disjunct.sort_unstable();
        disjunct.dedup();
    }
    // In the order of their writing, each once.
    let mut once: Vec<Vec<usize>> = Vec::new();
    for disjunct in all {
        if !once.contains(&disjunct) {
            once.push(disjunct);
        }
    }
    if once.len() > MAX_DISJUNCTS { Err(too_many()) } else { Ok(once) }
}

impl Dnf {
    pub(super) fn of(expr: &Expr, table: &TableSchema, subqueries: &[Subquery]) -> Result<Self, WhereError> {
        let mut builder = Builder { table, subqueries, positions: Vec::new() };
        let tree = builder.tree(expr, false)?;
        Ok(Self { positions: builder.positions, disjuncts: disjuncts(&tree)? })
    }

    /// One tag for each disjunct: a slot for each position.
    pub fn tags(&self, filter: &Filter, row: &[Option<&str>]) -> Vec<Vec<Slot>> {
        let slot = |disjunct: &Vec<usize>, position: usize| {
            if !disjunct.contains(&position) {
                return Slot::Absent;
            }
            let subquery = self.positions[position].subquery.and_then(|place| filter.subqueries().get(place));
            subquery.map_or(Slot::Plain, |subquery| {
                let value = |at: &usize| row.get(*at).copied().flatten().map(str::to_owned);
                Slot::Value(subquery.columns.iter().map(value).collect())
            })
        };
        let tag = |disjunct: &Vec<usize>| (0..self.positions.len()).map(|position| slot(disjunct, position)).collect();
        self.disjuncts.iter().map(tag).collect()
    }

    /// Which positions hold for a row, negation included. `atoms` says whether each subquery has the row's value.
    pub fn active(&self, row: &[Option<&str>], atoms: &[Option<bool>]) -> Vec<bool> {
        let row = super::eval::Row::new(row, atoms);
        let holds = |position: &Position| {
            super::eval::truth(&position.condition, &row).unwrap_or(None) == Some(!position.negated)
        };
        self.positions.iter().map(holds).collect()
    }

    /// Whether a row with these active positions is in.
    pub fn is_satisfied(&self, active: &[bool]) -> bool {
        self.disjuncts.iter().any(|disjunct| disjunct.iter().all(|position| active[*position]))
    }

    /// The positions of a subquery, and whether they are negated: there a value that enters takes rows away.
    pub fn positions_of(&self, subquery: usize) -> impl Iterator<Item = (usize, bool)> + '_ {
        let all = self.positions.iter().enumerate();
        all.filter(move |(_, position)| position.subquery == Some(subquery))
            .map(|(at, position)| (at, position.negated))
    }
}
