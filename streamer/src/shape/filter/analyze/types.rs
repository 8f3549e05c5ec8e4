//! Types: what they are called, what is cast to them, and which one several parts have in common.

use super::super::cast;
use super::super::error::WhereError;
use super::super::expr::{Expr, Kind};
use super::super::syntax::{self, Node, TypeName};
use super::super::types::Type;
use super::{Analyzer, Typed};

/// What Postgres calls a type in messages.
pub(super) fn long_name(of: &Type) -> String {
    match of {
        Type::Array(element) => long_name(element) + "[]",
        Type::Bool => "boolean".to_owned(),
        Type::Int2 => "smallint".to_owned(),
        Type::Int4 => "integer".to_owned(),
        Type::Int8 => "bigint".to_owned(),
        Type::Float4 => "real".to_owned(),
        Type::Float8 => "double precision".to_owned(),
        Type::Timestamp => "timestamp without time zone".to_owned(),
        Type::Timestamptz => "timestamp with time zone".to_owned(),
        Type::Time => "time without time zone".to_owned(),
        Type::Varchar => "character varying".to_owned(),
        Type::Bpchar => "character".to_owned(),
        _ => of.to_string(),
    }
}

impl Analyzer<'_> {
    /// The type that all become (`select_common_type`): none if there is none.
    pub(super) fn common(all: &[&Typed]) -> Option<Type> {
        if let Some(first) = all.first().filter(|first| *first.ty() != Type::Unknown)
            && all.iter().all(|one| one.ty() == first.ty())
        {
            return Some(first.ty().clone());
        }
        let mut chosen = Type::Unknown;
        for one in all {
            let next = one.ty();
            if *next == Type::Unknown || *next == chosen {
                continue;
            }
            if chosen == Type::Unknown {
                chosen = next.clone();
            } else if next.category() != chosen.category() {
                return None;
            } else if !chosen.is_preferred() && chosen.becomes(next) && !next.becomes(&chosen) {
                chosen = next.clone();
            }
        }
        if chosen == Type::Unknown {
            return Some(Type::Text);
        }
        all.iter().all(|one| one.ty().becomes(&chosen)).then_some(chosen)
    }

    pub(super) fn all_common(
        &mut self,
        at: usize,
        what: &str,
        nodes: &[Node],
    ) -> Result<(Vec<Expr>, Type), WhereError> {
        let typed = nodes.iter().map(|node| self.typed(node)).collect::<Result<Vec<_>, _>>()?;
        let Some(ty) = Self::common(&typed.iter().collect::<Vec<_>>()) else {
            return Err(self.error(at, format!("{what} types cannot be matched")));
        };
        let all = typed.into_iter().map(|one| self.coerce(one, &ty, at)).collect::<Result<Vec<_>, _>>()?;
        Ok((all, ty))
    }

    /// The type that a name in the text means.
    fn named_type(&self, at: usize, name: &TypeName) -> Result<Type, WhereError> {
        let known = Type::by_name(&name.name).or_else(|| {
            let types = self.table.columns.iter().map(Type::of_column);
            let mut enums = types.map(|ty| ty.element().cloned().unwrap_or(ty));
            enums.find(|ty| matches!(ty, Type::Enum(of) if of.name == name.name))
        });
        let Some(known) = known else {
            return Err(self.error(at, format!("type \"{}\" does not exist or is not supported", name.name)));
        };
        let takes_modifier = match known {
            Type::Varchar | Type::Bpchar => name.modifiers.len() <= 1 && name.modifiers.iter().all(|n| *n > 0),
            Type::Numeric => match name.modifiers[..] {
                [] => true,
                [precision] => (1..=1000).contains(&precision),
                [precision, scale] => (1..=1000).contains(&precision) && (0..=precision).contains(&scale),
                _ => false,
            },
            _ => name.modifiers.is_empty(),
        };
        if !takes_modifier || (name.array && !name.modifiers.is_empty()) {
            return Err(self.error(at, format!("modifiers of the type {} are not supported here", name.name)));
        }
        Ok(if name.array { known.array() } else { known })
    }

    pub(super) fn cast(&mut self, at: usize, of: &Node, name: &TypeName) -> Result<Expr, WhereError> {
        let to = self.named_type(at, name)?;
        // `ARRAY[…]::int[]`: the elements take the type at once.
        if let (syntax::Kind::Array(items), Some(element)) = (&of.kind, to.element()) {
            if items.is_empty() {
                return self.folded(at, Expr::new(to.clone(), Kind::Array(Vec::new())));
            }
            if !items.iter().any(|item| matches!(item.kind, syntax::Kind::Array(_))) {
                let mut elements = Vec::with_capacity(items.len());
                for item in items {
                    let typed = self.typed(item)?;
                    elements.push(self.explicit(item.at, typed, element, Vec::new())?);
                }
                return self.folded(at, Expr::new(to.clone(), Kind::Array(elements)));
            }
        }
        let of = self.typed(of)?;
        self.explicit(at, of, &to, name.modifiers.clone())
    }

    /// `of::to`
    fn explicit(&mut self, at: usize, of: Typed, to: &Type, modifier: Vec<i32>) -> Result<Expr, WhereError> {
        match of {
            Typed::Literal { .. } => {
                let read = self.coerce(of, to, at)?;
                if modifier.is_empty() { Ok(read) } else { self.cast_to(at, read, to, modifier) }
            }
            Typed::Known(expr) if expr.ty == *to && modifier.is_empty() => Ok(expr),
            Typed::Known(expr) => self.cast_to(at, expr, to, modifier),
        }
    }

    pub(super) fn cast_to(&mut self, at: usize, expr: Expr, to: &Type, modifier: Vec<i32>) -> Result<Expr, WhereError> {
        // What cannot be computed for rows may still be for constants: their text is read here and now.
        let constant = expr.constant().is_some();
        if !cast::exists(&expr.ty, to, constant) {
            let (from, to) = (long_name(&expr.ty), long_name(to));
            return Err(self.error(at, format!("a cast from {from} to {to} does not exist or is not supported here")));
        }
        let kind = Kind::Cast { of: expr.into(), modifier };
        self.folded(at, Expr::new(to.clone(), kind))
    }
}
