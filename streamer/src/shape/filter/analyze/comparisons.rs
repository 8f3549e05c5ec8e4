//! Operators, and what is written with words but comes to operators: IS, IN, BETWEEN, LIKE, ANY and ALL.

use super::super::collate;
use super::super::error::WhereError;
use super::super::expr::{Expr, Kind, Op, Sign};
use super::super::operators::{Unresolved, resolve};
use super::super::syntax::{Node, Test};
use super::super::types::Type;
use super::types::long_name;
use super::{Analyzer, Typed};

impl Analyzer<'_> {
    /// An operator with one or two sides.
    pub(in crate::shape::filter) fn operator(
        &mut self,
        at: usize,
        sign: &str,
        sides: Vec<Typed>,
    ) -> Result<Expr, WhereError> {
        let types: Vec<&Type> = sides.iter().map(Typed::ty).collect();
        let signature = match resolve(sign, &types) {
            Ok(signature) => signature,
            Err(why) => return Err(self.unresolved(at, sign, &types, why)),
        };
        let mut arguments = Vec::with_capacity(sides.len());
        for (side, takes) in sides.into_iter().zip(&signature.takes) {
            // Postgres compares these as they are, and a cast would fail for dates beyond timestamps.
            arguments.push(self.coerce(side, takes, at)?);
        }
        if signature.op == Op::Power && signature.gives == Type::Numeric {
            return Err(self.error(at, "^ of numerics is not supported: cast to double precision"));
        }
        let sign = if arguments.len() == 2 { Sign::Infix(signature.sign) } else { Sign::Prefix(signature.sign) };
        self.call(at, signature.op, sign, arguments, signature.gives)
    }

    /// A call whose arguments have their types.
    pub(in crate::shape::filter) fn call(
        &mut self,
        at: usize,
        op: Op,
        sign: Sign,
        arguments: Vec<Expr>,
        gives: Type,
    ) -> Result<Expr, WhereError> {
        let (op, arguments) = collate::checked(self, at, op, arguments)?;
        self.folded(at, Expr::new(gives, Kind::Call { op, sign, arguments }))
    }

    fn unresolved(&self, at: usize, sign: &str, types: &[&Type], why: Unresolved) -> WhereError {
        if why == Unresolved::Ambiguous {
            return self.error(at, format!("operator is not unique: {}: write a cast", written(sign, types)));
        }
        if matches!(sign, "~" | "~*" | "!~" | "!~*") && types.len() == 2 {
            return self.error(at, "regular expressions are not supported: use LIKE");
        }
        self.error(at, format!("operator does not exist or is not supported: {}", written(sign, types)))
    }

    pub(super) fn is(&mut self, test: Test, negated: bool, of: &Node) -> Result<Expr, WhereError> {
        let tested = match test {
            Test::Null => {
                let typed = self.typed(of)?;
                if let Some(fields) = self.fields(of.at, &typed, !negated)? {
                    return Ok(fields);
                }
                // Nobody says what type a literal is here: text will do.
                let ty = if *typed.ty() == Type::Unknown { Type::Text } else { typed.ty().clone() };
                Expr::bool(Kind::IsNull(self.coerce(typed, &ty, of.at)?.into()))
            }
            Test::Unknown => Expr::bool(Kind::IsNull(self.condition(of)?.into())),
            Test::True | Test::False => Expr::bool(Kind::Is(test == Test::True, self.condition(of)?.into())),
        };
        let tested = self.folded(of.at, tested)?;
        Ok(if negated { Self::not(tested) } else { tested })
    }

    /// The test of a composite value's fields, of which IS NOT NULL is not the contrary.
    fn fields(&self, at: usize, typed: &Typed, null: bool) -> Result<Option<Expr>, WhereError> {
        let Typed::Known(expr) = typed else { return Ok(None) };
        match &expr.kind {
            Kind::Column(column) if self.table.columns[*column].composite => {
                Ok(Some(Expr::bool(Kind::Fields { column: *column, null })))
            }
            Kind::Column(_) => Ok(None),
            _ if matches!(expr.ty, Type::Other(_)) => {
                Err(self.error(at, format!("IS NULL of {} is only supported of a column", expr.ty)))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn distinct(&mut self, at: usize, negated: bool, left: &Node, right: &Node) -> Result<Expr, WhereError> {
        let (left, right) = (self.typed(left)?, self.typed(right)?);
        // Postgres makes a test for null of it, and asks for no operator.
        let null = |side: &Typed| matches!(side, Typed::Literal { text: None, .. });
        let same = if null(&left) || null(&right) {
            let of = if null(&right) { left } else { right };
            let ty = if *of.ty() == Type::Unknown { Type::Text } else { of.ty().clone() };
            Expr::bool(Kind::IsNull(self.coerce(of, &ty, at)?.into()))
        } else {
            let equal = self.comparison_sides(at, left, right)?;
            let (left, right) = equal;
            Expr::bool(Kind::Same(left.into(), right.into()))
        };
        let same = self.folded(at, same)?;
        Ok(if negated { same } else { Self::not(same) })
    }

    /// Both sides as `=` takes them.
    pub(super) fn comparison_sides(
        &mut self,
        at: usize,
        left: Typed,
        right: Typed,
    ) -> Result<(Expr, Expr), WhereError> {
        let types = [left.ty(), right.ty()];
        let signature = match resolve("=", &types) {
            Ok(signature) => signature,
            Err(why) => return Err(self.unresolved(at, "=", &types, why)),
        };
        let left = self.coerce(left, &signature.takes[0], at)?;
        let right = self.coerce(right, &signature.takes[1], at)?;
        let (_, mut sides) = collate::checked(self, at, Op::Equal, vec![left, right])?;
        let right = sides.pop();
        match (sides.pop(), right) {
            (Some(left), Some(right)) => Ok((left, right)),
            _ => Err(self.error(at, "an operator without sides")),
        }
    }

    /// `left IN (list)`: one search in an array where all values have a type in common, as in Postgres; else one `=` each.
    pub(super) fn within(&mut self, at: usize, left: &Node, list: &[Node]) -> Result<Expr, WhereError> {
        let typed = list.iter().map(|node| self.typed(node)).collect::<Result<Vec<_>, _>>()?;
        let left_typed = self.typed(left)?;
        let has_column = |of: &Typed| matches!(of, Typed::Known(expr) if collate::mentions_column(expr));
        let (vars, plain): (Vec<&Typed>, Vec<&Typed>) = typed.iter().partition(|one| has_column(one));
        if plain.len() > 1 {
            let mut all = vec![&left_typed];
            all.extend(&plain);
            if let Some(ty) = Self::common(&all).filter(|ty| !matches!(ty, Type::Array(_) | Type::Other(_))) {
                let elements =
                    plain.into_iter().map(|one| self.coerce(one.clone(), &ty, at)).collect::<Result<Vec<_>, _>>()?;
                let array = self.folded(at, Expr::new(ty.array(), Kind::Array(elements)))?;
                let mut found = self.any(at, "=", false, left_typed.clone(), Typed::Known(array))?;
                for one in vars {
                    let equal = self.operator(at, "=", vec![left_typed.clone(), one.clone()])?;
                    found = Self::either(found, equal);
                }
                return Ok(found);
            }
        }
        let mut found: Option<Expr> = None;
        for one in &typed {
            let equal = self.operator(at, "=", vec![left_typed.clone(), one.clone()])?;
            found = Some(match found {
                Some(found) => Self::either(found, equal),
                None => equal,
            });
        }
        found.ok_or_else(|| self.error(at, "IN without values"))
    }

    fn either(left: Expr, right: Expr) -> Expr {
        match left.kind {
            Kind::Or(mut all) => {
                all.push(right);
                Expr::bool(Kind::Or(all))
            }
            _ => Expr::bool(Kind::Or(vec![left, right])),
        }
    }

    /// `x >= low AND x <= high`, and its variations.
    pub(super) fn between(
        &mut self,
        at: usize,
        symmetric: bool,
        of: &Node,
        low: &Node,
        high: &Node,
        negated: bool,
    ) -> Result<Expr, WhereError> {
        let (of, low, high) = (self.typed(of)?, self.typed(low)?, self.typed(high)?);
        let mut range = |low: &Typed, high: &Typed| -> Result<Expr, WhereError> {
            let signs = if negated { ["<", ">"] } else { [">=", "<="] };
            let both = vec![
                self.operator(at, signs[0], vec![of.clone(), low.clone()])?,
                self.operator(at, signs[1], vec![of.clone(), high.clone()])?,
            ];
            Ok(Expr::bool(if negated { Kind::Or(both) } else { Kind::And(both) }))
        };
        let forth = range(&low, &high)?;
        if !symmetric {
            return Ok(forth);
        }
        let both = vec![forth, range(&high, &low)?];
        Ok(Expr::bool(if negated { Kind::And(both) } else { Kind::Or(both) }))
    }

    pub(super) fn like(
        &mut self,
        at: usize,
        (negated, fold): (bool, bool),
        of: &Node,
        pattern: &Node,
        escape: Option<&Node>,
    ) -> Result<Expr, WhereError> {
        let of = self.typed(of)?;
        let mut pattern = self.typed(pattern)?;
        if let Some(escape) = escape {
            let sign = match (self.typed(escape)?, &pattern) {
                (Typed::Literal { text: Some(sign), .. }, Typed::Literal { text: Some(text), at, param }) => {
                    let text = super::super::like::with_backslashes(text, &sign).map_err(|why| self.error(*at, why))?;
                    Typed::Literal { at: *at, text: Some(text), param: *param }
                }
                _ => return Err(self.error(at, "ESCAPE is supported between literals only")),
            };
            pattern = sign;
        }
        let sign = match (negated, fold) {
            (false, false) => "~~",
            (false, true) => "~~*",
            (true, false) => "!~~",
            (true, true) => "!~~*",
        };
        self.operator(at, sign, vec![of, pattern])
    }

    pub(super) fn quantified(
        &mut self,
        at: usize,
        operator: &str,
        all: bool,
        left: &Node,
        right: &Node,
    ) -> Result<Expr, WhereError> {
        let (left, right) = (self.typed(left)?, self.typed(right)?);
        self.any(at, operator, all, left, right)
    }

    fn any(&mut self, at: usize, operator: &str, all: bool, left: Typed, right: Typed) -> Result<Expr, WhereError> {
        let element = match right.ty() {
            Type::Unknown => Type::Unknown,
            Type::Array(element) => (**element).clone(),
            _ => return Err(self.error(at, "op ANY/ALL (array) requires array on right side")),
        };
        let types = [left.ty(), &element];
        let signature = match resolve(operator, &types) {
            Ok(signature) => signature,
            Err(why) => return Err(self.unresolved(at, operator, &types, why)),
        };
        if signature.gives != Type::Bool {
            return Err(self.error(at, "op ANY/ALL (array) requires operator to yield boolean"));
        }
        if matches!(signature.takes[1], Type::Array(_)) {
            return Err(self.error(at, "could not find array type for the elements"));
        }
        let left = self.coerce(left, &signature.takes[0], at)?;
        let array = signature.takes[1].array();
        let right = match right {
            Typed::Known(expr) if expr.ty != array => self.cast_to(at, expr, &array, Vec::new())?,
            other => self.coerce(other, &array, at)?,
        };
        let (op, mut sides) = collate::checked(self, at, signature.op, vec![left, right])?;
        let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else {
            return Err(self.error(at, "an operator without sides"));
        };
        let sign = Sign::Infix(signature.sign);
        let kind = Kind::Quantified { op, sign, all, left: left.into(), right: right.into() };
        self.folded(at, Expr::bool(kind))
    }
}

fn written(sign: &str, types: &[&Type]) -> String {
    match types {
        [left, right] => format!("{} {sign} {}", long_name(left), long_name(right)),
        [of] => format!("{sign} {}", long_name(of)),
        _ => sign.to_owned(),
    }
}
