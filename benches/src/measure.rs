//! Interleaved rounds and what is kept of them.

use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::subject::Role;

/// What a subject's rounds came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// One list of samples per metric, one sample per round.
    Measured(Vec<Vec<f64>>),
    /// Why there are no numbers.
    NotRun(String),
}

/// One line of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The subject's name.
    pub subject: String,
    /// Its side.
    pub role: Role,
    /// What a reader should know.
    pub note: String,
    /// Its numbers.
    pub outcome: Outcome,
}

/// Middle and ends of the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one sample.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { median, min, max })
    }
}

/// How many of something were done per second since `started`.
#[allow(clippy::cast_precision_loss)] // counts are far below 2^52
pub fn per_second(count: usize, started: Instant) -> f64 {
    count as f64 / started.elapsed().as_secs_f64()
}

/// What a subject is called and where it stands; its place in the list is its place in the table.
pub struct Lane {
    /// The subject's name.
    pub subject: String,
    /// Its side.
    pub role: Role,
    /// What a reader should know.
    pub note: String,
    /// Why it can't take part, if it can't.
    pub unable: Option<String>,
}

/// Runs every subject once as a warm-up, then all of them in turn, round after round (A B C, B C A, …), so that whatever the
/// machine does in the meantime meets all of them. `round` answers with one sample per metric.
///
/// A subject that fails is not run again; its entry says why.
pub async fn interleave(lanes: Vec<Lane>, rounds: usize, mut round: impl AsyncFnMut(usize) -> Result<Vec<f64>>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = lanes
        .into_iter()
        .map(|lane| Entry {
            subject: lane.subject,
            role: lane.role,
            note: lane.note,
            outcome: lane.unable.map_or(Outcome::Measured(Vec::new()), Outcome::NotRun),
        })
        .collect();
    for number in 0..=rounds {
        for turn in 0..entries.len() {
            let index = (turn + number) % entries.len();
            let entry = &mut entries[index];
            let Outcome::Measured(metrics) = &mut entry.outcome else {
                continue;
            };
            match round(index).await {
                Ok(_) if number == 0 => {}
                Ok(samples) => {
                    metrics.resize(samples.len(), Vec::new());
                    for (metric, sample) in metrics.iter_mut().zip(samples) {
                        metric.push(sample);
                    }
                }
                Err(error) => entry.outcome = Outcome::NotRun(format!("failed: {error:#}")),
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_odd_and_even_samples() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    fn lane(subject: &str, unable: Option<&str>) -> Lane {
        Lane { subject: subject.to_owned(), role: Role::Peer, note: String::new(), unable: unable.map(str::to_owned) }
    }

    #[tokio::test]
    async fn subjects_take_turns_and_the_warm_up_is_not_kept() {
        let mut order = Vec::new();
        let lanes = vec![lane("a", None), lane("b", None), lane("c", Some("absent"))];
        let entries = interleave(lanes, 2, async |index| {
            order.push(index);
            #[allow(clippy::cast_precision_loss)]
            Ok(vec![order.len() as f64])
        })
        .await;
        assert_eq!(order, [0, 1, 1, 0, 0, 1]);
        assert!(matches!(&entries[0].outcome, Outcome::Measured(m) if m == &[vec![4.0, 5.0]]));
        assert!(matches!(&entries[1].outcome, Outcome::Measured(m) if m == &[vec![3.0, 6.0]]));
        assert!(matches!(&entries[2].outcome, Outcome::NotRun(why) if why == "absent"));
    }

    #[tokio::test]
    async fn a_failing_subject_is_not_run_again() {
        let mut calls = 0;
        let entries = interleave(vec![lane("a", None)], 3, async |_| {
            calls += 1;
            anyhow::bail!("no disk")
        })
        .await;
        assert_eq!(calls, 1);
        assert!(matches!(&entries[0].outcome, Outcome::NotRun(why) if why == "failed: no disk"));
    }
}
