//! Section `memory`: records in memory.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::{Mutex, RwLock};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::corpus::{Random, document};
use crate::measure::{Lane, interleave};
use crate::ours;
use crate::report::{Better, Goal, Metric, Section, Table, Target};
use crate::subject::{Document, MemorySubject, Named, Role};

const INTRO: &str = "\
Records of about 350 bytes of JSON, as parsed objects with a key and a version. Every get looks a random key up under the lock and \
clones the whole record.";

/// Measures point gets by one caller.
pub async fn run(context: &Context) -> Result<Section> {
    let (loaded, gets) = if context.quick { (1_000, 5_000) } else { (100_000_i64, 200_000_u32) };
    let mut subjects: Vec<Box<dyn MemorySubject>> = Vec::new();
    subjects.extend(ours::memory::subject());
    subjects.push(Box::new(LockedHash::default()));
    subjects.push(Box::new(LockedTree::default()));
    for subject in &mut subjects {
        subject.load((0..loaded).map(document).collect()).await?;
    }
    let lanes =
        subjects.iter().map(|s| Lane { subject: s.name(), role: s.role(), note: s.note(), unable: None }).collect::<Vec<_>>();

    context.progress("memory: point gets");
    let mut random = Random::new(4);
    let entries = interleave(lanes, context.rounds, async |index| {
        let ids: Vec<String> = (0..gets).map(|_| document(random.below(loaded)).0).collect();
        let started = Instant::now();
        let found = subjects[index].get_all(&ids).await?;
        let nanoseconds = started.elapsed().as_secs_f64() * 1e9 / f64::from(gets);
        ensure!(found == ids.len(), "{found} of {gets} records were found");
        Ok(vec![nanoseconds])
    })
    .await;
    let table = Table {
        title: format!("point get, 1 of {loaded} records"),
        metrics: vec![Metric { name: "time".to_owned(), unit: "ns".to_owned(), better: Better::Lower }],
        entries,
        targets: vec![Target {
            metric: 0,
            goal: Goal::Ratio { against: Role::Baseline, at_least: 1.0 / 3.0 },
            group: "memory: point get, a locked map that clones the record (at most 3 × its time)".to_owned(),
        }],
    };
    Ok(context.section("memory", "Records in memory", INTRO, vec![table]))
}

/// What a lookup clones.
#[derive(Clone)]
struct Stored {
    key: String,
    version: u64,
    fields: Map<String, Value>,
}

impl Stored {
    fn entry((key, fields): Document) -> (String, Self) {
        (key.clone(), Self { key, version: 1, fields })
    }

    fn is(&self, key: &str) -> bool {
        self.key == key && self.version == 1 && !self.fields.is_empty()
    }
}

#[derive(Default)]
struct LockedHash(RwLock<HashMap<String, Stored>>);

impl Named for LockedHash {
    fn name(&self) -> String {
        "RwLock<HashMap>".to_owned()
    }

    fn role(&self) -> Role {
        Role::Baseline
    }
}

#[async_trait]
impl MemorySubject for LockedHash {
    async fn load(&mut self, records: Vec<Document>) -> Result<()> {
        self.0 = RwLock::new(records.into_iter().map(Stored::entry).collect());
        Ok(())
    }

    async fn get_all(&self, ids: &[String]) -> Result<usize> {
        let mut found = 0;
        for id in ids {
            let record = self.0.read().map_err(|_| anyhow!("the lock is poisoned"))?.get(id).cloned();
            found += usize::from(black_box(record).is_some_and(|record| record.is(id)));
        }
        Ok(found)
    }
}

#[derive(Default)]
struct LockedTree(Mutex<BTreeMap<String, Stored>>);

impl Named for LockedTree {
    fn name(&self) -> String {
        "Mutex<BTreeMap>".to_owned()
    }

    /// Ordered, as a table that can be scanned has to be; but the faster of the two is what counts.
    fn role(&self) -> Role {
        Role::Baseline
    }
}

#[async_trait]
impl MemorySubject for LockedTree {
    async fn load(&mut self, records: Vec<Document>) -> Result<()> {
        self.0 = Mutex::new(records.into_iter().map(Stored::entry).collect());
        Ok(())
    }

    async fn get_all(&self, ids: &[String]) -> Result<usize> {
        let mut found = 0;
        for id in ids {
            let record = self.0.lock().map_err(|_| anyhow!("the lock is poisoned"))?.get(id).cloned();
            found += usize::from(black_box(record).is_some_and(|record| record.is(id)));
        }
        Ok(found)
    }
}
