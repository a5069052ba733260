//! Unique columns and indexes.

use serde_json::json;
use storage_core::{
    Batch, Column, ColumnName, ColumnType, ErrorKind, Expect, Index, SchemaBuilder, SchemaChange, TableSchema, fields,
};

use super::batch::{key, several_records};
use super::table::Table;
use crate::check::{refused, refused_at};
use crate::opened::Opened;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

fn schema() -> SchemaBuilder {
    TableSchema::builder("t")
        .partition("p", storage_core::KeyType::Text)
        .column("mail", ColumnType::Text)
        .unique()
        .column("a", ColumnType::Integer)
        .column("b", ColumnType::Integer)
        .unique_index("both", ["a", "b"])
}

/// A table with unique columns. `None` where that is not offered, which is then checked.
async fn unique(h: &dyn Harness) -> Result<Option<Table<'_>>, Failure> {
    let opened = Opened::fresh(h).await?;
    if opened.records().capabilities().unique {
        return Ok(Some(Table::within(opened, schema()).await?));
    }
    refused(ErrorKind::Unsupported, opened.records().create_table(&schema().build()?).await);
    assert!(opened.records().tables().await?.is_empty());
    Ok(None)
}

/// A value that another record has is refused as `AlreadyExists`, by puts and merges; the record's own value is no hindrance; letter case counts.
pub async fn a_taken_value_is_refused(h: &dyn Harness) -> CaseResult {
    let Some(t) = unique(h).await? else { return Ok(()) };
    t.put(key("1"), json!({"mail": "x"})).await?;
    t.put(key("2"), json!({"mail": "X"})).await?;
    refused(ErrorKind::AlreadyExists, t.put(key("3"), json!({"mail": "x"})).await);
    refused(ErrorKind::AlreadyExists, t.store.update(&t.name, key("2"), fields(json!({"mail": "x"})), Expect::Present).await);
    assert_eq!((t.count().await?, t.value(key("2")).await?), (2, json!({"mail": "X"})));
    t.put(key("1"), json!({"mail": "x", "a": 1})).await?;
    t.store.update(&t.name, key("1"), fields(json!({"mail": "x"})), Expect::Present).await?;
    Ok(())
}

/// Any number of records may lack a unique value; of a unique index, any number may lack one of its columns.
pub async fn missing_values_are_not_equal(h: &dyn Harness) -> CaseResult {
    let Some(t) = unique(h).await? else { return Ok(()) };
    for (n, value) in
        [json!({}), json!({}), json!({"a": 1}), json!({"a": 1}), json!({"b": 1}), json!({"b": 1})].into_iter().enumerate()
    {
        t.put(key(&n.to_string()), value).await?;
    }
    assert_eq!(t.count().await?, 6);
    Ok(())
}

/// A unique index is about all its columns together.
pub async fn a_unique_index_is_about_all_its_columns(h: &dyn Harness) -> CaseResult {
    let Some(t) = unique(h).await? else { return Ok(()) };
    t.put(key("1"), json!({"a": 1, "b": 1})).await?;
    t.put(key("2"), json!({"a": 1, "b": 2})).await?;
    t.put(key("3"), json!({"a": 2, "b": 1})).await?;
    refused(ErrorKind::AlreadyExists, t.put(key("4"), json!({"a": 1, "b": 2})).await);
    refused(ErrorKind::AlreadyExists, t.store.update(&t.name, key("3"), fields(json!({"a": 1})), Expect::Present).await);
    assert_eq!(t.value(key("3")).await?, json!({"a": 2, "b": 1}));
    Ok(())
}

/// A value is free again when its record gives it up, by change or delete.
pub async fn a_value_becomes_free(h: &dyn Harness) -> CaseResult {
    let Some(t) = unique(h).await? else { return Ok(()) };
    t.put(key("1"), json!({"mail": "x"})).await?;
    t.put(key("1"), json!({"mail": "y"})).await?;
    t.put(key("2"), json!({"mail": "x"})).await?;
    t.delete(key("2")).await?;
    t.put(key("3"), json!({"mail": "x"})).await?;
    t.store.update(&t.name, key("3"), fields(json!({"mail": null})), Expect::Present).await?;
    t.put(key("4"), json!({"mail": "x"})).await?;
    assert_eq!(t.count().await?, 3);
    Ok(())
}

/// Within a batch, writes see those before them here too, a taken value fails the batch at its write, and nothing is left of it.
pub async fn values_within_a_batch(h: &dyn Harness) -> CaseResult {
    let Some(t) = unique(h).await? else { return Ok(()) };
    if !several_records(&t).await? {
        return Ok(());
    }
    t.put(key("1"), json!({"mail": "x"})).await?;
    let put = |batch: Batch, id: &str, mail: &str| batch.put(&t.name, key(id), fields(json!({"mail": mail})), Expect::Anything);
    refused_at(1, ErrorKind::AlreadyExists, t.commit(put(put(Batch::new(), "2", "y"), "3", "y")).await);
    refused_at(2, ErrorKind::AlreadyExists, t.commit(put(put(put(Batch::new(), "2", "y"), "3", "z"), "4", "x")).await);
    assert_eq!(t.count().await?, 1);
    // The value passes from one record to another.
    t.commit(put(Batch::new().delete(&t.name, key("1"), Expect::Present), "2", "x")).await?;
    t.commit(put(put(Batch::new(), "2", "y"), "3", "x")).await?;
    assert_eq!((t.value(key("2")).await?, t.value(key("3")).await?), (json!({"mail": "y"}), json!({"mail": "x"})));
    // What a batch that failed took is free: y from 2 to 4 did not happen.
    refused(ErrorKind::AlreadyExists, t.put(key("5"), json!({"mail": "y"})).await);
    Ok(())
}

/// Of many who take one value at once, one gets it.
pub async fn one_of_many_gets_the_value(h: &dyn Harness) -> CaseResult {
    let Some(t) = unique(h).await? else { return Ok(()) };
    let take = |n: usize| {
        let (store, name) = (t.store.clone(), t.name.clone());
        tokio::spawn(async move { store.upsert(&name, key(&n.to_string()), fields(json!({"mail": "x"}))).await })
    };
    let outcomes = futures::future::try_join_all((0..8).map(take)).await?;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    for loser in outcomes.into_iter().filter(Result::is_err) {
        refused(ErrorKind::AlreadyExists, loser);
    }
    assert_eq!(t.count().await?, 1);
    Ok(())
}

/// A change of the table that would make values clash is refused and leaves it as it was; one that fits holds from then on.
pub async fn uniqueness_can_be_added_where_it_holds(h: &dyn Harness) -> CaseResult {
    let Some(t) = unique(h).await? else { return Ok(()) };
    if !t.capabilities().alter {
        let change = SchemaChange::DropIndex("both".parse()?);
        refused(ErrorKind::Unsupported, t.store.alter_table(&t.name, &change).await);
        return Ok(());
    }
    t.put(key("1"), json!({"a": 1, "b": 1})).await?;
    t.put(key("2"), json!({"a": 1, "b": 2})).await?;
    let index = |column: &str| {
        let columns = vec![ColumnName::new(column)?];
        Ok::<_, storage_core::Error>(SchemaChange::AddIndex(Index {
            name: format!("u_{column}").parse()?,
            columns,
            unique: true,
        }))
    };
    refused(ErrorKind::AlreadyExists, t.store.alter_table(&t.name, &index("a")?).await);
    let column =
        Column { name: ColumnName::new("u")?, kind: ColumnType::Text, required: false, unique: true, default: Some(json!("d")) };
    refused(ErrorKind::AlreadyExists, t.store.alter_table(&t.name, &SchemaChange::AddColumn(column)).await);
    assert_eq!(t.store.schema(&t.name).await?.difference(&schema().build()?), None);
    assert_eq!(t.value(key("1")).await?, json!({"a": 1, "b": 1}));
    t.store.alter_table(&t.name, &index("b")?).await?;
    refused(ErrorKind::AlreadyExists, t.put(key("3"), json!({"b": 2})).await);
    t.store.alter_table(&t.name, &SchemaChange::DropIndex("u_b".parse()?)).await?;
    t.put(key("3"), json!({"b": 2})).await?;
    Ok(())
}
