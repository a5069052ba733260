//! One of the two stores that are compared: does an operation and puts its answer into words that must be the same on both sides.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use serde_json::Value;
use storage_core::{
    Atomicity, Backends, Batch, Clock, ColumnType, Expect, Fields, History, Key, KeyType, MessageId, NewMessage, Query,
    QueueCapabilities, QueueName, QueueSpec, QueueStore, Receipt, Record, RecordBackend, RecordCapabilities, RecordStore, Result,
    TableName, TableSchema, Transaction, Write,
};

use super::limited::Limited;
use super::op::{Letter, Move, Op, Search, Slot, Step};

/// Instead of any time that would end within a test, where time can't be moved.
const NEVER: Duration = Duration::from_secs(7_200);

pub(super) struct Side {
    pub(super) records: RecordStore,
    pub(super) queues: Option<QueueStore>,
    pub(super) queue: QueueName,
    tables: [TableName; 2],
    clock: Clock,
    start: DateTime<Utc>,
    /// Ids of messages in the order in which they were first seen: the same on both sides, while the ids themselves are not.
    pub(super) ids: HashMap<MessageId, usize>,
    /// Receipts, oldest first, and whether of a dead letter.
    pub(super) receipts: Vec<(Receipt, bool)>,
}

impl Side {
    pub(super) async fn new(backends: Backends, clock: Clock) -> Result<Self> {
        let records = crate::opened::records(&backends);
        let start = clock.now();
        let mut side = Self {
            records,
            queues: None,
            queue: "q".parse()?,
            tables: ["open".parse()?, "uniq".parse()?],
            clock,
            start,
            ids: HashMap::new(),
            receipts: Vec::new(),
        };
        side.adopt_queues(&backends);
        let schemas = schemas(side.records.capabilities())?;
        for schema in &schemas {
            side.records.create_table(schema).await?;
        }
        if let Some(queues) = &side.queues {
            let window = side.time(Duration::from_millis(300));
            queues.create_queue(&side.queue, &QueueSpec::default().max_deliveries(3).dedup_window(window)).await?;
        }
        Ok(side)
    }

    /// Queues are compared where what the backend declares makes their answers certain.
    fn adopt_queues(&mut self, backends: &Backends) {
        let queues = backends.queue.clone().map(QueueStore::new);
        self.queues = queues.filter(|q| {
            let QueueCapabilities { delay, ttl, priority, dedup, fifo, peek, update_body, dead_letter, .. } = *q.capabilities();
            [delay, ttl, priority, dedup, fifo, peek, update_body, dead_letter].into_iter().all(|declared| declared)
        });
    }

    /// The model, without what this side has not.
    pub(super) fn limit(&self, mut model: Backends) -> Backends {
        let capabilities = self.records.capabilities().clone();
        model.records = model.records.map(|inner| Arc::new(Limited { inner, capabilities }) as Arc<dyn RecordBackend>);
        if self.queues.is_none() {
            model.queue = None;
        }
        model
    }

    /// Gives the model the tables of the other side, which may have fewer capabilities.
    pub(super) async fn take_schemas_of(&self, other: &Self) -> Result<()> {
        for table in &self.tables {
            let schema = other.records.schema(table).await?;
            self.records.drop_table(table).await?;
            self.records.create_table(&schema).await?;
        }
        Ok(())
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.records.close().await?;
        match &self.queues {
            Some(queues) => queues.close().await,
            None => Ok(()),
        }
    }

    pub(super) fn reopened(&mut self, backends: Backends) {
        self.records = crate::opened::records(&backends);
        self.adopt_queues(&backends);
        if self.queues.as_ref().is_some_and(|q| !q.capabilities().receipts_across_processes) {
            self.receipts.clear();
        }
    }

    /// A time as it is, or one that never comes where time can't be moved.
    pub(super) fn time(&self, time: Duration) -> Duration {
        if self.clock.is_manual() || time.is_zero() { time } else { NEVER }
    }

    /// A moment in words: its distance from the beginning.
    pub(super) fn moment(&self, at: DateTime<Utc>) -> String {
        if self.clock.is_manual() {
            format!("{}us", (at - self.start).num_microseconds().unwrap_or(i64::MAX))
        } else {
            "then".into()
        }
    }

    pub(super) async fn perform(&mut self, op: &Op) -> String {
        match op {
            Op::Commit(steps) => {
                let batch = self.aimed(steps).iter().map(|step| self.write(step)).collect();
                words(self.records.commit(batch).await.map(|versions| format!("{versions:?}")))
            }
            Op::Get(slots) => {
                let mut all = String::new();
                for table in 0..2 {
                    let keys: Vec<Key> = slots.iter().filter(|s| s.table == table).map(|s| key(*s)).collect();
                    let found = self.records.get_many(&self.tables[table], &keys).await;
                    all += &words(found.map(|found| found.iter().map(|r| self.optional(r.as_ref())).collect::<String>()));
                }
                all
            }
            Op::Search(search) => {
                let query = self.query(search);
                let count = words(self.records.count(&query).await.map(|n| n.to_string()));
                let records: Result<Vec<Record>> = self.records.stream(query).try_collect().await;
                format!("{count}: {}", words(records.map(|records| self.list(&records))))
            }
            Op::History(slot) => {
                let history = self.records.history(&self.tables[slot.table], key(*slot)).await;
                words(history.map(|versions| self.list(&versions)))
            }
            Op::Transaction { moves, meddling, commit } => self.transaction(moves, meddling.as_ref(), *commit).await,
            Op::Queue(handling) => self.handle(handling).await,
            Op::Advance(_) | Op::Reopen => String::new(),
        }
    }

    /// Where batches hold writes of one record alone, half of them are made so: the others tell only that they are refused.
    fn aimed(&self, steps: &[Step]) -> Vec<Step> {
        let mut steps = steps.to_vec();
        if self.records.capabilities().atomic > Atomicity::Record || steps.len().is_multiple_of(2) {
            return steps;
        }
        let Some(first) = steps.iter().find_map(Step::slot) else { return steps };
        steps.retain(|step| step.slot().is_some());
        steps.iter_mut().for_each(|step| step.aim(first));
        steps
    }

    async fn transaction(&self, moves: &[Move], meddling: Option<&Step>, commit: bool) -> String {
        let tx = self.records.begin();
        let mut all = String::new();
        for a_move in moves {
            let answer = words(self.step(&tx, a_move).await);
            all = all + &answer + "; ";
        }
        if let Some(step) = meddling {
            let outcome = self.records.commit(Batch::new().with(self.write(step))).await;
            all = all + "meanwhile " + &words(outcome.map(|versions| format!("{versions:?}"))) + "; ";
        }
        if commit {
            all += &words(tx.commit().await.map(|versions| format!("{versions:?}")));
        }
        all
    }

    async fn step(&self, tx: &Transaction, a_move: &Move) -> Result<String> {
        let table = |slot: &Slot| &self.tables[slot.table];
        match a_move {
            // When a staged record will have been written is not known yet.
            Move::Get(slot) => {
                let record = tx.get(table(slot), key(*slot)).await?;
                Ok(format!("{:?}", record.map(|r| (r.version, r.fields))))
            }
            Move::Find(search) => {
                let found = tx.find(&self.query(search)).await?;
                Ok(format!("{:?}", found.into_iter().map(|r| (r.key, r.version, r.fields)).collect::<Vec<_>>()))
            }
            Move::Put(slot, fields) => tx.put(table(slot), key(*slot), to_fields(fields)).await.map(|()| "put".into()),
            Move::Update(slot, fields) => tx.update(table(slot), key(*slot), to_fields(fields)).await.map(|()| "updated".into()),
            Move::Insert(slot, fields) => tx.insert(table(slot), key(*slot), to_fields(fields)).await.map(|()| "inserted".into()),
            Move::Delete(slot) => tx.delete(table(slot), key(*slot)).await.map(|there| there.to_string()),
            Move::Enqueue(letter) => tx.enqueue(&self.queue, self.message(letter)).map(|()| "enqueued".into()),
        }
    }

    fn write(&self, step: &Step) -> Write {
        let table = |slot: &Slot| self.tables[slot.table].clone();
        match step {
            Step::Put { slot, fields, expect, expires_in } => {
                let expires_at = expires_in.map(|after| storage_core::clock::add(self.clock.now(), self.time(after)));
                Write::Put { table: table(slot), key: key(*slot), fields: to_fields(fields), expect: *expect, expires_at }
            }
            Step::Merge { slot, fields, expect } => {
                Write::Merge { table: table(slot), key: key(*slot), fields: to_fields(fields), expect: *expect }
            }
            Step::Delete { slot, expect } => Write::Delete { table: table(slot), key: key(*slot), expect: *expect },
            Step::Check { slot, expect } => Write::Check { table: table(slot), key: key(*slot), expect: *expect },
            // A backend that takes no messages in batches gets something else to do.
            Step::Enqueue(_) if self.queues.is_none() => {
                let slot = Slot { table: 0, partition: "p", id: "a" };
                Write::Check { table: table(&slot), key: key(slot), expect: Expect::Anything }
            }
            Step::Enqueue(letter) => Write::Enqueue { queue: self.queue.clone(), message: self.message(letter) },
        }
    }

    pub(super) fn message(&self, letter: &Letter) -> NewMessage {
        let mut message = NewMessage::new(letter.body.clone()).priority(letter.priority).delay(self.time(letter.delay));
        message.attributes.extend(letter.attribute.map(|text| ("a".to_owned(), text.to_owned())));
        message.ttl = letter.ttl.map(|ttl| self.time(ttl) + if self.clock.is_manual() { Duration::ZERO } else { NEVER });
        message.dedup_id = letter.dedup_id.map(str::to_owned);
        message
    }

    fn query(&self, search: &Search) -> Query {
        Query {
            table: self.tables[search.table].clone(),
            filter: search.filter.clone(),
            order: search.order.clone(),
            limit: search.limit,
            after: None,
            stale: false,
        }
    }

    fn optional(&self, record: Option<&Record>) -> String {
        record.map_or_else(|| "none, ".into(), |record| self.list(std::slice::from_ref(record)))
    }

    fn list(&self, records: &[Record]) -> String {
        let mut all = String::new();
        for Record { key, version, updated_at, expires_at, fields } in records {
            let fields = Value::Object(fields.clone());
            let expires = expires_at.map(|at| self.moment(at));
            let _ = write!(all, "{key} v{version} at {} until {expires:?} {fields}, ", self.moment(*updated_at));
        }
        all
    }

    /// Everything that is there.
    pub(super) async fn whole(&mut self) -> String {
        let mut all = String::new();
        for table in 0..2 {
            let search = Search { table, filter: storage_core::Filter::All, order: Vec::new(), limit: 3 };
            all = all + &self.perform(&Op::Search(search)).await + "\n";
            for partition in ["p", "P"] {
                for id in ["a", "b/%", "ä"] {
                    all = all + &self.perform(&Op::History(Slot { table, partition, id })).await + "\n";
                }
            }
        }
        all + &self.whole_queue().await
    }
}

/// An answer or an error: what a program can act on, not the wording.
pub(super) fn words(answer: Result<String>) -> String {
    match answer {
        Ok(answer) => answer,
        Err(error) => match error.failed_write() {
            Some(write) => format!("{:?} at {write}", error.kind()),
            None => format!("{:?}", error.kind()),
        },
    }
}

fn key(slot: Slot) -> Key {
    Key::partitioned(slot.partition, slot.id)
}

fn to_fields(fields: &[(&'static str, Value)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn schemas(capabilities: &RecordCapabilities) -> Result<[TableSchema; 2]> {
    let history = if capabilities.history { History::Keep(3) } else { History::None };
    let open = TableSchema::builder("open")
        .partition("p", KeyType::Text)
        .column("n", ColumnType::Integer)
        .column("x", ColumnType::Real)
        .column("s", ColumnType::Text)
        .index("by_n", ["n", "s"])
        .keep_undeclared()
        .history(history)
        .build()?;
    let mut uniq = TableSchema::builder("uniq").partition("p", KeyType::Text).column("n", ColumnType::Integer).default(1);
    uniq = uniq.column("s", ColumnType::Text).column("x", ColumnType::Real);
    if capabilities.unique {
        uniq = uniq.unique_index("both", ["n", "s"]);
    }
    Ok([open, uniq.build()?])
}
