//! Sections `records` and `postgres`: the records of `storage-sqlite` and `storage-postgres`.

use std::path::Path;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use serde_json::{Value, json};
use storage_core::{
    Batch, ColumnType, Driver, Expect, Fields, Filter, Query, Record, RecordStore, TableName, TableSchema, fields,
};
use storage_postgres::PostgresDriver;
use storage_sqlite::SqliteDriver;

use crate::brokers::fresh_name;
use crate::subject::{Named, RecordSubject, Role, Row};

/// The toolkit's SQLite records.
pub fn subject() -> Box<dyn RecordSubject> {
    Box::new(Ours { name: "storage-sqlite", driver: &SqliteDriver, address: None, opened: None })
}

/// The toolkit's records on PostgreSQL.
pub fn postgres(address: &str) -> Box<dyn RecordSubject> {
    Box::new(Ours { name: "storage-postgres", driver: &PostgresDriver, address: Some(address.to_owned()), opened: None })
}

struct Ours {
    name: &'static str,
    driver: &'static (dyn Driver + Sync),
    /// Where the server is; without one, in the folder of the round.
    address: Option<String>,
    opened: Option<(RecordStore, TableName)>,
}

impl Ours {
    fn opened(&self) -> Result<&(RecordStore, TableName)> {
        self.opened.as_ref().context("load comes first")
    }
}

impl Named for Ours {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn role(&self) -> Role {
        Role::Ours
    }
}

pub(super) fn to_fields(row: &Row) -> Fields {
    fields(json!({
        "name": row.name,
        "status": row.status,
        "bucket": row.bucket,
        "score": row.score,
        "created": row.created,
    }))
}

fn to_row(mut record: Record) -> Result<Row> {
    let mut text = |column: &str| match record.fields.remove(column) {
        Some(Value::String(text)) => Ok(text),
        other => Err(anyhow::anyhow!("{column} is {other:?}")),
    };
    let (name, status) = (text("name")?, text("status")?);
    let integer = |column: &str| record.fields[column].as_i64().context("an integer");
    Ok(Row {
        id: record.key.id.to_string(),
        name,
        status,
        bucket: integer("bucket")?,
        score: record.fields["score"].as_f64().context("a real")?,
        created: integer("created")?,
    })
}

fn batch(table: &TableName, rows: impl IntoIterator<Item = Row>) -> Batch {
    rows.into_iter().fold(Batch::new(), |batch, row| {
        let fields = to_fields(&row);
        batch.put(table, row.id, fields, Expect::Absent)
    })
}

#[async_trait]
impl RecordSubject for Ours {
    async fn load(&mut self, dir: &Path, rows: &mut (dyn Iterator<Item = Row> + Send)) -> Result<()> {
        let url = self.address.clone().unwrap_or_else(|| super::sqlite_url(dir));
        let backends = super::open(self.driver, &url, &[]).await?;
        let store = super::records(&backends)?;
        // A server keeps those of other rounds.
        let name = if self.address.is_some() { fresh_name() } else { "people".to_owned() };
        let schema = TableSchema::builder(&name)
            .column("name", ColumnType::Text)
            .column("status", ColumnType::Text)
            .column("bucket", ColumnType::Integer)
            .column("score", ColumnType::Real)
            .column("created", ColumnType::Integer)
            .index("by_bucket", ["bucket"])
            .build()?;
        store.create_table(&schema).await?;
        loop {
            let chunk: Vec<Row> = std::iter::from_fn(|| rows.next()).take(10_000).collect();
            if chunk.is_empty() {
                break;
            }
            store.commit(batch(&schema.name, chunk)).await?;
        }
        self.opened = Some((store, schema.name));
        Ok(())
    }

    async fn get(&self, id: &str) -> Result<Option<Row>> {
        let (store, table) = self.opened()?;
        store.get(table, id).await?.map(to_row).transpose()
    }

    async fn query(&self, bucket: i64) -> Result<Vec<Row>> {
        let (store, table) = self.opened()?;
        let query = Query::table(table.clone())?.filter(Filter::eq("bucket", bucket)?).limit(1_000);
        let page = store.scan(&query).await?;
        page.records.into_iter().map(to_row).collect()
    }

    async fn insert_batch(&self, rows: Vec<Row>) -> Result<()> {
        let (store, table) = self.opened()?;
        store.commit(batch(table, rows)).await?;
        Ok(())
    }

    async fn insert_one(&self, row: Row) -> Result<()> {
        let (store, table) = self.opened()?;
        store.insert(table, row.id.as_str(), to_fields(&row)).await?;
        Ok(())
    }

    async fn count(&self) -> Result<u64> {
        let (store, table) = self.opened()?;
        Ok(store.count(&Query::table(table.clone())?).await?)
    }
}
