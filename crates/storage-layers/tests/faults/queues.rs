//! Queues: what is sent once stays once.

use storage_core::{ErrorKind, NewMessage, QueueBackend as _, QueueName, QueueSpec, Receive};
use tokio::time::Instant;

use crate::faulty::Fault;
use crate::world::{SECOND, queue, retrying};

fn q() -> QueueName {
    "q".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_dedup_id_is_not_sent_again() {
    let world = queue(retrying(), QueueSpec::default()).await;
    for fault in [Fault::After(ErrorKind::Timeout), Fault::After(ErrorKind::Unavailable), Fault::HangAfter] {
        world.faulty.script([fault]);
        assert!(world.guarded.send(&q(), vec![NewMessage::new("a")]).await.is_err());
        assert_eq!(world.faulty.calls(), ["send"]);
    }
    assert_eq!(world.faulty.inner.stats(&q()).await.unwrap().ready.value(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_message_with_a_dedup_id_is_there_once() {
    let world = queue(retrying(), QueueSpec::default()).await;
    world.faulty.script([Fault::After(ErrorKind::Unavailable), Fault::HangAfter]);
    let sent = world.guarded.send(&q(), vec![NewMessage::new("a").dedup_id("1")]).await.unwrap();
    assert_eq!((sent.len(), world.faulty.calls().len()), (1, 3));
    assert_eq!(world.faulty.inner.stats(&q()).await.unwrap().ready.value(), Some(1));
}

/// The window counts from a first try that may have been done: beyond it, the queue would take the second for a new message.
#[tokio::test(start_paused = true)]
async fn a_dedup_window_shorter_than_the_tries_forbids_them() {
    let world = queue(retrying(), QueueSpec::default().dedup_window(5 * SECOND)).await;
    world.faulty.script([Fault::After(ErrorKind::Unavailable)]);
    let error = world.guarded.send(&q(), vec![NewMessage::new("a").dedup_id("1")]).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, false));
    assert_eq!(world.faulty.calls(), ["send"]);
    world.faulty.script([Fault::Refused]);
    world.guarded.send(&q(), vec![NewMessage::new("b").dedup_id("2")]).await.unwrap();
    assert_eq!(world.faulty.calls().len(), 2, "nothing was sent: the window does not matter");
}

/// A large message has longer to be sent, and that too has to end within the window.
#[tokio::test(start_paused = true)]
async fn a_window_shorter_than_a_large_send_forbids_another() {
    let world = queue(retrying(), QueueSpec::default().dedup_window(12 * SECOND)).await;
    let message = |mib: usize| NewMessage::new(vec![0; mib << 20]).dedup_id(mib.to_string());
    world.faulty.script([Fault::After(ErrorKind::Unavailable)]);
    world.guarded.send(&q(), vec![message(1)]).await.unwrap();
    assert_eq!(world.faulty.calls().len(), 2, "10 s and one more: within the 12");
    world.faulty.script([Fault::After(ErrorKind::Unavailable)]);
    let error = world.guarded.send(&q(), vec![message(4)]).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, false), "10 s and four more");
    assert_eq!(world.faulty.calls(), ["send"]);
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_a_receive_is_not_the_services_time() {
    let world = queue(retrying().deadline(12 * SECOND), QueueSpec::default()).await;
    let began = Instant::now();
    let received = world.guarded.receive(&q(), &Receive::default().wait(60 * SECOND)).await.unwrap();
    assert!(received.is_empty());
    assert!(began.elapsed() >= 60 * SECOND);
    world.faulty.script([Fault::Hang]);
    let began = Instant::now();
    let lost = world.guarded.receive(&q(), &Receive::default().wait(60 * SECOND)).await;
    assert_eq!((lost.unwrap_err().kind(), began.elapsed()), (ErrorKind::Timeout, 70 * SECOND));
    assert_eq!(world.faulty.calls(), ["receive"], "what a lost answer held is leased");
}

#[tokio::test(start_paused = true)]
async fn a_delete_is_repeated_and_an_update_is_not() {
    let world = queue(retrying(), QueueSpec::default()).await;
    world.guarded.send(&q(), vec![NewMessage::new("a")]).await.unwrap();
    let delivery = world.guarded.receive(&q(), &Receive::default()).await.unwrap().remove(0);
    world.faulty.script([Fault::After(ErrorKind::Timeout)]);
    let update = storage_core::MessageUpdate::visibility(60 * SECOND);
    assert_eq!(world.guarded.update(&q(), &delivery.receipt, &update).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(world.faulty.calls(), ["update"]);

    world.guarded.send(&q(), vec![NewMessage::new("b")]).await.unwrap();
    let delivery = world.guarded.receive(&q(), &Receive::default()).await.unwrap().remove(0);
    world.faulty.script([Fault::After(ErrorKind::Timeout)]);
    let outcomes = world.guarded.delete(&q(), &[delivery.receipt]).await.unwrap();
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(world.faulty.calls(), ["delete"; 2]);
}
