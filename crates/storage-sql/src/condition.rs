//! Filters as conditions: which can be pushed down exactly, in which shape, with which values.

use std::borrow::Cow;

use sea_query::{BinOper, Expr, ExprTrait, Func, Query, SelectStatement};
use serde_json::{Number, Value};
use storage_core::{ColumnName, ColumnType, Filter};

use crate::table::ident;
use crate::{Dialect, EXTRA, SqlValue, Table, encode};

/// SQLite takes expressions 1,000 deep; an AND of n terms is n deep.
const MAX_DEPTH: usize = 700;
/// Longer lists are bound as one JSON array where the dialect can read one.
const MAX_LIST: usize = 16;

/// A condition without its values: what a rendered statement depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    True,
    False,
    IsNull(Place),
    Compare(Place, Comparison),
    InList(Place, usize),
    InJson(Place),
    Contains(Place),
    Is(ColumnName, bool),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In a column of its own.
    Column(ColumnName),
    /// In the JSON of undeclared fields.
    Extra(ColumnName),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Comparison {
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    pub(crate) fn oper(self) -> BinOper {
        match self {
            Self::Eq => BinOper::Equal,
            Self::Lt => BinOper::SmallerThan,
            Self::Le => BinOper::SmallerThanOrEqual,
            Self::Gt => BinOper::GreaterThan,
            Self::Ge => BinOper::GreaterThanOrEqual,
        }
    }

    const fn is_upper(self) -> bool {
        matches!(self, Self::Lt | Self::Le)
    }
}

/// The filter as a condition, its values behind those that are there. `None`: the dialect can't say it exactly.
pub(crate) fn compile(table: &Table, filter: &Filter, values: &mut Vec<SqlValue<'static>>) -> Option<Node> {
    let mark = values.len();
    let node = compile_node(table, filter, values).filter(|node| depth(node) <= MAX_DEPTH);
    if node.is_none() {
        values.truncate(mark);
    }
    node
}

fn compile_node(table: &Table, filter: &Filter, values: &mut Vec<SqlValue<'static>>) -> Option<Node> {
    let mut all = |filters: &[Filter]| filters.iter().map(|f| compile_node(table, f, values)).collect::<Option<Vec<_>>>();
    Some(match filter {
        Filter::All => Node::True,
        Filter::And(filters) => Node::And(all(filters)?),
        Filter::Or(filters) => Node::Or(all(filters)?),
        Filter::Not(filter) => Node::Not(Box::new(compile_node(table, filter, values)?)),
        Filter::IsNull(column) => Node::IsNull(place(table, column)?),
        Filter::Eq(column, value) => comparison(table, column, Comparison::Eq, value, values)?,
        Filter::Ne(column, value) => Node::Not(Box::new(comparison(table, column, Comparison::Eq, value, values)?)),
        Filter::Lt(column, value) => comparison(table, column, Comparison::Lt, value, values)?,
        Filter::Le(column, value) => comparison(table, column, Comparison::Le, value, values)?,
        Filter::Gt(column, value) => comparison(table, column, Comparison::Gt, value, values)?,
        Filter::Ge(column, value) => comparison(table, column, Comparison::Ge, value, values)?,
        Filter::In(column, list) => one_of(table, column, list, values)?,
        Filter::StartsWith(column, prefix) => starts_with(place(table, column)?, prefix, values),
        Filter::Contains(column, part) => {
            values.push(text(part));
            Node::Contains(place(table, column)?)
        }
    })
}

/// Undeclared fields can be reached where the dialect reads JSON exactly as we write it.
fn place(table: &Table, column: &ColumnName) -> Option<Place> {
    if table.kind(column).is_some() {
        return Some(Place::Column(column.clone()));
    }
    (table.dialect() == Dialect::Sqlite).then(|| Place::Extra(column.clone()))
}

fn text(text: &str) -> SqlValue<'static> {
    SqlValue::Text(Cow::Owned(text.to_owned()))
}

fn comparison(
    table: &Table,
    column: &ColumnName,
    op: Comparison,
    literal: &Value,
    values: &mut Vec<SqlValue<'static>>,
) -> Option<Node> {
    let place = place(table, column)?;
    let Some(kind) = table.kind(column) else { return extra_comparison(column, op, literal, values) };
    let (op, value) = match (kind, literal) {
        (_, Value::Null) if op == Comparison::Eq => return Some(Node::IsNull(place)),
        (_, Value::Null) => return Some(Node::False),
        (ColumnType::Integer, Value::Number(n)) => match against_integers(op, n) {
            Bound::Never => return Some(Node::False),
            Bound::Always => return Some(Node::Not(Box::new(Node::IsNull(place)))),
            Bound::Value(op, n) => (op, SqlValue::Integer(n)),
        },
        (ColumnType::Real, Value::Number(n)) => match against_reals(op, n) {
            Bound::Never => return Some(Node::False),
            Bound::Always => return Some(Node::Not(Box::new(Node::IsNull(place)))),
            Bound::Value(op, x) => (op, SqlValue::Real(x)),
        },
        (kind, literal) => (op, encode(table.dialect(), kind, literal).ok()?.into_owned()),
    };
    values.push(value);
    Some(Node::Compare(place, op))
}

/// Text and booleans in JSON compare as ours do. Numbers don't: the database reads them with a parser of its own.
fn extra_comparison(column: &ColumnName, op: Comparison, literal: &Value, values: &mut Vec<SqlValue<'static>>) -> Option<Node> {
    match literal {
        Value::String(literal) => {
            values.push(text(literal));
            Some(Node::Compare(Place::Extra(column.clone()), op))
        }
        Value::Bool(b) if op == Comparison::Eq => Some(Node::Is(column.clone(), *b)),
        Value::Null if op == Comparison::Eq => Some(Node::IsNull(Place::Extra(column.clone()))),
        _ => None,
    }
}

fn one_of(table: &Table, column: &ColumnName, list: &[Value], values: &mut Vec<SqlValue<'static>>) -> Option<Node> {
    let place = place(table, column)?;
    let kind = match table.kind(column) {
        Some(kind) => kind,
        None if list.iter().all(Value::is_string) => ColumnType::Text,
        None => return None,
    };
    let mut members = Vec::with_capacity(list.len());
    for literal in list {
        members.push(match (kind, literal) {
            (ColumnType::Integer, Value::Number(n)) => match against_integers(Comparison::Eq, n) {
                Bound::Value(_, n) => SqlValue::Integer(n),
                _ => continue,
            },
            (ColumnType::Real, Value::Number(n)) => match against_reals(Comparison::Eq, n) {
                Bound::Value(_, x) => SqlValue::Real(x),
                _ => continue,
            },
            (kind, literal) => encode(table.dialect(), kind, literal).ok()?.into_owned(),
        });
    }
    if members.is_empty() {
        return Some(Node::False);
    }
    if members.len() > MAX_LIST && table.dialect() == Dialect::Sqlite && json_array(&members, values) {
        return Some(Node::InJson(place));
    }
    let count = members.len();
    values.extend(members);
    Some(Node::InList(place, count))
}

/// Binds the list as a JSON array. `false`: it holds what JSON does not carry exactly.
fn json_array(members: &[SqlValue<'static>], values: &mut Vec<SqlValue<'static>>) -> bool {
    let items = members.iter().map(|member| match member {
        SqlValue::Integer(n) => Some(Value::from(*n)),
        SqlValue::Text(text) => Some(Value::from(text.as_ref())),
        _ => None,
    });
    let Some(items) = items.collect::<Option<Vec<_>>>() else { return false };
    values.push(text(&Value::Array(items).to_string()));
    true
}

/// A range, which an index can serve: the bytewise order of UTF-8 is the order of code points.
fn starts_with(place: Place, prefix: &str, values: &mut Vec<SqlValue<'static>>) -> Node {
    values.push(text(prefix));
    let from = Node::Compare(place.clone(), Comparison::Ge);
    let Some(end) = after_prefix(prefix) else { return from };
    values.push(SqlValue::Text(Cow::Owned(end)));
    Node::And(vec![from, Node::Compare(place, Comparison::Lt)])
}

/// The least text that is greater than every text with that prefix.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = (last..=char::MAX).nth(1);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

enum Bound<T> {
    Never,
    Always,
    Value(Comparison, T),
}

/// `integer op n` as a comparison of integers.
fn against_integers(op: Comparison, n: &Number) -> Bound<i64> {
    if let Some(n) = n.as_i64() {
        return Bound::Value(op, n);
    }
    let x = n.as_f64().unwrap_or(f64::INFINITY);
    // The reals within i64: -2^63 is one, 2^63 is the first beyond.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if x >= LIMIT {
        return if op.is_upper() { Bound::Always } else { Bound::Never };
    }
    if x < -LIMIT {
        return if op.is_upper() || op == Comparison::Eq { Bound::Never } else { Bound::Always };
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range, as just checked")]
    let whole = |x: f64| x as i64;
    match op {
        _ if x.fract() == 0.0 => Bound::Value(op, whole(x)),
        Comparison::Eq => Bound::Never,
        Comparison::Lt | Comparison::Le => Bound::Value(Comparison::Le, whole(x.floor())),
        Comparison::Gt | Comparison::Ge => Bound::Value(Comparison::Ge, whole(x.ceil())),
    }
}

/// `real op n` as a comparison of reals.
fn against_reals(op: Comparison, n: &Number) -> Bound<f64> {
    let x = n.as_f64().unwrap_or(f64::INFINITY);
    let rounding = Number::from_f64(x).map_or(std::cmp::Ordering::Equal, |x| storage_core::value::compare_numbers(&x, n));
    match op {
        _ if rounding.is_eq() => Bound::Value(op, x),
        Comparison::Eq => Bound::Never,
        // x is the next real above n, or the next below: no real lies between.
        Comparison::Lt | Comparison::Le => Bound::Value(if rounding.is_gt() { Comparison::Lt } else { Comparison::Le }, x),
        Comparison::Gt | Comparison::Ge => Bound::Value(if rounding.is_gt() { Comparison::Ge } else { Comparison::Gt }, x),
    }
}

fn depth(node: &Node) -> usize {
    match node {
        Node::And(nodes) | Node::Or(nodes) => nodes.len() + nodes.iter().map(depth).max().unwrap_or(0),
        Node::Not(node) => 2 + depth(node),
        _ => 3,
    }
}

impl Node {
    /// The condition with a placeholder for each value, in the order in which [`compile`] yields them.
    pub(crate) fn render(&self, dialect: Dialect) -> Expr {
        match self {
            Self::True => constant(true),
            Self::False => constant(false),
            Self::IsNull(place) => place.presence().is_null(),
            Self::Compare(place, op) => typed(place, place.render().binary(op.oper(), placeholder())),
            Self::InList(place, count) => typed(place, place.render().is_in(vec![0; *count])),
            Self::InJson(place) => typed(place, place.render().in_subquery(json_members())),
            Self::Contains(place) => typed(place, contains(dialect, place.render())),
            Self::Is(name, b) => json_type(name).eq(Expr::cust(if *b { "'true'" } else { "'false'" })),
            Self::Not(node) => match &**node {
                Self::IsNull(place) => place.presence().is_not_null(),
                node => node.render(dialect).binary(BinOper::IsNot, Expr::custom_keyword("TRUE")),
            },
            Self::And(nodes) => join(dialect, nodes, BinOper::And, true),
            Self::Or(nodes) => join(dialect, nodes, BinOper::Or, false),
        }
    }
}

impl Place {
    /// What is null where the value is missing.
    fn presence(&self) -> Expr {
        match self {
            Self::Column(name) => column(name),
            Self::Extra(name) => json_type(name),
        }
    }

    fn render(&self) -> Expr {
        match self {
            Self::Column(name) => column(name),
            Self::Extra(name) => Func::cust("json_extract").arg(Expr::col(ident(EXTRA))).arg(json_path(name)).into(),
        }
    }
}

/// For an undeclared field, that it is text at all.
fn typed(place: &Place, condition: Expr) -> Expr {
    match place {
        Place::Column(_) => condition,
        Place::Extra(name) => json_type(name).eq(Expr::cust("'text'")).and(condition),
    }
}

/// The members of an array that is bound as JSON.
fn json_members() -> SelectStatement {
    let mut select = Query::select();
    select.column("value").from_function(Func::cust("json_each").arg(placeholder()), "members");
    select
}

fn contains(dialect: Dialect, text: Expr) -> Expr {
    let function = match dialect {
        Dialect::Sqlite | Dialect::MySql => Func::cust("instr"),
        Dialect::Postgres => Func::cust("strpos"),
    };
    Expr::from(function.arg(text).arg(placeholder())).gt(Expr::cust("0"))
}

fn join(dialect: Dialect, nodes: &[Node], op: BinOper, empty: bool) -> Expr {
    nodes.iter().map(|n| n.render(dialect)).reduce(|a, b| a.binary(op, b)).unwrap_or_else(|| constant(empty))
}

fn constant(value: bool) -> Expr {
    Expr::cust(if value { "1 = 1" } else { "1 = 0" })
}

/// Stands for a value that is bound later.
pub(crate) fn placeholder() -> Expr {
    Expr::val(0)
}

pub(crate) fn column(name: &ColumnName) -> Expr {
    Expr::col(ident(name.as_str()))
}

fn json_type(name: &ColumnName) -> Expr {
    Func::cust("json_type").arg(Expr::col(ident(EXTRA))).arg(json_path(name)).into()
}

/// Column names are letters, digits, `_` and `-`, so nothing in them needs escaping.
fn json_path(name: &ColumnName) -> Expr {
    Expr::cust(format!("'$.\"{name}\"'"))
}
