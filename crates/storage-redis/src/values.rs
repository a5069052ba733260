//! Values by key, as programs of other systems keep them: the results of Celery's tasks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use redis::{Value, cmd};
use storage_core::{BackendInfo, Driver as _, DriverConfig, KeyedValues, Result, ValuesDriver};

use crate::RedisDriver;
use crate::client::Client;
use crate::config::Settings;
use crate::error::strange;

/// How many keys are asked for at once: in a Cluster each may be elsewhere.
const AT_ONCE: usize = 64;

/// Values under the very keys that are named: the option `prefix` is for queues.
#[derive(Debug)]
struct RedisValues {
    client: Client,
}

impl ValuesDriver for RedisDriver {
    fn schemes(&self) -> &'static [&'static str] {
        storage_core::Driver::schemes(self)
    }

    fn open_values(&self, config: &DriverConfig) -> Result<Arc<dyn KeyedValues>> {
        self.check_options(config)?;
        let settings = Settings::new(config)?;
        Ok(Arc::new(RedisValues { client: Client::new(settings)? }))
    }
}

#[async_trait]
impl KeyedValues for RedisValues {
    fn info(&self) -> &BackendInfo {
        self.client.info()
    }

    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
        // Owned, so that the whole future can be spawned.
        let gets = keys.iter().cloned().map(|key| async move {
            let mut get = cmd("GET");
            get.arg(&key);
            match self.client.command(&get, &key).await? {
                Value::Nil => Ok(None),
                Value::BulkString(value) => Ok(Some(Bytes::from(value))),
                _ => Err(strange("no value")),
            }
        });
        futures::stream::iter(gets).buffered(AT_ONCE).try_collect().await
    }

    async fn put(&self, key: &str, value: Bytes, keep: Duration) -> Result<()> {
        let (mut set, mut publish) = (cmd("SET"), cmd("PUBLISH"));
        let millis = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX).max(1);
        set.arg(key).arg(&value[..]).arg("PX").arg(millis);
        self.client.command(&set, key).await?;
        // Whoever waits looks when this comes: the value is there before.
        publish.arg(key).arg(&value[..]);
        self.client.command(&publish, key).await.map(drop)
    }

    async fn remove(&self, keys: &[String]) -> Result<()> {
        let removals = keys.iter().cloned().map(|key| async move {
            let mut remove = cmd("DEL");
            remove.arg(&key);
            self.client.command(&remove, &key).await.map(drop)
        });
        futures::stream::iter(removals).buffered(AT_ONCE).try_collect().await
    }

    async fn close(&self) -> Result<()> {
        self.client.disconnect();
        Ok(())
    }
}
