//! Messages within batches and transactions (the transactional outbox).

use std::time::Duration;

use serde_json::json;
use storage_core::{Batch, Count, ErrorKind, Expect, NewMessage, QueueName, QueueStore, Receive, Version, fields};

use crate::check::{refused, refused_at};
use crate::opened::Opened;
use crate::queues::fixture::patient_receive;
use crate::records::table::{Table, open_schema};
use crate::{CaseResult, Failure, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

/// A table and a queue of one store. `None` where batches can't hold messages, which is then checked.
async fn both(h: &dyn Harness) -> Result<Option<(Table<'_>, QueueStore, QueueName)>, Failure> {
    let name: QueueName = "q".parse()?;
    let t = Table::within(Opened::fresh(h).await?, open_schema()).await?;
    if !t.capabilities().enqueue {
        let batch = Batch::new().put(&t.name, "a", fields(json!({})), Expect::Anything).enqueue(&name, NewMessage::new("m"));
        refused(ErrorKind::Unsupported, t.commit(batch).await);
        refused(ErrorKind::Unsupported, t.commit(Batch::new().enqueue(&name, NewMessage::new("m"))).await);
        assert_eq!(t.count().await?, 0);
        return Ok(None);
    }
    let queues = t.opened.queues();
    queues.create_queue(&name, &queues.default_spec()).await?;
    Ok(Some((t, queues, name)))
}

async fn received(queues: &QueueStore, queue: &QueueName) -> storage_core::Result<Vec<String>> {
    let deliveries = queues.receive(queue, &Receive::up_to(100)).await?;
    Ok(deliveries.iter().map(|d| String::from_utf8_lossy(&d.message.body).into_owned()).collect())
}

/// A batch that takes effect sends its messages, in order, whole; each answers no version.
pub async fn a_batch_sends_its_messages(h: &dyn Harness) -> CaseResult {
    let Some((t, queues, q)) = both(h).await? else { return Ok(()) };
    let batch = Batch::new()
        .enqueue(&q, NewMessage::new("first").attribute("n", "1").content_type("text/x"))
        .put(&t.name, "a", fields(json!({"n": 1})), Expect::Absent)
        .enqueue(&q, NewMessage::new("second"));
    assert_eq!(t.commit(batch).await?, [Version::NONE, Version::FIRST, Version::NONE]);
    assert_eq!(t.value("a").await?, json!({"n": 1}));
    let deliveries = queues.receive(&q, &Receive::up_to(10)).await?;
    let first = &deliveries.iter().find(|d| &d.message.body[..] == b"first").expect("the first message").message;
    assert_eq!((first.attributes.get("n").map(String::as_str), first.content_type.as_deref()), (Some("1"), Some("text/x")));
    assert_eq!(deliveries.len(), 2);
    Ok(())
}

/// A batch of messages alone is fine.
pub async fn a_batch_of_messages_alone(h: &dyn Harness) -> CaseResult {
    let Some((t, queues, q)) = both(h).await? else { return Ok(()) };
    let other: QueueName = "other".parse()?;
    queues.create_queue(&other, &queues.default_spec()).await?;
    t.commit(Batch::new().enqueue(&q, NewMessage::new("a")).enqueue(&other, NewMessage::new("b"))).await?;
    assert_eq!((received(&queues, &q).await?, received(&queues, &other).await?), (vec!["a".to_owned()], vec!["b".to_owned()]));
    Ok(())
}

/// A batch that fails, before or behind its messages, sends none of them.
pub async fn a_failed_batch_sends_nothing(h: &dyn Harness) -> CaseResult {
    let Some((t, queues, q)) = both(h).await? else { return Ok(()) };
    let message = || NewMessage::new("never");
    let missing = |batch: Batch| batch.check(&t.name, "missing", Expect::Present);
    refused_at(1, ErrorKind::NotFound, t.commit(missing(Batch::new().enqueue(&q, message()))).await);
    refused_at(0, ErrorKind::NotFound, t.commit(missing(Batch::new()).enqueue(&q, message())).await);
    // Nor does it use up their dedup ids.
    refused_at(1, ErrorKind::NotFound, t.commit(missing(Batch::new().enqueue(&q, message().dedup_id("d")))).await);
    assert!(received(&queues, &q).await?.is_empty());
    if queues.capabilities().dedup {
        assert!(!queues.send(&q, NewMessage::new("sent").dedup_id("d")).await?.duplicate);
        assert_eq!(received(&queues, &q).await?, ["sent"]);
    }
    Ok(())
}

/// A message to a queue that is not there fails the batch, by its index; so does one to a dead-letter companion, and a bad one.
pub async fn a_missing_queue_fails_the_batch(h: &dyn Harness) -> CaseResult {
    let Some((t, queues, q)) = both(h).await? else { return Ok(()) };
    let put = || Batch::new().put(&t.name, "a", fields(json!({})), Expect::Anything).enqueue(&q, NewMessage::new("never"));
    let nowhere: QueueName = "nowhere".parse()?;
    refused_at(2, ErrorKind::NotFound, t.commit(put().enqueue(&nowhere, NewMessage::new("m"))).await);
    refused_at(2, ErrorKind::InvalidInput, t.commit(put().enqueue(&q.dead_letter()?, NewMessage::new("m"))).await);
    refused_at(2, ErrorKind::InvalidInput, t.commit(put().enqueue(&q, NewMessage::new("m").priority(99))).await);
    assert_eq!(t.count().await?, 0);
    assert!(received(&queues, &q).await?.is_empty());
    Ok(())
}

/// Messages in a batch are messages like any others: delays, priorities and dedup ids hold.
pub async fn enqueued_messages_keep_their_options(h: &dyn Harness) -> CaseResult {
    let Some((t, queues, q)) = both(h).await? else { return Ok(()) };
    let capabilities = queues.capabilities().clone();
    if capabilities.dedup {
        let once = || Batch::new().enqueue(&q, NewMessage::new("once").dedup_id("d"));
        t.commit(once()).await?;
        t.commit(once()).await?;
        assert_eq!(received(&queues, &q).await?, ["once"]);
    }
    if capabilities.priority {
        let batch = Batch::new().enqueue(&q, NewMessage::new("low")).enqueue(&q, NewMessage::new("high").priority(9));
        t.commit(batch).await?;
        assert_eq!(received(&queues, &q).await?, ["high", "low"]);
    }
    if capabilities.delay {
        t.commit(Batch::new().enqueue(&q, NewMessage::new("later").delay(Duration::from_secs(60)))).await?;
        assert!(received(&queues, &q).await?.is_empty());
        assert!(matches!(queues.stats(&q).await?.delayed, Count::Exact(1) | Count::Estimate(_) | Count::Unknown));
    }
    t.commit(Batch::new().enqueue(&q, NewMessage::new("plain"))).await?;
    assert_eq!(received(&queues, &q).await?, ["plain"]);
    Ok(())
}

/// A waiting receive is given the message of a batch, and then sees the batch's records too.
pub async fn a_message_arrives_with_its_records(h: &dyn Harness) -> CaseResult {
    let Some((t, queues, q)) = both(h).await? else { return Ok(()) };
    let receive = async {
        for n in 0..20 {
            let delivery = patient_receive(&queues, &q, &Receive::default()).await?.pop().expect("a message");
            let key = String::from_utf8_lossy(&delivery.message.body).into_owned();
            assert!(t.get(key.as_str()).await?.is_some(), "message {n} came before its record `{key}`");
            queues.delete(&q, &delivery.receipt).await?;
        }
        Ok::<_, storage_core::Error>(())
    };
    let send = async {
        for n in 0..20 {
            let key = format!("k{n}");
            let batch =
                Batch::new().enqueue(&q, NewMessage::new(key.clone())).put(&t.name, key, fields(json!({})), Expect::Absent);
            t.commit(batch).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, storage_core::Error>(())
    };
    futures::try_join!(receive, send)?;
    Ok(())
}

/// A transaction's messages are sent if and only if it commits, once, however often its closure ran.
pub async fn a_transactions_messages_go_with_its_commit(h: &dyn Harness) -> CaseResult {
    let Some((t, queues, q)) = both(h).await? else { return Ok(()) };
    let tx = t.store.begin();
    tx.enqueue(&q, NewMessage::new("dropped"))?;
    tx.put(&t.name, "a", fields(json!({}))).await?;
    drop(tx);
    let runs = std::cell::Cell::new(0);
    t.store
        .transaction(async |tx| {
            runs.set(runs.get() + 1);
            let seen = tx.get(&t.name, "a").await?.map_or(Version::NONE, |r| r.version);
            tx.enqueue(&q, NewMessage::new(format!("saw {seen}")))?;
            tx.put(&t.name, "b", fields(json!({}))).await?;
            if runs.get() == 1 {
                t.put("a", json!({})).await?;
            }
            Ok(())
        })
        .await?;
    assert_eq!((runs.get(), received(&queues, &q).await?), (2, vec!["saw 1".to_owned()]));
    Ok(())
}
