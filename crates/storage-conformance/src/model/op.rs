//! Operations, and how they are made up.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use storage_core::{ColumnName, Direction, Expect, Filter, Order, Version};

/// A record's place: one of two tables, one of six keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) table: usize,
    pub(super) partition: &'static str,
    pub(super) id: &'static str,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Put { slot: Slot, fields: Vec<(&'static str, Value)>, expect: Expect, expires_in: Option<Duration> },
    Merge { slot: Slot, fields: Vec<(&'static str, Value)>, expect: Expect },
    Delete { slot: Slot, expect: Expect },
    Check { slot: Slot, expect: Expect },
    Enqueue(Letter),
}

impl Step {
    /// The record that it is about.
    pub(super) fn slot(&self) -> Option<Slot> {
        match self {
            Self::Put { slot, .. } | Self::Merge { slot, .. } | Self::Delete { slot, .. } | Self::Check { slot, .. } => {
                Some(*slot)
            }
            Self::Enqueue(_) => None,
        }
    }

    /// Makes it about another.
    pub(super) fn aim(&mut self, at: Slot) {
        if let Self::Put { slot, .. } | Self::Merge { slot, .. } | Self::Delete { slot, .. } | Self::Check { slot, .. } = self {
            *slot = at;
        }
    }
}

/// A message to send.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) body: Vec<u8>,
    pub(super) attribute: Option<&'static str>,
    pub(super) delay: Duration,
    pub(super) ttl: Option<Duration>,
    pub(super) priority: u8,
    pub(super) dedup_id: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) table: usize,
    pub(super) filter: Filter,
    pub(super) order: Vec<Order>,
    pub(super) limit: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Move {
    Get(Slot),
    Find(Search),
    Put(Slot, Vec<(&'static str, Value)>),
    Update(Slot, Vec<(&'static str, Value)>),
    Insert(Slot, Vec<(&'static str, Value)>),
    Delete(Slot),
    Enqueue(Letter),
}

/// Something done with a queue. `dead`: with its dead-letter companion. Receipts are chosen among those that were received, the newest first.
#[derive(Clone, Debug)]
pub(super) enum Handling {
    Send(Vec<Letter>),
    Receive { dead: bool, max: u32, visibility: Duration },
    Delete(Vec<usize>),
    Update { receipt: usize, visibility: Option<Duration>, body: Option<Vec<u8>>, attribute: Option<&'static str> },
    DeadLetter(usize),
    Redrive(u32),
    Peek { dead: bool, max: u32 },
    Stats { dead: bool },
    Purge { dead: bool },
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Commit(Vec<Step>),
    Get(Vec<Slot>),
    Search(Search),
    History(Slot),
    /// Moves in a transaction, a write of somebody else before its end, and the commit or not.
    Transaction {
        moves: Vec<Move>,
        meddling: Option<Step>,
        commit: bool,
    },
    Queue(Handling),
    Advance(Duration),
    /// Closes the handle and opens another.
    Reopen,
}

pub(super) fn sequence(longest: usize) -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..=longest)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => vec(step(), 1..5).prop_map(Op::Commit),
        2 => vec(slot(), 1..5).prop_map(Op::Get),
        3 => search().prop_map(Op::Search),
        1 => slot().prop_map(Op::History),
        3 => (vec(a_move(), 1..6), proptest::option::weighted(0.4, step()), prop::bool::weighted(0.8))
            .prop_map(|(moves, meddling, commit)| Op::Transaction { moves, meddling, commit }),
        10 => handling().prop_map(Op::Queue),
        3 => prop_oneof![Just(1_u64), Just(40), Just(100), Just(101), Just(500)].prop_map(|ms| Op::Advance(Duration::from_millis(ms))),
        1 => prop::bool::weighted(0.3).prop_map(|reopen| if reopen { Op::Reopen } else { Op::Advance(Duration::from_millis(7)) }),
    ]
}

fn slot() -> impl Strategy<Value = Slot> {
    (0..2_usize, prop::sample::select(vec!["p", "P"]), prop::sample::select(vec!["a", "b/%", "ä"]))
        .prop_map(|(table, partition, id)| Slot { table, partition, id })
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        6 => Just(Expect::Anything),
        1 => Just(Expect::Absent),
        2 => Just(Expect::Present),
        2 => (1..4_u64).prop_map(|n| Expect::Version(Version(n))),
    ]
}

fn number() -> impl Strategy<Value = Value> {
    let integers = vec![0, 1, 2, -1, 9_007_199_254_740_993, i64::MAX, i64::MIN];
    let reals = vec![0.5, 1.0, -1.0, 9_007_199_254_740_992.0, 9_223_372_036_854_775_808.0];
    prop_oneof![prop::sample::select(integers).prop_map(Value::from), prop::sample::select(reals).prop_map(Value::from),]
}

fn text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "A", "ab", "%", "a%", "_", "ä", "1", "\u{ffee}", "\u{1F600}"])
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => number(),
        4 => text().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

/// Fields of either table: one that the table lacks, or of a type that it does not hold, is refused on both sides.
fn some_fields() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let field = prop_oneof![
        3 => (0..4_i64).prop_map(|n| ("n", json!(n))),
        1 => number().prop_map(|n| ("n", n)),
        2 => number().prop_map(|x| ("x", x)),
        3 => text().prop_map(|s| ("s", json!(s))),
        2 => scalar().prop_map(|v| ("free", v)),
        1 => prop::sample::select(vec!["n", "x", "s", "free"]).prop_map(|name| (name, Value::Null)),
    ];
    vec(field, 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let soon = || proptest::option::weighted(0.2, prop::sample::select(vec![50_u64, 100, 600]).prop_map(Duration::from_millis));
    prop_oneof![
        6 => (slot(), some_fields(), expect(), soon())
            .prop_map(|(slot, fields, expect, expires_in)| Step::Put { slot, fields, expect, expires_in }),
        3 => (slot(), some_fields(), expect()).prop_map(|(slot, fields, expect)| Step::Merge { slot, fields, expect }),
        2 => (slot(), expect()).prop_map(|(slot, expect)| Step::Delete { slot, expect }),
        1 => (slot(), expect()).prop_map(|(slot, expect)| Step::Check { slot, expect }),
        1 => letter().prop_map(Step::Enqueue),
    ]
}

fn column() -> impl Strategy<Value = ColumnName> {
    prop::sample::select(vec!["n", "n", "x", "s", "free", "id", "p"]).prop_map(|name| ColumnName::new(name).expect("a good name"))
}

fn filter() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        Just(Filter::All),
        (column(), scalar()).prop_map(|(c, v)| Filter::Eq(c, v)),
        (column(), scalar()).prop_map(|(c, v)| Filter::Ne(c, v)),
        (column(), scalar()).prop_map(|(c, v)| Filter::Lt(c, v)),
        (column(), scalar()).prop_map(|(c, v)| Filter::Le(c, v)),
        (column(), scalar()).prop_map(|(c, v)| Filter::Gt(c, v)),
        (column(), scalar()).prop_map(|(c, v)| Filter::Ge(c, v)),
        (column(), vec(scalar(), 0..4)).prop_map(|(c, v)| Filter::In(c, v)),
        (column(), text()).prop_map(|(c, t)| Filter::StartsWith(c, t.to_owned())),
        (column(), text()).prop_map(|(c, t)| Filter::Contains(c, t.to_owned())),
        column().prop_map(Filter::IsNull),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Filter::And),
            vec(inner.clone(), 0..3).prop_map(Filter::Or),
            inner.prop_map(|f| !f),
        ]
    })
}

fn search() -> impl Strategy<Value = Search> {
    let direction = prop_oneof![Just(Direction::Ascending), Just(Direction::Descending)];
    let order = vec((column(), direction).prop_map(|(column, direction)| Order { column, direction }), 0..3);
    // Half of them without a filter: a refused one tells little about the order.
    let filter = prop_oneof![Just(Filter::All), filter()];
    (0..2_usize, filter, order, 1..6_u32).prop_map(|(table, filter, order, limit)| Search { table, filter, order, limit })
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => slot().prop_map(Move::Get),
        1 => search().prop_map(Move::Find),
        3 => (slot(), some_fields()).prop_map(|(slot, fields)| Move::Put(slot, fields)),
        3 => (slot(), some_fields()).prop_map(|(slot, fields)| Move::Update(slot, fields)),
        1 => (slot(), some_fields()).prop_map(|(slot, fields)| Move::Insert(slot, fields)),
        2 => slot().prop_map(Move::Delete),
        1 => letter().prop_map(Move::Enqueue),
    ]
}

fn letter() -> impl Strategy<Value = Letter> {
    let rarely = |ms: Vec<u64>| proptest::option::weighted(0.25, prop::sample::select(ms).prop_map(Duration::from_millis));
    (
        vec(any::<u8>(), 0..4),
        proptest::option::weighted(0.3, text()),
        rarely(vec![40, 100]),
        rarely(vec![150, 400]),
        prop_oneof![3 => Just(0_u8), 1 => 0..=9_u8],
        proptest::option::weighted(0.2, prop::sample::select(vec!["d", "D"])),
    )
        .prop_map(|(body, attribute, delay, ttl, priority, dedup_id)| Letter {
            body,
            attribute,
            delay: delay.unwrap_or_default(),
            ttl,
            priority,
            dedup_id,
        })
}

fn handling() -> impl Strategy<Value = Handling> {
    let visibility = || prop::sample::select(vec![100_u64, 400, 60_000]).prop_map(Duration::from_millis);
    let renewal = prop_oneof![Just(Duration::ZERO), visibility()];
    let dead = || prop::bool::weighted(0.2);
    prop_oneof![
        6 => vec(letter(), 1..4).prop_map(Handling::Send),
        6 => (dead(), 1..4_u32, visibility()).prop_map(|(dead, max, visibility)| Handling::Receive { dead, max, visibility }),
        3 => vec(0..6_usize, 1..3).prop_map(Handling::Delete),
        4 => (0..6_usize, proptest::option::weighted(0.8, renewal), proptest::option::weighted(0.2, vec(any::<u8>(), 0..3)), proptest::option::weighted(0.2, text()))
            .prop_map(|(receipt, visibility, body, attribute)| Handling::Update { receipt, visibility, body, attribute }),
        1 => (0..6_usize).prop_map(Handling::DeadLetter),
        1 => (1..4_u32).prop_map(Handling::Redrive),
        2 => (dead(), 1..6_u32).prop_map(|(dead, max)| Handling::Peek { dead, max }),
        2 => dead().prop_map(|dead| Handling::Stats { dead }),
        1 => prop::bool::weighted(0.5).prop_map(|dead| Handling::Purge { dead }),
    ]
}
