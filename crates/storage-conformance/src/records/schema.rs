//! Tables and their schemas.

use serde_json::json;
use storage_core::{
    Column, ColumnName, ColumnType, ErrorKind, Expect, Filter, History, Index, KeyType, SchemaBuilder, SchemaChange, TableName,
    TableSchema, Undeclared, fields,
};

use super::table::{Table, open_schema};
use crate::check::refused;
use crate::opened::Opened;
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Single;

fn invoices() -> SchemaBuilder {
    TableSchema::builder("invoices")
        .partition("customer", KeyType::Text)
        .key_of("number", KeyType::Integer)
        .column("cents", ColumnType::Integer)
        .default(0)
        .column("due", ColumnType::Timestamp)
        .column("note", ColumnType::Text)
        .required()
        .index("by_due", ["due", "cents"])
}

/// A table is created once: again with the same schema it is there already, with another it is `AlreadyExists` and stays as it was.
pub async fn create_is_idempotent(h: &dyn Harness) -> CaseResult {
    let opened = Opened::fresh(h).await?;
    let store = opened.records();
    let schema = invoices().build()?;
    assert!(store.create_table(&schema).await?);
    assert!(!store.create_table(&schema).await?);
    // The order of columns does not count.
    let mut turned = schema.clone();
    turned.columns.reverse();
    assert!(!store.create_table(&turned).await?);
    for other in [
        invoices().column("more", ColumnType::Text),
        invoices().keep_undeclared(),
        invoices().index("by_note", ["note"]),
        TableSchema::builder("invoices").key("number"),
    ] {
        refused(ErrorKind::AlreadyExists, store.create_table(&other.build()?).await);
    }
    assert_eq!(store.tables().await?, [schema]);
    Ok(())
}

/// Letter case does not distinguish tables: one that differs in case alone is `AlreadyExists`, and the first stays.
pub async fn letter_case_does_not_distinguish_tables(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({"n": 1})).await?;
    refused(ErrorKind::AlreadyExists, t.store.create_table(&TableSchema::builder("T").keep_undeclared().build()?).await);
    assert_eq!(t.store.tables().await?.len(), 1);
    assert_eq!(t.value("a").await?, json!({"n": 1}));
    Ok(())
}

/// `tables` gives back every schema as it was created, by name, also to a store that did not create them.
pub async fn tables_come_back_as_created(h: &dyn Harness) -> CaseResult {
    let opened = Opened::fresh(h).await?;
    let store = opened.records();
    assert!(store.tables().await?.is_empty());
    let capabilities = store.capabilities().clone();
    let mut kinds = TableSchema::builder("b_kinds").keep_undeclared();
    for kind in [
        ColumnType::Text,
        ColumnType::Integer,
        ColumnType::Real,
        ColumnType::Boolean,
        ColumnType::Timestamp,
        ColumnType::Json,
        ColumnType::Bytes,
    ] {
        kinds = kinds.column(format!("c-{kind:?}"), kind);
    }
    let mut unique = TableSchema::builder("a-unique").column("u", ColumnType::Text);
    if capabilities.unique {
        unique = unique.unique().unique_index("both", ["u", "id"]);
    }
    if capabilities.history {
        unique = unique.history(History::Keep(7));
    }
    let defaults = TableSchema::builder("Z_defaults")
        .column("text", ColumnType::Text)
        .default("it's \"quoted\"; --")
        .column("real", ColumnType::Real)
        .default(0.1)
        .column("yes", ColumnType::Boolean)
        .default(true)
        .column("json", ColumnType::Json)
        .default(json!({"a": [1, null]}));
    let mut schemas = vec![kinds.build()?, unique.build()?, defaults.build()?, invoices().build()?];
    for schema in &schemas {
        store.create_table(schema).await?;
    }
    schemas.sort_by(|a, b| a.name.cmp(&b.name));
    let found = crate::opened::records(&opened.backends).tables().await?;
    let names = |schemas: &[TableSchema]| schemas.iter().map(|s| s.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&schemas));
    for (found, created) in found.iter().zip(&schemas) {
        assert_eq!(created.difference(found), None, "`{}`", created.name);
    }
    Ok(())
}

/// A dropped table is gone with its records and their history, and one of the same name starts empty.
pub async fn drop_table_removes_everything(h: &dyn Harness) -> CaseResult {
    let history = Opened::fresh(h).await?.records().capabilities().history;
    let schema = || if history { open_schema().history(History::KeepAll) } else { open_schema() };
    let t = Table::new(h, schema()).await?;
    t.put("a", json!({"n": 1})).await?;
    assert!(t.store.drop_table(&t.name).await?);
    assert!(!t.store.drop_table(&t.name).await?);
    assert!(t.store.tables().await?.is_empty());
    refused(ErrorKind::NotFound, t.get("a").await);
    refused(ErrorKind::NotFound, t.store.scan(&t.query()).await);
    refused(ErrorKind::NotFound, t.store.count(&t.query()).await);
    refused(ErrorKind::NotFound, t.put("a", json!({})).await);
    refused(ErrorKind::NotFound, t.store.backend().get(&t.name, &["a".into()]).await);
    refused(ErrorKind::NotFound, t.store.backend().scan(&t.query()).await);
    t.store.create_table(&schema().build()?).await?;
    assert_eq!(t.count().await?, 0);
    if history {
        assert!(t.store.history(&t.name, "a").await?.is_empty());
    }
    assert_eq!(t.put("a", json!({})).await?.0, 1);
    Ok(())
}

/// Defaults are filled in when a record is put without the column, and not when a merge removes it.
pub async fn defaults_are_filled_in(h: &dyn Harness) -> CaseResult {
    let t = Table::new(h, TableSchema::builder("t").column("n", ColumnType::Integer).default(7).column("s", ColumnType::Text))
        .await?;
    t.put("a", json!({})).await?;
    t.put("b", json!({"n": null, "s": "x"})).await?;
    t.put("c", json!({"n": 1})).await?;
    assert_eq!(t.value("a").await?, json!({"n": 7}));
    assert_eq!(t.matching(Filter::eq("n", 7)?).await?, ["a", "b"]);
    t.store.update(&t.name, "a", fields(json!({"n": null})), Expect::Present).await?;
    assert_eq!(t.value("a").await?, json!({}));
    assert_eq!(t.matching(Filter::is_null("n")?).await?, ["a"]);
    Ok(())
}

/// What does not fit the schema is refused, and nothing is written.
pub async fn records_must_fit_the_schema(h: &dyn Harness) -> CaseResult {
    let opened = Opened::fresh(h).await?;
    let t = Table::within(opened, invoices()).await?;
    t.put(("acme", 1), json!({"note": "x"})).await?;
    for bad in [
        json!({}),
        json!({"note": null}),
        json!({"note": 1}),
        json!({"note": "x", "cents": "1"}),
        json!({"note": "x", "unknown": 1}),
        json!({"note": "x", "due": "soon"}),
        json!({"note": "x", "number": 1}),
        json!({"note": "a\u{0}b"}),
    ] {
        refused(ErrorKind::InvalidInput, t.put(("acme", 2), bad).await);
    }
    refused(ErrorKind::InvalidInput, t.store.update(&t.name, ("acme", 1), fields(json!({"note": null})), Expect::Present).await);
    refused(ErrorKind::InvalidInput, t.put("acme", json!({"note": "x"})).await);
    refused(ErrorKind::InvalidInput, t.put((1, "acme"), json!({"note": "x"})).await);
    refused(ErrorKind::InvalidInput, t.put(("", 1), json!({"note": "x"})).await);
    assert_eq!(t.matching(Filter::All).await?, ["acme/1"]);
    Ok(())
}

/// A table to be altered, with two records. `None` where that is not offered, which is then checked.
async fn alterable(h: &dyn Harness) -> Result<Option<Table<'_>>, Failure> {
    let t = Table::new(h, open_schema().column("n", ColumnType::Integer).column("s", ColumnType::Text)).await?;
    t.put("a", json!({"n": 1, "s": "x", "free": [1]})).await?;
    t.put("b", json!({"n": 2})).await?;
    if t.capabilities().alter {
        return Ok(Some(t));
    }
    let change = SchemaChange::DropColumn(ColumnName::new("s")?);
    refused(ErrorKind::Unsupported, t.store.alter_table(&t.name, &change).await);
    assert_eq!(t.value("a").await?, json!({"n": 1, "s": "x", "free": [1]}));
    Ok(None)
}

fn column(name: &str, kind: ColumnType) -> storage_core::Result<Column> {
    Ok(Column { name: ColumnName::new(name)?, kind, required: false, unique: false, default: None })
}

/// A new column: existing records lack it or get its default; their versions stay.
pub async fn add_column(h: &dyn Harness) -> CaseResult {
    let Some(t) = alterable(h).await? else { return Ok(()) };
    t.store.alter_table(&t.name, &SchemaChange::AddColumn(column("plain", ColumnType::Real)?)).await?;
    let required = Column { required: true, default: Some(json!("d")), ..column("given", ColumnType::Text)? };
    t.store.alter_table(&t.name, &SchemaChange::AddColumn(required)).await?;
    assert_eq!(t.value("b").await?, json!({"n": 2, "given": "d"}));
    assert_eq!(t.matching(Filter::eq("given", "d")? & Filter::is_null("plain")?).await?, ["a", "b"]);
    assert_eq!(t.version("a").await?.0, 1);
    t.put("c", json!({"plain": 1})).await?;
    assert_eq!(t.keys(t.query().descending("plain")?).await?, ["c", "a", "b"]);
    refused(
        ErrorKind::AlreadyExists,
        t.store.alter_table(&t.name, &SchemaChange::AddColumn(column("plain", ColumnType::Text)?)).await,
    );
    let no_default = Column { required: true, ..column("other", ColumnType::Text)? };
    refused(ErrorKind::InvalidInput, t.store.alter_table(&t.name, &SchemaChange::AddColumn(no_default)).await);
    Ok(())
}

/// A column that takes in a field from outside the schema keeps its values; where they don't fit, nothing changes.
pub async fn add_column_takes_in_undeclared_fields(h: &dyn Harness) -> CaseResult {
    let Some(t) = alterable(h).await? else { return Ok(()) };
    t.put("a", json!({"later": 5})).await?;
    let text = SchemaChange::AddColumn(column("later", ColumnType::Text)?);
    refused(ErrorKind::InvalidInput, t.store.alter_table(&t.name, &text).await);
    assert_eq!(t.value("a").await?, json!({"later": 5}));
    assert_eq!(t.store.schema(&t.name).await?.columns.len(), 2);
    t.store.alter_table(&t.name, &SchemaChange::AddColumn(column("later", ColumnType::Integer)?)).await?;
    assert_eq!(t.value("a").await?, json!({"later": 5}));
    assert_eq!(t.keys(t.query().descending("later")?).await?, ["a", "b"]);
    Ok(())
}

/// A dropped column takes its values with it, and its name can be used again.
pub async fn drop_column(h: &dyn Harness) -> CaseResult {
    let Some(t) = alterable(h).await? else { return Ok(()) };
    t.store.alter_table(&t.name, &SchemaChange::DropColumn(ColumnName::new("n")?)).await?;
    assert_eq!(t.value("a").await?, json!({"s": "x", "free": [1]}));
    assert_eq!(t.value("b").await?, json!({}));
    t.store.alter_table(&t.name, &SchemaChange::AddColumn(column("n", ColumnType::Text)?)).await?;
    assert_eq!(t.matching(Filter::is_null("n")?).await?, ["a", "b"], "the old values did not come back");
    t.put("a", json!({"n": "text now"})).await?;
    assert_eq!(t.matching(Filter::eq("n", "text now")?).await?, ["a"]);
    refused(ErrorKind::NotFound, t.store.alter_table(&t.name, &SchemaChange::DropColumn(ColumnName::new("no")?)).await);
    refused(ErrorKind::InvalidInput, t.store.alter_table(&t.name, &SchemaChange::DropColumn(ColumnName::new("id")?)).await);
    Ok(())
}

/// A renamed column keeps its values, its type and its indexes.
pub async fn rename_column(h: &dyn Harness) -> CaseResult {
    let Some(t) = alterable(h).await? else { return Ok(()) };
    let index = Index { name: "by_n".parse()?, columns: vec![ColumnName::new("n")?], unique: false };
    t.store.alter_table(&t.name, &SchemaChange::AddIndex(index)).await?;
    let rename = |from: &str, to: &str| {
        Ok::<_, storage_core::Error>(SchemaChange::RenameColumn { from: ColumnName::new(from)?, to: ColumnName::new(to)? })
    };
    t.store.alter_table(&t.name, &rename("n", "number")?).await?;
    assert_eq!(t.value("a").await?, json!({"number": 1, "s": "x", "free": [1]}));
    assert_eq!(t.keys(t.query().descending("number")?).await?, ["b", "a"]);
    assert_eq!(t.store.schema(&t.name).await?.indexes[0].columns, [ColumnName::new("number")?]);
    refused(ErrorKind::AlreadyExists, t.store.alter_table(&t.name, &rename("number", "s")?).await);
    refused(ErrorKind::NotFound, t.store.alter_table(&t.name, &rename("n", "x")?).await);
    refused(ErrorKind::InvalidInput, t.store.alter_table(&t.name, &SchemaChange::DropColumn(ColumnName::new("number")?)).await);
    t.store.alter_table(&t.name, &SchemaChange::DropIndex("by_n".parse()?)).await?;
    t.store.alter_table(&t.name, &SchemaChange::DropColumn(ColumnName::new("number")?)).await?;
    assert_eq!(t.value("b").await?, json!({}));
    Ok(())
}

/// Undeclared fields can be forbidden once there are none, and not before.
pub async fn undeclared_fields_can_be_forbidden(h: &dyn Harness) -> CaseResult {
    let Some(t) = alterable(h).await? else { return Ok(()) };
    let reject = SchemaChange::SetUndeclared(Undeclared::Reject);
    refused(ErrorKind::InvalidInput, t.store.alter_table(&t.name, &reject).await);
    t.put("c", json!({"free": 1})).await?;
    assert!(t.delete("c").await?);
    t.put("a", json!({"n": 1})).await?;
    t.store.alter_table(&t.name, &reject).await?;
    refused(ErrorKind::InvalidInput, t.put("c", json!({"free": 1})).await);
    t.store.alter_table(&t.name, &SchemaChange::SetUndeclared(Undeclared::Keep)).await?;
    t.put("c", json!({"free": 1})).await?;
    assert_eq!(t.matching(Filter::eq("free", 1)?).await?, ["c"]);
    Ok(())
}

/// Changes of tables that are not there are `NotFound`; a store that knew the old schema goes on with the new one.
pub async fn other_stores_see_changes(h: &dyn Harness) -> CaseResult {
    let Some(t) = alterable(h).await? else { return Ok(()) };
    let nowhere = TableName::new("nowhere")?;
    refused(ErrorKind::NotFound, t.store.alter_table(&nowhere, &SchemaChange::SetUndeclared(Undeclared::Keep)).await);
    let other = crate::opened::records(&t.opened.backends);
    assert_eq!(other.count(&t.query().filter(Filter::eq("n", 1)?)).await?, 1);
    let add = SchemaChange::AddColumn(column("more", ColumnType::Integer)?);
    t.store.alter_table(&t.name, &add).await?;
    t.put("c", json!({"more": 3})).await?;
    assert_eq!(other.scan(&t.query().descending("more")?.limit(1)).await?.records[0].key, "c".into());
    Ok(())
}
