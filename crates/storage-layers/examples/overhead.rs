//! What each layer adds to a call: point gets on the memory backend, with and without.
//!
//! `cargo run --release -p storage-layers --all-features --example overhead`

use std::sync::Arc;
use std::time::{Duration, Instant};

use storage_core::{Batch, Expect, Fields, Key, KeyType, RecordBackend, Result, TableSchema};
use storage_layers::guarded::Guarded;
use storage_layers::observe::Observer;
use storage_layers::policy::{Breaker, Concurrency, Policy, PolicyBuilder, RateLimit, Retry, Timeouts};
use storage_memory::MemoryStore;

const CALLS: u32 = 100_000;
const ROUNDS: usize = 15;

/// The best of several rounds, which disturbances can't make better.
async fn nanos_per_get(backend: &dyn RecordBackend) -> Result<u128> {
    let (table, keys) = ("t".parse()?, [Key::from(1)]);
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(backend.get(&table, &keys).await?);
        }
        best = best.min(began.elapsed());
    }
    Ok(best.as_nanos() / u128::from(CALLS))
}

#[tokio::main]
async fn main() -> Result<()> {
    let records: Arc<dyn RecordBackend> = Arc::new(MemoryStore::new().records());
    records.create_table(&TableSchema::builder("t").key_of("id", KeyType::Integer).build()?).await?;
    records.commit(Batch::new().put(&"t".parse()?, 1, Fields::new(), Expect::Anything)).await?;
    #[cfg(feature = "prometheus")]
    let _recorder = storage_layers::observe::Prometheus::install(None)?;

    let rate = || RateLimit { burst: Some(1_000_000), ..RateLimit::per_second(1_000_000) };
    let all = || {
        let limited = Policy::builder().rate(rate()).concurrency(Concurrency::default());
        limited
            .timeouts(Timeouts::default())
            .deadline(Duration::from_secs(60))
            .retry(Retry::default())
            .breaker(Breaker::default())
    };
    let layers: [(&str, PolicyBuilder, bool); 10] = [
        ("an empty policy", Policy::builder(), false),
        ("timeouts", Policy::builder().timeouts(Timeouts::default()), false),
        ("timeouts and retry", Policy::builder().retry(Retry::default()), false),
        ("deadline", Policy::builder().deadline(Duration::from_secs(60)), false),
        ("breaker", Policy::builder().breaker(Breaker::default()), false),
        ("rate limit", Policy::builder().rate(rate()), false),
        ("concurrency limit", Policy::builder().concurrency(Concurrency::default()), false),
        ("the whole policy", all(), false),
        ("observed alone", Policy::builder(), true),
        ("everything, observed", all(), true),
    ];
    let bare = nanos_per_get(&*records).await?;
    let mut report = format!("{:22} {bare:5} ns\n", "the backend alone");
    for (name, policy, observed) in layers {
        let observer = if observed { Observer::new("bench", records.info()) } else { Observer::default() };
        let guarded = Guarded::new(Arc::clone(&records), policy.build()?, observer);
        let with = nanos_per_get(&guarded).await?;
        report += &format!("{name:22} {with:5} ns  {:+5}\n", with.cast_signed() - bare.cast_signed());
    }
    use std::io::Write as _;
    std::io::stdout().write_all(report.as_bytes())?;
    Ok(())
}
