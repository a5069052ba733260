//! [`QueueBackend`] on Redis.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use redis::{Value, cmd};
use storage_core::{
    BackendInfo, Count, Delivery, Error, Message, MessageId, MessageUpdate, NewMessage, OpenFlag, QueueBackend,
    QueueCapabilities, QueueName, QueueSpec, QueueStats, Receipt, Receive, Result, Sent, clock,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{Answer, Client};
use crate::error::strange;
use crate::layout::Layout;
use crate::message::{bytes, count, int, micros, parse, read_all, receipt, text, time, write_attributes};
use crate::news::News;
use crate::scripts::{self, Script};

const MAX_BODY: usize = 64 << 20;
/// How many bytes one call sends at most: it is one script call, which the server has in memory more than once.
const MAX_SEND: usize = 128 << 20;
/// How many bytes of bodies one call answers at most, but for a single message that has more.
const MAX_ANSWER: &str = "33554432";
/// How long a waiting receive waits for news to be heard, before it looks by itself.
const UNTIL_HEARD: Duration = Duration::from_millis(250);
/// How many queues are looked at together.
const LOOKS: usize = 32;

/// The queues in a Redis.
#[derive(Debug)]
pub struct RedisQueue {
    client: Arc<Client>,
    layout: Layout,
    capabilities: QueueCapabilities,
    news: News,
    open: OpenFlag,
    /// Leases are named after the handle that took them, and counted.
    handle: String,
    leases: AtomicU64,
}

/// The queue of a name, or its dead letters.
struct Side {
    home: String,
    dead: bool,
    keys: Vec<String>,
}

impl Side {
    fn lane(&self) -> &'static [u8] {
        if self.dead { b"dead" } else { b"live" }
    }
}

/// What a receive that does not wait finds.
struct Taken {
    deliveries: Vec<Delivery>,
    /// In how long something becomes ready by itself.
    due: Option<Duration>,
    /// How many more are ready.
    left: u64,
}

fn no_queue(queue: &QueueName) -> Error {
    Error::not_found(format!("there is no queue `{queue}`: create it first"))
}

fn lost() -> Error {
    Error::lease_lost("the message was received again, updated, removed or dead-lettered since this receipt was made")
}

/// The values of an answer behind its status.
fn values<const N: usize>(values: Vec<Value>) -> Result<[Value; N]> {
    list_of(Value::Array(values.into_iter().skip(1).collect()))
}

fn list_of<const N: usize>(value: Value) -> Result<[Value; N]> {
    <[Value; N]>::try_from(list(value)?).map_err(|_| strange("another number of values"))
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(strange("no list")),
    }
}

impl RedisQueue {
    pub(crate) fn new(client: Arc<Client>, layout: Layout, durable: bool) -> Self {
        let capabilities = QueueCapabilities {
            delay: true,
            ttl: true,
            priority: true,
            dedup: true,
            fifo: true,
            peek: true,
            update_body: true,
            dead_letter: true,
            atomic_send: true,
            receipts_across_processes: true,
            wakes: true,
            max_body_bytes: MAX_BODY,
            durable,
        };
        let mut handle = Uuid::new_v4().simple().to_string();
        handle.truncate(12);
        let news = News::new(Arc::clone(&client));
        Self { client, layout, capabilities, news, open: OpenFlag::default(), handle, leases: AtomicU64::new(0) }
    }

    fn side(&self, queue: &QueueName) -> Side {
        let home = queue.dead_letter_of();
        let (dead, home) = (home.is_some(), home.as_ref().unwrap_or(queue).to_string());
        Side { keys: self.layout.keys(&home), home, dead }
    }

    /// A name that no lease had before, also not one that the server has lost.
    fn lease(&self) -> String {
        format!("{}.{}", self.handle, self.leases.fetch_add(1, Ordering::Relaxed))
    }

    async fn run(&self, queue: &QueueName, side: &Side, script: &Script, arguments: &[&[u8]]) -> Result<Vec<Value>> {
        self.open.check()?;
        match self.client.queue_script(script, &side.keys, arguments).await? {
            Answer::Done(values) => Ok(values),
            Answer::NoQueue => Err(no_queue(queue)),
            Answer::Lost => Err(lost()),
        }
    }

    /// Takes what there is, without waiting.
    async fn take(&self, queue: &QueueName, side: &Side, request: &Receive) -> Result<Taken> {
        let (max, visibility, lease) = (request.max.to_string(), micros(request.visibility), self.lease());
        let arguments = [side.lane(), max.as_bytes(), visibility.as_bytes(), lease.as_bytes(), MAX_ANSWER.as_bytes()];
        let [now, due, left, shown] = values(self.run(queue, side, &scripts::RECEIVE, &arguments).await?)?;
        let leased_until = clock::add(time(int(&now)?)?, request.visibility);
        let shown = read_all(shown, queue)?.into_iter();
        let deliveries = shown.map(|shown| Delivery { message: shown.message, receipt: shown.receipt, leased_until }).collect();
        let due = u64::try_from(int(&due)?).ok().map(Duration::from_micros);
        Ok(Taken { deliveries, due, left: count(&left)? })
    }

    /// Takes what there is, or what comes until the deadline.
    async fn wait(&self, queue: &QueueName, side: &Side, request: &Receive, deadline: Instant) -> Result<Vec<Delivery>> {
        let listener = self.news.listen(&self.layout.news(&side.home, side.dead));
        loop {
            let mut news = pin!(listener.news());
            // Before looking again: news in between are not lost.
            news.as_mut().enable();
            let is_heard = listener.is_heard();
            if self.open.is_closed() {
                return Ok(Vec::new());
            }
            let taken = match self.take(queue, side, request).await {
                Err(_) if self.open.is_closed() => return Ok(Vec::new()),
                taken => taken?,
            };
            if !taken.deliveries.is_empty() {
                if taken.left > 0 {
                    listener.pass_on();
                }
                listener.set_due(taken.due.map(|due| Instant::now() + due));
                return Ok(taken.deliveries);
            }
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
            if taken.left > 0 {
                continue;
            }
            if !is_heard && listener.until_heard(UNTIL_HEARD.min(request.wait)).await {
                continue;
            }
            listener.set_due(taken.due.map(|due| Instant::now() + due));
            tokio::select! {
                () = news => {}
                () = listener.until_due(deadline) => {}
            }
        }
    }

    /// Checks that a name is that of a queue of its own.
    fn home(&self, queue: &QueueName) -> Result<Side> {
        queue.dead_letter()?;
        Ok(self.side(queue))
    }
}

/// What `send` gives its script, and checks.
pub(crate) fn arguments(messages: &[NewMessage]) -> Result<Vec<[Vec<u8>; 6]>> {
    let total: usize = messages.iter().map(|message| message.body.len()).sum();
    if total > MAX_SEND {
        return Err(Error::invalid(format!(
            "the messages of this call hold {total} bytes, {MAX_SEND} at most, so that they can be sent all or none: use several calls"
        )));
    }
    let one = |message: &NewMessage| {
        Ok([
            write_attributes(&message.attributes)?.into_bytes(),
            message.priority.to_string().into_bytes(),
            micros(message.delay).into_bytes(),
            message.ttl.map_or_else(|| "0".to_owned(), micros).into_bytes(),
            message.dedup_id.clone().unwrap_or_default().into_bytes(),
            message.content_type.clone().unwrap_or_default().into_bytes(),
        ])
    };
    messages.iter().map(one).collect()
}

fn read_sent(answer: Value) -> Result<Vec<Sent>> {
    let values = list(answer)?;
    let mut sent = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(id), Some(duplicate)) = (values.next(), values.next()) {
        sent.push(Sent { id: MessageId(text(id)?), duplicate: int(&duplicate)? != 0 });
    }
    Ok(sent)
}

fn read_spec(text: &[u8]) -> Result<QueueSpec> {
    serde_json::from_slice(text).map_err(|e| Error::corrupt("the queue's spec was not written by this toolkit").with_source(e))
}

/// What `create_queue` answers where the queue is there. `false`: as asked for.
fn same_spec(found: Value, asked: &QueueSpec) -> Result<bool> {
    match read_spec(&bytes(found)?)? {
        there if there == *asked => Ok(false),
        there => Err(Error::already_exists(format!("it is there with another spec: {there:?}"))),
    }
}

#[async_trait]
impl QueueBackend for RedisQueue {
    fn info(&self) -> &BackendInfo {
        self.client.info()
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.open.check()?;
        let side = self.home(queue)?;
        spec.check()?;
        let meta = &side.keys[0];
        // Mostly it is there: then the list, which may be on another node, need not be touched.
        if let found @ Value::BulkString(_) = self.client.command(cmd("HGET").arg(meta).arg("spec"), meta).await? {
            return same_spec(found, spec);
        }
        let incarnation = Uuid::new_v4().simple().to_string();
        // First, and in another place of a Cluster: the list may name a queue that is not there, but never lacks one.
        let list = self.layout.queues();
        self.client.command(cmd("HSET").arg(&list).arg(queue.as_str()).arg(&incarnation), &list).await?;
        let (written, cap) = (serde_json::to_string(spec)?, spec.max_deliveries.unwrap_or(0).to_string());
        let window = micros(spec.dedup_window);
        let arguments = [written.as_bytes(), cap.as_bytes(), window.as_bytes(), incarnation.as_bytes()];
        let there = match self.client.script(&scripts::CREATE, &side.keys, &arguments).await? {
            Value::Nil => return Ok(true),
            there => list_of::<2>(there)?,
        };
        // Somebody else was faster: the list has to name theirs, else the name would stay when the queue goes.
        let [found, theirs] = there;
        let arguments = [queue.as_str().as_bytes(), incarnation.as_bytes(), &bytes(theirs)?];
        self.client.script(&scripts::RELIST, &[list], &arguments).await?;
        same_spec(found, spec)
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.open.check()?;
        let side = self.home(queue)?;
        let incarnation = match self.client.script(&scripts::REMOVE, &side.keys, &[]).await? {
            Value::Nil => return Ok(false),
            incarnation => bytes(incarnation)?,
        };
        let arguments = [queue.as_str().as_bytes(), incarnation.as_slice()];
        self.client.script(&scripts::UNLIST, &[self.layout.queues()], &arguments).await?;
        Ok(true)
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.open.check()?;
        let key = self.layout.queues();
        let listed = list(self.client.command(cmd("HKEYS").arg(&key), &key).await?)?;
        let there = |name: Value| async move {
            let name = QueueName::new(text(name)?)
                .map_err(|_| Error::corrupt(format!("`{key}` lists what is no queue's name", key = self.layout.queues())))?;
            let meta = self.layout.meta(name.as_str());
            let exists = self.client.command(cmd("EXISTS").arg(&meta), &meta).await?;
            Ok::<_, Error>((int(&exists)? > 0).then_some(name))
        };
        let found = futures::stream::iter(listed).map(there).buffer_unordered(LOOKS).try_collect::<Vec<_>>().await?;
        let mut names: Vec<QueueName> = found.into_iter().flatten().collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.open.check()?;
        let side = self.side(queue);
        let meta = &side.keys[0];
        match self.client.command(cmd("HGET").arg(meta).arg("spec"), meta).await? {
            Value::Nil => Err(no_queue(queue)),
            found => {
                let spec = read_spec(&bytes(found)?)?;
                Ok(if side.dead { spec.max_deliveries(None) } else { spec })
            }
        }
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        let side = self.home(queue)?;
        let rest = arguments(&messages)?;
        let flat: Vec<&[u8]> = messages
            .iter()
            .zip(&rest)
            .flat_map(|(message, rest)| std::iter::once(&message.body[..]).chain(rest.iter().map(Vec::as_slice)))
            .collect();
        let [sent] = values(self.run(queue, &side, &scripts::SEND, &flat).await?)?;
        read_sent(sent)
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let (side, deadline) = (self.side(queue), Instant::now() + request.wait);
        if request.wait.is_zero() {
            return Ok(self.take(queue, &side, request).await?.deliveries);
        }
        self.wait(queue, &side, request, deadline).await
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        let side = self.side(queue);
        let parsed: Vec<_> = receipts.iter().map(parse).collect();
        let mut arguments = vec![side.lane()];
        for lease in parsed.iter().flatten() {
            arguments.extend([lease.number.as_bytes(), lease.lease.as_bytes()]);
        }
        let [outcomes] = values(self.run(queue, &side, &scripts::DELETE, &arguments).await?)?;
        let mut outcomes = list(outcomes)?.into_iter();
        let mut one = |parsed: Result<_>| {
            parsed.map(drop)?;
            let outcome = outcomes.next().ok_or_else(|| strange("too few outcomes"))?;
            if int(&outcome)? == 0 { Ok(()) } else { Err(lost()) }
        };
        Ok(parsed.into_iter().map(&mut one).collect())
    }

    async fn update(&self, queue: &QueueName, old: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let (side, renewed) = (self.side(queue), self.lease());
        let held = match parse(old) {
            Ok(held) => held,
            // What is not there comes before what is wrong with the rest.
            Err(error) => return self.queue_spec(queue).await.and(Err(error)),
        };
        let visibility = change.visibility.map(micros).unwrap_or_default();
        let attributes = change.attributes.as_ref().map(write_attributes).transpose()?;
        let flag = |given: bool| -> &'static [u8] { if given { b"1" } else { b"0" } };
        let arguments = [
            side.lane(),
            held.number.as_bytes(),
            held.lease.as_bytes(),
            renewed.as_bytes(),
            visibility.as_bytes(),
            flag(change.body.is_some()),
            change.body.as_deref().unwrap_or_default(),
            flag(attributes.is_some()),
            attributes.as_deref().unwrap_or_default().as_bytes(),
        ];
        self.run(queue, &side, &scripts::UPDATE, &arguments).await?;
        Ok(receipt(held.number, &renewed))
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        let side = self.home(queue)?;
        let held = match parse(receipt) {
            Ok(held) => held,
            Err(error) => return self.queue_spec(queue).await.and(Err(error)),
        };
        let arguments = [held.number.as_bytes(), held.lease.as_bytes(), reason.as_bytes()];
        self.run(queue, &side, &scripts::DEAD_LETTER, &arguments).await.map(drop)
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        let side = self.home(queue)?;
        let [moved] = values(self.run(queue, &side, &scripts::REDRIVE, &[max.to_string().as_bytes()]).await?)?;
        count(&moved)
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        let side = self.side(queue);
        let arguments = [side.lane(), &max.to_string().into_bytes(), MAX_ANSWER.as_bytes()];
        let [shown] = values(self.run(queue, &side, &scripts::PEEK, &arguments).await?)?;
        Ok(read_all(shown, queue)?.into_iter().map(|shown| shown.message).collect())
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let side = self.side(queue);
        let [ready, delayed, leased, dead, oldest] = values(self.run(queue, &side, &scripts::STATS, &[side.lane()]).await?)?;
        let exact = |value: &Value| count(value).map(Count::Exact);
        let oldest = text(oldest)?.parse::<i64>().ok().map(time).transpose()?;
        Ok(QueueStats { ready: exact(&ready)?, delayed: exact(&delayed)?, leased: exact(&leased)?, dead: exact(&dead)?, oldest })
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        let side = self.side(queue);
        let [removed] = values(self.run(queue, &side, &scripts::PURGE, &[side.lane()]).await?)?;
        count(&removed)
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()?;
        self.client.everywhere(&cmd("PING")).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        if self.open.close() {
            self.news.close();
            self.client.disconnect();
        }
        Ok(())
    }
}
