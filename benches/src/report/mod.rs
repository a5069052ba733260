//! Results as data, and the document that they go into.

mod markdown;

use serde::{Deserialize, Serialize};

pub use markdown::{document, text};

use crate::machine::Machine;
use crate::measure::{Entry, Outcome, Spread};
use crate::subject::Role;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and sizes.
    Lower,
}

/// A column of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metric {
    /// What is measured.
    pub name: String,
    /// In what.
    pub unit: String,
    /// Which way is good.
    pub better: Better,
}

/// What a metric of ours has to reach.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Which metric of the table.
    pub metric: usize,
    /// How far it has to get.
    pub goal: Goal,
    /// The line of the summary that it counts for; all targets of a line have the same goal.
    pub group: String,
}

/// How far a metric has to get.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// So many times as good as the best of a side. Of times and sizes the inverse is taken, so more is always better.
    Ratio {
        /// The side.
        against: Role,
        /// The least.
        at_least: f64,
    },
    /// No more than this, whatever others need.
    AtMost(f64),
}

/// Subjects that did the same thing side by side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// What they did.
    pub title: String,
    /// The columns.
    pub metrics: Vec<Metric>,
    /// The lines.
    pub entries: Vec<Entry>,
    /// What ours has to reach.
    pub targets: Vec<Target>,
}

/// A section of the document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    /// The name on the command line.
    pub id: String,
    /// The heading.
    pub title: String,
    /// What is measured, in a few sentences.
    pub intro: String,
    /// The day.
    pub date: String,
    /// The machine.
    pub machine: Machine,
    /// Rounds that counted.
    pub rounds: usize,
    /// Whether the sizes were the small ones.
    pub quick: bool,
    /// The results.
    pub tables: Vec<Table>,
    /// Titles of tables that could not be measured here, for want of a server: what the document has of them stays.
    pub absent: Vec<String>,
}

/// How ours did against a target.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Ours has a figure, and so has what it is compared with.
    Measured {
        /// The ratio, or the figure itself.
        value: f64,
        /// Whose figure it was divided by.
        subject: Option<String>,
        /// Whether the goal was reached.
        pass: bool,
    },
    /// Ours, or everything to compare it with, has no numbers.
    NotMeasured,
}

impl Table {
    /// The median of a metric, if the entry was measured.
    pub fn spread(&self, entry: &Entry, metric: usize) -> Option<Spread> {
        Spread::of(samples(entry, metric))
    }

    /// The best entry of a side.
    pub fn best(&self, role: Role, metric: usize) -> Option<(&Entry, f64)> {
        let better = self.metrics.get(metric)?.better;
        self.entries
            .iter()
            .filter(|entry| entry.role == role)
            .filter_map(|entry| Some((entry, self.spread(entry, metric)?.median)))
            .max_by(|(_, a), (_, b)| match better {
                Better::Higher => a.total_cmp(b),
                Better::Lower => b.total_cmp(a),
            })
    }

    /// Ours against the goal. A ratio is the median of the rounds' ratios: the two sides of a round ran right after one
    /// another, so that a disk that is slow for a while is slow for both.
    pub fn verdict(&self, target: &Target) -> Verdict {
        let Some((ours, figure)) = self.best(Role::Ours, target.metric) else {
            return Verdict::NotMeasured;
        };
        let (against, at_least) = match target.goal {
            Goal::AtMost(limit) => {
                let pass = figure <= limit;
                return Verdict::Measured { value: figure, subject: None, pass };
            }
            Goal::Ratio { against, at_least } => (against, at_least),
        };
        let Some((theirs, _)) = self.best(against, target.metric) else {
            return Verdict::NotMeasured;
        };
        let better = self.metrics[target.metric].better;
        let ratios: Vec<f64> = samples(ours, target.metric)
            .iter()
            .zip(samples(theirs, target.metric))
            .map(|(ours, theirs)| match better {
                Better::Higher => ours / theirs,
                Better::Lower => theirs / ours,
            })
            .collect();
        Spread::of(&ratios).map_or(Verdict::NotMeasured, |spread| Verdict::Measured {
            value: spread.median,
            subject: Some(theirs.subject.clone()),
            pass: spread.median >= at_least,
        })
    }
}

/// The entry's samples of a metric, one per round.
fn samples(entry: &Entry, metric: usize) -> &[f64] {
    match &entry.outcome {
        Outcome::Measured(metrics) => metrics.get(metric).map_or(&[], Vec::as_slice),
        Outcome::NotRun(_) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(subject: &str, role: Role, samples: &[f64]) -> Entry {
        Entry { subject: subject.to_owned(), role, note: String::new(), outcome: Outcome::Measured(vec![samples.to_vec()]) }
    }

    fn table(better: Better) -> Table {
        Table {
            title: "t".to_owned(),
            metrics: vec![Metric { name: "m".to_owned(), unit: "u".to_owned(), better }],
            entries: vec![
                entry("ours", Role::Ours, &[90.0, 100.0, 110.0]),
                entry("slow", Role::Peer, &[45.0, 50.0, 55.0]),
                entry("fast", Role::Peer, &[180.0, 200.0, 220.0]),
            ],
            targets: Vec::new(),
        }
    }

    fn target(goal: Goal) -> Target {
        Target { metric: 0, goal, group: "g".to_owned() }
    }

    fn ratio(against: Role) -> Target {
        target(Goal::Ratio { against, at_least: 1.0 })
    }

    #[test]
    fn a_rate_is_compared_with_the_highest() {
        let verdict = table(Better::Higher).verdict(&ratio(Role::Peer));
        assert_eq!(verdict, Verdict::Measured { value: 0.5, subject: Some("fast".to_owned()), pass: false });
    }

    #[test]
    fn a_time_is_compared_with_the_lowest_and_turned_over() {
        let verdict = table(Better::Lower).verdict(&ratio(Role::Peer));
        assert_eq!(verdict, Verdict::Measured { value: 0.5, subject: Some("slow".to_owned()), pass: false });
    }

    #[test]
    fn a_limit_needs_nobody_else() {
        let verdict = table(Better::Lower).verdict(&target(Goal::AtMost(100.0)));
        assert_eq!(verdict, Verdict::Measured { value: 100.0, subject: None, pass: true });
    }

    #[test]
    fn nothing_to_compare_with() {
        assert_eq!(table(Better::Higher).verdict(&ratio(Role::Baseline)), Verdict::NotMeasured);
    }
}
