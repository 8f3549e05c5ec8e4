//! Promise: `ALTER EXTENSION headwater UPDATE` makes of an older installation what a fresh one is, and enabled tables go on.
//!
//! The oracle is the catalog: every object of the extension with its whole definition, described by Postgres itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use headwater_tests::place::postgres_programs;
use headwater_tests::postgres::Postgres;

/// The first release's install script.
const FIRST: &str = include_str!("../../sql/upgrade/0.1.0.sql");

/// Kind, name and definition of every object of the extension.
const CATALOG: &str = r"
with member as (
  select d.classid, d.objid, o.type as kind, o.identity as name
  from pg_depend d cross join lateral pg_identify_object(d.classid, d.objid, 0) o
  where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
    and d.refobjid = (select oid from pg_extension where extname = 'headwater')
), relation as (
  select c.*, m.name from member m join pg_class c on c.oid = m.objid where m.classid = 'pg_class'::regclass
)
select kind, name, coalesce(obj_description(objid, classid::regclass::name), 'no comment') from member
union all
select 'function', m.name, concat_ws(E'\n', pg_get_functiondef(p.oid), (select array_agg(a::text order by a::text) from unnest(p.proacl) a))
from member m join pg_proc p on p.oid = m.objid where m.classid = 'pg_proc'::regclass
union all
select 'relation', r.name, concat_ws(' ', r.relkind, r.relpersistence, r.relreplident, r.reloptions,
                                     (select array_agg(a::text order by a::text) from unnest(r.relacl) a))
from relation r
union all
select 'column', r.name || '.' || a.attname,
       concat_ws(' ', row_number() over (partition by r.oid order by a.attnum), format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                 a.attgenerated, a.attacl, pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum))
from relation r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
union all
select 'constraint', r.name || '.' || c.conname, pg_get_constraintdef(c.oid) from relation r join pg_constraint c on c.conrelid = r.oid
union all
select 'index', i.indexrelid::regclass::text, concat_ws(' ', pg_get_indexdef(i.indexrelid), obj_description(i.indexrelid, 'pg_class'))
from relation r join pg_index i on i.indrelid = r.oid
union all
select 'trigger', r.name || '.' || t.tgname, concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled) from relation r join pg_trigger t on t.tgrelid = r.oid
union all
select 'sequence', r.name, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle,
                                     (select d.refobjid::regclass || '.' || d.refobjsubid from pg_depend d where d.objid = r.oid and d.deptype = 'a'))
from relation r join pg_sequence s on s.seqrelid = r.oid
union all
select 'event trigger', m.name, concat_ws(' ', e.evtevent, e.evtenabled, e.evttags, e.evtfoid::regproc)
from member m join pg_event_trigger e on e.oid = m.objid where m.classid = 'pg_event_trigger'::regclass
union all
select 'dumped', configured.name, 'where ' || configured.condition
from pg_extension e cross join lateral (select t::regclass::text as name, c as condition from unnest(e.extconfig, e.extcondition) u (t, c)) configured
where e.extname = 'headwater'
union all
select 'schema', n.nspname, n.nspacl::text from pg_namespace n where n.nspname = 'headwater'
union all
select 'extension', e.extname, concat_ws(' ', e.extversion, e.extrelocatable, e.extnamespace::regnamespace) from pg_extension e where e.extname = 'headwater'";

#[tokio::test]
async fn an_upgraded_catalog_equals_a_fresh_one() {
    install_first_release();
    let postgres = Postgres::start_bare(&["wal_level=logical"]).await;
    postgres
        .sql(
            "create extension headwater version '0.1.0';
             create table orders (id int primary key, tenant_id text, secret text);
             select headwater.enable('orders', tenant_column => 'tenant_id', exclude => '{secret}', backfill => false)",
        )
        .await;
    postgres.sql("alter extension headwater update").await;
    let upgraded = catalog(&postgres).await;

    // Enabled tables go on, and what is new holds for them.
    postgres.sql("alter table orders rename secret to hidden; insert into orders values (1, 'a', 'hush')").await;
    let recorded = "select count(*) from headwater.event where payload = '{\"id\": 1, \"tenant_id\": \"a\"}'";
    assert_eq!(1, postgres.count(recorded).await);
    assert_eq!(1, postgres.count("select count(*) from headwater.event").await);

    postgres.sql("select headwater.disable_all(); drop extension headwater; create extension headwater").await;
    let fresh = catalog(&postgres).await;
    assert!(fresh.len() > 150, "the query found only {} objects", fresh.len());
    let mut differences = Vec::new();
    for (object, definition) in &fresh {
        if upgraded.get(object) != Some(definition) {
            differences.push(format!("{object:?}\n  fresh:    {definition}\n  upgraded: {:?}", upgraded.get(object)));
        }
    }
    differences.extend(
        upgraded.keys().filter(|object| !fresh.contains_key(*object)).map(|object| format!("{object:?} is left over")),
    );
    assert!(
        differences.is_empty(),
        "sql/upgrade/0.1.0--0.2.0.sql does not make what a fresh install is (sql/upgrade/README.md):\n{}",
        differences.join("\n")
    );
}

type Catalog = BTreeMap<(String, String), String>;

async fn catalog(postgres: &Postgres) -> Catalog {
    let client = postgres.connect().await;
    client.batch_execute("set search_path = pg_catalog").await.unwrap();
    let mut catalog = Catalog::new();
    for row in client.query(CATALOG, &[]).await.unwrap() {
        let definition: String = row.get::<_, Option<String>>(2).unwrap_or_default();
        catalog.entry((row.get(0), row.get(1))).or_default().push_str(&definition);
    }
    catalog
}

/// Puts the first release's script where Postgres looks for it. Symbols that the library has no more are replaced: only
/// the catalog is compared, and Postgres wants to see the symbol when the function is made.
fn install_first_release() {
    let folder = |what: &str| {
        let output = Command::new(postgres_programs().join("pg_config")).arg(what).output().unwrap();
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    };
    let library = std::fs::read(folder("--pkglibdir").join("headwater.so")).unwrap();
    let has = |symbol: &str| {
        let symbol = format!("pg_finfo_{symbol}\0");
        library.windows(symbol.len()).any(|window| window == symbol.as_bytes())
    };
    let mut script = FIRST.to_owned();
    for symbol in FIRST.split("'MODULE_PATHNAME', '").skip(1).filter_map(|rest| rest.split('\'').next()) {
        if !has(symbol) {
            script = script.replace(&format!("'{symbol}'"), "'uuid_v7_wrapper'");
        }
    }
    let path = folder("--sharedir").join("extension/headwater--0.1.0.sql");
    std::fs::write(&path, script).unwrap();
}
