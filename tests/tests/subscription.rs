//! Promise: what a subscription of Postgres' own logical replication writes into an enabled table is captured, each row's
//! change exactly once: the initial copy, which fires statement triggers, and the changes after it, which fire row
//! triggers only.

use headwater_tests::deadline::eventually;
use headwater_tests::postgres::Postgres;

const TABLE: &str = "create table things (id int primary key, n int, long text)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_subscription_writes_is_captured_once() {
    let publisher = Postgres::start_bare(&["wal_level=logical"]).await;
    publisher.sql(TABLE).await;
    publisher
        .sql(
            "insert into things select i, i, repeat('x', 3000) || i from generate_series(1, 100) i; alter table things replica identity full;
             create publication everything for table things",
        )
        .await;

    let subscriber = Postgres::start().await;
    subscriber.sql(&format!("{TABLE}; select headwater.enable('things')")).await;
    subscriber
        .sql(&format!(
            "create subscription copy connection 'host=127.0.0.1 port={} dbname=headwater user=postgres' publication everything",
            publisher.port()
        ))
        .await;
    eventually("the initial copy", async || {
        (subscriber.count("select count(*) from things").await == 100).then_some(())
    })
    .await;
    publisher
        .sql(
            "insert into things values (101, 1); update things set n = -n where id <= 10; delete from things where id = 11;
             update things set id = 200 where id = 12",
        )
        .await;
    publisher.sql("begin; insert into things values (102, 2), (103, 3); rollback").await;
    publisher.sql("insert into things values (999, 999)").await;
    eventually("the changes after it", async || {
        (subscriber.count("select count(*) from things where id = 999").await == 1).then_some(())
    })
    .await;

    let events = |name: &str| format!("select count(*) from headwater.event where event_type = 'thing.{name}'");
    // 100 copied, 101, 200 for 12, 999; 11 and 12.
    assert_eq!(103, subscriber.count(&events("created")).await);
    assert_eq!(10, subscriber.count(&events("updated")).await);
    assert_eq!(2, subscriber.count(&events("deleted")).await);
    let different = "select count(*) from things t full join (select distinct entity_id from headwater.event) e on e.entity_id = t.id::text
                     where headwater.materialize('thing', coalesce(t.id::text, e.entity_id)) is distinct from headwater.to_json(t)
                       and not (t.id is null and headwater.materialize('thing', e.entity_id) is null)";
    assert_eq!(0, subscriber.count(different).await);
    subscriber
        .sql("alter subscription copy disable; alter subscription copy set (slot_name = none); drop subscription copy")
        .await;
}
