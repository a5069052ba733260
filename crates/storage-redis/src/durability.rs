//! What the servers promise of what they have accepted.

use redis::{Value, cmd};
use storage_core::{ErrorKind, Result};

use crate::client::Client;
use crate::config::Topology;
use crate::message::text;

/// Whether an accepted record or message is there after a crash or a power cut. `declared`: what the configuration says, which is not doubted.
///
/// A server does what its `appendonly` and `appendfsync` say: `always` syncs before it answers, `everysec` may lose the last second. With
/// `no-appendfsync-on-rewrite yes` it does not sync either while it rewrites its file, which it begins by itself. Behind
/// sentinels, and in a Cluster with replicas, a replica that takes over may lack what its primary accepted last, whatever they write.
/// A server that may evict keys when its memory is full promises nothing at all. Where one does not say, nothing is promised.
///
/// # Errors
/// Where the servers can't be reached or refuse the credentials.
pub(crate) async fn ask(client: &Client, declared: Option<bool>) -> Result<bool> {
    client.everywhere(&cmd("PING")).await?;
    if let Some(durable) = declared {
        return Ok(durable);
    }
    match client.topology() {
        Topology::Sentinel { .. } => return Ok(false),
        Topology::Cluster(_) if has_replicas(client).await? => return Ok(false),
        Topology::Single(_) | Topology::Cluster(_) => {}
    }
    let Some(evicts) = settings(client, "maxmemory-policy").await? else { return Ok(false) };
    if evicts.iter().any(|policy| policy.starts_with("allkeys")) {
        tracing::warn!(
            store = %client.info(), "the server may evict records and messages when its memory is full: set `maxmemory-policy noeviction`"
        );
        return Ok(false);
    }
    for (name, value) in [("appendonly", "yes"), ("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")] {
        let found = settings(client, name).await?;
        if !found.is_some_and(|found| found.iter().all(|one| one == value)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What each primary has set, where it says so.
async fn settings(client: &Client, name: &str) -> Result<Option<Vec<String>>> {
    let mut command = cmd("CONFIG");
    command.arg("GET").arg(name);
    let answers = match client.everywhere(&command).await {
        Ok(answers) => answers,
        // Not allowed, or not known: managed services hide it.
        Err(error) if matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Internal) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(answers.into_iter().map(value_of).collect())
}

fn value_of(answer: Value) -> Option<String> {
    match answer {
        Value::Array(pair) => pair.into_iter().nth(1).and_then(|value| text(value).ok()),
        Value::Map(pairs) => pairs.into_iter().next().and_then(|(_, value)| text(value).ok()),
        _ => None,
    }
}

async fn has_replicas(client: &Client) -> Result<bool> {
    let mut command = cmd("INFO");
    command.arg("replication");
    let answers = match client.everywhere(&command).await {
        Ok(answers) => answers,
        Err(error) if matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Internal) => return Ok(true),
        Err(error) => return Err(error),
    };
    Ok(!answers.into_iter().all(|answer| text(answer).is_ok_and(|info| info.contains("connected_slaves:0"))))
}
