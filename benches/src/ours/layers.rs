//! Section `layers`: `storage-layers` in front of `storage-memory`, and of whatever it is given.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use storage_core::Backends;
use storage_layers::guarded::guard;
use storage_layers::policy::{Breaker, Concurrency, Policy, PolicyBuilder, RateLimit, Retry, Timeouts};
use storage_layers::transform::compression::{CompressedBlobs, CompressionOptions};
use storage_layers::transform::encryption::{Algorithm, EncryptedBlobs, EncryptionOptions, Key, Keyring};
use storage_memory::MemoryStore;

use crate::layers::{Cipher, Guard, Store};
use crate::subject::Role;

/// More than the calls of a round, so that nothing waits.
const RATE: u32 = 1_000_000;

/// Adds one part to a policy.
type Part = fn(PolicyBuilder) -> PolicyBuilder;

/// Each part of a policy by itself, then all of them.
pub fn guards() -> Result<Vec<Guard>> {
    let parts: [(&str, Part); 6] = [
        ("deadline", |policy| policy.deadline(Duration::from_secs(60))),
        ("concurrency limit", |policy| policy.concurrency(Concurrency::at_most(64))),
        ("rate limit", |policy| policy.rate(RateLimit::per_second(RATE))),
        ("breaker", |policy| policy.breaker(Breaker::default())),
        ("retry and timeout", |policy| policy.retry(Retry::default())),
        ("timeout", |policy| policy.timeouts(Timeouts::default())),
    ];
    let mut guards = vec![pair("nothing, behind the guard", Role::Information, "", &Policy::default(), None)];
    for (name, part) in parts {
        guards.push(pair(name, Role::Information, "", &part(Policy::builder()).build()?, None));
    }
    let all = || parts.iter().fold(Policy::builder(), |policy, (_, part)| part(policy)).build();
    guards.push(pair("the whole chain, unobserved", Role::Information, "", &all()?, None));
    let note = "with its spans, which nobody listens to";
    guards.push(pair("the whole chain", Role::Ours, note, &all()?, Some("bench")));
    Ok(guards)
}

fn pair(name: &'static str, role: Role, note: &'static str, policy: &Policy, component: Option<&str>) -> Guard {
    let bare = MemoryStore::new().backends();
    let same = Backends { records: bare.records.clone(), queue: bare.queue.clone(), blobs: bare.blobs.clone() };
    Guard { name, role, note, bare, guarded: guard(same, policy, component) }
}

/// The store's blobs, encrypted.
pub fn encrypted(inner: Store, cipher: Cipher) -> Result<Store> {
    let algorithm = match cipher {
        Cipher::Aes => Algorithm::Aes256Gcm,
        Cipher::ChaCha => Algorithm::ChaCha20Poly1305,
    };
    let options = EncryptionOptions { algorithm, ..EncryptionOptions::default() };
    Ok(Arc::new(EncryptedBlobs::new(inner, Keyring::new(Key::new([7; 32])), options)))
}

/// The store's blobs, compressed.
pub fn compressed(inner: Store, level: i32) -> Result<Store> {
    Ok(Arc::new(CompressedBlobs::new(inner, CompressionOptions { level })?))
}
