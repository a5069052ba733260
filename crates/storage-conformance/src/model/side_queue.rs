//! The queue of one side.

use std::fmt::Write as _;
use std::time::Duration;

use storage_core::message::dead;
use storage_core::{Attributes, Message, MessageId, MessageUpdate, QueueName, QueueStore, Receipt, Receive, Result};

use super::op::Handling;
use super::side::{Side, words};

impl Side {
    pub(super) async fn handle(&mut self, handling: &Handling) -> String {
        let Some(queues) = self.queues.clone() else { return String::new() };
        words(self.handle_with(&queues, handling).await)
    }

    fn name(&self, dead: bool) -> Result<QueueName> {
        if dead { self.queue.dead_letter() } else { Ok(self.queue.clone()) }
    }

    /// The receipt that was received so many before the newest.
    fn receipt(&self, back: usize) -> Option<usize> {
        (self.receipts.len() > back).then(|| self.receipts.len() - 1 - back)
    }

    async fn handle_with(&mut self, queues: &QueueStore, handling: &Handling) -> Result<String> {
        match handling {
            Handling::Send(letters) => {
                let messages = letters.iter().map(|letter| self.message(letter)).collect();
                let sent = queues.send_all(&self.queue, messages).await?;
                Ok(sent.iter().map(|s| format!("{} {}, ", self.ordinal(&s.id), s.duplicate)).collect())
            }
            Handling::Receive { dead, max, visibility } => {
                let request = Receive::up_to(*max).visibility(self.time(*visibility));
                let deliveries = queues.receive(&self.name(*dead)?, &request).await?;
                let mut all = String::new();
                for delivery in deliveries {
                    let until = self.moment(delivery.leased_until);
                    all = all + &self.describe(&delivery.message, *dead) + " until " + &until + ", ";
                    self.receipts.push((delivery.receipt, *dead));
                }
                Ok(all)
            }
            Handling::Delete(chosen) => self.delete(queues, chosen).await,
            Handling::Update { receipt, visibility, body, attribute } => {
                let Some(at) = self.receipt(*receipt) else { return Ok(String::new()) };
                let change = MessageUpdate {
                    visibility: visibility.map(|v| self.time(v)),
                    body: body.clone().map(Into::into),
                    // Those of a dead letter say why it is dead.
                    attributes: attribute.filter(|_| !self.receipts[at].1).map(|text| [("u".to_owned(), text.to_owned())].into()),
                };
                let (old, dead) = self.receipts[at].clone();
                let new = queues.update(&self.name(dead)?, &old, &change).await?;
                self.receipts.push((new, dead));
                Ok("updated".into())
            }
            Handling::DeadLetter(receipt) => {
                let Some(at) = self.receipt(*receipt).filter(|at| !self.receipts[*at].1) else { return Ok(String::new()) };
                queues.dead_letter(&self.queue, &self.receipts[at].0, "rejected").await.map(|()| "dead".into())
            }
            Handling::Redrive(max) => queues.redrive(&self.queue, *max).await.map(|n| n.to_string()),
            Handling::Peek { dead, max } => {
                let messages = queues.peek(&self.name(*dead)?, *max).await?;
                Ok(messages.iter().map(|message| self.describe(message, *dead) + ", ").collect())
            }
            Handling::Stats { dead } => {
                let s = queues.stats(&self.name(*dead)?).await?;
                let counts = [s.ready, s.delayed, s.leased, s.dead].map(|count| count.to_string()).join(" ");
                Ok(format!("{counts} since {:?}", s.oldest.map(|at| self.moment(at))))
            }
            Handling::Purge { dead } => queues.purge(&self.name(*dead)?).await.map(|n| n.to_string()),
        }
    }

    async fn delete(&self, queues: &QueueStore, chosen: &[usize]) -> Result<String> {
        let mut all = String::new();
        for dead in [false, true] {
            let chosen = chosen.iter().filter_map(|back| self.receipt(*back)).filter(|at| self.receipts[*at].1 == dead);
            let receipts: Vec<Receipt> = chosen.map(|at| self.receipts[at].0.clone()).collect();
            for outcome in queues.delete_all(&self.name(dead)?, &receipts).await? {
                let _ = write!(all, "{}, ", words(outcome.map(|()| "deleted".into())));
            }
        }
        Ok(all)
    }

    fn ordinal(&mut self, id: &MessageId) -> usize {
        let next = self.ids.len();
        *self.ids.entry(id.clone()).or_insert(next)
    }

    fn describe(&mut self, message: &Message, dead: bool) -> String {
        let mut attributes: Attributes = message.attributes.clone();
        // When a backend notices is its own affair, and which of two reasons it finds first too.
        attributes.remove(dead::AT);
        if let Some(reason) =
            attributes.get_mut(dead::REASON).filter(|r| [dead::EXPIRED, dead::MAX_DELIVERIES].contains(&r.as_str()))
        {
            *reason = "over".into();
        }
        let deliveries = if dead { 0 } else { message.deliveries };
        let expires = message.expires_at.map(|at| self.moment(at));
        let sent = self.moment(message.enqueued_at);
        let id = self.ordinal(&message.id);
        let Message { body, content_type, priority, .. } = message;
        format!("#{id} {body:?} {attributes:?} {content_type:?} p{priority} d{deliveries} sent {sent} expires {expires:?}")
    }

    pub(super) async fn whole_queue(&mut self) -> String {
        let mut all = String::new();
        for dead in [false, true] {
            for handling in [Handling::Stats { dead }, Handling::Peek { dead, max: 1_000 }] {
                all = all + &self.handle(&handling).await + "\n";
            }
            let rest = Handling::Receive { dead, max: 1_000, visibility: Duration::from_secs(60) };
            all = all + &self.handle(&rest).await + "\n";
        }
        all
    }
}
