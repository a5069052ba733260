//! Each part of the chain, and their order.

use futures::future::join_all;
use storage_core::{ErrorKind, Expect, Key, Query, RecordBackend as _, Result};
use storage_layers::policy::{Breaker, BreakerState, Concurrency, Policy, RateLimit, Retry, Timeouts};
use tokio::time::{Instant, advance};

use crate::faulty::Fault;
use crate::world::{SECOND, World, put, records, retrying, table};

async fn get(world: &World<storage_memory::MemoryRecords>) -> Result<bool> {
    Ok(world.guarded.get(&table(), &[Key::from(1)]).await?[0].is_some())
}

#[tokio::test(start_paused = true)]
async fn a_try_that_hangs_is_given_up_and_repeated() {
    let world = records(retrying()).await;
    world.faulty.script([Fault::Hang, Fault::Hang]);
    let began = Instant::now();
    assert!(get(&world).await.unwrap());
    assert_eq!(world.faulty.calls(), ["get"; 3]);
    assert!(began.elapsed() >= 20 * SECOND && began.elapsed() < 21 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_retry_without_a_timeout_has_one() {
    let world = records(Policy::builder().retry(Retry::attempts(2))).await;
    world.faulty.script([Fault::Hang, Fault::Hang]);
    let error = get(&world).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, Some("records.get")));
    assert!(error.backend().is_some_and(|backend| backend.starts_with("memory")), "{error}");
    assert_eq!(world.guarded.policy().timeouts(), Some(&Timeouts::default()));
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_is_the_answer() {
    let world = records(retrying().retry(Retry::attempts(3))).await;
    world.faulty.script([Fault::Before(ErrorKind::Unavailable), Fault::Before(ErrorKind::Timeout), Fault::RetryAfter(0)]);
    assert_eq!(get(&world).await.unwrap_err().kind(), ErrorKind::Throttled);
    assert_eq!(world.faulty.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_retry_cannot_help_is_answered_at_once() {
    let world = records(retrying()).await;
    for kind in [ErrorKind::NotFound, ErrorKind::Unauthorized, ErrorKind::Corrupt, ErrorKind::Internal] {
        world.faulty.script([Fault::Before(kind)]);
        assert_eq!(get(&world).await.unwrap_err().kind(), kind);
        assert_eq!(world.faulty.calls().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let world = records(retrying()).await;
    world.faulty.script([Fault::RetryAfter(37)]);
    let began = Instant::now();
    world.guarded.commit(put(2, Expect::Absent)).await.unwrap();
    assert!(began.elapsed() >= 37 * SECOND, "{:?}", began.elapsed());
    assert_eq!(world.faulty.calls().len(), 2, "after a refusal even an insert is safe");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_asks_for_too_much_is_not_waited_for() {
    let world = records(retrying()).await;
    world.faulty.script([Fault::RetryAfter(61)]);
    let began = Instant::now();
    let error = get(&world).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(61 * SECOND)));
    assert_eq!(began.elapsed(), std::time::Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_bounds_all_tries_together() {
    let world = records(retrying().deadline(25 * SECOND)).await;
    world.faulty.script([Fault::Hang; 10]);
    let began = Instant::now();
    assert_eq!(get(&world).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(began.elapsed(), 25 * SECOND);
    world.faulty.script([Fault::RetryAfter(30)]);
    let began = Instant::now();
    assert_eq!(get(&world).await.unwrap_err().kind(), ErrorKind::Throttled);
    assert_eq!(began.elapsed(), std::time::Duration::ZERO, "no wait that the deadline would cut");
}

#[tokio::test(start_paused = true)]
async fn backups_are_exempt_from_the_calls_timeout() {
    let world = records(retrying().deadline(5 * SECOND)).await;
    world.faulty.script([Fault::Hang]);
    let began = Instant::now();
    let backup = world.guarded.backup(std::path::Path::new("unused")).await;
    assert_eq!(backup.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(began.elapsed(), 3600 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_dead_service_does_not_get_many_times_the_load() {
    let world = records(retrying().retry(Retry { reserve: 1, ..Retry::attempts(10) })).await;
    world.faulty.script([Fault::Before(ErrorKind::Unavailable); 10_000]);
    let calls = 1000;
    assert!(join_all((0..calls).map(|_| get(&world))).await.iter().all(Result::is_err));
    let retries = world.faulty.calls().len() - calls;
    assert!(retries < 100, "{retries} retries for {calls} calls");
}

fn breaker() -> Breaker {
    Breaker { min_calls: 5, open: 10 * SECOND, probes: 1, ..Breaker::default() }
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_and_closes() {
    let world = records(Policy::builder().breaker(breaker())).await;
    let state = || world.guarded.policy().breaker_state().unwrap();
    world.faulty.script([Fault::Before(ErrorKind::Unavailable); 6]);
    for _ in 0..5 {
        assert!(get(&world).await.is_err());
    }
    assert_eq!(state(), BreakerState::Open);
    let error = get(&world).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Unavailable, Some(10 * SECOND)));
    assert_eq!(world.faulty.calls().len(), 5, "nothing was sent while it was open");

    advance(10 * SECOND).await;
    assert!(get(&world).await.is_err(), "the probe fails");
    assert_eq!(state(), BreakerState::Open);
    advance(10 * SECOND).await;
    assert!(get(&world).await.unwrap(), "the probe succeeds");
    assert_eq!(state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_counts_calls_and_not_tries() {
    let world = records(retrying().retry(Retry::attempts(4)).breaker(breaker())).await;
    world.faulty.script([Fault::Before(ErrorKind::Unavailable); 7]);
    assert!(get(&world).await.is_err());
    assert!(get(&world).await.unwrap(), "the fourth try succeeds");
    assert_eq!(world.guarded.policy().breaker_state(), Some(BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_cuts_a_call_counts_for_the_breaker() {
    let world = records(Policy::builder().deadline(SECOND).breaker(breaker())).await;
    world.faulty.script([Fault::Hang; 5]);
    for _ in 0..5 {
        assert_eq!(get(&world).await.unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert_eq!(world.guarded.policy().breaker_state(), Some(BreakerState::Open));
}

#[tokio::test(start_paused = true)]
async fn pings_tell_the_truth_through_an_open_breaker() {
    let world = records(Policy::builder().breaker(breaker())).await;
    world.faulty.script([Fault::Before(ErrorKind::Unavailable); 5]);
    for _ in 0..5 {
        assert!(get(&world).await.is_err());
    }
    assert_eq!(world.guarded.policy().breaker_state(), Some(BreakerState::Open));
    world.guarded.ping().await.unwrap();
    world.guarded.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_wait_their_turn() {
    let limit = Concurrency { max: 2, max_waiting: 2 };
    let world = records(Policy::builder().timeouts(Timeouts::calls(10 * SECOND)).concurrency(limit)).await;
    world.faulty.script([Fault::Hang, Fault::Hang]);
    let outcomes = join_all((0..6).map(|_| get(&world))).await;
    let kinds: Vec<_> = outcomes.into_iter().map(|outcome| outcome.map_err(|error| error.kind())).collect();
    let (timeout, throttled) = (Err(ErrorKind::Timeout), Err(ErrorKind::Throttled));
    assert_eq!(kinds, [timeout, timeout, Ok(true), Ok(true), throttled, throttled]);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_does_not_come_in_time_was_not_sent() {
    let policy = Policy::builder().concurrency(Concurrency::at_most(1)).deadline(SECOND);
    let world = records(policy).await;
    world.faulty.script([Fault::Hang]);
    let (first, second) = tokio::join!(get(&world), get(&world));
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Throttled);
    assert_eq!(world.faulty.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn repeated_tries_count_for_the_rate() {
    let rate = RateLimit { burst: Some(1), ..RateLimit::per_second(1) };
    let world = records(retrying().rate(rate)).await;
    world.faulty.script([Fault::Before(ErrorKind::Unavailable); 2]);
    let began = Instant::now();
    assert!(get(&world).await.unwrap());
    assert!(began.elapsed() >= 2 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_policy_share_its_state() {
    let policy = Policy::builder().breaker(breaker()).build().unwrap();
    let one = records(Policy::builder()).await;
    let guards: Vec<_> = (0..2)
        .map(|_| {
            let observer = storage_layers::observe::Observer::default();
            storage_layers::guarded::Guarded::new(std::sync::Arc::clone(&one.faulty), policy.clone(), observer)
        })
        .collect();
    one.faulty.script([Fault::Before(ErrorKind::Unavailable); 5]);
    for _ in 0..5 {
        assert!(guards[0].tables().await.is_err());
    }
    assert_eq!(guards[1].tables().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(one.faulty.calls().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_reaches_the_backend_and_is_not_repeated() {
    let world = records(retrying()).await;
    let query = Query::table("t").unwrap();
    world.faulty.script([]);
    assert_eq!(world.guarded.sweep(&query).await.unwrap(), 7, "what was freed is what the backend says");
    world.faulty.script([Fault::After(ErrorKind::Timeout)]);
    assert_eq!(world.guarded.sweep(&query).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(world.faulty.calls(), ["sweep"], "the count would be wrong");
}
