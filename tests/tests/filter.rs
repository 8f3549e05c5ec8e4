//! Promise: a filter says of every row what Postgres says of it. The oracle is Postgres itself: random expressions over a
//! table of all types, judged three ways: the text as it was written, the SQL that we made of it, and our evaluator.
//!
//! `HEADWATER_TEST_FILTERS=100000` judges more; `HEADWATER_TEST_SEED` repeats a run.

mod expressions;
pub(crate) mod rows;

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use headwater_streamer::database::{Database, Target};
use headwater_streamer::shape::catalog;
use headwater_streamer::shape::filter::{self, Condition, Filter};
use headwater_streamer::shape::table::TableSchema;
use headwater_tests::postgres::Postgres;
use headwater_tests::random::{Random, seed};
use tokio_postgres::{Client, SimpleQueryMessage};

use expressions::Expressions;

/// In `make test`: two seconds' worth.
const FILTERS: usize = 3000;
/// Expressions judged in one statement.
const BATCH: usize = 200;

/// Says of each expression, for each row in order: `t`, `f`, `n` for null, `e` for an error; or why it means nothing.
const JUDGE: &str = "create function judge(expression text) returns text language plpgsql as $$
declare answer text; one text; row_id int;
begin
  execute format('select string_agg(case when v then ''t'' when not v then ''f'' else ''n'' end, '''' order by id)
    from (select id, (%s) and true as v from judged) s', expression) into answer;
  return answer;
exception when others then
  if left(sqlstate, 2) = '42' or sqlstate in ('22P02', '22007', '22008') and position('column' in sqlerrm) > 0 then
    return format('! %s %s', sqlstate, sqlerrm);
  end if;
  answer := '';
  for row_id in select id from judged order by id loop
    begin
      execute format('select case when v then ''t'' when not v then ''f'' else ''n'' end
        from (select (%s) and true as v from judged where id = %s offset 0) s', expression, row_id) into one;
      answer := answer || one;
    exception when others then
      answer := answer || 'e';
    end;
  end loop;
  return answer;
end $$;";

struct Court {
    postgres: Postgres,
    client: Client,
    table: TableSchema,
    rows: Vec<Vec<Option<String>>>,
}

impl Court {
    async fn open(random: &mut Random) -> Self {
        let postgres = Postgres::start_bare(&["fsync=off"]).await;
        let client = postgres.connect().await;
        // As the connections of the streamer are.
        let settings = "set datestyle = 'ISO, DMY'; set timezone = 'UTC'; set intervalstyle = 'iso_8601'; \
             set extra_float_digits = 1; set bytea_output = 'hex'; set jit = off;";
        client.batch_execute(settings).await.unwrap();
        client.batch_execute(rows::TABLE).await.unwrap();
        client.batch_execute(&rows::inserts(random)).await.unwrap();
        client.batch_execute(JUDGE).await.unwrap();
        let target = format!("postgres://postgres@127.0.0.1:{}/headwater", postgres.port());
        let target = Target::parse(&target, None).unwrap();
        let reader = Database::new(&target, 1).unwrap().get().await.unwrap();
        let mut found = catalog::load(&reader, &[("public", "judged")], "none", false).await.unwrap();
        let table = found.pop().flatten().unwrap().table;
        let messages = client.simple_query("select * from judged order by id").await.unwrap();
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        };
        let rows = messages.iter().filter_map(row).collect();
        Self { postgres, client, table, rows }
    }

    /// What we say of each row. The conditions by which shapes are found hold for every row that matches.
    fn ours(&self, filter: &Filter) -> String {
        let judged = |row: &Vec<Option<String>>| {
            let cells: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
            match filter.matches(&cells) {
                Some(true) if !filter.conditions().iter().all(|condition| holds(condition, &cells)) => '!',
                Some(true) => 't',
                Some(false) => 'f',
                None => 'n',
            }
        };
        self.rows.iter().map(judged).collect()
    }

    /// What Postgres says of each.
    async fn theirs(&self, expressions: &[String]) -> Vec<String> {
        let query = "select judge(e) from unnest($1::text[]) with ordinality x(e, n) order by n";
        let rows = self.client.query(query, &[&expressions]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The disagreements about these texts.
    async fn judge(&self, cases: &[Case]) -> Vec<String> {
        let mut expressions = Vec::new();
        let mut filters = Vec::new();
        for case in cases {
            if let Ok(filter) = filter::parse(&case.text, &case.params, &self.table) {
                expressions.push(case.substituted());
                expressions.push(filter.to_sql().to_owned());
                filters.push((case, filter));
            }
        }
        let answers = self.theirs(&expressions).await;
        let mut wrong = Vec::new();
        for ((case, filter), answers) in filters.iter().zip(answers.chunks(2)) {
            let (original, rendered, ours) = (&answers[0], &answers[1], self.ours(filter));
            if original.starts_with('!') || rendered.starts_with('!') {
                if !original.contains("42P22") {
                    wrong.push(format!("{case:?}\n  {original}\n  {rendered}\n  {}", filter.to_sql()));
                }
                continue;
            }
            let agree = |theirs: &str, ours: &str| theirs.chars().zip(ours.chars()).all(|(a, b)| a == b || a == 'e');
            if !agree(rendered, &ours) || !agree(original, &ours) {
                wrong.push(format!(
                    "{case:?}\n  as written {original}\n  our SQL    {rendered}\n  ours       {ours}\n  {}",
                    filter.to_sql()
                ));
            }
        }
        wrong
    }
}

/// Whether a row has what the index looks for, by its text alone.
fn holds(condition: &Condition, cells: &[Option<&str>]) -> bool {
    match condition {
        Condition::OneOf { column, values } => {
            cells[*column].is_some_and(|cell| values.iter().any(|value| value == cell))
        }
        // Plain elements only: the texts of these arrays need no unfolding.
        Condition::Contains { column, elements } => {
            let text = cells[*column].unwrap_or("");
            elements.iter().all(|element| text.contains(&element.replace('\\', "\\\\").replace('"', "\\\"")))
        }
        Condition::Never => false,
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) text: String,
    pub(crate) params: BTreeMap<u32, String>,
}

impl Case {
    /// The text with its parameters as literals, which is what parameters of unknown type are.
    fn substituted(&self) -> String {
        let mut text = self.text.clone();
        for (number, value) in self.params.iter().rev() {
            text = text.replace(&format!("${number}"), &format!("'{}'", value.replace('\'', "''")));
        }
        text
    }
}

#[tokio::test]
async fn filters_say_what_postgres_says() {
    let seed = seed();
    let wanted = std::env::var("HEADWATER_TEST_FILTERS").map_or(FILTERS, |wanted| wanted.parse().unwrap());
    let mut random = Random::new(seed);
    let court = Court::open(&mut random).await;
    let (mut understood, mut wrong) = (0, Vec::new());
    let mut written = 0;
    while written < wanted {
        let cases: Vec<Case> = (0..BATCH).map(|_| Expressions::new(&mut random).filter()).collect();
        written += cases.len();
        understood += cases.iter().filter(|case| filter::parse(&case.text, &case.params, &court.table).is_ok()).count();
        wrong.extend(court.judge(&cases).await);
        if wrong.len() > 20 {
            break;
        }
    }
    println!("{understood} of {written} expressions were understood, {} disagreements", wrong.len());
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    assert!(understood * 2 > written, "most expressions must mean something, or nothing is tested");
    drop(court.postgres);
}

/// Letters of Unicode 16 and 17, which the operating system's C library may not know yet.
const NEWER: &[RangeInclusive<char>] = &[
    '\u{19b}'..='\u{19b}',
    '\u{264}'..='\u{264}',
    '\u{1c89}'..='\u{1c8a}',
    '\u{a7cb}'..='\u{a7cf}',
    '\u{a7d2}'..='\u{a7d5}',
    '\u{a7da}'..='\u{a7dc}',
    '\u{10d50}'..='\u{10d85}',
    '\u{16ea0}'..='\u{16ed3}',
];

/// Every character, one by one.
#[tokio::test]
async fn letters_have_the_case_that_postgres_gives_them() {
    let court = Court::open(&mut Random::new(1)).await;
    // What changes in C.UTF-8, the collation of the test's database.
    let query = "select chr(i), lower(chr(i)), upper(chr(i)) from generate_series(1, 1114111) i \
                 where i not between 55296 and 57343 and (lower(chr(i)) <> chr(i) or upper(chr(i)) <> chr(i))";
    let rows = court.client.query(query, &[]).await.unwrap();
    let mapped: HashMap<String, (String, String)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let case = |text: &str| filter::parse(text, &BTreeMap::new(), &court.table).unwrap();
    let (same, column) = (case("lower(t1) = t1 AND upper(t1) = t1"), court.table.column("t1").unwrap());
    let mut row = vec![None; court.table.columns.len()];
    let mut wrong = Vec::new();
    for character in
        (1..=0x10_ffff).filter_map(char::from_u32).filter(|of| !NEWER.iter().any(|newer| newer.contains(of)))
    {
        let text = character.to_string();
        let ours = match mapped.get(&text) {
            Some((lower, upper)) => {
                let params = BTreeMap::from([(1, lower.clone()), (2, upper.clone())]);
                filter::parse("lower(t1) = $1 AND upper(t1) = $2", &params, &court.table).unwrap()
            }
            None => same.clone(),
        };
        let mut cells = std::mem::take(&mut row);
        cells[column] = Some(text.as_str());
        if ours.matches(&cells) != Some(true) {
            wrong.push(format!("U+{:04X} {:?}", u32::from(character), mapped.get(&text)));
        }
        row = cells.into_iter().map(|_| None).collect();
    }
    assert!(wrong.is_empty(), "{} letters: {}", wrong.len(), wrong.join(", "));
}
