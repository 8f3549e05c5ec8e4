//! What a table is to shapes: its identity and its columns as the catalog has them at one moment.
//!
//! Two equal values give the same rows the same text: whatever makes a client's copy wrong (a column that came, went, or
//! was retyped; a table that was made anew or rewritten; partitions that came or went) makes them differ.

use std::sync::Arc;

/// A table at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableSchema {
    /// OID: a table that is dropped and made again is another one.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// The columns that clients may know, in the table's order. Excluded ones are not among them.
    pub columns: Vec<Column>,
    /// The table and, if it is partitioned, everything below it: whose changes in the WAL are changes of this table.
    pub members: Vec<Member>,
    /// Columns that `headwater.enable` excluded: they do not exist for clients.
    pub excluded: Vec<String>,
    /// Columns that our role may not read, or not whole: Postgres lets nobody see them through us, and the WAL has them all
    /// the same.
    pub unreadable: Vec<String>,
    /// The column that says whose a row is, if the table is an entity's with tenants.
    pub tenant_column: Option<String>,
    /// The database's own collation: that of text which is no column's.
    pub default_collation: Collation,
    /// How that maps upper to lower case.
    pub default_letters: Letters,
}

/// A table whose changes count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// OID.
    pub oid: u32,
    /// Where its rows are stored; TRUNCATE and rewriting ALTERs change it.
    pub storage: Option<u32>,
    /// Whether the WAL has its whole old rows (REPLICA IDENTITY FULL).
    pub full_identity: bool,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// Name of its type, as `int4`; of an array, the array type's name, as `_int4`.
    pub type_name: String,
    /// Type modifier, -1 for none.
    pub type_mod: i32,
    /// Declared dimensions; zero for what is no array.
    pub dims: i32,
    /// NOT NULL, or part of the primary key.
    pub not_null: bool,
    /// Place in the primary key, from zero.
    pub pk_index: Option<usize>,
    /// How its text is ordered and compared.
    pub collation: Collation,
    /// How the collation maps upper to lower case and back.
    pub letters: Letters,
    /// A generated column, and not in the WAL.
    pub generated: bool,
    /// The labels of an enum, in their order; of an array, those of its elements.
    pub enum_labels: Vec<String>,
    /// Of a composite type, or of a domain over one.
    pub composite: bool,
    /// What a domain stands for in the end; the type itself if it is none.
    pub base: TypeRef,
    /// The type of an array's elements.
    pub element: Option<TypeRef>,
}

/// A type by OID and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TypeRef {
    /// OID.
    pub oid: u32,
    /// Name without schema, as `int4`.
    pub name: String,
}

/// How text is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collation {
    /// The type has none.
    None,
    /// Byte by byte (`C`, `POSIX`, and those of UTF-8 by code point, which is the same).
    Bytes,
    /// A language's: equal means the same bytes, but the order is the operating system's or ICU's.
    Language,
    /// Different bytes may be equal.
    Nondeterministic,
}

/// How upper case becomes lower case and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Letters {
    /// Only A to Z.
    Ascii,
    /// Every character to one, as `UnicodeData.txt` has it.
    Simple,
    /// As Unicode's full mapping has it, where `ß` becomes `SS`.
    Full,
    /// By rules of a language or a system that we do not have.
    Unknown,
}

impl TableSchema {
    /// The columns of the primary key, in its order; empty without one.
    pub fn primary_key(&self) -> Vec<usize> {
        let mut key: Vec<(usize, usize)> =
            self.columns.iter().enumerate().filter_map(|(at, column)| Some((column.pk_index?, at))).collect();
        key.sort_unstable();
        key.into_iter().map(|(_, at)| at).collect()
    }

    /// The columns that make up a row's key: the primary key, else all of them by name.
    pub fn row_key(&self) -> Vec<usize> {
        let key = self.primary_key();
        if !key.is_empty() {
            return key;
        }
        let mut all: Vec<usize> = (0..self.columns.len()).filter(|at| !self.columns[*at].generated).collect();
        all.sort_by(|a, b| self.columns[*a].name.cmp(&self.columns[*b].name));
        all
    }

    /// The OIDs whose changes are this table's, ascending.
    pub fn member_oids(&self) -> Vec<u32> {
        let mut oids: Vec<u32> = self.members.iter().map(|member| member.oid).collect();
        oids.sort_unstable();
        oids
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// For SQL, behind FROM: the table, or a tenant's rows of it. What else is asked of them is asked of no others, not even
    /// of those that it would leave out: an error tells of its row (`offset` keeps conditions apart).
    pub fn from(&self, whose: Option<&TenantRows>) -> String {
        match whose {
            None => self.quoted(),
            Some(rows) => {
                // By name: our role may not read excluded ones.
                let columns: Vec<String> = self.columns.iter().map(|column| quote(&column.name)).collect();
                let (columns, name) = (columns.join(", "), quote(&self.name));
                format!("(select {columns} from {} where {} offset 0) as {name}", self.quoted(), rows.to_sql(self))
            }
        }
    }

    /// `"schema"."table"` for SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

/// A tenant's rows: those whose column has this text; null for those without a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRows {
    /// Place of the tenant column.
    column: usize,
    tenant: Option<Arc<str>>,
    /// `char(n)`: blanks at the end do not count.
    padded: bool,
}

impl TenantRows {
    /// The rows of a tenant, by the table's column.
    pub fn new(table: &TableSchema, column: usize, tenant: Option<Arc<str>>) -> Self {
        let padded = table.columns[column].base.name == "bpchar";
        Self {
            column,
            tenant: tenant.map(|text| if padded { text.trim_end_matches(' ').into() } else { text }),
            padded,
        }
    }

    /// The tenant.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Place of the tenant column.
    pub fn column(&self) -> usize {
        self.column
    }

    /// Whether a row is among them; values by their columns' place in the table.
    pub fn takes(&self, row: &[Option<&str>]) -> bool {
        let value = row.get(self.column).copied().flatten();
        let value = if self.padded { value.map(|text| text.trim_end_matches(' ')) } else { value };
        value == self.tenant.as_deref()
    }

    /// The text that all of them have in the column.
    pub fn text(&self) -> Option<&str> {
        self.tenant.as_deref().filter(|_| !self.padded)
    }

    /// The condition for SQL.
    pub fn to_sql(&self, table: &TableSchema) -> String {
        let name = quote(&table.columns[self.column].name);
        match &self.tenant {
            // Byte by byte, as in the log, whatever the column's collation takes for equal.
            Some(tenant) => format!("{name}::pg_catalog.text collate pg_catalog.\"C\" = {}", literal(tenant)),
            None => format!("{name} is null"),
        }
    }
}

/// A constant for SQL. Standard strings, whatever the session says: `E''` is the only form that means the same under
/// both settings.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// An identifier for SQL.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
