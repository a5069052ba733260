//! `storage table`.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use serde_json::json;
use storage_core::{Column, Error, History, KeyType, TableName, TableSchema, Undeclared};

use crate::context::Context;
use crate::exit::Failure;
use crate::input;

const SCHEMA_HELP: &str = "\
A schema, invoices.toml (YAML and JSON have the same names):
  name = \"invoices\"
  id = { name = \"number\" }                      # the key; type = \"integer\" for numbers
  # partition = { name = \"tenant\" }             # for keys of two parts
  columns = [
    { name = \"customer\", type = \"text\", required = true },
    { name = \"cents\", type = \"integer\", default = 0 },
    { name = \"due\", type = \"timestamp\" },      # also: real, boolean, json, bytes
  ]
  indexes = [{ name = \"by_customer\", columns = [\"customer\", \"due\"] }]
  undeclared = \"keep\"                           # keep other fields too; else they are refused
  history = { keep = 10 }                       # old versions: \"none\", { keep = N }, \"keep_all\"

Example:
  storage table create invoices.toml";

#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// Create a table from a schema; fine if it is there with the same one
    #[command(after_help = SCHEMA_HELP)]
    Create {
        /// A schema in TOML, YAML or JSON (`-`: YAML or JSON on stdin)
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// List the tables
    Ls,
    /// Show a table's schema (with --json: as `create` reads it)
    Describe {
        /// The table
        table: TableName,
    },
    /// Remove a table with its records
    Drop {
        /// The table
        table: TableName,
        /// Fine if it is not there
        #[arg(long)]
        missing_ok: bool,
    },
}

pub(crate) async fn run(command: TableCommand, context: &Context) -> Result<(), Failure> {
    let (out, records) = (&context.out, context.records().await?);
    match command {
        TableCommand::Create { file } => {
            let schema = input::schema(&file).await?;
            let created = records.create_table(&schema).await?;
            out.done(&json!({"table": schema.name, "created": created}), || match created {
                true => format!("created table `{}`", schema.name),
                false => format!("table `{}` is there already, with this schema", schema.name),
            })
        }
        TableCommand::Ls => {
            let mut listing = out.listing(["TABLE", "KEY", ">COLUMNS", ">INDEXES", "HISTORY"]);
            for schema in records.tables().await? {
                listing.row(&schema, || {
                    let keys: Vec<_> = schema.key_columns().map(|k| k.name.as_str()).collect();
                    let (columns, indexes) = (schema.columns.len().to_string(), schema.indexes.len().to_string());
                    vec![schema.name.to_string(), keys.join("/"), columns, indexes, history(schema.history)]
                })?;
            }
            if listing.end()? == 0 && !out.is_json() {
                out.note("no tables yet: `storage table create --help` shows how");
            }
            Ok(())
        }
        TableCommand::Describe { table } => describe(&*records.schema(&table).await?, context),
        TableCommand::Drop { table, missing_ok } => {
            let dropped = records.drop_table(&table).await?;
            if !dropped && !missing_ok {
                return Err(Error::not_found(format!("there is no table `{table}`")).into());
            }
            out.done(&json!({"table": table, "dropped": dropped}), || match dropped {
                true => format!("dropped table `{table}`"),
                false => format!("there was no table `{table}`"),
            })
        }
    }
}

fn history(history: History) -> String {
    match history {
        History::None => "none".into(),
        History::Keep(n) => format!("{n} versions"),
        History::KeepAll => "all versions".into(),
    }
}

fn describe(schema: &TableSchema, context: &Context) -> Result<(), Failure> {
    let out = &context.out;
    if out.is_json() {
        return out.json(schema);
    }
    out.line(format!("table {}", schema.name))?;
    out.line(match schema.undeclared {
        Undeclared::Keep => "other fields are kept",
        Undeclared::Reject => "other fields are refused",
    })?;
    out.line(format!("history: {}\n", history(schema.history)))?;
    let mut columns = out.listing(["COLUMN", "TYPE", "", "DEFAULT"]);
    for key in schema.key_columns() {
        let kind = if key.kind == KeyType::Integer { "integer" } else { "text" };
        columns.row(&(), || vec![key.name.to_string(), kind.into(), "key".into(), String::new()])?;
    }
    for column in &schema.columns {
        columns.row(&(), || column_cells(column))?;
    }
    columns.end()?;
    if !schema.indexes.is_empty() {
        out.line("")?;
        let mut indexes = out.listing(["INDEX", "COLUMNS", ""]);
        for index in &schema.indexes {
            let names: Vec<_> = index.columns.iter().map(storage_core::ColumnName::as_str).collect();
            let unique = if index.unique { "unique" } else { "" };
            indexes.row(&(), || vec![index.name.to_string(), names.join(", "), unique.into()])?;
        }
        indexes.end()?;
    }
    Ok(())
}

fn column_cells(column: &Column) -> Vec<String> {
    let kind = format!("{:?}", column.kind).to_lowercase();
    let marks: Vec<_> =
        [(column.required, "required"), (column.unique, "unique")].into_iter().filter(|m| m.0).map(|m| m.1).collect();
    let default = column.default.as_ref().map_or_else(String::new, ToString::to_string);
    vec![column.name.to_string(), kind, marks.join(", "), default]
}
