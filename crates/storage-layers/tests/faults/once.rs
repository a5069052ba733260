//! Whatever fails, and whenever: a write that is not safe to repeat takes effect at most once, and what is answered is true.

use proptest::prelude::*;
use storage_core::{Batch, ErrorKind, Expect, NewMessage, QueueBackend as _, QueueSpec, RecordBackend as _, Version};
use storage_layers::policy::Retry;

use crate::faulty::Fault;
use crate::world::{SECOND, put, queue, records, retrying, table};

fn fault() -> impl Strategy<Value = Fault> {
    let kind = || prop::sample::select(vec![ErrorKind::Timeout, ErrorKind::Unavailable]);
    prop_oneof![
        Just(Fault::None),
        kind().prop_map(Fault::Before),
        kind().prop_map(Fault::After),
        Just(Fault::Hang),
        Just(Fault::HangAfter),
        Just(Fault::Refused),
        (0..5u64).prop_map(Fault::RetryAfter),
        // A service that refuses has done nothing: it is not in doubt.
        Just(Fault::Before(ErrorKind::Throttled)),
    ]
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

proptest! {
    #[test]
    fn a_commit_takes_effect_at_most_once(script in prop::collection::vec(fault(), 0..8), blind in any::<bool>()) {
        paused(async {
            let world = records(retrying().retry(Retry::attempts(6))).await;
            world.faulty.script(script);
            let (key, expect, before) = if blind { (1, Expect::Anything, 1) } else { (2, Expect::Absent, 0) };
            let answer = world.guarded.commit(put(key, expect)).await;
            let found = world.faulty.inner.get(&table(), &[key.into()]).await.unwrap().remove(0);
            let version = found.map_or(Version::NONE, |record| record.version);
            assert!(version == Version(before) || version == Version(before + 1), "done twice: {version}");
            match answer {
                Ok(versions) => assert_eq!(versions, [version]),
                Err(error) => assert!(error.is_retryable(), "its own first try got in its way: {error}"),
            }
        });
    }

    #[test]
    fn a_message_is_sent_at_most_once(script in prop::collection::vec(fault(), 0..8), dedup in any::<bool>(), window in 0..60u32) {
        paused(async {
            let spec = QueueSpec::default().dedup_window(SECOND * window);
            let world = queue(retrying().retry(Retry::attempts(6)), spec).await;
            world.faulty.script(script);
            let message = NewMessage::new("a");
            let message = if dedup { message.dedup_id("1") } else { message };
            let name = "q".parse().unwrap();
            let answer = world.guarded.send(&name, vec![message]).await;
            let there = world.faulty.inner.stats(&name).await.unwrap().ready.value().unwrap();
            assert!(there <= 1, "sent {there} times");
            assert!(there == 1 || answer.is_err());
        });
    }

    #[test]
    fn an_outbox_takes_effect_at_most_once(script in prop::collection::vec(fault(), 0..8)) {
        paused(async {
            let store = storage_memory::MemoryStore::new();
            let name = "q".parse().unwrap();
            store.queue().create_queue(&name, &QueueSpec::default()).await.unwrap();
            let faulty = crate::faulty::Faulty::new(std::sync::Arc::new(store.records()));
            let policy = retrying().retry(Retry::attempts(6)).build().unwrap();
            let observer = storage_layers::observe::Observer::default();
            let guarded = storage_layers::guarded::Guarded::new(std::sync::Arc::clone(&faulty), policy, observer);
            faulty.script(script);
            let answer = guarded.commit(Batch::new().enqueue(&name, NewMessage::new("a").dedup_id("1"))).await;
            let there = store.queue().stats(&name).await.unwrap().ready.value().unwrap();
            assert!(there <= 1 && (there == 1 || answer.is_err()), "sent {there} times");
        });
    }
}
