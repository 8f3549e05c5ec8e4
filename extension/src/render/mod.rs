//! Rows as JSON and keys as text: in Rust from a row's datums (`row`, `value`, `text`, `jsonb`), in SQL as expressions
//! (`expression`). Both render alike, under the settings that `settings::for_rendering` pins.

mod expression;
mod jsonb;
mod print;
mod row;
mod stored;
mod text;
mod to_json;
mod value;

use std::rc::Rc;

use pgrx::pg_sys::{self, Oid};

pub(crate) use expression::{entity_id, state};
pub(crate) use jsonb::{Writer, key_order};
pub(crate) use row::{Row, RowRenderer};
pub(crate) use stored::{MAX_LEVELS, Stored};
pub(crate) use text::Text;
pub(crate) use value::Form;

/// A column of an enabled table.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a type")]
#[derive(Clone)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// Its attribute number.
    pub(crate) number: i16,
    /// Its type, qualified, with modifier: what a text is cast to.
    pub(crate) sql_type: String,
    /// The type beneath its domains: to cast to it runs no code of the domain's owner.
    pub(crate) base_type: String,
    /// Its type is one of Postgres' own.
    pub(crate) builtin: bool,
    /// Its type is json or jsonb.
    pub(crate) is_json: bool,
    /// Its text may contain the characters that a composite key escapes.
    pub(crate) needs_escape: bool,
    by_value: bool,
    length: i16,
    /// How its values become JSON.
    pub(crate) form: Rc<Form>,
    text: Rc<Text>,
}

impl Column {
    /// Describes a column by its type.
    pub(crate) fn new(
        name: String,
        number: i16,
        type_oid: Oid,
        sql_type: String,
        base_type: String,
        builtin: bool,
    ) -> Self {
        let (mut length, mut by_value) = (0, false);
        // SAFETY: catalog look-ups; both accept any type's OID.
        let base = unsafe {
            pg_sys::get_typlenbyval(type_oid, &raw mut length, &raw mut by_value);
            pg_sys::getBaseType(type_oid)
        };
        Self {
            name,
            number,
            sql_type,
            base_type,
            builtin,
            is_json: matches!(base, pg_sys::JSONOID | pg_sys::JSONBOID),
            needs_escape: !matches!(
                base,
                pg_sys::BOOLOID
                    | pg_sys::INT2OID
                    | pg_sys::INT4OID
                    | pg_sys::INT8OID
                    | pg_sys::UUIDOID
                    | pg_sys::DATEOID
                    | pg_sys::NUMERICOID
            ),
            by_value,
            length,
            form: Rc::new(Form::of(type_oid)),
            text: Rc::new(Text::of(type_oid, builtin)),
        }
    }
}
