//! Reads what shapes need to know of tables from Postgres' catalog, of many tables in one go.
//!
//! Arrays stand in sub-selects: Postgres then expects as much of any array, and plans a kept statement once for all.

use super::table::{Collation, Column, Letters, Member, TableSchema, TypeRef};
use crate::error::Error;
use deadpool_postgres::Object;
use std::collections::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

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

/// One row for each table and its members. `$1` schemas, `$2` names, `$3` publication. The first column is the place among the names.
const TABLES: &str = "select w.place::int4 - 1, c.oid, c.relkind in ('r', 'p') and c.relpersistence = 'p' and n.nspname <> 'headwater', \
       exists (select from pg_catalog.pg_publication p where p.pubname = $3 and (p.puballtables \
         or exists (select from pg_catalog.pg_publication_rel r where r.prpubid = p.oid and (r.prrelid = c.oid \
            or r.prrelid in (select a.relid from pg_catalog.pg_partition_ancestors(c.oid) a))) \
         or exists (select from pg_catalog.pg_publication_namespace s where s.pnpubid = p.oid and s.pnnspid = c.relnamespace))), \
       m.oids, m.storages, m.identities \
     from unnest((select $1::text[]), (select $2::text[])) with ordinality w (schema, name, place) \
     join pg_catalog.pg_namespace n on n.nspname = w.schema \
     join pg_catalog.pg_class c on c.relname = w.name and c.relnamespace = n.oid \
     cross join lateral (select array_agg(t.oid order by t.oid) as oids, \
         array_agg(pg_catalog.pg_relation_filenode(t.oid) order by t.oid) as storages, \
         array_agg(t.relreplident = 'f' order by t.oid) as identities \
       from pg_catalog.pg_class t where t.oid = c.oid or t.oid in (select p.relid from pg_catalog.pg_partition_tree(c.oid) p)) m";

/// One row per column. `$1` OIDs of the tables, `$2` publication. From Postgres 18 on a publication can have stored generated
/// columns; before, its catalog does not know that word.
const COLUMNS: &str = "with recursive bases as ( \
       select t.oid as type, t.oid as base, t.typbasetype as next from pg_catalog.pg_type t \
         where t.oid in (select a.atttypid from pg_catalog.pg_attribute a where a.attrelid = any((select $1::oid[])::oid[])) \
       union all select b.type, t.oid, t.typbasetype from bases b join pg_catalog.pg_type t on t.oid = b.next where b.next <> 0) \
     select a.attrelid, a.attname::text, a.atttypid, t.typname::text, a.atttypmod, a.attndims::int4, \
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
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'select') and not pg_catalog.row_security_active(a.attrelid), \
       u.typtype = 'c' \
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
     where a.attrelid = any((select $1::oid[])::oid[]) and a.attnum > 0 and not a.attisdropped order by a.attrelid, a.attnum";

/// The database's collation, in the columns of [`Locale`].
const DATABASE: &str = "select d.datlocprovider::text, d.datcollate::text, d.datctype::text, \
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', '') \
     from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()";

/// What `headwater.enable` says of a table, and whether it says it of one that this is a partition of. `$1` OIDs of tables. A
/// disabled entity's tenants and excluded columns stay what they were.
const ENTITIES: &str = "select t.oid, e.excluded, e.tenant_column, e.relation::oid <> t.oid from unnest((select $1::oid[])) t (oid) \
     cross join lateral (select * from headwater.entity e where e.relation::oid = t.oid \
       or e.relation::oid in (select a.relid from pg_catalog.pg_partition_ancestors(t.oid::regclass) a) \
       order by e.enabled desc limit 1) e";

/// Reads tables by schema and name; none for what is no table. `registry`: whether the extension is there, whose registry
/// knows excluded columns and tenants.
pub async fn load(
    client: &Object,
    names: &[(&str, &str)],
    publication: &str,
    registry: bool,
) -> Result<Vec<Option<Found>>, Error> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) = names.iter().copied().unzip();
    let types = [Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::TEXT];
    let statement = client.prepare_typed_cached(TABLES, &types).await?;
    let found = client.query(&statement, &[&schemas, &tables, &publication]).await?;
    let oids = found.iter().map(|row| row.try_get(1)).collect::<Result<Vec<u32>, _>>()?;
    let entities = if registry {
        let statement = client.prepare_typed_cached(ENTITIES, &[Type::OID_ARRAY]).await?;
        client.query(&statement, &[&oids]).await?
    } else {
        Vec::new()
    };
    let entities = entities.iter().map(entity).collect::<Result<HashMap<u32, Entity>, Error>>()?;
    let statement = client.prepare_typed_cached(COLUMNS, &[Type::OID_ARRAY, Type::TEXT]).await?;
    let mut columns: HashMap<u32, Vec<Row>> = HashMap::new();
    for row in client.query(&statement, &[&oids, &publication]).await? {
        columns.entry(row.try_get(0)?).or_default().push(row);
    }
    let database = client.query_one(&client.prepare_cached(DATABASE).await?, &[]).await?;
    let database = locale(&database, 0)?;
    let mut all: Vec<Option<Found>> = names.iter().map(|_| None).collect();
    for (row, oid) in found.iter().zip(oids) {
        let place = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default();
        // A name may stand there more than once.
        let columns = columns.get(&oid).map_or(&[][..], |columns| columns);
        let entity = entities.get(&oid).cloned().unwrap_or_default();
        all[place] = Some(table(oid, names[place], row, columns, entity, database)?);
    }
    Ok(all)
}

/// What the registry says of a table.
#[derive(Clone, Debug, Default)]
struct Entity {
    excluded: Vec<String>,
    tenant_column: Option<String>,
    /// Of the whole that the table is a part of.
    part: bool,
}

fn entity(row: &Row) -> Result<(u32, Entity), Error> {
    Ok((row.try_get(0)?, Entity { excluded: row.try_get(1)?, tenant_column: row.try_get(2)?, part: row.try_get(3)? }))
}

fn table(
    oid: u32,
    (schema, name): (&str, &str),
    row: &Row,
    columns: &[Row],
    entity: Entity,
    database: Locale<'_>,
) -> Result<Found, Error> {
    let mut unreadable = Vec::new();
    for row in columns {
        if !row.try_get::<_, bool>(19)? {
            unreadable.push(row.try_get(1)?);
        }
    }
    let Entity { excluded, tenant_column, part } = entity;
    let columns = columns.iter().map(column).collect::<Result<Vec<Column>, Error>>()?;
    let columns = columns.into_iter().filter(|column| !excluded.contains(&column.name)).collect();
    let (oids, storages, identities): (Vec<u32>, Vec<Option<u32>>, Vec<bool>) =
        (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
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
    Ok(Found { table, published: row.try_get(3)?, servable: row.try_get::<_, bool>(2)? && !part })
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
    let place: Option<i32> = row.try_get(7)?;
    let (collation, letters) = match row.try_get(9)? {
        "none" => (Collation::None, Letters::Unknown),
        "loose" => (Collation::Nondeterministic, Letters::Unknown),
        _ => {
            let locale = locale(row, 10)?;
            (locale.collation(), locale.letters())
        }
    };
    let base = TypeRef { oid: row.try_get(15)?, name: row.try_get(16)? };
    let element = match row.try_get(17)? {
        Some(oid) => Some(TypeRef { oid, name: row.try_get(18)? }),
        None => None,
    };
    let dims: i32 = row.try_get(5)?;
    Ok(Column {
        name: row.try_get(1)?,
        type_oid: row.try_get(2)?,
        type_name: row.try_get(3)?,
        type_mod: row.try_get(4)?,
        // `create table … as` and partitions may leave the count out.
        dims: if element.is_some() { dims.max(1) } else { 0 },
        not_null: row.try_get(6)?,
        pk_index: place.and_then(|place| usize::try_from(place).ok()),
        collation,
        letters,
        generated: row.try_get(8)?,
        enum_labels: row.try_get::<_, Option<Vec<String>>>(14)?.unwrap_or_default(),
        base,
        element,
        composite: row.try_get(20)?,
    })
}
