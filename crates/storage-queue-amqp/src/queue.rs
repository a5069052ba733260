//! [`AmqpQueue`]: the queues of a broker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use storage_core::message::MAX_MESSAGES;
use storage_core::{
    BackendInfo, Clock, Count, Delivery, Error, ErrorKind, MessageUpdate, NewMessage, OpenFlag, QueueBackend, QueueCapabilities,
    QueueName, QueueSpec, QueueStats, Receipt, Receive, Result, Sent,
};

use crate::catalogue::{Came, Catalogue};
use crate::config::{QueueType, Settings};
use crate::declare::{Purpose, declare, ready};
use crate::desk::{Desk, Manner};
use crate::error::no_queue;
use crate::link::Link;
use crate::names::{Names, delay_step};
use crate::publish::{Letter, Publisher};
use crate::wire;

/// What every broker takes: newer ones no more than this.
pub(crate) const MAX_BODY: usize = 16 << 20;
/// How old what is known of a queue's delays may be for an estimate.
const ESTIMATE_AGE: Duration = Duration::from_secs(5);

/// The queues of a broker. See the [crate](crate) for what holds there.
#[derive(Debug)]
pub struct AmqpQueue {
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    /// What the toolkit knows of its queues. `None`: they are other programs', and nothing is written about them.
    catalogue: Option<Catalogue>,
    names: Names,
    desks: Mutex<HashMap<QueueName, Desk>>,
    open: OpenFlag,
    capabilities: QueueCapabilities,
}

impl AmqpQueue {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut queues = Self::of_others(settings);
        queues.catalogue = Some(Catalogue::new(Arc::clone(&queues.link), Arc::clone(&queues.publisher)));
        queues
    }

    /// Queues that other programs make and know: without delivery cap, delays, and a list.
    pub(crate) fn of_others(settings: Settings) -> Self {
        let is_quorum = settings.queue_type == QueueType::Quorum;
        let names = Names::new(&settings.prefix);
        let link = Arc::new(Link::new(settings));
        let publisher = Arc::new(Publisher::new(Arc::clone(&link)));
        let capabilities = QueueCapabilities {
            delay: true,
            ttl: true,
            priority: !is_quorum,
            dedup: false,
            fifo: is_quorum,
            peek: false,
            update_body: false,
            dead_letter: true,
            receipts_across_processes: false,
            wakes: true,
            atomic_send: false,
            max_body_bytes: MAX_BODY,
            durable: true,
        };
        Self { catalogue: None, link, publisher, names, desks: Mutex::default(), open: OpenFlag::default(), capabilities }
    }

    /// The name of a queue on the broker.
    pub(crate) fn at_broker(&self, queue: &QueueName) -> String {
        self.names.queue(queue)
    }

    fn catalogue(&self) -> Result<&Catalogue> {
        self.catalogue.as_ref().ok_or_else(|| {
            Error::unsupported("these queues are other programs': the broker neither lists them nor delays their messages")
        })
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn publisher(&self) -> &Arc<Publisher> {
        &self.publisher
    }

    fn desks(&self) -> std::sync::MutexGuard<'_, HashMap<QueueName, Desk>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn desk(&self, queue: &QueueName) -> Result<Desk> {
        self.open.check()?;
        if let Some(desk) = self.desks().get(queue) {
            return Ok(desk.clone());
        }
        let (cap, dead) = if queue.is_dead_letter() {
            (None, None)
        } else {
            let entry = match &self.catalogue {
                Some(catalogue) => catalogue.entry_for_consumer(queue).await?,
                None => None,
            };
            let dead = queue.dead_letter().ok().map(|dead| self.names.queue(&dead));
            (entry.and_then(|entry| entry.spec.max_deliveries), dead)
        };
        let manner = Manner { queue: queue.clone(), at_broker: self.names.queue(queue), cap, dead };
        let mut desks = self.desks();
        let open = || Desk::open(&self.link, &self.publisher, manner);
        Ok(desks.entry(queue.clone()).or_insert_with(open).clone())
    }

    /// Does something at a desk. One whose queue is missing is not kept: the queue may come back with another spec.
    async fn at_desk<T>(&self, queue: &QueueName, work: impl AsyncFnOnce(&Desk) -> Result<T>) -> Result<T> {
        let desk = self.desk(queue).await?;
        let outcome = work(&desk).await;
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            self.desks().remove(queue);
        }
        outcome
    }

    pub(crate) async fn check_exists(&self, queue: &QueueName) -> Result<()> {
        let at_broker = self.names.queue(queue);
        ready(&self.link, &at_broker).await?.map(drop).ok_or_else(|| no_queue(&at_broker))
    }

    /// Makes the queues in which messages wait for so long.
    async fn prepare_delays(&self, queue: &QueueName, steps: &BTreeSet<u64>) -> Result<()> {
        // Else they would wait for a queue that does not come, and be lost.
        self.check_exists(queue).await?;
        self.catalogue()?.add_delays(queue, steps).await?;
        let to = self.names.queue(queue);
        for millis in steps {
            let purpose = Purpose::Delay { millis: *millis, to: &to };
            declare(&self.link, &self.names.delay(queue, *millis), purpose).await?;
        }
        Ok(())
    }

    async fn delays(&self, queue: &QueueName, age: Duration) -> Result<Vec<String>> {
        let Some(catalogue) = &self.catalogue else { return Ok(Vec::new()) };
        let entry = catalogue.recent_entry(queue, age).await?;
        Ok(entry.into_iter().flat_map(|entry| entry.delays).map(|millis| self.names.delay(queue, millis)).collect())
    }

    async fn remove(&self, at_broker: &str) -> Result<()> {
        let options = lapin::options::QueueDeleteOptions::default();
        let removed = self.link.briefly(async |channel| channel.queue_delete(at_broker.into(), options).await).await;
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl QueueBackend for AmqpQueue {
    fn info(&self) -> &BackendInfo {
        &self.link.settings().info
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.open.check()?;
        let dead = self.names.queue(&queue.dead_letter()?);
        declare(&self.link, &self.names.queue(queue), Purpose::Messages).await?;
        declare(&self.link, &dead, Purpose::Dead).await?;
        match self.catalogue()?.create(queue, spec).await? {
            Came::Changed => Ok(true),
            Came::Found(Some(there)) if there != *spec => {
                Err(Error::already_exists(format!("the queue is there with another spec: {there:?}")))
            }
            Came::Found(_) => Ok(false),
        }
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.open.check()?;
        let (was_listed, delays) = match &self.catalogue {
            Some(catalogue) => catalogue.delete(queue).await?,
            None => (false, BTreeSet::new()),
        };
        let at_broker = self.names.queue(queue);
        let was_there = was_listed || ready(&self.link, &at_broker).await?.is_some();
        let dead = queue.dead_letter()?;
        for name in [queue, &dead] {
            let desk = self.desks().remove(name);
            if let Some(desk) = desk {
                desk.abandon().await?;
            }
        }
        // What is on its way to it goes first.
        let delays = delays.into_iter().map(|millis| self.names.delay(queue, millis));
        for name in delays.chain([at_broker, self.names.queue(&dead)]) {
            self.remove(&name).await?;
        }
        Ok(was_there)
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.open.check()?;
        self.catalogue()?.queues().await
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.open.check()?;
        self.check_exists(queue).await?;
        let entry = match &self.catalogue {
            Some(catalogue) if !queue.is_dead_letter() => catalogue.entry(queue).await?,
            _ => None,
        };
        // Of a queue that another program made we know nothing; nor do dead letters have a cap.
        Ok(entry.map_or_else(|| QueueSpec::default().max_deliveries(None), |entry| entry.spec))
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.open.check()?;
        let now = Clock::system().now();
        let (mut sent, mut letters, mut steps) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (index, message) in messages.into_iter().enumerate() {
            let mut to = self.names.queue(queue);
            if !message.delay.is_zero() {
                let step = delay_step(message.delay).map_err(|e| e.with_failed_write(index))?;
                steps.insert(step);
                to = self.names.delay(queue, step);
            }
            let (id, parcel) = wire::encode(message, now).map_err(|e| e.with_failed_write(index))?;
            letters.push(Letter { to, parcel });
            sent.push(Sent { id, duplicate: false });
        }
        if !steps.is_empty() {
            self.prepare_delays(queue, &steps).await?;
        }
        let publisher = Arc::clone(&self.publisher);
        // A call that is given up must not send a part.
        let publish = tokio::spawn(async move { publisher.publish(letters).await });
        publish.await.map_err(|_| Error::unavailable("the runtime is shutting down"))??;
        Ok(sent)
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        self.at_desk(queue, async |desk| desk.receive(request).await).await
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.at_desk(queue, async |desk| desk.delete(receipts).await).await
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        self.at_desk(queue, async |desk| desk.update(receipt, change).await).await
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        self.at_desk(queue, async |desk| desk.dead_letter(receipt, reason).await).await
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        self.check_exists(queue).await?;
        let home = self.names.queue(queue);
        let visibility = self.link.settings().timeout * 4;
        let request = Receive::up_to(max.clamp(1, MAX_MESSAGES)).visibility(visibility);
        if max == 0 {
            return Ok(0);
        }
        let send_home = async |desk: &Desk| {
            let letters = desk.receive(&request).await?;
            let receipts: Vec<Receipt> = letters.into_iter().map(|letter| letter.receipt).collect();
            desk.send_home(receipts, home).await
        };
        self.at_desk(&queue.dead_letter()?, send_home).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let (waiting, leased) = self.at_desk(queue, async |desk| desk.count().await).await?;
        let (mut delayed, mut dead) = (0, 0);
        if let Ok(letters) = queue.dead_letter() {
            for name in self.delays(queue, ESTIMATE_AGE).await? {
                delayed += ready(&self.link, &name).await?.unwrap_or_default();
            }
            dead = ready(&self.link, &self.names.queue(&letters)).await?.unwrap_or_default();
        }
        Ok(QueueStats {
            ready: Count::Estimate(waiting),
            delayed: Count::Estimate(delayed),
            leased: Count::Estimate(leased),
            dead: Count::Estimate(dead),
            oldest: None,
        })
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        let mut purged = self.at_desk(queue, async |desk| desk.purge().await).await?;
        if queue.is_dead_letter() {
            return Ok(purged);
        }
        for name in self.delays(queue, Duration::ZERO).await? {
            let options = lapin::options::QueuePurgeOptions::default();
            match self.link.briefly(async |channel| channel.queue_purge(name.as_str().into(), options).await).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                delayed => purged += u64::from(delayed.unwrap_or_default()),
            }
        }
        Ok(purged)
    }

    async fn ping(&self) -> Result<()> {
        self.open.check()?;
        self.link.briefly(async |_| Ok(())).await
    }

    async fn close(&self) -> Result<()> {
        if !self.open.close() {
            return Ok(());
        }
        let desks: BTreeMap<QueueName, Desk> = self.desks().drain().collect();
        let mut outcome = Ok(());
        for desk in desks.into_values() {
            outcome = outcome.and(desk.close().await);
        }
        self.publisher.close();
        self.link.close().await;
        outcome
    }
}
