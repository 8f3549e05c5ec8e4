//! The types that filters know, and how Postgres turns one into another unasked (`pg_cast`, `pg_type`).

use std::fmt;
use std::sync::Arc;

use crate::shape::table::{Column, TypeRef};

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Varchar,
    Bpchar,
    Name,
    Uuid,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Jsonb,
    Enum(Arc<Enum>),
    Array(Arc<Type>),
    /// A type of which we can only tell whether a value is null.
    Other(Arc<str>),
    /// A literal or parameter that takes the type its surroundings want.
    Unknown,
}

/// An enum by its labels.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Enum {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) labels: Vec<String>,
}

/// What Postgres files types under when it looks for the best operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    Boolean,
    Number,
    String,
    DateTime,
    Timespan,
    Array,
    Enum,
    User,
    Unknown,
}

impl Type {
    /// The type of a column, domains looked through.
    pub(super) fn of_column(column: &Column) -> Self {
        let labelled =
            |of: &TypeRef| Arc::new(Enum { oid: of.oid, name: of.name.clone(), labels: column.enum_labels.clone() });
        match &column.element {
            Some(element) => {
                let element = match Self::by_oid(element.oid) {
                    Some(known) => known,
                    None if !column.enum_labels.is_empty() => Self::Enum(labelled(element)),
                    None => return Self::Other(column.type_name.as_str().into()),
                };
                Self::Array(element.into())
            }
            None => match Self::by_oid(column.base.oid) {
                Some(known) => known,
                // Polymorphic operators do not look through domains: Postgres has no `=` for one of an enum.
                None if !column.enum_labels.is_empty() && column.type_oid == column.base.oid => {
                    Self::Enum(labelled(&column.base))
                }
                None => Self::Other(column.type_name.as_str().into()),
            },
        }
    }

    fn by_oid(oid: u32) -> Option<Self> {
        Some(match oid {
            16 => Self::Bool,
            19 => Self::Name,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            25 => Self::Text,
            700 => Self::Float4,
            701 => Self::Float8,
            1042 => Self::Bpchar,
            1043 => Self::Varchar,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::Timestamptz,
            1186 => Self::Interval,
            1700 => Self::Numeric,
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            _ => return None,
        })
    }

    /// A type by Postgres' own name for it.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "bool" => Self::Bool,
            "name" => Self::Name,
            "int8" => Self::Int8,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "text" => Self::Text,
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "bpchar" => Self::Bpchar,
            "varchar" => Self::Varchar,
            "date" => Self::Date,
            "time" => Self::Time,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::Timestamptz,
            "interval" => Self::Interval,
            "numeric" => Self::Numeric,
            "uuid" => Self::Uuid,
            "jsonb" => Self::Jsonb,
            _ => return None,
        })
    }

    /// The name for SQL, qualified; none for types that we write no casts to.
    pub(super) fn sql(&self) -> Option<String> {
        match self {
            Self::Array(element) => element.sql().map(|element| element + "[]"),
            Self::Enum(_) | Self::Other(_) | Self::Unknown => None,
            _ => Some(format!("pg_catalog.{}", self.short())),
        }
    }

    fn short(&self) -> &str {
        match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Varchar => "varchar",
            Self::Bpchar => "bpchar",
            Self::Name => "name",
            Self::Uuid => "uuid",
            Self::Jsonb => "jsonb",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Interval => "interval",
            Self::Enum(of) => &of.name,
            Self::Other(name) => name,
            Self::Array(_) => "array",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn array(&self) -> Self {
        Self::Array(self.clone().into())
    }

    pub(super) fn element(&self) -> Option<&Self> {
        match self {
            Self::Array(element) => Some(element),
            _ => None,
        }
    }

    pub(super) fn category(&self) -> Category {
        match self {
            Self::Bool => Category::Boolean,
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Float4 | Self::Float8 | Self::Numeric => Category::Number,
            Self::Text | Self::Varchar | Self::Bpchar | Self::Name => Category::String,
            Self::Date | Self::Time | Self::Timestamp | Self::Timestamptz => Category::DateTime,
            Self::Interval => Category::Timespan,
            Self::Array(_) => Category::Array,
            Self::Enum(_) => Category::Enum,
            Self::Uuid | Self::Jsonb | Self::Other(_) => Category::User,
            Self::Unknown => Category::Unknown,
        }
    }

    /// The type that Postgres prefers within its category.
    pub(super) fn is_preferred(&self) -> bool {
        matches!(self, Self::Bool | Self::Float8 | Self::Text | Self::Timestamptz | Self::Interval)
    }

    pub(super) fn is_text(&self) -> bool {
        self.category() == Category::String
    }

    /// Whether a value becomes `to` without being asked to.
    pub(super) fn becomes(&self, to: &Self) -> bool {
        self == to
            || match self {
                Self::Unknown => true,
                Self::Int2 => {
                    matches!(to, Self::Int4 | Self::Int8 | Self::Float4 | Self::Float8 | Self::Numeric)
                }
                Self::Int4 => matches!(to, Self::Int8 | Self::Float4 | Self::Float8 | Self::Numeric),
                Self::Int8 => matches!(to, Self::Float4 | Self::Float8 | Self::Numeric),
                Self::Numeric => matches!(to, Self::Float4 | Self::Float8),
                Self::Float4 => *to == Self::Float8,
                Self::Text | Self::Varchar | Self::Bpchar => to.is_text(),
                Self::Name => *to == Self::Text,
                Self::Date => matches!(to, Self::Timestamp | Self::Timestamptz),
                Self::Time => *to == Self::Interval,
                Self::Timestamp => *to == Self::Timestamptz,
                _ => false,
            }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array(element) => write!(f, "{element}[]"),
            _ => f.write_str(self.short()),
        }
    }
}
