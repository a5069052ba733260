//! Messages within batches where the queue is elsewhere: the suites on an outbox, and what becomes of messages that can't be sent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use storage_conformance::{Harness, Place};
use storage_core::outbox::{ID_ATTRIBUTE, Outbox, OutboxEntry, OutboxOptions, OutboxState, TABLE};
use storage_core::{
    Atomicity, Backends, Batch, Clock, Driver as _, DriverConfig, Error, ErrorKind, Expect, Message, NewMessage, QueueName,
    QueueSpec, QueueStore, Receive, RecordBackend as _, RecordStore, Result, TableName, TableSchema, fields,
};
use storage_memory::{MemoryDriver, MemoryStore};
use storage_tasks::{OutboxRelay, OwedTasks, RelayOptions, SubmitOptions, TaskOptions, TaskStatus, TaskStore};
use storage_tests::hooked::Hooked;

/// Records in one memory store, queues in another, with an outbox between them.
#[derive(Debug)]
struct WithOutbox;

#[async_trait]
impl Harness for WithOutbox {
    async fn place(&self) -> Result<Place> {
        Ok(Place::unique_name("memory://"))
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let elsewhere = DriverConfig { url: config.url.as_ref().map(|url| format!("{url}-queue")), ..config.clone() };
        let (here, queue) = (MemoryDriver.open(config).await?, MemoryDriver.open(&elsewhere).await?.queue);
        let options = OutboxOptions { clock: config.clock.clone(), ..OutboxOptions::default() };
        let outbox = Outbox::new(here.records.unwrap(), QueueStore::new(queue.clone().unwrap()), options)?;
        Ok(Backends { records: Some(Arc::new(outbox)), queue, blobs: None })
    }

    async fn broken_place(&self) -> Result<Option<Place>> {
        // As memory by itself: a name that is not to be had.
        Ok(Some(Place::url("memory://#1")))
    }

    fn takes_manual_clock(&self) -> bool {
        true
    }

    fn survives_close(&self) -> bool {
        false
    }
}

storage_conformance::test_records!(WithOutbox);
storage_conformance::test_transactions!(WithOutbox);

/// One process's view of records with an outbox, and of the queue behind it.
struct World {
    clock: Clock,
    memory: MemoryStore,
    queue: Hooked,
    outbox: Outbox,
    records: RecordStore,
}

fn orders() -> TableName {
    "orders".parse().unwrap()
}

fn mail() -> QueueName {
    "mail".parse().unwrap()
}

fn options(clock: &Clock) -> OutboxOptions {
    OutboxOptions { clock: clock.clone(), background: false, max_refusals: 3, ..OutboxOptions::default() }
}

impl World {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut storage_core::QueueCapabilities)) -> Self {
        let clock = Clock::manual();
        let memory = MemoryStore::with_clock(clock.clone());
        let queue = Hooked::over(Arc::new(MemoryStore::with_clock(clock.clone()).queue())).declaring(change);
        queue.store().create_queue(&mail(), &QueueSpec::default()).await.unwrap();
        let outbox = Outbox::new(Arc::new(memory.records()), queue.store(), options(&clock)).unwrap();
        let records = RecordStore::new(Arc::new(outbox.clone()));
        records.create_table(&TableSchema::builder("orders").keep_undeclared().build().unwrap()).await.unwrap();
        Self { clock, memory, queue, outbox, records }
    }

    /// Another process, on the same stores.
    fn again(&self) -> Outbox {
        Outbox::new(Arc::new(self.memory.records()), self.queue.store(), options(&self.clock)).unwrap()
    }

    async fn commit(&self, key: &str, message: NewMessage) -> Result<()> {
        let batch = Batch::new().put(&orders(), key, fields(json!({})), Expect::Absent).enqueue(&mail(), message);
        self.records.commit(batch).await.map(drop)
    }

    async fn received(&self) -> Vec<Message> {
        let request = Receive::up_to(1000).visibility(Duration::from_secs(86_400));
        let deliveries = self.queue.store().receive(&mail(), &request).await.unwrap();
        deliveries.into_iter().map(|delivery| delivery.message).collect()
    }

    async fn bodies(&self) -> Vec<String> {
        self.received().await.iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect()
    }

    async fn entries(&self, state: OutboxState) -> Vec<OutboxEntry> {
        self.outbox.list(state, 1000, None).await.unwrap().entries
    }

    async fn only(&self) -> OutboxEntry {
        let mut entries = self.entries(OutboxState::All).await;
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.remove(0)
    }
}

#[tokio::test]
async fn what_can_not_be_sent_waits_for_a_relay() {
    let world = World::new().await;
    world.queue.go_away();
    for n in 0..5 {
        world.commit(&n.to_string(), NewMessage::new(format!("m{n}"))).await.unwrap();
    }
    assert!(world.queue.calls() < 5, "while the queue is away not every commit tries it");
    assert_eq!((world.outbox.count(OutboxState::Waiting).await.unwrap(), world.bodies().await.len()), (5, 0));
    assert_eq!(world.again().drain().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(world.entries(OutboxState::Waiting).await[0].attempts, 0, "the first is in the hand of who committed it");
    let entry = world.entries(OutboxState::Waiting).await.pop().unwrap();
    assert_eq!((entry.attempts, entry.refusals), (1, 0));
    assert!(entry.error.unwrap().contains("the queue is away"));

    world.queue.come_back();
    world.clock.advance(Duration::from_secs(10));
    let relayed = world.again().drain().await.unwrap();
    assert_eq!((relayed.sent, world.outbox.count(OutboxState::All).await.unwrap()), (5, 0));
    assert_eq!(world.bodies().await, ["m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test]
async fn an_outage_is_not_held_against_a_message() {
    let world = World::new().await;
    world.queue.go_away();
    world.commit("a", NewMessage::new("m")).await.unwrap();
    for _ in 0..20 {
        world.clock.advance(Duration::from_secs(400));
        assert_eq!(world.outbox.drain().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let entry = world.only().await;
    assert_eq!((entry.attempts, entry.refusals, entry.failed_at), (20, 0, None));
    // It is tried ever more rarely, every five minutes at the longest.
    assert_eq!(entry.due_at.unwrap(), world.clock.now() + Duration::from_secs(300));
    world.queue.come_back();
    assert_eq!(world.outbox.drain().await.unwrap().sent, 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_waits_for_its_sending_no_longer_than_its_patience() {
    let world = World::new().await;
    world.queue.stall();
    let began = tokio::time::Instant::now();
    world.commit("a", NewMessage::new("m")).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    world.commit("b", NewMessage::new("n")).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(5), "the next one does not wait at all");
    world.queue.come_back();
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(world.outbox.drain().await.unwrap().sent, 2);
}

#[tokio::test]
async fn what_the_queue_can_not_take_is_refused_before_anything_is_written() {
    let world = World::with(|can| (can.priority, can.dedup, can.max_body_bytes) = (false, false, 100)).await;
    let refused = async |kind: ErrorKind, message: NewMessage| {
        let error = world.commit("a", message).await.unwrap_err();
        assert_eq!((error.kind(), error.failed_write()), (kind, Some(1)), "{error}");
    };
    refused(ErrorKind::Unsupported, NewMessage::new("m").priority(1)).await;
    refused(ErrorKind::Unsupported, NewMessage::new("m").dedup_id("d")).await;
    refused(ErrorKind::InvalidInput, NewMessage::new(vec![0; 101])).await;
    let nowhere = Batch::new()
        .put(&orders(), "a", fields(json!({})), Expect::Absent)
        .enqueue(&"nowhere".parse().unwrap(), NewMessage::new("m"));
    assert_eq!(world.records.commit(nowhere).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.records.get(&orders(), "a").await.unwrap(), None);
    assert!(world.entries(OutboxState::All).await.is_empty());
    world.commit("a", NewMessage::new(vec![0; 100])).await.unwrap();
    assert_eq!(world.received().await.len(), 1);
}

#[tokio::test]
async fn a_row_that_is_too_large_is_refused() {
    let world = World::new().await;
    // In base64 it is a third longer.
    let most = world.outbox.capabilities().max_record_bytes;
    let error = world.commit("a", NewMessage::new(vec![0; most - 100])).await.unwrap_err();
    assert_eq!((error.kind(), error.failed_write()), (ErrorKind::InvalidInput, Some(1)), "{error}");
    assert_eq!(world.records.get(&orders(), "a").await.unwrap(), None);
}

fn refusing(queue: &Hooked, body: &'static str, kind: ErrorKind, says_which: bool) {
    queue.before(move |_, messages| match messages.iter().position(|m| m.body == body) {
        Some(index) if says_which => Err(Error::new(kind, "not that one").with_failed_write(index)),
        Some(_) => Err(Error::new(kind, "not that one")),
        None => Ok(()),
    });
}

#[tokio::test]
async fn one_that_is_refused_keeps_no_other_and_is_set_aside_in_the_end() {
    for says_which in [true, false] {
        let world = World::new().await;
        world.queue.go_away();
        for n in 0..30 {
            world.commit(&n.to_string(), NewMessage::new(format!("m{n}"))).await.unwrap();
        }
        refusing(&world.queue, "m7", ErrorKind::InvalidInput, says_which);
        world.clock.advance(Duration::from_secs(10));
        let relayed = world.outbox.drain().await.unwrap();
        assert_eq!((relayed.sent, relayed.refused, relayed.failed), (29, 1, 0));
        assert_eq!(world.bodies().await, (0..30).filter(|n| *n != 7).map(|n| format!("m{n}")).collect::<Vec<_>>());
        let entry = world.only().await;
        assert_eq!((entry.refusals, entry.failed_at), (1, None));
        assert!(entry.due_at.unwrap() > world.clock.now(), "not at once again");
        assert_eq!(world.outbox.drain().await.unwrap().refused, 1);
        assert_eq!(world.outbox.drain().await.unwrap().failed, 1, "set aside with the third");
        assert_eq!(world.outbox.drain().await.unwrap(), Default::default(), "and left alone from then on");
        let entry = world.only().await;
        assert_eq!((entry.refusals, entry.due_at), (3, None));
        assert!(entry.error.as_deref().unwrap().contains("not that one"));
        assert_eq!(world.entries(OutboxState::Failed).await, std::slice::from_ref(&entry));
        assert!(world.entries(OutboxState::Waiting).await.is_empty());

        // Once more, by a person.
        world.queue.come_back();
        assert!(world.outbox.retry(&entry.id).await.unwrap());
        assert_eq!((world.outbox.drain().await.unwrap().sent, world.bodies().await), (1, vec!["m7".to_owned()]));
        assert!(!world.outbox.retry(&entry.id).await.unwrap());
    }
}

#[tokio::test]
async fn what_is_set_aside_is_retried_all_together_or_removed() {
    let world = World::new().await;
    world.queue.go_away();
    for n in 0..150 {
        world.commit(&n.to_string(), NewMessage::new(format!("m{n}"))).await.unwrap();
    }
    world.queue.before(|_, _| Err(Error::unsupported("nothing at all")));
    world.clock.advance(Duration::from_secs(10));
    for _ in 0..3 {
        world.outbox.drain().await.unwrap();
    }
    let failed = world.entries(OutboxState::Failed).await;
    assert_eq!(failed.len(), 150);
    assert!(world.outbox.remove(&failed[0].id).await.unwrap());
    assert!(!world.outbox.remove(&failed[0].id).await.unwrap());
    world.queue.come_back();
    assert_eq!(world.outbox.retry_failed().await.unwrap(), 149);
    assert_eq!(world.outbox.drain().await.unwrap().sent, 149);
    assert_eq!((world.bodies().await.len(), world.outbox.count(OutboxState::All).await.unwrap()), (149, 0));
}

#[tokio::test]
async fn a_damaged_row_keeps_no_other() {
    let world = World::new().await;
    world.queue.go_away();
    for n in 0..10 {
        world.commit(&n.to_string(), NewMessage::new(format!("m{n}"))).await.unwrap();
    }
    let id = world.entries(OutboxState::All).await.remove(4).id;
    let damage = fields(json!({"queue": "no such name!"}));
    world.records.update(&TABLE.parse().unwrap(), id.as_str(), damage, Expect::Present).await.unwrap();
    world.queue.come_back();
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(world.outbox.drain().await.unwrap().sent, 9);
    let error = world.outbox.list(OutboxState::All, 10, None).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(&id), "{error}");
    assert!(world.outbox.remove(&id).await.unwrap());
    assert!(world.entries(OutboxState::All).await.is_empty());
}

#[tokio::test]
async fn a_queue_that_is_gone_may_come_back() {
    let world = World::new().await;
    world.queue.go_away();
    world.commit("a", NewMessage::new("m")).await.unwrap();
    world.queue.come_back();
    world.queue.store().delete_queue(&mail()).await.unwrap();
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(world.outbox.drain().await.unwrap().refused, 1);
    world.queue.store().create_queue(&mail(), &QueueSpec::default()).await.unwrap();
    assert_eq!((world.outbox.drain().await.unwrap().sent, world.bodies().await), (1, vec!["m".to_owned()]));
}

#[tokio::test]
async fn delay_and_time_to_live_count_from_the_commit() {
    let world = World::new().await;
    world.queue.go_away();
    let minute = Duration::from_secs(60);
    world.commit("delayed", NewMessage::new("delayed").delay(minute)).await.unwrap();
    world.commit("short", NewMessage::new("short").ttl(minute)).await.unwrap();
    world.commit("long", NewMessage::new("long").ttl(10 * minute)).await.unwrap();
    world.queue.come_back();
    world.clock.advance(Duration::from_secs(59));
    let relayed = Outbox::new(Arc::new(world.memory.records()), world.queue.store(), options(&world.clock)).unwrap();
    world.queue.before(|_, messages| {
        assert!(messages.iter().all(|m| m.delay <= Duration::from_secs(1)));
        Err(Error::unavailable("once more away"))
    });
    assert_eq!(relayed.drain().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(world.entries(OutboxState::Waiting).await.iter().all(|entry| entry.attempts == 1));
    world.queue.come_back();
    world.clock.advance(Duration::from_secs(2));
    let done = relayed.drain().await.unwrap();
    assert_eq!((done.sent, done.failed), (2, 1), "one came too late");
    let messages = world.received().await;
    let long = messages.iter().find(|m| m.body == "long").unwrap();
    assert_eq!(long.expires_at.unwrap() - world.clock.now(), chrono::TimeDelta::seconds(600 - 61));
    assert!(messages.iter().any(|m| m.body == "delayed"), "its delay is over");
    let late = world.only().await;
    assert!(late.error.unwrap().contains("time to live"));
    // A person may still want it: it has no end then.
    assert!(world.outbox.retry(&late.id).await.unwrap());
    assert_eq!(relayed.drain().await.unwrap().sent, 1);
    assert_eq!(world.received().await.remove(0).expires_at, None);
}

#[tokio::test]
async fn a_message_that_is_sent_again_can_be_told() {
    for dedup in [true, false] {
        let world = World::with(|can| can.dedup = dedup).await;
        // Sent, and the answer is lost.
        world.queue.after(|_, _| Err(Error::timeout("no answer")));
        world.commit("a", NewMessage::new("m").attribute("mine", "1")).await.unwrap();
        world.queue.after(|_, _| Ok(()));
        let id = world.only().await.id;
        world.clock.advance(Duration::from_secs(10));
        assert_eq!(world.outbox.drain().await.unwrap().sent, 1);
        let received = world.received().await;
        assert_eq!(received.len(), if dedup { 1 } else { 2 });
        for message in received {
            assert_eq!((&*message.attributes[ID_ATTRIBUTE], &*message.attributes["mine"]), (&*id, "1"));
        }
    }
}

#[tokio::test]
async fn several_relays_send_each_message_once() {
    const MESSAGES: usize = 1000;
    // Without dedup: each sending would show.
    let world = World::with(|can| can.dedup = false).await;
    world.queue.go_away();
    for n in 0..MESSAGES {
        world.commit(&n.to_string(), NewMessage::new(format!("{n:04}"))).await.unwrap();
    }
    world.queue.come_back();
    world.clock.advance(Duration::from_secs(10));
    let relays: Vec<Outbox> = (0..4).map(|_| world.again()).collect();
    let relayed = futures::future::try_join_all(relays.iter().map(Outbox::drain)).await.unwrap();
    assert_eq!(relayed.iter().map(|r| r.sent).sum::<u64>(), MESSAGES as u64);
    let mut bodies = world.bodies().await;
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), MESSAGES);
    assert_eq!((world.bodies().await.len(), world.outbox.count(OutboxState::All).await.unwrap()), (0, 0));
}

#[tokio::test]
async fn a_relay_that_ended_holds_its_messages_for_a_lease() {
    let world = World::new().await;
    world.queue.go_away();
    for key in ["a", "b"] {
        world.commit(key, NewMessage::new(key)).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(10));
    world.queue.stall();
    let (dying, before) = (world.again(), world.queue.calls());
    {
        let mut draining = std::pin::pin!(dying.drain());
        while world.queue.calls() == before {
            tokio::select! {
                biased;
                ended = &mut draining => panic!("the queue does not answer: {ended:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    world.queue.come_back();
    assert_eq!(world.outbox.drain().await.unwrap().sent, 0, "another one has them in hand, for all that is known");
    world.clock.advance(Duration::from_secs(31));
    assert_eq!(world.outbox.drain().await.unwrap().sent, 2);
}

#[tokio::test]
async fn a_relay_runs_until_it_is_told_to_stop_and_finishes_what_it_has_in_hand() {
    let world = World::new().await;
    world.queue.go_away();
    world.commit("a", NewMessage::new("m")).await.unwrap();
    world.queue.come_back();
    world.clock.advance(Duration::from_secs(10));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // Told to stop while the message is on its way.
    let stop = std::sync::Mutex::new(Some(stop));
    world.queue.before(move |_, _| {
        drop(stop.lock().unwrap().take());
        Ok(())
    });
    let relayed = world.outbox.run(async { drop(stopped.await) }).await;
    assert_eq!((relayed.sent, world.bodies().await), (1, vec!["m".to_owned()]));
    assert_eq!(world.outbox.count(OutboxState::All).await.unwrap(), 0, "and it is noted");
}

#[tokio::test]
async fn a_program_that_runs_no_relay_has_one_by_itself() {
    let world = World::new().await;
    let background = OutboxOptions { background: true, poll: Duration::from_millis(10), ..options(&world.clock) };
    let outbox = Outbox::new(Arc::new(world.memory.records()), world.queue.store(), background).unwrap();
    let records = RecordStore::new(Arc::new(outbox.clone()));
    world.queue.go_away();
    records.commit(Batch::new().enqueue(&mail(), NewMessage::new("m"))).await.unwrap();
    world.queue.come_back();
    world.clock.advance(Duration::from_secs(10));
    let request = Receive::default().wait(Duration::from_secs(20));
    assert_eq!(world.queue.store().receive(&mail(), &request).await.unwrap().remove(0).message.body, "m");
    records.close().await.unwrap();
}

#[tokio::test]
async fn a_queue_that_can_not_be_opened_keeps_no_commit() {
    let world = World::new().await;
    let (queue, opened) = (world.queue.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let may_open = Arc::clone(&opened);
    let open = move || {
        let queue = match may_open.load(std::sync::atomic::Ordering::SeqCst) {
            true => Ok(queue.store()),
            false => Err(Error::unavailable("no such host")),
        };
        async move { queue }
    };
    let outbox = Outbox::lazy(Arc::new(world.memory.records()), open, options(&world.clock)).unwrap();
    let records = RecordStore::new(Arc::new(outbox.clone()));
    let send = |body: &'static str| records.commit(Batch::new().enqueue(&mail(), NewMessage::new(body)));
    send("a").await.unwrap();
    assert_eq!(outbox.drain().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(world.only().await.error.unwrap().contains("no such host"));
    opened.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!((outbox.drain().await.unwrap().sent, world.bodies().await), (1, vec!["a".to_owned()]));
    // From now on at once.
    send("b").await.unwrap();
    assert_eq!(world.bodies().await, ["b"]);
}

#[tokio::test]
async fn where_batches_reach_too_little_it_is_refused() {
    let clock = Clock::manual();
    let config = DriverConfig { clock: clock.clone(), ..DriverConfig::default() };
    let blobs = Arc::new(MemoryStore::with_clock(clock.clone()).blobs());
    let records = storage_object::records::serve(blobs, &config).unwrap().records.unwrap();
    assert_eq!(records.capabilities().atomic, Atomicity::Record);
    let queue = QueueStore::new(Arc::new(MemoryStore::new().queue()));
    let error = Outbox::new(Arc::clone(&records), queue, options(&clock)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("reach over one Record"), "{error}");
    let store = RecordStore::new(records);
    let error = store.commit(Batch::new().enqueue(&mail(), NewMessage::new("m"))).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.message().contains("less than the store"), "{error}");
}

#[tokio::test]
async fn where_the_queue_is_in_the_same_store_the_batch_goes_through_as_it_is() {
    let memory = MemoryStore::new();
    let queue = QueueStore::new(Arc::new(memory.queue()));
    queue.create_queue(&mail(), &QueueSpec::default()).await.unwrap();
    let outbox = Outbox::new(Arc::new(memory.records()), queue.clone(), OutboxOptions::default()).unwrap();
    outbox.commit(Batch::new().enqueue(&mail(), NewMessage::new("m"))).await.unwrap();
    assert_eq!(queue.receive(&mail(), &Receive::default()).await.unwrap().len(), 1);
    assert!(outbox.tables().await.unwrap().is_empty(), "no table is made for it");
}

#[tokio::test]
async fn a_task_whose_message_is_refused_has_failed_and_keeps_no_other() {
    let world = World::new().await;
    let options = TaskOptions { clock: world.clock.clone(), ..TaskOptions::default() };
    let records = RecordStore::new(Arc::new(world.memory.records()));
    let tasks = TaskStore::open(&records, &world.queue.store(), options.clone()).await.unwrap();
    let relay = OutboxRelay::new(&tasks, RelayOptions { page: 2, ..RelayOptions::default() });
    world.queue.go_away();
    for id in ["bad", "worse", "good", "better"] {
        tasks.submit("x", 1, SubmitOptions::default().task_id(id)).await.unwrap();
    }
    let owed = OwedTasks::read(&records, &options, 10, None).await.unwrap().tasks;
    assert_eq!(owed.iter().map(|task| &*task.task_id).collect::<Vec<_>>().len(), 4);
    assert_eq!(relay.drain().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(OwedTasks::read(&records, &options, 10, None).await.unwrap().tasks.len(), 4, "an outage fails none");

    world.queue.before(|_, messages| match messages[0].body.windows(3).any(|part| part == b"bad" || part == b"wor") {
        true => Err(Error::invalid("not that one")),
        false => Ok(()),
    });
    assert_eq!(relay.drain().await.unwrap(), 4);
    assert!(OwedTasks::read(&records, &options, 10, None).await.unwrap().tasks.is_empty());
    for (id, status) in [("bad", TaskStatus::Failed), ("worse", TaskStatus::Failed), ("good", TaskStatus::Pending)] {
        assert_eq!(tasks.get_task(id).await.unwrap().unwrap().status, status, "{id}");
    }
    assert!(tasks.get_task("bad").await.unwrap().unwrap().error.unwrap().contains("not that one"));
    world.queue.come_back();
    assert_eq!(tasks.retry("bad").await.unwrap().status, TaskStatus::Pending);
    let sent = world.queue.store().receive(&options.queue, &Receive::up_to(10)).await.unwrap();
    assert_eq!(sent.len(), 3);

    // A queue that somebody has removed is made again.
    world.queue.store().delete_queue(&options.queue).await.unwrap();
    tasks.submit("x", 1, SubmitOptions::default().task_id("late")).await.unwrap();
    assert_eq!(relay.drain().await.unwrap(), 1);
    assert_eq!(world.queue.store().receive(&options.queue, &Receive::up_to(10)).await.unwrap().len(), 1);
}
