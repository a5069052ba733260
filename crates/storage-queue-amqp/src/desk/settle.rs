//! What becomes of messages: deleted, given back, dead.

use std::collections::BTreeSet;

use chrono::Utc;
use storage_core::message::dead;
use storage_core::{ErrorKind, MessageUpdate, Receipt, Result};
use tokio::time::Instant;

use super::leases::Standing;
use super::line::Arrival;
use super::{Clerk, Lease, PAUSE, stale};
use crate::declare::{Purpose, declare};
use crate::publish::Letter;
use crate::wire;

impl Clerk {
    pub(super) async fn delete(&mut self, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        let (mut tags, mut numbers, mut outcomes) = (BTreeSet::new(), Vec::new(), Vec::new());
        if receipts.iter().any(|receipt| self.leases.standing(receipt) == Standing::Stale) {
            let error = self.lost().await;
            if error.kind() != ErrorKind::LeaseLost {
                return Err(error);
            }
        }
        for receipt in receipts {
            outcomes.push(match self.leases.standing(receipt) {
                Standing::Holds(number) => {
                    tags.extend(self.leases.get(number).map(|lease| lease.arrival.tag));
                    numbers.push(number);
                    Ok(())
                }
                Standing::Gone => Ok(()),
                Standing::Stale => Err(stale()),
            });
        }
        if let Err(error) = self.line.ack(&tags).await {
            self.lose();
            return Err(error);
        }
        for number in numbers {
            self.leases.take(number);
            self.leases.remember(number);
        }
        Ok(outcomes)
    }

    pub(super) async fn update(&mut self, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let Some(lease) = self.check_standing(receipt).and_then(|number| self.leases.take(number)) else {
            return Err(self.lost().await);
        };
        let Lease { arrival, until } = lease;
        match change.visibility {
            Some(visibility) if visibility.is_zero() => {
                self.give_back(vec![arrival]).await?;
                Ok(self.leases.fresh().1)
            }
            Some(visibility) => {
                let (until, _) = self.end_of(&arrival, visibility);
                Ok(self.leases.add(Lease { arrival, until }))
            }
            None => Ok(self.leases.add(Lease { arrival, until })),
        }
    }

    pub(super) async fn bury(&mut self, receipt: &Receipt, reason: &str) -> Result<()> {
        let Some(number) = self.check_standing(receipt) else { return Err(self.lost().await) };
        let Some(arrival) = self.leases.get(number).map(|lease| lease.arrival.clone()) else { return Ok(()) };
        let times = wire::deliveries(&arrival.properties);
        self.set_aside(vec![(arrival, reason.to_owned(), times)]).await?;
        self.leases.take(number);
        Ok(())
    }

    pub(super) async fn purge(&mut self) -> Result<u64> {
        let purged = self.line.purge().await;
        let purged = match purged {
            Ok(purged) => purged,
            Err(error) => {
                self.lose();
                return Err(error);
            }
        };
        self.line.take_in()?;
        let held = self.leases.take_all_as_gone().into_iter().map(|lease| lease.arrival);
        let tags: BTreeSet<u64> = held.chain(self.line.buffer.drain(..)).map(|arrival| arrival.tag).collect();
        self.line.ack(&tags).await?;
        Ok(purged + tags.len() as u64)
    }

    pub(super) async fn count(&mut self) -> Result<(u64, u64)> {
        match self.line.ready().await {
            Ok(ready) => Ok((ready + self.line.buffer.len() as u64, self.leases.len() as u64)),
            Err(error) => {
                self.lose();
                Err(error)
            }
        }
    }

    /// Gives back what was fetched and nobody wants.
    pub(super) async fn unfetch(&mut self) -> Result<()> {
        self.line.stop().await?;
        let tags: Vec<u64> = self.line.buffer.drain(..).map(|arrival| arrival.tag).collect();
        if tags.is_empty() { Ok(()) } else { self.line.give_back(tags).await }
    }

    /// Gives back what nobody has any more.
    pub(super) async fn end_leases(&mut self) {
        let ended = self.leases.take_ended(Instant::now());
        if ended.is_empty() {
            return;
        }
        let arrivals = ended.into_iter().map(|lease| lease.arrival).collect();
        if let Err(error) = self.give_back(arrivals).await {
            tracing::warn!(queue = %self.manner.queue, %error, "can't give messages back whose leases have ended: closing the channel does");
            self.lose();
        }
    }

    /// Why a message is dead that would be given back now.
    fn fate(&self, arrival: &Arrival) -> Option<&'static str> {
        self.manner.dead.as_ref()?;
        if wire::expires_at(&arrival.properties).is_some_and(|at| at <= Utc::now()) {
            return Some(dead::EXPIRED);
        }
        let times = wire::deliveries(&arrival.properties);
        self.manner.cap.is_some_and(|cap| times >= cap).then_some(dead::MAX_DELIVERIES)
    }

    async fn give_back(&mut self, arrivals: Vec<Arrival>) -> Result<()> {
        let (mut back, mut doomed) = (Vec::new(), Vec::new());
        for arrival in arrivals {
            match self.fate(&arrival) {
                Some(reason) => {
                    let times = wire::deliveries(&arrival.properties);
                    doomed.push((arrival, reason.to_owned(), times));
                }
                None => back.push(arrival.tag),
            }
        }
        if !back.is_empty() {
            if self.waiting.is_empty() {
                // They are for others, and would come to us again.
                self.line.stop().await?;
            }
            self.line.give_back(back).await?;
        }
        if doomed.is_empty() {
            return Ok(());
        }
        self.set_aside_or_hold(doomed).await
    }

    async fn set_aside_or_hold(&mut self, doomed: Vec<(Arrival, String, u32)>) -> Result<()> {
        let held: Vec<Arrival> = doomed.iter().map(|(arrival, ..)| arrival.clone()).collect();
        if let Err(error) = self.set_aside(doomed).await {
            if !self.line.is_sound() {
                return Err(error);
            }
            self.hold(held, &error);
        }
        Ok(())
    }

    /// Makes messages dead letters: sent there first, and removed here when the broker has them.
    async fn set_aside(&mut self, doomed: Vec<(Arrival, String, u32)>) -> Result<()> {
        let Some(to) = self.manner.dead.clone() else {
            return Err(storage_core::Error::internal("dead letters do not die"));
        };
        let tags = doomed.iter().map(|(arrival, ..)| arrival.tag).collect();
        let letter = |(arrival, reason, times): (Arrival, String, u32)| {
            let source = self.manner.queue.as_str();
            Letter { to: to.clone(), parcel: wire::dead_letter(&arrival.properties, arrival.body, source, &reason, times) }
        };
        let letters = doomed.into_iter().map(letter).collect();
        self.bury_at(&to, letters).await?;
        self.line.ack(&tags).await
    }

    async fn bury_at(&self, to: &str, letters: Vec<Letter>) -> Result<()> {
        match self.publisher.publish(letters.clone()).await {
            // A queue that another program made has no companion until it is needed.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                declare(&self.link, to, Purpose::Dead).await?;
                self.publisher.publish(letters).await
            }
            outcome => outcome,
        }
    }

    /// Sends leased dead letters home. Those that can't be sent are given back.
    pub(super) async fn send_home(&mut self, receipts: &[Receipt], to: &str) -> Result<u64> {
        let numbers: Vec<u64> = receipts.iter().filter_map(|receipt| self.check_standing(receipt)).collect();
        let held: Vec<Arrival> = numbers.iter().filter_map(|n| self.leases.take(*n)).map(|lease| lease.arrival).collect();
        if held.is_empty() {
            return Ok(0);
        }
        let letter =
            |arrival: &Arrival| Letter { to: to.to_owned(), parcel: wire::alive(&arrival.properties, arrival.body.clone()) };
        let letters: Vec<Letter> = held.iter().map(letter).collect();
        let tags: BTreeSet<u64> = held.iter().map(|arrival| arrival.tag).collect();
        if let Err(error) = self.publisher.publish(letters).await {
            self.line.give_back(tags.into_iter().collect()).await?;
            return Err(error);
        }
        self.line.ack(&tags).await?;
        Ok(tags.len() as u64)
    }

    /// Keeps messages from everybody for a moment: what should become of them can't be done now.
    fn hold(&mut self, arrivals: Vec<Arrival>, error: &storage_core::Error) {
        tracing::warn!(queue = %self.manner.queue, messages = arrivals.len(), %error, "can't send messages on: trying again soon");
        for arrival in arrivals {
            self.leases.add(Lease { arrival, until: Instant::now() + PAUSE });
        }
    }

    /// Looks through the first messages in the buffer, so many that can be handed out, and takes out of them what must not be: dead by now, or come
    /// back without being counted. Answers how many are left of those.
    pub(super) async fn sort_out(&mut self, first: usize) -> Result<usize> {
        let (mut good, mut doomed, mut uncounted) = (Vec::new(), Vec::new(), Vec::new());
        let first = first.min(self.line.buffer.len());
        for arrival in self.line.buffer.drain(..first) {
            let times = wire::deliveries(&arrival.properties);
            let is_over = self.manner.dead.is_some() && self.manner.cap.is_some_and(|cap| times > cap);
            let is_late = self.manner.dead.is_some() && wire::expires_at(&arrival.properties).is_some_and(|at| at <= Utc::now());
            if is_late {
                doomed.push((arrival, dead::EXPIRED.to_owned(), times - 1));
            } else if is_over {
                doomed.push((arrival, dead::MAX_DELIVERIES.to_owned(), times - 1));
            } else if wire::is_uncounted(arrival.redelivered, &arrival.properties) {
                uncounted.push(arrival);
            } else {
                good.push(arrival);
            }
        }
        let left = good.len();
        for arrival in good.into_iter().rev() {
            self.line.buffer.push_front(arrival);
        }
        if !doomed.is_empty() {
            self.set_aside_or_hold(doomed).await?;
        }
        if !uncounted.is_empty() {
            // A classic queue does not count: the message is sent anew with its count, and removed when the broker has it.
            let tags = uncounted.iter().map(|arrival| arrival.tag).collect();
            let letters = uncounted.iter().map(|arrival| Letter {
                to: self.manner.at_broker.clone(),
                parcel: wire::counted(&arrival.properties, arrival.body.clone()),
            });
            match self.publisher.publish(letters.collect()).await {
                Ok(()) => self.line.ack(&tags).await?,
                Err(error) => self.hold(uncounted, &error),
            }
        }
        Ok(left)
    }
}
