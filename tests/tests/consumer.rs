//! The consumer's promises, on the memory backend: leases renewed, failures backed off, poison set aside, shutdowns that lose nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use storage_core::message::dead;
use storage_core::{
    Consumer, ConsumerOptions, ConsumerReport, Count, NewMessage, Outcome, QueueName, QueueSpec, QueueStore, Receive,
};
use storage_memory::MemoryStore;
use tokio::sync::{Notify, Semaphore, mpsc};

fn queue() -> QueueName {
    QueueName::new("q").unwrap()
}

async fn store(spec: QueueSpec) -> QueueStore {
    let store = QueueStore::new(Arc::new(MemoryStore::new().queue()));
    store.create_queue(&queue(), &spec).await.unwrap();
    store
}

async fn send(store: &QueueStore, count: usize) {
    let messages = (0..count).map(|n| NewMessage::new(n.to_string())).collect();
    store.send_all(&queue(), messages).await.unwrap();
}

fn options() -> ConsumerOptions {
    ConsumerOptions {
        drain: true,
        visibility: Duration::from_millis(300),
        retry_first: Duration::from_millis(5),
        retry_longest: Duration::from_millis(20),
        ..ConsumerOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_take_ten_times_its_lease() {
    let store = store(QueueSpec::default()).await;
    send(&store, 1).await;
    let visibility = Duration::from_millis(150);
    let options = ConsumerOptions { visibility, ..options() };
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    // Two consumers: the second would take the message as soon as its lease ended.
    let handler = move |_| {
        let runs = Arc::clone(&counted);
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(visibility * 10).await;
            Outcome::Done
        }
    };
    let consumer = Consumer::new(&store, &queue(), options).unwrap();
    let (a, b) =
        tokio::join!(consumer.run(handler.clone(), std::future::pending()), consumer.run(handler, std::future::pending()));
    assert_eq!(a.unwrap().done + b.unwrap().done, 1);
    assert_eq!(runs.load(Ordering::SeqCst), 1, "the message was delivered while its handler ran");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_keeps_its_lease() {
    let store = store(QueueSpec::default()).await;
    send(&store, 1).await;
    let visibility = Duration::from_millis(200);
    let handler = move |_| async move {
        // Not how one should write it; many do.
        std::thread::sleep(visibility * 4);
        Outcome::Done
    };
    let consumer = Consumer::new(&store, &queue(), ConsumerOptions { visibility, ..options() }).unwrap();
    let report = consumer.run(handler, std::future::pending()).await.unwrap();
    assert_eq!(report, ConsumerReport { done: 1, ..ConsumerReport::default() });
}

#[tokio::test]
async fn a_lost_lease_drops_the_handler() {
    let store = store(QueueSpec::default()).await;
    send(&store, 1).await;
    let (dropped, mut drops) = mpsc::unbounded_channel();
    struct OnDrop(mpsc::UnboundedSender<()>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    let started = Arc::new(Notify::new());
    let handler = {
        let started = Arc::clone(&started);
        move |_| {
            let (guard, started) = (OnDrop(dropped.clone()), Arc::clone(&started));
            async move {
                let _guard = guard;
                started.notify_one();
                std::future::pending().await
            }
        }
    };
    let consumer = Consumer::new(&store, &queue(), ConsumerOptions { drain: false, ..options() }).unwrap();
    let stop = Arc::new(Notify::new());
    let run = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move { consumer.run(handler, async move { stop.notified().await }).await }
    });
    started.notified().await;
    // Somebody removes the message under the handler: its lease can't be renewed any more.
    store.purge(&queue()).await.unwrap();
    drops.recv().await.unwrap();
    stop.notify_one();
    let report = run.await.unwrap().unwrap();
    assert_eq!((report.lost, report.done), (1, 0));
}

#[tokio::test]
async fn failures_come_back_later_and_end_as_dead_letters_with_their_reason() {
    let store = store(QueueSpec::default().max_deliveries(3)).await;
    send(&store, 1).await;
    let handler = |_| async { Outcome::retry("the printer is on fire") };
    let report = Consumer::new(&store, &queue(), options()).unwrap().run(handler, std::future::pending()).await.unwrap();
    assert_eq!(report, ConsumerReport { retried: 2, rejected: 1, ..ConsumerReport::default() });
    let buried = store.receive(&queue().dead_letter().unwrap(), &Receive::default()).await.unwrap();
    let attributes = &buried[0].message.attributes;
    assert_eq!(attributes[dead::REASON], "max-deliveries: the printer is on fire");
    assert_eq!((attributes[dead::SOURCE].as_str(), attributes[dead::DELIVERIES].as_str()), ("q", "3"));
}

#[tokio::test]
async fn rejected_messages_are_buried_at_once_and_can_be_sent_home() {
    let store = store(QueueSpec::default()).await;
    send(&store, 2).await;
    let handler = |message: storage_core::Message| async move {
        if message.body == "0" { Outcome::reject("not a letter") } else { Outcome::Done }
    };
    let report = Consumer::new(&store, &queue(), options()).unwrap().run(handler, std::future::pending()).await.unwrap();
    assert_eq!((report.done, report.rejected), (1, 1));
    assert_eq!(store.stats(&queue()).await.unwrap().dead, Count::Exact(1));
    assert_eq!(store.redrive(&queue(), 10).await.unwrap(), 1);
    let home = store.receive(&queue(), &Receive::default()).await.unwrap();
    assert_eq!((home[0].message.deliveries, home[0].message.attributes.len()), (1, 0));
}

#[tokio::test]
async fn a_panic_is_a_failure_not_the_end() {
    let store = store(QueueSpec::default()).await;
    send(&store, 3).await;
    let handler = |message: storage_core::Message| async move {
        assert!(message.body != "1" || message.deliveries > 1, "once");
        Outcome::Done
    };
    let report = Consumer::new(&store, &queue(), options()).unwrap().run(handler, std::future::pending()).await.unwrap();
    assert_eq!(report, ConsumerReport { done: 3, retried: 1, ..ConsumerReport::default() });
}

#[tokio::test]
async fn no_more_handlers_run_than_were_asked_for() {
    let store = store(QueueSpec::default()).await;
    send(&store, 40).await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let most = Arc::clone(&most);
        move |_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(2)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Outcome::Done
            }
        }
    };
    let options = ConsumerOptions { concurrency: 4, prefetch: 10, ..options() };
    let report = Consumer::new(&store, &queue(), options).unwrap().run(handler, std::future::pending()).await.unwrap();
    assert_eq!((report.done, most.load(Ordering::SeqCst)), (40, 4));
}

#[tokio::test]
async fn a_shutdown_finishes_what_runs_and_gives_back_the_rest_at_once() {
    let store = store(QueueSpec::default()).await;
    send(&store, 5).await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = Arc::clone(&gate);
        move |_| {
            started.send(()).unwrap();
            let gate = Arc::clone(&gate);
            async move {
                drop(gate.acquire().await.unwrap());
                Outcome::Done
            }
        }
    };
    // A lease far longer than the test: what is not given back stays away.
    let options = ConsumerOptions { prefetch: 4, visibility: Duration::from_secs(600), drain: false, ..options() };
    let stop = Arc::new(Notify::new());
    let consumer = Consumer::new(&store, &queue(), options).unwrap();
    let run = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move { consumer.run(handler, async move { stop.notified().await }).await }
    });
    starts.recv().await.unwrap();
    stop.notify_one();
    gate.add_permits(1);
    let report = run.await.unwrap().unwrap();
    assert_eq!(report, ConsumerReport { done: 1, released: 4, ..ConsumerReport::default() });
    assert_eq!(store.stats(&queue()).await.unwrap().ready, Count::Exact(4));
}

#[tokio::test]
async fn a_handler_that_outlasts_the_grace_is_dropped_and_its_message_given_back() {
    let store = store(QueueSpec::default()).await;
    send(&store, 1).await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let handler = move |_| {
        started.send(()).unwrap();
        std::future::pending()
    };
    let options =
        ConsumerOptions { grace: Duration::from_millis(20), visibility: Duration::from_secs(600), drain: false, ..options() };
    let consumer = Consumer::new(&store, &queue(), options).unwrap();
    let report = consumer.run(handler, async move { starts.recv().await.unwrap_or(()) }).await.unwrap();
    assert_eq!(report, ConsumerReport { released: 1, ..ConsumerReport::default() });
    assert_eq!(store.stats(&queue()).await.unwrap().ready, Count::Exact(1));
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_an_error() {
    let store = QueueStore::new(Arc::new(MemoryStore::new().queue()));
    let consumer = Consumer::new(&store, &queue(), options()).unwrap();
    let error = consumer.run(|_| async { Outcome::Done }, std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), storage_core::ErrorKind::NotFound);
}

#[test]
fn options_that_cannot_work_are_refused() {
    let store = QueueStore::new(Arc::new(MemoryStore::new().queue()));
    let refused = |options| Consumer::new(&store, &queue(), options).is_err();
    assert!(refused(ConsumerOptions { concurrency: 0, ..options() }));
    assert!(refused(ConsumerOptions { prefetch: usize::MAX, ..options() }));
    assert!(refused(ConsumerOptions { visibility: Duration::from_millis(1), ..options() }));
}
