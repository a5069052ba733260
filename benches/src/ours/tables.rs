//! Section `tables`: the records of `storage-table-azure`.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{Batch, ColumnType, Expect, Filter, Key, KeyType, Query, RecordStore, TableName, TableSchema};
use storage_table_azure::AzureTableDriver;

use super::records::to_fields;
use crate::tables::{Ask, Client, Done, Entity, Work};

/// A client of the emulator at an address.
pub(crate) async fn client(address: &str) -> Result<Arc<dyn Client>> {
    let url = format!("azure-table:?emulator=true&endpoint={address}");
    let store = super::records(&super::open(&AzureTableDriver, &url, &[]).await?)?;
    Ok(Arc::new(Ours { store }))
}

struct Ours {
    store: RecordStore,
}

fn schema(table: &TableName) -> Result<TableSchema> {
    let schema = TableSchema::builder(table.as_str()).partition("part", KeyType::Text);
    let schema = schema.column("name", ColumnType::Text).column("status", ColumnType::Text).column("bucket", ColumnType::Integer);
    Ok(schema.column("score", ColumnType::Real).column("created", ColumnType::Integer).build()?)
}

fn batch(table: &TableName, entities: &[Entity]) -> Batch {
    entities.iter().fold(Batch::new(), |batch, entity| {
        batch.put(table, (entity.partition.as_str(), entity.row.id.as_str()), to_fields(&entity.row), Expect::Absent)
    })
}

/// Makes so many of the calls at once, and adds up what they answer.
async fn timed<F>(at_once: usize, calls: Vec<F>) -> Result<Done>
where
    F: Future<Output = Result<usize>> + Send + 'static,
{
    let started = Instant::now();
    let counts = futures::stream::iter(calls).map(tokio::spawn).buffer_unordered(at_once);
    let count = counts.map_err(anyhow::Error::from).try_fold(0, async |all, count| Ok(all + count?)).await?;
    Ok(Done { seconds: started.elapsed().as_secs_f64(), count })
}

#[async_trait]
impl Client for Ours {
    async fn work(&self, ask: &Ask<'_>) -> Result<Done> {
        let (table, store): (TableName, _) = (ask.table.parse()?, &self.store);
        match ask.work {
            Work::Create => {
                ensure!(store.create_table(&schema(&table)?).await?, "the table is there already");
                Ok(Done { seconds: 0.0, count: 0 })
            }
            Work::Drop => {
                store.drop_table(&table).await?;
                Ok(Done { seconds: 0.0, count: 0 })
            }
            Work::Count => {
                let count = store.count(&Query::table(table)?).await?;
                Ok(Done { seconds: 0.0, count: usize::try_from(count)? })
            }
            Work::Insert(batches) => {
                let call = |entities: &Vec<Entity>| insert(store.clone(), batch(&table, entities));
                timed(ask.at_once, batches.iter().map(call).collect()).await
            }
            Work::Get(keys) => {
                let call = |(partition, row): &(String, String)| {
                    get(store.clone(), table.clone(), (partition.as_str(), row.as_str()).into())
                };
                timed(ask.at_once, keys.iter().map(call).collect()).await
            }
            Work::Query(queries) => {
                let call = |(partition, bucket): &(String, i64)| -> Result<_> {
                    let filter = Filter::eq("part", partition.as_str())? & Filter::eq("bucket", *bucket)?;
                    Ok(query(store.clone(), Query::table(table.clone())?.filter(filter).limit(1_000), *bucket))
                };
                timed(ask.at_once, queries.iter().map(call).collect::<Result<_>>()?).await
            }
        }
    }
}

async fn insert(store: RecordStore, batch: Batch) -> Result<usize> {
    Ok(store.commit(batch).await?.len())
}

async fn get(store: RecordStore, table: TableName, key: Key) -> Result<usize> {
    let record = store.get(&table, key.clone()).await?.context("the entity is not there")?;
    ensure!(record.key == key, "another entity than the one asked for");
    Ok(1)
}

async fn query(store: RecordStore, query: Query, bucket: i64) -> Result<usize> {
    let page = store.scan(&query).await?;
    ensure!(page.next.is_none(), "a query has more than a page");
    Ok(page.records.iter().filter(|record| record.fields["bucket"] == bucket).count())
}
