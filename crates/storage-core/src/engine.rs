//! Engines that open the same data by themselves.

use std::fmt;

/// A kind of engine that opens blobs by itself: it has to be told where they are and how to get at them, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// What reads by the crate `object_store`: delta-rs, Polars, DataFusion. Options are its configuration keys.
    ObjectStore,
    /// DuckDB. Options are parameters of `CREATE SECRET`; where there are none, no secret is needed.
    DuckDb,
    /// Spark, and what else reads by Hadoop's file systems. Options are keys of Hadoop's configuration; among Spark's own they stand behind
    /// `spark.hadoop.`.
    Spark,
}

impl Engine {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::ObjectStore, Self::DuckDb, Self::Spark];
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ObjectStore => "engines on object_store",
            Self::DuckDb => "DuckDB",
            Self::Spark => "Spark",
        })
    }
}
