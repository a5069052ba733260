//! Which queues there are, and how they behave.

use storage_core::{Error, QueueName, QueueSpec, Result};

use crate::base::{Base, SCRATCH};
use crate::file::{self, at, create_folders};
use crate::{names, records};

pub(crate) const QUEUES: &str = "queues";
const SPEC: &str = "_spec.json";

pub(super) fn folder(queue: &QueueName) -> String {
    format!("{QUEUES}/{}", names::folder(queue.as_str()))
}

pub(super) fn no_queue(queue: &QueueName) -> Error {
    Error::not_found(format!("there is no queue `{queue}`: create it first"))
}

pub(super) fn load(base: &Base, queue: &QueueName) -> Result<Option<QueueSpec>> {
    let path = format!("{}/{SPEC}", folder(queue));
    let Some(bytes) = base.read(&path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| base.corrupt(&path, format_args!("this says not how a queue behaves: {e}")))
}

/// The queue of that name, or whose companion has it.
pub(super) fn home(queue: &QueueName) -> QueueName {
    queue.dead_letter_of().unwrap_or_else(|| queue.clone())
}

pub(super) fn spec(base: &Base, queue: &QueueName) -> Result<QueueSpec> {
    let spec = load(base, &home(queue))?.ok_or_else(|| no_queue(queue))?;
    Ok(if queue.is_dead_letter() { spec.max_deliveries(None) } else { spec })
}

pub(super) fn is_there(base: &Base, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
    match load(base, queue)? {
        None => Ok(false),
        Some(there) if there == *spec => Ok(true),
        Some(there) => Err(Error::already_exists(format!("it is there with another spec: {there:?}"))),
    }
}

pub(super) fn create(base: &Base, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
    if is_there(base, queue, spec)? {
        return Ok(false);
    }
    let (made, home, all) = (base.path(SCRATCH).join("queue"), base.path(&folder(queue)), base.path(QUEUES));
    file::remove_tree(&made)?;
    for lane in ["ready", "leased", "dead/ready", "dead/leased", "dedup"] {
        create_folders(&made.join(lane), base.durable)?;
    }
    file::write_new(&made.join(SPEC), &serde_json::to_vec_pretty(spec)?, base.durable)?;
    create_folders(&all, base.durable)?;
    if base.durable {
        file::sync_folder(&made)?;
    }
    std::fs::rename(&made, &home).map_err(at(&home))?;
    if base.durable {
        file::sync_folder(&all)?;
    }
    Ok(true)
}

pub(super) fn delete_queue(base: &Base, queue: &QueueName) -> Result<bool> {
    if load(base, queue)?.is_none() {
        return Ok(false);
    }
    records::discard(base, &folder(queue))?;
    Ok(true)
}

pub(super) fn queues(base: &Base) -> Result<Vec<QueueName>> {
    let folders = file::names(&base.path(QUEUES))?;
    let mut queues: Vec<QueueName> = folders.iter().filter_map(|name| QueueName::new(names::decode_folder(name)?).ok()).collect();
    queues.sort_unstable();
    Ok(queues)
}
