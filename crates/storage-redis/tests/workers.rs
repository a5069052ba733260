//! Many messages, several workers: nothing is lost, nothing is done twice while a lease lasts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{apart, open, queue, single_or_skip};
use storage_core::{Consumer, ConsumerOptions, Message, NewMessage, Outcome};

/// Four workers, each with a handle of its own, run `messages` that a fifth handle sends meanwhile.
async fn share(messages: usize) {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = open(&url).await.unwrap();
    let name = queue(&store, "work").await;
    let done: Arc<Vec<AtomicUsize>> = Arc::new((0..messages).map(|_| AtomicUsize::new(0)).collect());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let started = Instant::now();
    let mut workers = Vec::new();
    for _ in 0..4 {
        let store = open(&url).await.unwrap();
        let options =
            ConsumerOptions { concurrency: 32, prefetch: 500, visibility: Duration::from_secs(60), ..ConsumerOptions::default() };
        let consumer = Consumer::new(&store, &name, options).unwrap();
        let (done, mut stopped) = (Arc::clone(&done), stopped.clone());
        workers.push(tokio::spawn(async move {
            let handler = move |message: Message| {
                let number: usize = std::str::from_utf8(&message.body).unwrap().parse().unwrap();
                done[number].fetch_add(1, Ordering::Relaxed);
                async { Outcome::Done }
            };
            consumer.run(handler, async move { drop(stopped.wait_for(|stop| *stop).await) }).await
        }));
    }
    let numbers: Vec<usize> = (0..messages).collect();
    for batch in numbers.chunks(500) {
        store.send_all(&name, batch.iter().map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
    }
    let limit = Duration::from_secs(60) + Duration::from_millis(messages as u64 * 5);
    loop {
        let stats = store.stats(&name).await.unwrap();
        if stats.ready.value() == Some(0) && stats.leased.value() == Some(0) {
            break;
        }
        assert!(started.elapsed() < limit, "not done: {stats:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.send_replace(true);
    let mut shares = Vec::new();
    for worker in workers {
        let report = worker.await.unwrap().unwrap();
        assert_eq!(report.lost, 0, "{report:?}");
        shares.push(report.done);
    }
    let lost = done.iter().filter(|times| times.load(Ordering::Relaxed) == 0).count();
    let twice = done.iter().filter(|times| times.load(Ordering::Relaxed) > 1).count();
    println!("{messages} messages, four workers did {shares:?} in {:?}: {lost} lost, {twice} done twice", started.elapsed());
    assert_eq!((lost, twice), (0, 0));
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_workers_share_ten_thousand_messages() {
    share(10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak"]
async fn soak_four_workers_share_two_hundred_thousand_messages() {
    share(200_000).await;
}
