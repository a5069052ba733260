//! `storage record`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use storage_core::{
    Batch, Direction, Error, Expect, Filter, Key, MAX_PAGE, Order, PageToken, Query, Record, RecordStore, Result, TableName,
    TableSchema, Undeclared, Version, Write, clock, fields,
};

use crate::args::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Out, time};
use crate::{input, output};

const KEY_HELP: &str = "A KEY is written as it is: alice, 17; of two parts with a slash: acme/17, or as JSON: '[\"a/b\", 17]'.";

const FILTER_HELP: &str = "\
Filters:
  = != < <= > >=   in (…)   between … and …   is null   is not null   like 'abc%'   like '%abc%'
  starts_with(name, 'a')   contains(name, 'a')   and   or   not   ( )
  Text in single quotes ('it''s'), names with odd characters in double quotes.

Examples:
  storage record query invoices --filter \"customer = 'acme' and cents > 9\" --order cents:desc
  storage record query invoices --json | jq .record.cents";

#[derive(Debug, Subcommand)]
pub(crate) enum RecordCommand {
    /// Write a record (JSON without the key; `-`: from stdin)
    #[command(after_help = format!("{KEY_HELP}\n\nExample:\n  storage record put invoices 2026-17 '{{\"customer\": \"acme\", \"cents\": 1200}}'"))]
    Put(PutArgs),
    /// Show a record
    #[command(after_help = KEY_HELP)]
    Get {
        /// The table
        table: TableName,
        /// The record's key
        key: String,
    },
    /// List records: all, or those that a filter means
    #[command(after_help = FILTER_HELP)]
    Query(QueryArgs),
    /// Count records: all, or those that a filter means
    #[command(after_help = FILTER_HELP)]
    Count {
        /// The table
        table: TableName,
        /// Only these: `status = 'done' and priority > 3`
        #[arg(long, short)]
        filter: Option<String>,
    },
    /// Remove a record
    #[command(after_help = KEY_HELP)]
    Delete {
        /// The table
        table: TableName,
        /// The record's key
        key: String,
        /// Only if it has this version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
        /// Fine if it is not there
        #[arg(long, conflicts_with = "if_version")]
        missing_ok: bool,
    },
    /// Show the kept versions of a record, newest first
    #[command(after_help = KEY_HELP)]
    History {
        /// The table
        table: TableName,
        /// The record's key
        key: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The table
    table: TableName,
    /// The record's key
    key: String,
    /// Its fields, as a JSON object; `-`: from stdin
    #[arg(value_name = "JSON")]
    fields: String,
    /// Only if there is none yet
    #[arg(long, conflicts_with_all = ["if_version", "merge"])]
    insert: bool,
    /// Only if it has this version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Change these fields only, of a record that is there; null removes one
    #[arg(long)]
    merge: bool,
    /// It is gone after so long
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "merge")]
    ttl: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    /// The table
    table: TableName,
    /// Only these: `status = 'done' and priority > 3`
    #[arg(long, short)]
    filter: Option<String>,
    /// Sort by these columns; without it: by key
    #[arg(long, short, value_name = "COL[:desc],…", value_delimiter = ',', value_parser = order)]
    order: Vec<Order>,
    /// So many at most [default: 100]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// All of them, however many
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on where an earlier query ended
    #[arg(long, value_name = "TOKEN")]
    after: Option<PageToken>,
}

fn order(text: &str) -> Result<Order, String> {
    let (column, direction) = match text.rsplit_once(':') {
        None => (text, Direction::Ascending),
        Some((column, "asc")) => (column, Direction::Ascending),
        Some((column, "desc")) => (column, Direction::Descending),
        Some((_, other)) => return Err(format!("`:{other}` is neither :asc nor :desc")),
    };
    Ok(Order { column: column.parse().map_err(|e: Error| e.message().to_owned())?, direction })
}

pub(crate) async fn run(command: RecordCommand, context: &Context) -> Result<(), Failure> {
    let (out, records) = (&context.out, context.records().await?);
    match command {
        RecordCommand::Put(args) => put(args, &records, context).await,
        RecordCommand::Get { table, key } => {
            let schema = records.schema(&table).await?;
            let key = input::key(&schema, &key)?;
            let record = records.get(&table, key.clone()).await?.ok_or_else(|| missing(&table, &key))?;
            show(out, &schema, &record)
        }
        RecordCommand::Query(args) => query(args, &records, out).await,
        RecordCommand::Count { table, filter } => {
            let query = Query::table(table.clone())?.filter(filter_of(filter.as_deref())?);
            let count = records.count(&query).await?;
            if out.is_json() { out.json(&json!({"table": table, "count": count})) } else { out.line(count.to_string()) }
        }
        RecordCommand::Delete { table, key, if_version, missing_ok } => {
            let key = input::key(&*records.schema(&table).await?, &key)?;
            let expect = if_version.map_or(Expect::Anything, |version| Expect::Version(Version(version)));
            let deleted = records.delete(&table, key.clone(), expect).await?;
            if !deleted && !missing_ok {
                return Err(missing(&table, &key).into());
            }
            out.done(&json!({"table": table, "key": input::key_value(&key), "deleted": deleted}), || match deleted {
                true => format!("deleted record `{key}` of table `{table}`"),
                false => format!("table `{table}` had no record `{key}`"),
            })
        }
        RecordCommand::History { table, key } => {
            let schema = records.schema(&table).await?;
            let key = input::key(&schema, &key)?;
            let versions = records.history(&table, key.clone()).await?;
            if versions.is_empty() {
                return Err(missing(&table, &key).into());
            }
            let mut listing = out.listing([">VERSION", "WRITTEN", "RECORD"]);
            for record in &versions {
                listing.row(&json_record(&schema, record), || {
                    let record_text = Value::Object(record.to_object(&schema)).to_string();
                    vec![record.version.to_string(), time(record.updated_at), record_text]
                })?;
            }
            listing.end().map(drop)
        }
    }
}

fn missing(table: &TableName, key: &Key) -> Error {
    Error::not_found(format!("table `{table}` has no record `{key}`"))
}

pub(crate) fn filter_of(text: Option<&str>) -> Result<Filter> {
    text.map_or(Ok(Filter::All), Filter::parse)
}

async fn put(args: PutArgs, records: &RecordStore, context: &Context) -> Result<(), Failure> {
    let schema = records.schema(&args.table).await?;
    let key = input::key(&schema, &args.key)?;
    let mut fields = input::object_or_stdin(&args.fields, "the record").await?;
    // What `get` shows can be put back: the key's columns may be there if they say the same.
    for (column, part) in schema.key_columns().zip(key.partition.iter().chain([&key.id])) {
        if fields.get(column.name.as_str()) == Some(&storage_core::part_value(part)) {
            fields.remove(column.name.as_str());
        }
    }
    let expect = match (args.if_version, args.insert, args.merge) {
        (Some(version), ..) => Expect::Version(Version(version)),
        (None, true, _) => Expect::Absent,
        (None, false, true) => Expect::Present,
        (None, false, false) => Expect::Anything,
    };
    let batch = if args.merge {
        Batch::new().merge(&args.table, key.clone(), fields, expect)
    } else {
        let now = context.storage().await?.clock().now();
        let expires_at = args.ttl.map(|ttl| clock::add(now, ttl));
        Batch::new().with(Write::Put { table: args.table.clone(), key: key.clone(), fields, expect, expires_at })
    };
    let version = records.commit(batch).await?.first().copied().unwrap_or_default();
    let table = &args.table;
    let said = json!({"table": table, "key": input::key_value(&key), "version": version});
    context.out.done(&said, || format!("wrote record `{key}` of table `{table}`, version {version}"))
}

/// What programs get of a record.
fn json_record(schema: &TableSchema, record: &Record) -> Value {
    let mut object = fields(json!({
        "key": input::key_value(&record.key),
        "version": record.version,
        "updated_at": record.updated_at,
        "record": record.to_object(schema),
    }));
    if let Some(expires_at) = record.expires_at {
        object.insert("expires_at".into(), json!(expires_at));
    }
    Value::Object(object)
}

fn show(out: &Out, schema: &TableSchema, record: &Record) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&json_record(schema, record));
    }
    out.line(serde_json::to_string_pretty(&record.to_object(schema))?)
}

async fn query(args: QueryArgs, records: &RecordStore, out: &Out) -> Result<(), Failure> {
    let schema = records.schema(&args.table).await?;
    let filter = filter_of(args.filter.as_deref())?;
    let wanted = if args.all { u64::MAX } else { args.limit.unwrap_or(100) };
    let page = u32::try_from(wanted).unwrap_or(MAX_PAGE).min(if args.all { 1000 } else { MAX_PAGE });
    let mut query = Query { table: args.table, filter, order: args.order, limit: page, after: args.after, stale: false };
    let columns: Vec<&str> =
        schema.key_columns().map(|k| k.name.as_str()).chain(schema.columns.iter().map(|c| c.name.as_str())).collect();
    let mut rows = Rows::new(out, &schema, &columns);
    let mut left = wanted;
    loop {
        query.limit = query.limit.min(u32::try_from(left).unwrap_or(u32::MAX));
        let found = records.scan(&query).await?;
        left = left.saturating_sub(found.records.len() as u64);
        for record in &found.records {
            rows.add(record)?;
        }
        match found.next {
            Some(token) if left > 0 => query.after = Some(token),
            next => return rows.end(next),
        }
    }
}

/// Records as a table whose columns the schema says.
struct Rows<'a> {
    out: &'a Out,
    schema: &'a TableSchema,
    columns: &'a [&'a str],
    listing: output::Listing<'a>,
}

impl<'a> Rows<'a> {
    fn new(out: &'a Out, schema: &'a TableSchema, columns: &'a [&'a str]) -> Self {
        let others = (schema.undeclared == Undeclared::Keep).then_some("other fields");
        let headings = columns.iter().copied().chain(["version"]).chain(others);
        Self { out, schema, columns, listing: out.listing_of(headings.map(str::to_owned).collect()) }
    }

    fn add(&mut self, record: &Record) -> Result<(), Failure> {
        let (schema, columns) = (self.schema, self.columns);
        self.listing.row(&json_record(schema, record), || {
            let cell = |column: &&str| match record.value(schema, column) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text,
                Some(other) => other.to_string(),
            };
            let mut others = record.fields.clone();
            others.retain(|name, _| !columns.contains(&name.as_str()));
            let others = if others.is_empty() { String::new() } else { Value::Object(others).to_string() };
            columns.iter().map(cell).chain([record.version.to_string(), others]).collect()
        })
    }

    fn end(self, next: Option<PageToken>) -> Result<(), Failure> {
        let rows = self.listing.end()?;
        match next {
            Some(token) if self.out.is_json() => self.out.json(&json!({"next": token})),
            Some(token) => {
                self.out.note(format!("there is more: --after {token}"));
                Ok(())
            }
            None if rows == 0 && !self.out.is_json() => {
                self.out.note("no records");
                Ok(())
            }
            None => Ok(()),
        }
    }
}
