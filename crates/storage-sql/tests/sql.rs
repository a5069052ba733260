//! The SQL itself, as exact text.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use chrono::DateTime;
use serde_json::json;
use storage_core::{
    Column, ColumnName, ColumnType, Filter, Index, KeyType, Query, Record, SchemaChange, TableSchema, Version, fields,
};
use storage_sql::{Dialect, SqlValue, Statement, Table};

const ALL: [Dialect; 3] = [Dialect::Sqlite, Dialect::Postgres, Dialect::MySql];

fn jobs() -> TableSchema {
    TableSchema::builder("jobs")
        .column("status", ColumnType::Text)
        .required()
        .column("n", ColumnType::Integer)
        .column("x", ColumnType::Real)
        .column("mark", ColumnType::Bytes)
        .unique()
        .index("by_status", ["status"])
        .keep_undeclared()
        .build()
        .unwrap()
}

fn table(dialect: Dialect) -> Table {
    Table::new(dialect, jobs())
}

fn now() -> DateTime<chrono::Utc> {
    DateTime::from_timestamp(1_000_000_000, 0).unwrap()
}

/// The conditions of a filter in SQLite, without what every statement has; its values; what is left.
fn pushed(filter: Filter) -> (String, Vec<SqlValue<'static>>, Filter) {
    let query = Query::table("jobs").unwrap().filter(filter).canonical(&jobs()).unwrap();
    let scan = table(Dialect::Sqlite).scan(&query, now()).unwrap();
    let Statement { sql, values } = scan.segments[0].clone();
    let head = r#"FROM "jobs" WHERE ("_expires_at" IS NULL OR "_expires_at" > ?)"#;
    let (_, conditions) = sql.split_once(head).unwrap();
    let (conditions, _) = conditions.split_once(" ORDER BY").unwrap();
    let conditions = conditions.strip_prefix(" AND ").unwrap_or_default();
    (conditions.to_owned(), values[1..values.len() - 1].to_vec(), scan.rest)
}

fn assert_pushed(filter: Filter, sql: &str, values: &[SqlValue<'static>]) {
    let (conditions, bound, rest) = pushed(filter);
    assert_eq!((conditions.as_str(), bound.as_slice()), (sql, values));
    assert_eq!(rest, Filter::All);
}

fn int(n: i64) -> SqlValue<'static> {
    SqlValue::Integer(n)
}

fn text(text: &'static str) -> SqlValue<'static> {
    SqlValue::Text(text.into())
}

#[test]
fn tables_are_created_with_system_columns_and_indexes() {
    assert_eq!(
        table(Dialect::Sqlite).create(),
        [
            r#"CREATE TABLE "jobs" ("id" TEXT NOT NULL, "status" TEXT NOT NULL, "n" INTEGER, "x" REAL, "mark" BLOB, "_version" INTEGER NOT NULL, "_updated_at" TEXT NOT NULL, "_expires_at" TEXT, "_extra" TEXT, PRIMARY KEY ("id")) STRICT"#,
            r#"CREATE INDEX "jobs._expires_at" ON "jobs" ("_expires_at") WHERE "_expires_at" IS NOT NULL"#,
            r#"CREATE UNIQUE INDEX "jobs.mark.unique" ON "jobs" ("mark")"#,
            r#"CREATE INDEX "jobs.by_status" ON "jobs" ("status", "id")"#,
        ]
    );
    assert_eq!(
        table(Dialect::Postgres).create()[0],
        r#"CREATE TABLE "jobs" ("id" text COLLATE "C" NOT NULL, "status" text COLLATE "C" NOT NULL, "n" bigint, "x" double precision, "mark" bytea, "_version" bigint NOT NULL, "_updated_at" timestamptz NOT NULL, "_expires_at" timestamptz, "_extra" jsonb, PRIMARY KEY ("id"))"#
    );
    assert_eq!(
        table(Dialect::MySql).create(),
        [
            "CREATE TABLE `jobs` (`id` varchar(512) NOT NULL, `status` varchar(768) NOT NULL, `n` bigint, `x` double, `mark` varbinary(768), `_version` bigint NOT NULL, `_updated_at` datetime(6) NOT NULL, `_expires_at` datetime(6), `_extra` longtext, PRIMARY KEY (`id`), INDEX `_expires_at` (`_expires_at`), UNIQUE INDEX `mark.unique` (`mark`), INDEX `by_status` (`status`)) ENGINE=InnoDB",
        ]
    );
}

#[test]
fn mysql_has_room_for_what_is_in_an_index() {
    let schema = TableSchema::builder("t")
        .partition("p", KeyType::Text)
        .column("a", ColumnType::Text)
        .column("b", ColumnType::Text)
        .column("c", ColumnType::Text)
        .column("n", ColumnType::Integer)
        .unique_index("u", ["a", "n"])
        .index("i", ["b", "c"])
        .build()
        .unwrap();
    let table = Table::new(Dialect::MySql, schema);
    let create = table.create().concat();
    // 4 * 764 + 16 = 3,072 bytes, and two keys of 512.
    assert!(create.contains("`a` varchar(764), `b` varchar(768), `c` varchar(768), `n` bigint"), "{create}");
    assert!(create.contains("`p` varbinary(512) NOT NULL, `id` varbinary(512) NOT NULL"), "{create}");
    assert!(create.contains("INDEX `i` (`b` (384), `c` (384))"), "{create}");
    let drop = table.alter(&SchemaChange::DropIndex("u".parse().unwrap())).unwrap();
    assert_eq!(drop, ["ALTER TABLE `t` DROP INDEX `u`, MODIFY COLUMN `a` longtext"]);
}

#[test]
fn names_that_sqlite_reserves_are_evaded() {
    let schema = TableSchema::builder("SQLite_x").build().unwrap();
    assert!(Table::new(Dialect::Sqlite, schema.clone()).create()[0].starts_with(r#"CREATE TABLE ".SQLite_x" ("#));
    assert!(Table::new(Dialect::Postgres, schema).create()[0].starts_with(r#"CREATE TABLE "SQLite_x" ("#));
}

#[test]
fn long_index_names_stay_apart_in_postgres() {
    let name = "n".repeat(60);
    let schema = TableSchema::builder(&name).column("a", ColumnType::Text).index("i1", ["a"]).index("i2", ["a"]).build().unwrap();
    let statements = Table::new(Dialect::Postgres, schema).create();
    let names: Vec<&str> = statements[1..].iter().map(|s| s.split('"').nth(1).unwrap()).collect();
    assert!(names.iter().all(|n| n.len() <= 63), "{names:?}");
    assert!(names[0] != names[1] && names[1] != names[2]);
}

#[test]
fn changes_are_native_statements() {
    let alter = |change: SchemaChange| table(Dialect::Sqlite).alter(&change).unwrap();
    let name = |name: &str| ColumnName::new(name).unwrap();
    let column =
        Column { name: name("note"), kind: ColumnType::Text, required: true, unique: true, default: Some(json!("it's ?")) };
    assert_eq!(
        alter(SchemaChange::AddColumn(column)),
        [
            r#"ALTER TABLE "jobs" ADD COLUMN "note" TEXT NOT NULL DEFAULT 'it''s ?'"#,
            r#"CREATE UNIQUE INDEX "jobs.note.unique" ON "jobs" ("note")"#,
        ]
    );
    assert_eq!(
        alter(SchemaChange::DropColumn(name("mark"))),
        [r#"DROP INDEX "jobs.mark.unique""#, r#"ALTER TABLE "jobs" DROP COLUMN "mark""#]
    );
    assert_eq!(
        alter(SchemaChange::RenameColumn { from: name("mark"), to: name("sign") }),
        [
            r#"DROP INDEX "jobs.mark.unique""#,
            r#"ALTER TABLE "jobs" RENAME COLUMN "mark" TO "sign""#,
            r#"CREATE UNIQUE INDEX "jobs.sign.unique" ON "jobs" ("sign")"#,
        ]
    );
    let index = Index { name: "pair".parse().unwrap(), columns: vec![name("status"), name("n")], unique: true };
    assert_eq!(alter(SchemaChange::AddIndex(index)), [r#"CREATE UNIQUE INDEX "jobs.pair" ON "jobs" ("status", "n")"#]);
    assert_eq!(alter(SchemaChange::DropIndex("by_status".parse().unwrap())), [r#"DROP INDEX "jobs.by_status""#]);
}

#[test]
fn comparisons_bind_values_of_the_columns_kind() {
    assert_pushed(Filter::eq("status", "it's").unwrap(), r#""status" = ?"#, &[text("it's")]);
    assert_pushed(Filter::lt("n", 2.5).unwrap(), r#""n" <= ?"#, &[int(2)]);
    assert_pushed(Filter::ge("n", -2.5).unwrap(), r#""n" >= ?"#, &[int(-2)]);
    assert_pushed(Filter::eq("n", 3.0).unwrap(), r#""n" = ?"#, &[int(3)]);
    assert_pushed(Filter::eq("n", 3.5).unwrap(), "(1 = 0)", &[]);
    assert_pushed(Filter::lt("n", u64::MAX).unwrap(), r#""n" IS NOT NULL"#, &[]);
    assert_pushed(Filter::gt("n", 1e300).unwrap(), "(1 = 0)", &[]);
    assert_pushed(Filter::gt("n", -1e300).unwrap(), r#""n" IS NOT NULL"#, &[]);
    assert_pushed(Filter::eq("x", 3).unwrap(), r#""x" = ?"#, &[SqlValue::Real(3.0)]);
    // 2^53 + 1 lies between two reals, and was rounded down.
    let between = 9_007_199_254_740_993_i64;
    let below = SqlValue::Real(9_007_199_254_740_992.0);
    assert_pushed(Filter::lt("x", between).unwrap(), r#""x" <= ?"#, std::slice::from_ref(&below));
    assert_pushed(Filter::ge("x", between).unwrap(), r#""x" > ?"#, &[below]);
    assert_pushed(Filter::eq("x", between).unwrap(), "(1 = 0)", &[]);
    assert_pushed(Filter::eq("mark", "AAE=").unwrap(), r#""mark" = ?"#, &[SqlValue::Bytes(vec![0, 1].into())]);
    assert_pushed(Filter::lt("n", serde_json::Value::Null).unwrap(), "(1 = 0)", &[]);
}

#[test]
fn negation_is_two_valued() {
    assert_pushed(Filter::ne("n", 5).unwrap(), r#"("n" = ?) IS NOT TRUE"#, &[int(5)]);
    let either = Filter::eq("n", 1).unwrap() | Filter::is_null("x").unwrap();
    assert_pushed(!either, r#"("n" = ? OR "x" IS NULL) IS NOT TRUE"#, &[int(1)]);
}

#[test]
fn combinations_keep_their_order_of_evaluation() {
    let filter = (Filter::eq("n", 1).unwrap() | (Filter::eq("n", 2).unwrap() & Filter::eq("x", 3).unwrap()))
        & Filter::Or(vec![])
        & Filter::And(vec![]);
    assert_pushed(filter, r#"("n" = ? OR ("n" = ? AND "x" = ?)) AND (1 = 0)"#, &[int(1), int(2), SqlValue::Real(3.0)]);
}

#[test]
fn text_is_matched_without_like() {
    assert_pushed(
        Filter::starts_with("status", "50%").unwrap(),
        r#"("status" >= ? AND "status" < ?)"#,
        &[text("50%"), text("50&")],
    );
    assert_pushed(
        Filter::starts_with("status", "\u{d7ff}").unwrap(),
        r#"("status" >= ? AND "status" < ?)"#,
        &[text("\u{d7ff}"), text("\u{e000}")],
    );
    assert_pushed(
        Filter::starts_with("status", "a\u{10ffff}").unwrap(),
        r#"("status" >= ? AND "status" < ?)"#,
        &[text("a\u{10ffff}"), text("b")],
    );
    assert_pushed(Filter::starts_with("status", "").unwrap(), r#""status" >= ?"#, &[text("")]);
    assert_pushed(Filter::contains("status", "_").unwrap(), r#"instr("status", ?) > (0)"#, &[text("_")]);
}

#[test]
fn lists_are_bound_one_by_one_or_as_json() {
    assert_pushed(Filter::is_in("n", [json!(1), json!(2.5), json!(3)]).unwrap(), r#""n" IN (?, ?)"#, &[int(1), int(3)]);
    assert_pushed(Filter::is_in("n", Vec::<i64>::new()).unwrap(), "(1 = 0)", &[]);
    let (sql, values, _) = pushed(Filter::is_in("status", (0..20).map(|n| format!("\"{n}"))).unwrap());
    assert_eq!(sql, r#""status" IN (SELECT "value" FROM json_each(?) AS "members")"#);
    assert!(matches!(&values[..], [SqlValue::Text(json)] if json.starts_with(r#"["\"0","\"1","#)), "{values:?}");
    // The database would read reals out of JSON with a parser of its own.
    let (sql, values, _) = pushed(Filter::is_in("x", (0..20).map(f64::from)).unwrap());
    assert!(sql.starts_with(r#""x" IN (?, ?"#) && values.len() == 20);
}

#[test]
fn undeclared_fields_are_reached_where_that_is_exact() {
    let guard = r#"json_type("_extra", '$."free"') = ('text')"#;
    assert_pushed(
        Filter::eq("free", "a").unwrap(),
        &format!(r#"({guard} AND json_extract("_extra", '$."free"') = ?)"#),
        &[text("a")],
    );
    assert_pushed(Filter::is_null("free").unwrap(), r#"json_type("_extra", '$."free"') IS NULL"#, &[]);
    assert_pushed(Filter::eq("free", true).unwrap(), r#"json_type("_extra", '$."free"') = ('true')"#, &[]);
    let (sql, _, rest) = pushed(Filter::eq("free", 1).unwrap() & Filter::eq("n", 1).unwrap());
    assert_eq!((sql.as_str(), rest), (r#""n" = ?"#, Filter::eq("free", 1).unwrap()));
}

#[test]
fn what_would_be_too_deep_is_left_to_the_caller() {
    let wide = Filter::Or((0..5_000).map(|n| Filter::eq("n", n).unwrap()).collect());
    let (sql, values, rest) = pushed(Filter::eq("x", 1).unwrap() & wide.clone());
    assert_eq!((sql.as_str(), values.len(), rest), (r#""x" = ?"#, 1, wide));
}

#[test]
fn pages_go_on_in_ranges_without_or() {
    let schema = TableSchema::builder("t")
        .partition("p", KeyType::Text)
        .key_of("k", KeyType::Integer)
        .column("n", ColumnType::Integer)
        .column("s", ColumnType::Text)
        .required()
        .build()
        .unwrap();
    let table = Table::new(Dialect::Sqlite, schema.clone());
    let record = |value: serde_json::Value| Record {
        key: ("a", 7).into(),
        version: Version::FIRST,
        updated_at: now(),
        expires_at: None,
        fields: fields(value),
    };
    let ranges = |query: Query, last: Record| -> Vec<String> {
        let token = query.token_after(&schema, &last);
        let scan = table.scan(&query.after(Some(token)).canonical(&schema).unwrap(), now()).unwrap();
        scan.segments
            .iter()
            .map(|s| {
                let (_, conditions) = s.sql.split_once(r#"> ?) AND "#).unwrap();
                conditions.split_once(" ORDER BY").unwrap().0.to_owned()
            })
            .collect()
    };
    let query = || Query::table("t").unwrap();
    assert_eq!(ranges(query(), record(json!({"s": "x"}))), [r#""p" = ? AND "k" > ?"#, r#""p" > ?"#]);
    assert_eq!(
        ranges(query().descending("n").unwrap(), record(json!({"n": 1, "s": "x"}))),
        [r#""n" = ? AND "p" = ? AND "k" > ?"#, r#""n" = ? AND "p" > ?"#, r#""n" < ?"#, r#""n" IS NULL"#,]
    );
    assert_eq!(
        ranges(query().ascending("n").unwrap(), record(json!({"s": "x"}))),
        [r#""n" IS NULL AND "p" = ? AND "k" > ?"#, r#""n" IS NULL AND "p" > ?"#, r#""n" IS NOT NULL"#]
    );
    assert_eq!(
        ranges(query().descending("s").unwrap(), record(json!({"s": "x"}))).last().unwrap(),
        r#""s" < ?"#,
        "a required column has no missing values to come last"
    );
}

#[test]
fn orders_name_the_place_of_missing_values_where_the_dialect_differs() {
    let query = Query::table("jobs").unwrap().descending("n").unwrap().ascending("status").unwrap().canonical(&jobs()).unwrap();
    let order = |dialect| {
        let sql = table(dialect).scan(&query, now()).unwrap().segments.remove(0).sql;
        sql.split_once("ORDER BY ").unwrap().1.to_owned()
    };
    assert_eq!(order(Dialect::Sqlite), r#""n" DESC, "status" ASC, "id" ASC LIMIT ?"#);
    assert_eq!(order(Dialect::Postgres), r#""n" DESC NULLS LAST, "status" ASC, "id" ASC LIMIT $2"#);
    assert_eq!(order(Dialect::MySql), "`n` DESC, `status` ASC, `id` ASC LIMIT ?");
}

#[test]
fn placeholders_and_values_agree_in_number() {
    let filter = Filter::eq("status", "a").unwrap()
        & !(Filter::lt("n", 2.5).unwrap() | Filter::starts_with("status", "ab").unwrap())
        & Filter::is_in("n", 0..20).unwrap()
        & Filter::contains("free", "x").unwrap();
    let query = Query::table("jobs").unwrap().filter(filter).canonical(&jobs()).unwrap();
    for dialect in ALL {
        let table = table(dialect);
        for statement in [table.scan(&query, now()).unwrap().segments.remove(0), table.count(&query, now()).unwrap().0] {
            let placeholders = match dialect {
                Dialect::Postgres => statement.sql.matches('$').count(),
                Dialect::Sqlite | Dialect::MySql => statement.sql.matches('?').count(),
            };
            // The path of a JSON field holds a `$` too, but SQLite alone reaches into JSON.
            assert_eq!(placeholders, statement.values.len(), "{}", statement.sql);
        }
    }
}

#[test]
fn writes_of_single_records() {
    let table = table(Dialect::Sqlite);
    let write = table.write();
    assert_eq!(
        write.merge(&["n"], true),
        r#"UPDATE "jobs" SET "n" = ?, "_updated_at" = ?, "_version" = "_version" + (1) WHERE "id" = ? AND ("_expires_at" IS NULL OR "_expires_at" > ?) AND "_version" = ?"#
    );
    assert_eq!(
        write.delete,
        r#"DELETE FROM "jobs" WHERE "id" = ? AND ("_expires_at" IS NULL OR "_expires_at" > ?) RETURNING "_version""#
    );
    assert!(write.insert.ends_with(r#"WHERE "jobs"."_expires_at" <= "excluded"."_updated_at""#), "{}", write.insert);
    assert!(write.upsert.ends_with(r#""_version" = (CASE WHEN ("jobs"."_expires_at" <= "excluded"."_updated_at") THEN 1 ELSE "jobs"."_version" + (1) END) RETURNING "_version""#), "{}", write.upsert);
}
