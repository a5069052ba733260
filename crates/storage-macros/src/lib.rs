//! `#[derive(Entity)]`: a struct as the records of one table.
//!
//! Programs get it from `storage-core` with the feature `derive`, and write `use storage_core::Entity;`.
//!
//! ```
//! use storage_core::{Entity, Version};
//!
//! #[derive(Entity)]
//! #[entity(table = "jobs", index(name = "by_status", columns("status", "priority")))]
//! struct Job {
//!     #[entity(key)]
//!     id: String,
//!     status: String,
//!     #[entity(default = 0)]
//!     priority: i64,
//!     note: Option<String>,
//!     #[entity(version)]
//!     version: Version,
//! }
//!
//! let schema = Job::schema()?;
//! assert_eq!(schema.columns.len(), 3);
//! assert!(schema.column("status").is_some_and(|c| c.required));
//! # Ok::<(), storage_core::Error>(())
//! ```
//!
//! On the struct, `#[entity(…)]` takes:
//!
//! | attribute | meaning |
//! |---|---|
//! | `table = "jobs"` | the table; required |
//! | `index(name = "…", columns("…", …))` | an index over several columns |
//! | `unique_index(name = "…", columns("…", …))` | no two records have the same values in these columns |
//! | `history = 5`, `history = "all"` | keeps so many versions of a record |
//! | `undeclared` | lets fields through that the struct does not have |
//! | `crate = "path"` | where `storage_core` is, if it goes by another name |
//!
//! On a field:
//!
//! | attribute | meaning |
//! |---|---|
//! | `key` | the id column; exactly one field |
//! | `partition` | the partition column, which makes the key one of two parts |
//! | `version` | holds the record's `Version`; not a column |
//! | `unique` | no two records have the same value |
//! | `index` | an index of this column alone, called `by_<column>` |
//! | `default = 0` | what a record gets that another program puts without this column |
//! | `column = "name"` | the column's name where it is not the field's |
//! | `text`, `integer`, `real`, `boolean`, `timestamp`, `json`, `bytes` | the column's type, for types that don't implement `ColumnValue` |
//! | `skip` | not stored; `Default::default()` when read |
//! | `rest` | a `Fields` map with the fields that the struct does not have |
//!
//! Fields are converted one by one with serde; the struct itself needs no serde derive. Names are checked when the program is compiled.

mod attributes;
mod expand;
mod model;
mod names;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `storage_core::Entity`. See the [crate](self) for its attributes.
#[proc_macro_derive(Entity, attributes(entity))]
pub fn derive_entity(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    match model::EntityModel::new(&input) {
        Ok(model) => expand::expand(&model).into(),
        Err(error) => error.into_compile_error().into(),
    }
}
