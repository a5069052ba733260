//! One queue as this process receives from it: who waits for messages, and who has which until when.
//!
//! A task of its own has the channel and the table of leases; calls are orders to it, and can be given up at any time. It outlives the handle until
//! the last lease has ended: closing the channel would give the messages to others at once.

mod leases;
mod line;
mod settle;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use storage_core::{Delivery, Error, MessageUpdate, QueueName, Receipt, Receive, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::leases::{Lease, Leases, Standing};
use self::line::{Arrival, Line};
use crate::error::no_answer;
use crate::link::Link;
use crate::publish::Publisher;

/// How many orders wait in line.
const ORDERS: usize = 64;
/// How many messages are asked of the broker at once.
const MOST: usize = 10_000;
/// For how long the broker goes on giving us what was asked for after the last receive: the next one is often not far.
const LINGER: Duration = Duration::from_millis(500);
/// How long a message is left to others after it could not be set aside as dead.
const PAUSE: Duration = Duration::from_secs(1);

type Reply<T> = oneshot::Sender<Result<T>>;

/// What is asked of a desk.
#[derive(Debug)]
enum Order {
    Receive(Receive, Reply<Vec<Delivery>>),
    Delete(Vec<Receipt>, Reply<Vec<Result<()>>>),
    Update(Receipt, MessageUpdate, Reply<Receipt>),
    Bury(Receipt, String, Reply<()>),
    SendHome(Vec<Receipt>, String, Reply<u64>),
    Purge(Reply<u64>),
    Count(Reply<(u64, u64)>),
    Close(Reply<()>),
    Abandon(Reply<()>),
}

/// How a queue's messages are treated.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) queue: QueueName,
    /// The queue's name on the broker.
    pub(crate) at_broker: String,
    /// The delivery cap.
    pub(crate) cap: Option<u32>,
    /// Where its dead letters go. `None`: these are dead letters.
    pub(crate) dead: Option<String>,
}

/// The way to a desk. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    orders: mpsc::Sender<Order>,
    timeout: Duration,
}

impl Desk {
    pub(crate) fn open(link: &Arc<Link>, publisher: &Arc<Publisher>, manner: Manner) -> Self {
        let (orders, incoming) = mpsc::channel(ORDERS);
        let settings = link.settings();
        let clerk = Clerk {
            line: Line::new(Arc::clone(link), manner.at_broker.clone()),
            publisher: Arc::clone(publisher),
            link: Arc::clone(link),
            manner,
            leases: Leases::new(),
            waiting: VecDeque::new(),
            prefetch: settings.prefetch,
            max_lease: settings.max_lease,
            idle_since: Instant::now(),
            is_closed: false,
        };
        tokio::spawn(clerk.work(incoming));
        // An order may have to wait for another, and for a new connection.
        Self { orders, timeout: settings.timeout * 3 }
    }

    async fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Order, more: Duration) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let gone = || Error::unavailable("the queue's connection was closed");
            self.orders.send(order(reply)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        let limit = self.timeout + more;
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(no_answer(limit)))
    }

    pub(crate) async fn receive(&self, request: &Receive) -> Result<Vec<Delivery>> {
        self.ask(|reply| Order::Receive(*request, reply), request.wait).await
    }

    pub(crate) async fn delete(&self, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.ask(|reply| Order::Delete(receipts.to_vec(), reply), Duration::ZERO).await
    }

    pub(crate) async fn update(&self, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        self.ask(|reply| Order::Update(receipt.clone(), change.clone(), reply), Duration::ZERO).await
    }

    pub(crate) async fn dead_letter(&self, receipt: &Receipt, reason: &str) -> Result<()> {
        self.ask(|reply| Order::Bury(receipt.clone(), reason.to_owned(), reply), Duration::ZERO).await
    }

    /// Sends the dead letters of these receipts to another queue, alive. Answers how many.
    pub(crate) async fn send_home(&self, receipts: Vec<Receipt>, to: String) -> Result<u64> {
        self.ask(|reply| Order::SendHome(receipts, to, reply), Duration::ZERO).await
    }

    /// Removes what is ready, and what is leased here. Answers how many.
    pub(crate) async fn purge(&self) -> Result<u64> {
        self.ask(Order::Purge, Duration::ZERO).await
    }

    /// How many messages are ready, and how many are leased here.
    pub(crate) async fn count(&self) -> Result<(u64, u64)> {
        self.ask(Order::Count, Duration::ZERO).await
    }

    /// Ends waiting receives. Leases go on.
    pub(crate) async fn close(&self) -> Result<()> {
        self.ask(Order::Close, Duration::ZERO).await
    }

    /// Gives up leases and all: the queue is to be removed.
    pub(crate) async fn abandon(&self) -> Result<()> {
        self.ask(Order::Abandon, Duration::ZERO).await
    }
}

/// Somebody who waits for messages.
#[derive(Debug)]
struct Waiter {
    request: Receive,
    until: Instant,
    /// It is certain that there was nothing for it when it came.
    has_looked: bool,
    reply: Reply<Vec<Delivery>>,
}

/// The task behind a desk.
struct Clerk {
    line: Line,
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    manner: Manner,
    leases: Leases,
    waiting: VecDeque<Waiter>,
    prefetch: u16,
    max_lease: Duration,
    idle_since: Instant,
    is_closed: bool,
}

impl Clerk {
    async fn work(mut self, mut incoming: mpsc::Receiver<Order>) {
        loop {
            let is_over = self.is_closed || incoming.is_closed();
            if is_over && self.leases.len() == 0 && self.waiting.is_empty() && incoming.is_empty() {
                break;
            }
            let timer = tokio::time::sleep_until(self.next_time());
            tokio::select! {
                biased;
                order = incoming.recv(), if !incoming.is_closed() || !incoming.is_empty() => {
                    if let Some(order) = order {
                        self.obey(order).await;
                    }
                }
                // Where nobody waits, messages do: the next receive takes them in all at once.
                arrived = self.line.next(), if !self.waiting.is_empty() => if let Err(error) = arrived {
                    self.start_over(&error);
                },
                () = timer => {}
            }
            if !self.line.is_sound() {
                self.lose();
            }
            self.end_leases().await;
            if let Err(error) = self.serve().await {
                self.lose();
                for waiter in self.waiting.drain(..) {
                    drop(waiter.reply.send(Err(error.duplicate())));
                }
            }
        }
        drop(self.unfetch().await);
    }

    /// When something is to be done even if nothing comes.
    fn next_time(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(60);
        let waits = self.waiting.iter().map(|waiter| waiter.until);
        let is_idle = self.waiting.is_empty() && !self.is_busy() && (self.line.is_consuming() || !self.line.buffer.is_empty());
        let rest = is_idle.then(|| self.idle_since + LINGER);
        waits.chain(self.leases.next_end()).chain(rest).min().unwrap_or(far)
    }

    /// True while somebody works on messages for whom more are fetched ahead.
    fn is_busy(&self) -> bool {
        self.prefetch > 0 && self.leases.len() > 0 && !self.is_closed
    }

    /// True while the next receive may not be far.
    fn is_resting(&self) -> bool {
        !self.is_closed && (self.is_busy() || self.idle_since.elapsed() < LINGER)
    }

    fn start_over(&mut self, error: &Error) {
        tracing::debug!(queue = %self.manner.queue, %error, "the channel broke: another is opened");
        self.lose();
    }

    /// The connection broke: the broker has all messages back.
    fn lose(&mut self) {
        if self.leases.len() > 0 {
            tracing::warn!(queue = %self.manner.queue, leases = self.leases.len(), "the connection broke, and leases with it");
        }
        self.line.reset();
        self.leases.lose_all();
    }

    async fn obey(&mut self, order: Order) {
        if !self.line.is_sound() {
            self.lose();
        }
        match order {
            Order::Receive(request, reply) => {
                let until = Instant::now() + request.wait;
                self.waiting.push_back(Waiter { request, until, has_looked: false, reply });
            }
            Order::Delete(receipts, reply) => drop(reply.send(self.delete(&receipts).await)),
            Order::Update(receipt, change, reply) => drop(reply.send(self.update(&receipt, &change).await)),
            Order::Bury(receipt, reason, reply) => drop(reply.send(self.bury(&receipt, &reason).await)),
            Order::SendHome(receipts, to, reply) => drop(reply.send(self.send_home(&receipts, &to).await)),
            Order::Purge(reply) => drop(reply.send(self.purge().await)),
            Order::Count(reply) => drop(reply.send(self.count().await)),
            Order::Close(reply) => {
                self.is_closed = true;
                for waiter in self.waiting.drain(..) {
                    drop(waiter.reply.send(Ok(Vec::new())));
                }
                drop(reply.send(self.unfetch().await));
            }
            Order::Abandon(reply) => {
                self.is_closed = true;
                self.line.reset();
                self.leases.lose_all();
                for waiter in self.waiting.drain(..) {
                    drop(waiter.reply.send(Err(crate::error::no_queue(self.manner.queue.as_str()))));
                }
                drop(reply.send(Ok(())));
            }
        }
    }

    /// Gives the waiting what there is, and asks the broker for what they lack.
    async fn serve(&mut self) -> Result<()> {
        loop {
            self.waiting.retain(|waiter| !waiter.reply.is_closed());
            if self.waiting.is_empty() {
                return if self.is_resting() { Ok(()) } else { self.unfetch().await };
            }
            self.idle_since = Instant::now();
            if let Err(error) = self.line.take_in() {
                self.start_over(&error);
            }
            if self.line.buffer.is_empty() {
                self.line.ask_for(self.wanted()).await?;
                if self.waiting.iter().any(|waiter| !waiter.has_looked) {
                    self.look().await?;
                }
            }
            if self.line.buffer.is_empty() {
                self.send_away();
                if self.waiting.is_empty() {
                    continue;
                }
                return Ok(());
            }
            let good = self.sort_out(self.demand()).await?;
            self.hand_out(good);
        }
    }

    /// How many messages those who wait would take.
    fn demand(&self) -> usize {
        self.waiting.iter().map(|waiter| waiter.request.max as usize).sum()
    }

    /// How many messages to ask for.
    fn wanted(&self) -> usize {
        self.demand().min(MOST).max(self.prefetch.into())
    }

    /// Makes certain that what is ready is here.
    async fn look(&mut self) -> Result<()> {
        for _ in 0..3 {
            if self.line.ready().await? == 0 || !self.line.buffer.is_empty() {
                break;
            }
        }
        for waiter in &mut self.waiting {
            waiter.has_looked = true;
        }
        Ok(())
    }

    /// Answers those whose wait is over with nothing.
    fn send_away(&mut self) {
        let now = Instant::now();
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.has_looked && waiter.until <= now {
                drop(waiter.reply.send(Ok(Vec::new())));
            } else {
                self.waiting.push_back(waiter);
            }
        }
    }

    /// Hands out so many messages from the front of the buffer.
    fn hand_out(&mut self, mut good: usize) {
        while good > 0 {
            let Some(waiter) = self.waiting.pop_front() else { break };
            if waiter.reply.is_closed() {
                continue;
            }
            let count = good.min(waiter.request.max as usize);
            good -= count;
            let arrivals: Vec<Arrival> = self.line.buffer.drain(..count).collect();
            let deliveries = arrivals.into_iter().map(|arrival| self.lease(arrival, waiter.request.visibility)).collect();
            // One who has gone meanwhile leaves leases that run out.
            drop(waiter.reply.send(Ok(deliveries)));
        }
    }

    fn lease(&mut self, arrival: Arrival, visibility: Duration) -> Delivery {
        let message = crate::wire::decode(&arrival.properties, arrival.body.clone());
        let (until, left) = self.end_of(&arrival, visibility);
        let receipt = self.leases.add(Lease { arrival, until });
        Delivery { message, receipt, leased_until: storage_core::clock::add(storage_core::Clock::system().now(), left) }
    }

    /// When a lease ends that is to last so long: not later than the broker allows.
    fn end_of(&self, arrival: &Arrival, visibility: Duration) -> (Instant, Duration) {
        let now = Instant::now();
        let until = (now + visibility).min(arrival.at + self.max_lease);
        (until, until.saturating_duration_since(now))
    }

    fn check_standing(&self, receipt: &Receipt) -> Option<u64> {
        match self.leases.standing(receipt) {
            Standing::Holds(number) => Some(number),
            Standing::Gone | Standing::Stale => None,
        }
    }

    /// A missing queue is worse than a stale receipt.
    async fn lost(&mut self) -> Error {
        match self.line.ready().await {
            Err(error) => {
                self.lose();
                error
            }
            Ok(_) => stale(),
        }
    }
}

fn stale() -> Error {
    Error::lease_lost("the receipt is stale: the lease ended, or the connection broke, and others may have the message")
}
