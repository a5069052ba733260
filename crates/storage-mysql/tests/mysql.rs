//! What is MySQL's own: logins, rights, tables as an administrator sees them, and what others have done to them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{Raw, apart, open, open_with};
use serde_json::json;
use storage_conformance::load::{self, number, schema, table};
use storage_conformance::server::refuses;
use storage_core::{Batch, ColumnType, DriverConfig, ErrorKind, Expect, Filter, KeyType, Query, TableSchema, fields};
use storage_mysql::MysqlDriver;

common::on_both! {
    what_can_not_be_opened_says_why,
    tables_are_as_an_administrator_would_make_them,
    what_others_did_to_a_table_is_said,
    without_the_rights_it_is_unauthorized,
    a_value_too_long_for_its_index_is_invalid,
    texts_are_bytes,
    callers_share_transactions_and_not_failures,
}

async fn what_can_not_be_opened_says_why(address: String) {
    let mut raw = Raw::new(&address).await;
    raw.run("CREATE USER IF NOT EXISTS 'locked'@'%' IDENTIFIED BY 'right'").await;
    raw.run("GRANT SELECT ON mysql.time_zone TO 'locked'@'%'").await;
    let host = address.split('@').nth(1).unwrap();
    let places = [
        (format!("mysql://locked:hunter2@{host}/mysql"), ErrorKind::Unauthorized),
        (format!("mysql://locked@{host}/mysql"), ErrorKind::Unauthorized),
        (format!("mysql://nobody:hunter2@{host}/mysql"), ErrorKind::Unauthorized),
        (format!("mysql://locked:right@{host}/somebody_elses"), ErrorKind::Unauthorized),
        ("mysql://joe:hunter2@127.0.0.1:1/x".to_owned(), ErrorKind::Unavailable),
    ];
    refuses(MysqlDriver, places).await;
    // No database, and then no tables in it: nothing is made.
    let url = apart(&address);
    let config = DriverConfig { auto_create: false, ..DriverConfig::from_url(&url) };
    for _ in 0..2 {
        let error = open_with(&config).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        raw.run(&format!("CREATE DATABASE IF NOT EXISTS {}", url.rsplit('/').next().unwrap())).await;
    }
}

async fn tables_are_as_an_administrator_would_make_them(address: String) {
    let url = apart(&address);
    let opened = open(&url).await.unwrap();
    let orders = TableSchema::builder("orders")
        .partition("tenant", KeyType::Text)
        .key_of("number", KeyType::Integer)
        .column("mail", ColumnType::Text)
        .required()
        .unique()
        .column("note", ColumnType::Text)
        .column("total", ColumnType::Real)
        .column("paid", ColumnType::Boolean)
        .column("at", ColumnType::Timestamp)
        .column("lines", ColumnType::Json)
        .column("scan", ColumnType::Bytes)
        .column("count", ColumnType::Integer)
        .index("by_time", ["at"])
        .build()
        .unwrap();
    opened.records.create_table(&orders).await.unwrap();
    let mut raw = Raw::new(&url).await;
    let collation = raw
        .text("SELECT table_collation FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'orders'");
    let collation = collation.await.unwrap();
    assert!(["utf8mb4_nopad_bin", "utf8mb4_0900_bin"].contains(&collation.as_str()), "{collation}");
    let columns = format!(
        "SELECT GROUP_CONCAT(CONCAT_WS(' ', CONVERT(column_name USING utf8mb4), REPLACE(CONVERT(column_type USING utf8mb4), 'bigint(20)', 'bigint'), LOWER(CONVERT(is_nullable USING utf8mb4)), \
         IF(collation_name = '{collation}', NULL, CONVERT(collation_name USING utf8mb4))) ORDER BY ordinal_position SEPARATOR ', ') FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name = 'orders'"
    );
    assert_eq!(
        raw.text(&columns).await.unwrap(),
        "tenant varchar(512) no, number bigint no, mail varchar(768) no, note longtext yes, total double yes, paid tinyint(1) yes, \
         at datetime(6) yes, lines longtext yes, scan longblob yes, count bigint yes, _version bigint no, _updated_at datetime(6) no, \
         _expires_at datetime(6) yes, _extra longtext yes"
    );
    let uncommented = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_comment = ''";
    assert_eq!(raw.number(uncommented).await, 0, "every table says what it is");

    // Values are the server's own, and can be asked for by its own means.
    let row = json!({"mail": "a@x", "total": 1.5, "paid": true, "at": "2026-11-27T10:00:00Z", "lines": [{"sku": "x", "n": 2}], "scan": "AAE="});
    opened.records.insert(&orders.name, ("acme", 7), fields(row)).await.unwrap();
    let select = "SELECT CONCAT_WS(' ', tenant, number, mail, `at`, CAST(JSON_EXTRACT(`lines`, '$[0].n') AS SIGNED), HEX(scan)) FROM orders WHERE paid AND total > 1";
    assert_eq!(raw.text(select).await.unwrap(), "acme 7 a@x 2026-11-27 10:00:00.000000 2 0001");
}

async fn what_others_did_to_a_table_is_said(address: String) {
    let url = apart(&address);
    let opened = open(&url).await.unwrap();
    let mut raw = Raw::new(&url).await;
    // A table of somebody else.
    raw.run("CREATE TABLE T (x int)").await;
    let error = opened.records.create_table(&schema()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    assert_eq!(raw.number("SELECT COUNT(*) FROM T").await, 0);
    raw.run("DROP TABLE T").await;
    opened.records.create_table(&schema()).await.unwrap();
    opened.records.insert(&table(), "a", number(1)).await.unwrap();

    let all = |what: &'static str| {
        let records = opened.records.clone();
        async move {
            let batch = Batch::new().merge(&table(), "a", number(1), Expect::Present);
            for error in [
                records.get(&table(), "a").await.unwrap_err(),
                records.scan(&Query::table("t").unwrap()).await.unwrap_err(),
                records.commit(batch).await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}");
            }
        }
    };
    // Values of another type.
    for kind in ["varchar(20)", "time", "float", "varbinary(8)"] {
        raw.run(&format!("ALTER TABLE t MODIFY n {kind}")).await;
        all(kind).await;
        raw.run("ALTER TABLE t MODIFY n bigint").await;
        raw.run("UPDATE t SET n = 1").await;
    }
    // A column that is gone.
    raw.run("ALTER TABLE t RENAME COLUMN n TO m").await;
    all("a column gone").await;
    raw.run("ALTER TABLE t RENAME COLUMN m TO n").await;
    // The table itself.
    raw.run("RENAME TABLE t TO u").await;
    all("the table gone").await;
    raw.run("RENAME TABLE u TO t").await;
    // All of that was put right, and it is as before.
    assert_eq!(opened.records.get(&table(), "a").await.unwrap().unwrap().fields, number(1));
    // A constraint of somebody else's.
    raw.run("ALTER TABLE t ADD CHECK (n < 10)").await;
    let put = |batch: Batch, key: &str, n| batch.put(&table(), key, number(n), Expect::Anything);
    let error = opened.records.commit(put(put(Batch::new(), "b", 1), "c", 11)).await.unwrap_err();
    assert_eq!((error.kind(), error.failed_write()), (ErrorKind::InvalidInput, Some(1)), "{error:?}");
    assert_eq!(opened.records.count(&Query::table("t").unwrap()).await.unwrap(), 1);
    // A row that is none of ours.
    raw.run("INSERT INTO t (id, n, _version, _updated_at, _extra) VALUES ('z', 1, -5, NOW(), '[]')").await;
    assert_eq!(opened.records.get(&table(), "z").await.unwrap_err().kind(), ErrorKind::Corrupt);
}

async fn without_the_rights_it_is_unauthorized(address: String) {
    let url = apart(&address);
    let opened = open(&url).await.unwrap();
    opened.records.create_table(&schema()).await.unwrap();
    let mut raw = Raw::new(&url).await;
    let database = url.rsplit('/').next().unwrap();
    raw.run(&format!("CREATE USER 'r{database}'@'%'")).await;
    raw.run(&format!("GRANT SELECT ON {database}.* TO 'r{database}'@'%'")).await;
    opened.records.insert(&table(), "a", number(1)).await.unwrap();
    let reader = open(&url.replace("root@", &format!("r{database}@"))).await.unwrap();
    load::who_may_read_alone_is_refused_the_rest(&reader).await;
    assert_eq!(opened.records.get(&table(), "a").await.unwrap().unwrap().fields, number(1));
}

/// A value that is too long for an index is refused, alone; what is too large for the server too.
async fn a_value_too_long_for_its_index_is_invalid(address: String) {
    let opened = open(&apart(&address)).await.unwrap();
    let table = TableSchema::builder("t").column("s", ColumnType::Text).index("by_s", ["s"]).build().unwrap();
    opened.records.create_table(&table).await.unwrap();
    let put = |key: &str, text: &str| Batch::new().put(&table.name, key, fields(json!({"s": text})), Expect::Anything);
    let batches = [put("a", "short"), put("b", &"é".repeat(769)), put("c", &"é".repeat(768))];
    let outcomes = futures::future::join_all(batches.map(|batch| opened.records.commit(batch))).await;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.failed_write()), (ErrorKind::InvalidInput, Some(0)), "{error:?}");
    let large = put("d", &"x".repeat(opened.records.capabilities().max_record_bytes + 1));
    assert_eq!(opened.records.commit(large).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// Texts are ordered and compared bytewise: letter case, accents and trailing spaces count.
async fn texts_are_bytes(address: String) {
    let opened = open(&apart(&address)).await.unwrap();
    let table = TableSchema::builder("t").column("s", ColumnType::Text).column("u", ColumnType::Text).unique().build().unwrap();
    opened.records.create_table(&table).await.unwrap();
    let mut texts = ["a", "a ", "A", "á", "a\u{301}", "a\t", "", " ", "Z", "z", "\u{10ffff}", "\u{ffff}"].map(str::to_owned);
    for text in &texts {
        opened.records.insert(&table.name, format!("{text:?}"), fields(json!({"s": text, "u": text}))).await.unwrap();
    }
    texts.sort_unstable();
    for column in ["s", "u"] {
        let query = Query::table("t").unwrap().ascending(column).unwrap();
        let page = opened.records.scan(&query).await.unwrap();
        let found: Vec<&str> = page.records.iter().map(|record| record.fields[column].as_str().unwrap()).collect();
        assert_eq!(found, texts, "{column}");
        for text in &texts {
            let same = Query::table("t").unwrap().filter(Filter::eq(column, text.as_str()).unwrap());
            assert_eq!(opened.records.count(&same).await.unwrap(), 1, "{column} = {text:?}");
        }
    }
}

async fn callers_share_transactions_and_not_failures(address: String) {
    let opened = open(&apart(&address)).await.unwrap();
    load::callers_share_transactions_and_not_failures(&opened.records, &opened.queue).await;
}
