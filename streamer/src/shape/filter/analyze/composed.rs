//! What is made of several parts: subscripts, arrays, CASE, and the calls that take any type.

use super::super::array::MAX_DIMENSIONS;
use super::super::calls;
use super::super::collate;
use super::super::error::WhereError;
use super::super::expr::{Expr, Kind, Op};
use super::super::syntax::{Index, Node};
use super::super::types::{Category, Type};
use super::super::value::Value;
use super::types::long_name;
use super::{Analyzer, Typed};

impl Analyzer<'_> {
    fn index(&mut self, node: &Node) -> Result<Expr, WhereError> {
        let typed = self.typed(node)?;
        match typed.ty() {
            Type::Int8 | Type::Numeric | Type::Float4 | Type::Float8 => {
                Err(self.error(node.at, "array subscript must have type integer"))
            }
            _ => self.coerce(typed, &Type::Int4, node.at),
        }
    }

    pub(super) fn subscript(&mut self, at: usize, of: &Node, indexes: &[Index]) -> Result<Expr, WhereError> {
        let Typed::Known(of) = self.typed(of)? else {
            return Err(self.error(at, "cannot subscript a literal without a type: write a cast"));
        };
        let Some(element) = of.ty.element().cloned() else {
            let ty = long_name(&of.ty);
            return Err(self.error(at, format!("cannot subscript type {ty} because it does not support subscripting")));
        };
        if indexes.len() > MAX_DIMENSIONS {
            return Err(self.error(at, "an array has at most six dimensions"));
        }
        if indexes.iter().all(|index| matches!(index, Index::One(_))) {
            let mut all = Vec::new();
            for index in indexes {
                if let Index::One(one) = index {
                    all.push(self.index(one)?);
                }
            }
            return self.folded(at, Expr::new(element, Kind::Subscript(of.into(), all)));
        }
        // One slice makes all of them slices: `a[1:2][3]` is `a[1:2][1:3]`.
        let mut bounds = Vec::new();
        for index in indexes {
            bounds.push(match index {
                Index::One(high) => {
                    (Some(Expr::new(Type::Int4, Kind::Const(Some(Value::Int4(1))))), Some(self.index(high)?))
                }
                Index::Slice(low, high) => {
                    let low = low.as_ref().map(|low| self.index(low)).transpose()?;
                    (low, high.as_ref().map(|high| self.index(high)).transpose()?)
                }
            });
        }
        let ty = of.ty.clone();
        self.folded(at, Expr::new(ty, Kind::Slice(of.into(), bounds)))
    }

    pub(super) fn array(&mut self, at: usize, items: &[Node]) -> Result<Expr, WhereError> {
        if items.is_empty() {
            return Err(self.error(at, "cannot determine type of empty array: write a cast, as ARRAY[]::int[]"));
        }
        let (all, ty) = self.all_common(at, "ARRAY", items)?;
        if matches!(ty, Type::Other(_)) {
            return Err(self.error(at, format!("arrays of {ty} are not supported")));
        }
        let ty = if ty.element().is_some() { ty } else { ty.array() };
        self.folded(at, Expr::new(ty, Kind::Array(all)))
    }

    pub(super) fn case(
        &mut self,
        at: usize,
        operand: Option<&Node>,
        branches: &[(Node, Node)],
        default: Option<&Node>,
    ) -> Result<Expr, WhereError> {
        let operand = operand.map(|operand| self.typed(operand)).transpose()?;
        let mut conditions = Vec::new();
        let mut results = Vec::new();
        for (when, then) in branches {
            conditions.push(match &operand {
                Some(operand) => {
                    // A literal operand is text, once and for all.
                    let operand = match operand {
                        Typed::Literal { .. } => Typed::Known(self.coerce(operand.clone(), &Type::Text, at)?),
                        known @ Typed::Known(_) => known.clone(),
                    };
                    let when = self.typed(when)?;
                    self.operator(at, "=", vec![operand, when])?
                }
                None => self.condition(when)?,
            });
            results.push(self.typed(then)?);
        }
        let default = match default {
            Some(default) => self.typed(default)?,
            None => Typed::Literal { at, text: None, param: None },
        };
        // Postgres looks at the ELSE first.
        let all: Vec<&Typed> = std::iter::once(&default).chain(&results).collect();
        let ty = Self::common(&all).ok_or_else(|| self.error(at, "CASE types cannot be matched"))?;
        let default = Some(self.coerce(default, &ty, at)?.into());
        let mut all = Vec::new();
        for (when, then) in conditions.into_iter().zip(results) {
            all.push((when, self.coerce(then, &ty, at)?));
        }
        self.folded(at, Expr::new(ty, Kind::Case { branches: all, default }))
    }

    pub(super) fn collate(&mut self, at: usize, of: &Node, name: &str) -> Result<Expr, WhereError> {
        if !matches!(name, "C" | "POSIX") {
            return Err(self.error(at, format!("COLLATE \"{name}\" is not supported: only COLLATE \"C\"")));
        }
        let typed = self.typed(of)?;
        let ty = if *typed.ty() == Type::Unknown { Type::Text } else { typed.ty().clone() };
        if ty.category() != Category::String {
            return Err(self.error(at, format!("collations are not supported by type {}", long_name(&ty))));
        }
        let of = self.coerce(typed, &ty, at)?;
        Ok(Expr::new(ty, Kind::Collate(of.into())))
    }

    pub(super) fn function(&mut self, at: usize, name: &str, arguments: &[Node]) -> Result<Expr, WhereError> {
        let few = |this: &Self| this.error(at, format!("{name} takes other arguments"));
        match name {
            "coalesce" | "greatest" | "least" => {
                if arguments.is_empty() {
                    return Err(few(self));
                }
                let (all, ty) = self.all_common(at, &name.to_uppercase(), arguments)?;
                if name == "coalesce" {
                    return self.folded(at, Expr::new(ty, Kind::Coalesce(all)));
                }
                if matches!(ty.element().unwrap_or(&ty), Type::Other(_) | Type::Jsonb) {
                    return Err(self.error(at, format!("{name} of {ty} is not supported")));
                }
                let (_, all) = collate::checked(self, at, Op::Less, all)?;
                self.folded(at, Expr::new(ty, Kind::Extreme { greatest: name == "greatest", of: all }))
            }
            "nullif" => {
                let [left, right] = arguments else { return Err(few(self)) };
                let (left, right) = (self.typed(left)?, self.typed(right)?);
                let plain = left.ty().clone();
                let (left, right) = self.comparison_sides(at, left, right)?;
                // The result has the type of the left side, or that of `=` where it was only a literal.
                if plain != Type::Unknown && left.ty != plain {
                    return Err(self.error(at, "nullif of different types is not supported: write a cast"));
                }
                let ty = left.ty.clone();
                self.folded(at, Expr::new(ty, Kind::NullIf(left.into(), right.into())))
            }
            _ => {
                let arguments = arguments.iter().map(|one| self.typed(one)).collect::<Result<Vec<_>, _>>()?;
                calls::call(self, at, name, arguments)
            }
        }
    }
}
