//! What each index of `headwater.event` costs: the bulk INSERT of orders with all of them, and with each dropped in turn.

use std::time::Instant;

use crate::contenders::Contender;
use crate::measured::{Measured, turns};
use crate::{Options, server};

const TEMPLATE: &str = "template_indexes";

const INDEXES: &str = "select i.indexrelid::regclass::text, c.conname::text
    from pg_index i left join pg_constraint c on c.conindid = i.indexrelid and c.conrelid = i.indrelid
    where i.indrelid = 'headwater.event'::regclass order by 1";

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start(options).await;
    let source = include_str!("../sql/orders_source.sql").replace("ROWS", &options.rows.to_string());
    let statements = source.split_inclusive(';').filter(|statement| !statement.trim().is_empty());
    let contender = Contender::Headwater;
    let attach = contender.attach("orders", "id", ", tenant_column => 'tenant_id'");
    let setup: Vec<_> =
        [include_str!("../sql/orders.sql"), contender.install(), &attach].into_iter().chain(statements).collect();
    server::make(&postgres, TEMPLATE, &setup).await;

    let indexes: Vec<(String, Option<String>)> = server::connect(&postgres, TEMPLATE)
        .await
        .query(INDEXES, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let drop = |(index, constraint): &(String, Option<String>)| match constraint {
        Some(constraint) => format!("alter table headwater.event drop constraint {constraint};"),
        None => format!("drop index {index};"),
    };
    let mut variants = vec![("all indexes".to_owned(), String::new())];
    variants.extend(indexes.iter().map(|index| (format!("without {}", index.0), drop(index))));
    variants.push(("no index".to_owned(), indexes.iter().map(drop).collect()));

    let measured = Measured::new(format!("INSERT of {} orders, captured", options.rows), "ms");
    let mut measured = variants[1..]
        .iter()
        .fold(measured, |measured, (variant, _)| measured.claim("all indexes", variant, None, None));
    let order: Vec<usize> = (0..variants.len()).collect();
    for round in 0..options.rounds {
        for (variant, statements) in turns(&order, round).into_iter().map(|i| &variants[i]) {
            server::copy(&postgres, TEMPLATE, "turn").await;
            let client = server::connect(&postgres, "turn").await;
            client.batch_execute(statements).await.unwrap();
            client
                .batch_execute("select count(*) from source; insert into orders select * from source limit 2; delete from orders; checkpoint")
                .await
                .unwrap();
            let start = Instant::now();
            client.batch_execute("insert into orders select * from source").await.unwrap();
            let elapsed = start.elapsed().as_secs_f64() * 1000.0;
            eprintln!("    round {round}, {variant}: {elapsed:.0} ms");
            measured.add(variant, elapsed);
            server::drop(&postgres, "turn").await;
        }
    }
    vec![measured]
}
