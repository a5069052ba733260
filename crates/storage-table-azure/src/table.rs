//! A table as it is, and as it was: a change of the schema rewrites no entities. Each says after how many changes it was written, and whoever reads it applies
//! those that came since.

use serde::{Deserialize, Serialize};
use storage_core::{SchemaChange, TableSchema};

use crate::entity::MAX_COLUMNS;

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) schema: TableSchema,
    /// Its name on the service.
    pub(crate) there: String,
    /// What it was like before each change, oldest first.
    pub(crate) past: Vec<Past>,
}

/// What a table was like, and the change that ended it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Past {
    pub(crate) schema: TableSchema,
    pub(crate) change: SchemaChange,
}

impl Table {
    /// After how many changes records are written now.
    pub(crate) fn generation(&self) -> usize {
        self.past.len()
    }

    /// What it was like after so many changes, and those that came since. `None`: that is not known here yet.
    pub(crate) fn since(&self, generation: usize) -> Option<(&TableSchema, &[Past])> {
        let later = self.past.get(generation..)?;
        Some((later.first().map_or(&self.schema, |past| &past.schema), later))
    }

    /// True where a column is what it is in all entities, whenever they were written.
    pub(crate) fn always_had(&self, column: &str) -> bool {
        self.past.iter().all(|past| {
            past.schema.columns.len() <= MAX_COLUMNS
                && match &past.change {
                    SchemaChange::AddColumn(added) => added.name != *column,
                    SchemaChange::DropColumn(dropped) => *dropped != *column,
                    SchemaChange::RenameColumn { from, to } => *from != *column && *to != *column,
                    _ => true,
                }
        })
    }
}
