//! What a table is to shapes: its identity and its columns as the catalog has them at one moment.
//!
//! Two equal values give the same rows the same text: whatever makes a client's copy wrong (a column that came, went, or
//! was retyped; a table that was made anew or rewritten; partitions that came or went) makes them differ.

use crate::error::Error;
use std::sync::Arc;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

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

/// What the catalog says of a collation.
#[derive(Clone, Copy, Debug)]
struct Locale<'a> {
    /// `c` the operating system's, `i` ICU's, `b` Postgres' own.
    provider: char,
    /// Where `c` takes the order from.
    collate: &'a str,
    /// Where `c` takes the case of letters from.
    ctype: &'a str,
    /// The name that the others go by.
    name: &'a str,
}

impl Locale<'_> {
    /// Bytes compare as code points in UTF-8, the only encoding that is served.
    fn collation(self) -> Collation {
        match self.provider {
            'b' => Collation::Bytes,
            'c' if matches!(self.collate, "C" | "POSIX" | "C.UTF-8" | "C.utf8") => Collation::Bytes,
            _ => Collation::Language,
        }
    }

    fn letters(self) -> Letters {
        let language = |of: &str| of.split(['-', '_', '.', '@']).next().unwrap_or("").to_ascii_lowercase();
        match self.provider {
            'b' => match self.name {
                "C" => Letters::Ascii,
                "C.UTF-8" => Letters::Simple,
                "PG_UNICODE_FAST" => Letters::Full,
                _ => Letters::Unknown,
            },
            'c' => {
                let encoding = self.ctype.split('@').next().unwrap_or("").split('.').nth(1).unwrap_or("");
                let utf8 = encoding.eq_ignore_ascii_case("utf-8") || encoding.eq_ignore_ascii_case("utf8");
                match self.ctype {
                    "C" | "POSIX" => Letters::Ascii,
                    // Dotted and dotless i are letters of their own there.
                    of if matches!(language(of).as_str(), "tr" | "az" | "ku" | "tt" | "crh") => Letters::Unknown,
                    _ if utf8 => Letters::Simple,
                    _ => Letters::Unknown,
                }
            }
            // Languages with rules of their own in ICU.
            'i' if !matches!(language(self.name).as_str(), "tr" | "az" | "lt" | "el" | "hy" | "") => Letters::Full,
            _ => Letters::Unknown,
        }
    }
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

/// What a look into the catalog found.
#[derive(Debug)]
pub struct Found {
    /// The table.
    pub table: TableSchema,
    /// Whether the publication has its changes.
    pub published: bool,
    /// Ordinary or partitioned, and logged: anything else cannot be a shape. Nor can a part of an enabled table, whose
    /// tenants and excluded columns are the whole's.
    pub servable: bool,
}

/// One row for the table and its members. `$1` schema, `$2` name, `$3` publication.
const TABLE: &str = "select c.oid, c.relkind in ('r', 'p') and c.relpersistence = 'p' and n.nspname <> 'headwater', \
       exists (select from pg_catalog.pg_publication p where p.pubname = $3 and (p.puballtables \
         or exists (select from pg_catalog.pg_publication_rel r where r.prpubid = p.oid and (r.prrelid = c.oid \
            or r.prrelid in (select a.relid from pg_catalog.pg_partition_ancestors(c.oid) a))) \
         or exists (select from pg_catalog.pg_publication_namespace s where s.pnpubid = p.oid and s.pnnspid = c.relnamespace))), \
       m.oids, m.storages, m.identities \
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
     cross join lateral (select array_agg(t.oid order by t.oid) as oids, \
         array_agg(pg_catalog.pg_relation_filenode(t.oid) order by t.oid) as storages, \
         array_agg(t.relreplident = 'f' order by t.oid) as identities \
       from pg_catalog.pg_class t where t.oid = c.oid or t.oid in (select p.relid from pg_catalog.pg_partition_tree(c.oid) p)) m \
     where n.nspname = $1 and c.relname = $2";

/// One row per column. `$1` OID of the table, `$2` publication. From Postgres 18 on a publication can have stored generated
/// columns; before, its catalog does not know that word.
const COLUMNS: &str = "with recursive bases as ( \
       select t.oid as type, t.oid as base, t.typbasetype as next from pg_catalog.pg_type t \
         where t.oid in (select a.atttypid from pg_catalog.pg_attribute a where a.attrelid = $1) \
       union all select b.type, t.oid, t.typbasetype from bases b join pg_catalog.pg_type t on t.oid = b.next where b.next <> 0) \
     select a.attname::text, a.atttypid, t.typname::text, a.atttypmod, a.attndims::int4, \
       a.attnotnull or coalesce(k.place, -1) >= 0, k.place, \
       a.attgenerated <> '' and not (a.attgenerated = 's' and exists (select from pg_catalog.pg_publication p \
         where p.pubname = $2 and pg_catalog.to_jsonb(p) ->> 'pubgencols' = 's')), \
       case when a.attcollation = 0 then 'none' when not l.collisdeterministic then 'loose' else 'strict' end, \
       case l.collprovider when 'd' then d.datlocprovider else l.collprovider end::text, \
       coalesce(case when l.collprovider <> 'd' then l.collcollate::text end, d.datcollate::text), \
       coalesce(case when l.collprovider <> 'd' then l.collctype::text end, d.datctype::text), \
       coalesce(case when l.collprovider <> 'd' then coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale') end, \
         to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', ''), \
       (select array_agg(e.enumlabel::text order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid in (u.oid, v.oid)), \
       u.oid, u.typname::text, v.oid, v.typname::text, \
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'select') and not pg_catalog.row_security_active(a.attrelid) \
     from pg_catalog.pg_attribute a \
       join pg_catalog.pg_type t on t.oid = a.atttypid \
       join bases b on b.type = a.atttypid and b.next = 0 \
       join pg_catalog.pg_type u on u.oid = b.base \
       left join pg_catalog.pg_type v on v.oid = u.typelem and u.typsubscript = 'pg_catalog.array_subscript_handler'::regproc \
       left join pg_catalog.pg_collation l on l.oid = a.attcollation \
       join pg_catalog.pg_database d on d.datname = pg_catalog.current_database() \
       left join lateral (select p.place::int4 - 1 as place from pg_catalog.pg_index i \
           cross join lateral unnest(i.indkey::int2[]) with ordinality p (number, place) \
           where i.indrelid = a.attrelid and i.indisprimary and p.number = a.attnum and p.place <= i.indnkeyatts) k on true \
     where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum";

/// The database's collation, in the columns of [`Locale`].
const DATABASE: &str = "select d.datlocprovider::text, d.datcollate::text, d.datctype::text, \
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', '') \
     from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()";

/// What `headwater.enable` says of a table, and whether it says it of one that this is a partition of. `$1` its OID. A
/// disabled entity's tenants and excluded columns stay what they were.
const ENTITY: &str = "select e.excluded, e.tenant_column, e.relation::oid <> $1::oid from headwater.entity e \
     where e.relation::oid = $1::oid or e.relation::oid in (select a.relid from pg_catalog.pg_partition_ancestors($1::oid::regclass) a) \
     order by e.enabled desc limit 1";

/// Reads a table; none if there is no such one. `registry`: whether the extension is there, whose registry knows
/// excluded columns and tenants.
pub async fn load(
    client: &impl GenericClient,
    schema: &str,
    name: &str,
    publication: &str,
    registry: bool,
) -> Result<Option<Found>, Error> {
    let types = [Type::TEXT, Type::TEXT, Type::TEXT];
    let statement = client.prepare_typed(TABLE, &types).await?;
    let Some(row) = client.query_opt(&statement, &[&schema, &name, &publication]).await? else { return Ok(None) };
    let oid: u32 = row.try_get(0)?;
    let (excluded, tenant_column, part): (_, _, bool) = if registry {
        let statement = client.prepare_typed(ENTITY, &[Type::OID]).await?;
        match client.query_opt(&statement, &[&oid]).await? {
            Some(entity) => (entity.try_get::<_, Vec<String>>(0)?, entity.try_get(1)?, entity.try_get(2)?),
            None => (Vec::new(), None, false),
        }
    } else {
        (Vec::new(), None, false)
    };
    let statement = client.prepare_typed(COLUMNS, &[Type::OID, Type::TEXT]).await?;
    let columns = client.query(&statement, &[&oid, &publication]).await?;
    let mut unreadable = Vec::new();
    for row in &columns {
        if !row.try_get::<_, bool>(18)? {
            unreadable.push(row.try_get(0)?);
        }
    }
    let columns = columns.iter().map(column).collect::<Result<Vec<Column>, Error>>()?;
    let columns = columns.into_iter().filter(|column| !excluded.contains(&column.name)).collect();
    let database = client.query_one(DATABASE, &[]).await?;
    let database = locale(&database, 0)?;
    let (oids, storages, identities): (Vec<u32>, Vec<Option<u32>>, Vec<bool>) =
        (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    let members = (oids.into_iter().zip(storages).zip(identities))
        .map(|((oid, storage), full_identity)| Member { oid, storage, full_identity })
        .collect();
    let table = TableSchema {
        oid,
        schema: schema.to_owned(),
        name: name.to_owned(),
        columns,
        members,
        excluded,
        unreadable,
        tenant_column,
        default_collation: database.collation(),
        default_letters: database.letters(),
    };
    Ok(Some(Found { table, published: row.try_get(2)?, servable: row.try_get::<_, bool>(1)? && !part }))
}

/// From four columns, the first at `at`.
fn locale(row: &Row, at: usize) -> Result<Locale<'_>, Error> {
    let provider: &str = row.try_get(at)?;
    Ok(Locale {
        provider: provider.chars().next().unwrap_or(' '),
        collate: row.try_get(at + 1)?,
        ctype: row.try_get(at + 2)?,
        name: row.try_get(at + 3)?,
    })
}

fn column(row: &Row) -> Result<Column, Error> {
    let place: Option<i32> = row.try_get(6)?;
    let (collation, letters) = match row.try_get(8)? {
        "none" => (Collation::None, Letters::Unknown),
        "loose" => (Collation::Nondeterministic, Letters::Unknown),
        _ => {
            let locale = locale(row, 9)?;
            (locale.collation(), locale.letters())
        }
    };
    let base = TypeRef { oid: row.try_get(14)?, name: row.try_get(15)? };
    let element = match row.try_get(16)? {
        Some(oid) => Some(TypeRef { oid, name: row.try_get(17)? }),
        None => None,
    };
    let dims: i32 = row.try_get(4)?;
    Ok(Column {
        name: row.try_get(0)?,
        type_oid: row.try_get(1)?,
        type_name: row.try_get(2)?,
        type_mod: row.try_get(3)?,
        // `create table … as` and partitions may leave the count out.
        dims: if element.is_some() { dims.max(1) } else { 0 },
        not_null: row.try_get(5)?,
        pk_index: place.and_then(|place| usize::try_from(place).ok()),
        collation,
        letters,
        generated: row.try_get(7)?,
        enum_labels: row.try_get::<_, Option<Vec<String>>>(13)?.unwrap_or_default(),
        base,
        element,
    })
}
