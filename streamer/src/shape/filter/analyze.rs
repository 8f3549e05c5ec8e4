//! From the tree as written to typed expressions: names, types and casts resolved as Postgres' analyser does it, or refused.

use std::collections::BTreeMap;

use super::calls;
use super::cast;
use super::collate;
use super::error::WhereError;
use super::eval::{self, Row};
use super::expr::{Expr, Kind, Op, Sign};
use super::lexer::characters;
use super::operators::{Unresolved, resolve};
use super::subquery::{self, Catalog, Subquery};
use super::syntax::{self, Index, Node, Test, TypeName};
use super::text;
use super::types::{Category, Type};
use super::value::Value;
use super::{MAX_ANALYZED, MAX_DEPTH, Purpose};
use crate::shape::table::TableSchema;

/// A part with its type, or a literal that waits for one.
#[derive(Clone, Debug)]
pub(super) enum Typed {
    Known(Expr),
    Literal { at: usize, text: Option<String>, param: Option<u32> },
}

impl Typed {
    pub(super) fn ty(&self) -> &Type {
        match self {
            Self::Known(expr) => &expr.ty,
            Self::Literal { .. } => &Type::Unknown,
        }
    }
}

/// Resolves the parts of one expression.
pub(super) struct Analyzer<'a> {
    pub(super) text: &'a str,
    pub(super) table: &'a TableSchema,
    pub(super) params: &'a BTreeMap<u32, String>,
    pub(super) purpose: Purpose,
    /// What each parameter was taken for.
    pub(super) param_types: BTreeMap<u32, Type>,
    /// Tables of subqueries, if there may be any.
    pub(super) catalog: Option<&'a dyn Catalog>,
    /// Subqueries so far.
    pub(super) subqueries: Vec<Subquery>,
    /// Parts so far: BETWEEN and its like repeat theirs.
    pub(super) spent: usize,
}

/// What Postgres calls a type in messages.
fn long_name(of: &Type) -> String {
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
    pub(super) fn error(&self, at: usize, message: impl Into<String>) -> WhereError {
        WhereError::at(characters(self.text, at), message)
    }

    fn spend(&mut self) -> Result<(), WhereError> {
        self.spent += 1;
        if self.spent > MAX_ANALYZED {
            return Err(WhereError::whole(format!("the expression comes to more than {MAX_ANALYZED} parts")));
        }
        Ok(())
    }

    /// The whole: a boolean.
    pub(super) fn boolean(&mut self, node: &Node) -> Result<Expr, WhereError> {
        let typed = self.typed(node)?;
        if !matches!(typed.ty(), Type::Bool | Type::Unknown) {
            return Err(WhereError::whole("WHERE clause must return a boolean"));
        }
        self.coerce(typed, &Type::Bool, node.at)
    }

    /// An operand of AND, OR, NOT, CASE.
    fn condition(&mut self, node: &Node) -> Result<Expr, WhereError> {
        let typed = self.typed(node)?;
        if !matches!(typed.ty(), Type::Bool | Type::Unknown) {
            let found = long_name(typed.ty());
            return Err(self.error(node.at, format!("argument must be type boolean, not type {found}")));
        }
        self.coerce(typed, &Type::Bool, node.at)
    }

    pub(super) fn typed(&mut self, node: &Node) -> Result<Typed, WhereError> {
        self.spend()?;
        let at = node.at;
        Ok(Typed::Known(match &node.kind {
            syntax::Kind::String(text) => return Ok(Typed::Literal { at, text: Some(text.clone()), param: None }),
            syntax::Kind::Null => return Ok(Typed::Literal { at, text: None, param: None }),
            syntax::Kind::Param(number) => {
                let Some(text) = self.params.get(number) else {
                    return Err(self.error(at, format!("parameter ${number} was not provided")));
                };
                return Ok(Typed::Literal { at, text: Some(text.clone()), param: Some(*number) });
            }
            syntax::Kind::Integer(digits) => self.number(at, digits)?,
            syntax::Kind::Decimal(digits) => self.constant(at, &Type::Numeric, digits)?,
            syntax::Kind::Bool(value) => Expr::bool(Kind::Const(Some(Value::Bool(*value)))),
            syntax::Kind::Column(names) => self.column(at, names)?,
            syntax::Kind::And(all) => {
                Expr::bool(Kind::And(all.iter().map(|one| self.condition(one)).collect::<Result<_, _>>()?))
            }
            syntax::Kind::Or(all) => {
                Expr::bool(Kind::Or(all.iter().map(|one| self.condition(one)).collect::<Result<_, _>>()?))
            }
            syntax::Kind::Not(of) => Expr::bool(Kind::Not(self.condition(of)?.into())),
            syntax::Kind::Unary(sign, of) => {
                let of = self.typed(of)?;
                self.operator(at, sign, vec![of])?
            }
            syntax::Kind::Binary(sign, left, right) => {
                let sides = vec![self.typed(left)?, self.typed(right)?];
                self.operator(at, sign, sides)?
            }
            syntax::Kind::Is { test, negated, of } => self.is(*test, *negated, of)?,
            syntax::Kind::Distinct { negated, left, right } => self.distinct(at, *negated, left, right)?,
            syntax::Kind::In { negated, left, list } => {
                let within = self.within(at, left, list)?;
                if *negated { Self::not(within) } else { within }
            }
            syntax::Kind::Between { negated, symmetric, of, low, high } => {
                self.between(at, *symmetric, of, low, high, *negated)?
            }
            syntax::Kind::Like { negated, fold, of, pattern, escape } => {
                self.like(at, (*negated, *fold), of, pattern, escape.as_deref())?
            }
            syntax::Kind::Quantified { operator, all, left, right } => {
                self.quantified(at, operator, *all, left, right)?
            }
            syntax::Kind::Cast(of, name) => self.cast(at, of, name)?,
            syntax::Kind::Subscript(of, indexes) => self.subscript(at, of, indexes)?,
            syntax::Kind::Array(items) => self.array(at, items)?,
            syntax::Kind::Row(_) => {
                return Err(self.error(at, "rows are only supported as (a, b) IN (SELECT …)"));
            }
            syntax::Kind::InSelect { negated, left, select } => {
                let found = subquery::atom(self, at, left, select)?;
                if *negated { Self::not(found) } else { found }
            }
            syntax::Kind::Function { name, arguments } => self.function(at, name, arguments)?,
            syntax::Kind::Case { operand, branches, default } => {
                self.case(at, operand.as_deref(), branches, default.as_deref())?
            }
            syntax::Kind::Collate(of, name) => self.collate(at, of, name)?,
            syntax::Kind::AtTimeZone(of, zone) => {
                let arguments = vec![self.typed(zone)?, self.typed(of)?];
                calls::call(self, at, "timezone", arguments)?
            }
        }))
    }

    fn number(&mut self, at: usize, digits: &str) -> Result<Expr, WhereError> {
        let value = match digits.parse::<i64>() {
            Ok(value) => match i32::try_from(value) {
                Ok(value) => Value::Int4(value),
                Err(_) => Value::Int8(value),
            },
            Err(_) => return self.constant(at, &Type::Numeric, digits),
        };
        let ty = if matches!(value, Value::Int4(_)) { Type::Int4 } else { Type::Int8 };
        Ok(Expr::new(ty, Kind::Const(Some(value))))
    }

    /// A literal of this type.
    fn constant(&mut self, at: usize, ty: &Type, text: &str) -> Result<Expr, WhereError> {
        if let Some(value) = text::read(ty, text.into()) {
            return Ok(Expr::new(ty.clone(), Kind::Const(Some(value.into_owned()))));
        }
        let shown: String = text.chars().take(80).collect();
        Err(self.error(at, format!("invalid input syntax for type {}: \"{shown}\"{}", long_name(ty), hint(ty))))
    }

    fn column(&mut self, at: usize, names: &[String]) -> Result<Expr, WhereError> {
        let [name] = names else {
            return Err(
                self.error(at, format!("unknown reference {}: columns are named without their table", names.join(".")))
            );
        };
        let Some(index) = self.table.column(name) else {
            return Err(self.error(at, format!("unknown reference {name}")));
        };
        let column = &self.table.columns[index];
        let ty = Type::of_column(column);
        Ok(Expr::new(ty, Kind::Column(index)))
    }

    /// Gives a part this type, as Postgres would without being asked; a literal is read.
    pub(super) fn coerce(&mut self, typed: Typed, to: &Type, place: usize) -> Result<Expr, WhereError> {
        match typed {
            Typed::Literal { at, text, param } => {
                if let Some(number) = param {
                    let known = self.param_types.entry(number).or_insert_with(|| to.clone());
                    if known != to {
                        let known = long_name(known);
                        return Err(self.error(
                            at,
                            format!("type conflict for ${number}: it cannot be both {known} and {}", long_name(to)),
                        ));
                    }
                }
                match text {
                    None => Ok(Expr::new(to.clone(), Kind::Const(None))),
                    Some(text) => self.constant(at, to, &text),
                }
            }
            Typed::Known(expr) if expr.ty == *to => Ok(expr),
            Typed::Known(expr) if expr.ty.becomes(to) => {
                let cast = Kind::Cast { of: expr.into(), modifier: Vec::new() };
                self.folded(place, Expr::new(to.clone(), cast))
            }
            Typed::Known(expr) => {
                let (from, to) = (long_name(&expr.ty), long_name(to));
                Err(self.error(place, format!("a value of type {from} cannot be taken for {to}: write a cast")))
            }
        }
    }

    /// Computes what is constant already, so that its errors are refusals.
    pub(super) fn folded(&mut self, at: usize, expr: Expr) -> Result<Expr, WhereError> {
        self.spend()?;
        let constant = match &expr.kind {
            Kind::Column(_) | Kind::Const(_) | Kind::Atom(_) => false,
            _ => expr.parts().iter().all(|part| part.constant().is_some()),
        };
        // Postgres, too, does not look at the other arguments, whatever errors they would make.
        if let Kind::Call { op, arguments, .. } = &expr.kind
            && op.is_strict()
            && arguments.iter().any(|argument| matches!(argument.constant(), Some(None)))
        {
            return Ok(Expr::new(expr.ty, Kind::Const(None)));
        }
        // Nothing is equal to null: as there, the first argument is all that is left (`eval_const_expressions`).
        if let Kind::NullIf(left, right) = &expr.kind
            && left.ty == expr.ty
            && [left, right].iter().any(|argument| matches!(argument.constant(), Some(None)))
        {
            return Ok(Expr::clone(left));
        }
        if !constant {
            if needs_name(&expr) {
                return Err(self.error(at, "enum literals alone have no type in SQL: name an enum column beside them"));
            }
            return Ok(expr);
        }
        match eval::value(&expr, &Row::empty()) {
            Ok(value) => Ok(Expr::new(expr.ty.clone(), Kind::Const(value.map(Value::into_owned)))),
            Err(fail) => Err(self.error(at, fail.0)),
        }
    }

    fn not(expr: Expr) -> Expr {
        match expr.kind {
            Kind::Const(Some(Value::Bool(value))) => Expr::bool(Kind::Const(Some(Value::Bool(!value)))),
            Kind::Const(None) => expr,
            _ => Expr::bool(Kind::Not(expr.into())),
        }
    }

    /// An operator with one or two sides.
    pub(super) fn operator(&mut self, at: usize, sign: &str, sides: Vec<Typed>) -> Result<Expr, WhereError> {
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
    pub(super) fn call(
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

    fn is(&mut self, test: Test, negated: bool, of: &Node) -> Result<Expr, WhereError> {
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

    fn distinct(&mut self, at: usize, negated: bool, left: &Node, right: &Node) -> Result<Expr, WhereError> {
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
    fn comparison_sides(&mut self, at: usize, left: Typed, right: Typed) -> Result<(Expr, Expr), WhereError> {
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

    /// The type that all become (`select_common_type`): none if there is none.
    fn common(all: &[&Typed]) -> Option<Type> {
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

    fn all_common(&mut self, at: usize, what: &str, nodes: &[Node]) -> Result<(Vec<Expr>, Type), WhereError> {
        let typed = nodes.iter().map(|node| self.typed(node)).collect::<Result<Vec<_>, _>>()?;
        let Some(ty) = Self::common(&typed.iter().collect::<Vec<_>>()) else {
            return Err(self.error(at, format!("{what} types cannot be matched")));
        };
        let all = typed.into_iter().map(|one| self.coerce(one, &ty, at)).collect::<Result<Vec<_>, _>>()?;
        Ok((all, ty))
    }

    /// `left IN (list)`: one search in an array where all values have a type in common, as in Postgres; else one `=` each.
    fn within(&mut self, at: usize, left: &Node, list: &[Node]) -> Result<Expr, WhereError> {
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
    fn between(
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

    fn like(
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
                    let text = super::like::with_backslashes(text, &sign).map_err(|why| self.error(*at, why))?;
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

    fn quantified(
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

    fn cast(&mut self, at: usize, of: &Node, name: &TypeName) -> Result<Expr, WhereError> {
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

    fn index(&mut self, node: &Node) -> Result<Expr, WhereError> {
        let typed = self.typed(node)?;
        match typed.ty() {
            Type::Int8 | Type::Numeric | Type::Float4 | Type::Float8 => {
                Err(self.error(node.at, "array subscript must have type integer"))
            }
            _ => self.coerce(typed, &Type::Int4, node.at),
        }
    }

    fn subscript(&mut self, at: usize, of: &Node, indexes: &[Index]) -> Result<Expr, WhereError> {
        let Typed::Known(of) = self.typed(of)? else {
            return Err(self.error(at, "cannot subscript a literal without a type: write a cast"));
        };
        let Some(element) = of.ty.element().cloned() else {
            let ty = long_name(&of.ty);
            return Err(self.error(at, format!("cannot subscript type {ty} because it does not support subscripting")));
        };
        if indexes.len() > super::array::MAX_DIMENSIONS {
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

    fn array(&mut self, at: usize, items: &[Node]) -> Result<Expr, WhereError> {
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

    fn case(
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

    fn collate(&mut self, at: usize, of: &Node, name: &str) -> Result<Expr, WhereError> {
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

    fn function(&mut self, at: usize, name: &str, arguments: &[Node]) -> Result<Expr, WhereError> {
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

/// What to write instead, where we read less than Postgres.
fn hint(ty: &Type) -> &'static str {
    match ty.element().unwrap_or(ty) {
        Type::Date => ": write YYYY-MM-DD",
        Type::Time => ": write HH:MM:SS",
        Type::Timestamp | Type::Timestamptz => ": write YYYY-MM-DDTHH:MM:SSZ",
        Type::Interval => ": write 1 day 02:03:04 or P1DT2H3M4S",
        _ => "",
    }
}

/// Whether an enum's name would be needed to say in SQL what type this has: literals take theirs from a column beside them.
fn needs_name(expr: &Expr) -> bool {
    if !matches!(expr.ty.element().unwrap_or(&expr.ty), Type::Enum(_)) {
        return false;
    }
    match &expr.kind {
        Kind::Column(_) => false,
        Kind::Case { branches, default } => {
            branches.iter().map(|(_, then)| then).chain(default.as_deref()).all(needs_name)
        }
        Kind::Subscript(of, _) | Kind::Slice(of, _) => needs_name(of),
        _ => expr.parts().into_iter().all(needs_name),
    }
}

fn written(sign: &str, types: &[&Type]) -> String {
    match types {
        [left, right] => format!("{} {sign} {}", long_name(left), long_name(right)),
        [of] => format!("{sign} {}", long_name(of)),
        _ => sign.to_owned(),
    }
}

/// No filter is nested deeper than its text: the evaluator's stack is bounded by the parser's.
const _: () = assert!(MAX_DEPTH < 1000, "recursion over expressions must stay shallow");
