//! The replica that `read_url` names.

use storage_core::Result;
use storage_sql::server::{Question, Standing, read_replica};

use crate::config::Settings;
use crate::pool::ConnectionPool;
use crate::read::Reading;
use crate::shared::Shared;

/// A server that follows the primary, and is asked for what may be of a while ago.
pub(crate) struct Replica {
    pool: ConnectionPool,
    standing: Standing,
}

impl Replica {
    /// Connects when it is asked first.
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        Ok(Self { pool: ConnectionPool::new(settings)?, standing: Standing::new(settings.info().location, settings.timeout) })
    }

    /// Its answer, for the tables as the primary is known to have them. `None`: the primary is to be asked.
    pub(crate) async fn ask<Q: Question>(&self, shared: &Shared, question: &Q) -> Option<Q::Answer> {
        let attempt = async {
            let lent = self.pool.get().await?;
            let reader = Reading { shared, connection: &lent };
            let answer = read_replica(&reader, &shared.catalog.known(), question).await;
            lent.done(answer)
        };
        self.standing.ask(attempt).await
    }

    pub(crate) fn close(&self) {
        self.pool.close();
    }
}
