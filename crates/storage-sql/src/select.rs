//! SELECTs: pages, counts, single records.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sea_query::extension::mysql::{IndexHintScope, MySqlSelectStatementExt as _};
use sea_query::{Expr, ExprTrait, NullOrdering, Order as SqlOrder, Query as SqlQuery, SelectStatement};
use storage_core::{ColumnName, Direction, Filter, KeyPart, Order, Query, Result};

use crate::condition::{Comparison, Node, Place, column, compile, placeholder};
use crate::table::ident;
use crate::{Dialect, EXPIRES_AT, SqlValue, Table, encode, encode_key_part};

/// SQL and the values to bind, in the order of the placeholders.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The text.
    pub sql: Arc<str>,
    /// The values.
    pub values: Vec<SqlValue<'static>>,
}

impl Statement {
    /// The same with another limit, which is the last value of a page's statement.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        if let Some(last) = self.values.last_mut() {
            *last = SqlValue::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        self
    }
}

/// How one page is read.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Statements whose rows, one statement's behind the other's, are the rows from the cursor on, in order. Each is a single range of an index
    /// where one fits; a page seldom needs more than the first. Each ends with a limit: [`Statement::with_limit`].
    pub segments: Vec<Statement>,
    /// What the statements don't decide; `All` in most cases. With any other, the rows are candidates.
    pub rest: Filter,
}

/// What the text of a SELECT depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    counting: bool,
    conditions: Vec<Node>,
    /// Columns, and whether they descend.
    order: Vec<(ColumnName, bool)>,
}

impl Table {
    /// How a page of `query`, which is canonical, is read as of `now`.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for a page token that does not belong to the query.
    pub fn scan(&self, query: &Query, now: DateTime<Utc>) -> Result<Scan> {
        let (conditions, values, rest) = self.conditions(&query.filter, now);
        let limit = SqlValue::Integer(i64::from(query.limit));
        let order: Vec<_> = query.order.iter().map(|o| (o.column.clone(), o.direction == Direction::Descending)).collect();
        let statement = |segment: Segment| {
            let mut conditions = conditions.clone();
            conditions.extend(segment.conditions);
            let mut values = values.clone();
            values.extend(segment.values);
            values.push(limit.clone());
            let shape = Shape { counting: false, conditions, order: order.clone() };
            Statement { sql: self.rendered(shape, |shape| self.render(shape)), values }
        };
        let segments = match query.cursor(self.schema())? {
            None => vec![Segment::default()],
            Some(cursor) => {
                let key: Vec<&KeyPart> = cursor.key.partition.iter().chain([&cursor.key.id]).collect();
                self.segments(&query.order, &cursor.values, &key)?
            }
        };
        Ok(Scan { segments: segments.into_iter().map(statement).collect(), rest })
    }

    /// How the records that match `filter` as of `now` are counted: a statement that yields one number, where the filter that is left is `All`;
    /// else a scan of the candidates.
    ///
    /// # Errors
    /// None at present.
    pub fn count(&self, query: &Query, now: DateTime<Utc>) -> Result<(Statement, Filter)> {
        let (conditions, mut values, rest) = self.conditions(&query.filter, now);
        let counting = rest == Filter::All;
        if !counting {
            values.push(SqlValue::Integer(i64::MAX));
        }
        let shape = Shape { counting, conditions, order: Vec::new() };
        Ok((Statement { sql: self.rendered(shape, |shape| self.render(shape)), values }, rest))
    }

    /// What every row must satisfy, its values, and what is left over.
    fn conditions(&self, filter: &Filter, now: DateTime<Utc>) -> (Vec<Node>, Vec<SqlValue<'static>>, Filter) {
        let mut values = vec![SqlValue::time(self.dialect(), now)];
        let (mut nodes, mut rest) = (Vec::new(), Vec::new());
        for part in filter.conjuncts() {
            match compile(self, part, &mut values) {
                Some(node) => nodes.push(node),
                None => rest.push(part.clone()),
            }
        }
        (nodes, values, Filter::all_of(rest))
    }

    fn render(&self, shape: &Shape) -> String {
        let mut select = SqlQuery::select();
        select.from(ident(self.name()));
        if self.dialect() == Dialect::MySql {
            // It would serve nearly every row, in an order that nobody asked for.
            select.ignore_index(EXPIRES_AT, IndexHintScope::All);
        }
        if shape.counting {
            select.expr(Expr::cust("count(*)"));
        } else {
            select.columns(self.columns().into_iter().map(ident));
        }
        select.and_where(live());
        for node in &shape.conditions {
            select.and_where(node.render(self.dialect()));
        }
        if !shape.counting {
            self.order(&mut select, &shape.order);
            select.limit(0);
        }
        self.dialect().render(&select)
    }

    /// The order with the key as tie-break. Missing values come first ascending, which PostgreSQL must be told.
    fn order(&self, select: &mut SelectStatement, order: &[(ColumnName, bool)]) {
        for (name, descending) in order {
            let (order, nulls) =
                if *descending { (SqlOrder::Desc, NullOrdering::Last) } else { (SqlOrder::Asc, NullOrdering::First) };
            if self.dialect() == Dialect::Postgres && !self.is_required(name) {
                select.order_by_expr_with_nulls(column(name), order, nulls);
            } else {
                select.order_by_expr(column(name), order);
            }
        }
        for key in self.schema().key_columns().filter(|k| order.iter().all(|(o, _)| *o != k.name)) {
            select.order_by_expr(column(&key.name), SqlOrder::Asc);
        }
    }

    /// The rows behind a place, as ranges in order: those that agree with it in all columns but the last come first, then those that agree
    /// in all but the last two, and so on. So no range needs an OR, which no index serves.
    fn segments(&self, order: &[Order], values: &[serde_json::Value], key: &[&KeyPart]) -> Result<Vec<Segment>> {
        let mut places = Vec::new();
        for (order, value) in order.iter().zip(values) {
            let kind = self.kind(&order.column).unwrap_or(storage_core::ColumnType::Text);
            let value = encode(self.dialect(), kind, value)?.into_owned();
            places.push((order.column.clone(), order.direction, value));
        }
        let keys = self.schema().key_columns().zip(key).filter(|(k, _)| order.iter().all(|o| o.column != k.name));
        places.extend(keys.map(|(k, part)| (k.name.clone(), Direction::Ascending, encode_key_part(part).into_owned())));
        let mut segments = Vec::new();
        for last in (0..places.len()).rev() {
            let mut same = Segment::default();
            for (column, _, value) in &places[..last] {
                same.equal(column, value);
            }
            let (column, direction, value) = &places[last];
            same.behind(column, *direction, value, self.is_required(column), &mut segments);
        }
        Ok(segments)
    }
}

/// A range of rows: conditions that must all hold.
#[derive(Clone, Debug, Default)]
struct Segment {
    conditions: Vec<Node>,
    values: Vec<SqlValue<'static>>,
}

impl Segment {
    fn with(mut self, condition: Node, value: Option<&SqlValue<'static>>) -> Self {
        self.conditions.push(condition);
        self.values.extend(value.cloned());
        self
    }

    fn equal(&mut self, column: &ColumnName, value: &SqlValue<'static>) {
        let place = Place::Column(column.clone());
        *self = match value {
            SqlValue::Null => std::mem::take(self).with(Node::IsNull(place), None),
            value => std::mem::take(self).with(Node::Compare(place, Comparison::Eq), Some(value)),
        };
    }

    /// Adds the ranges of this segment in which `column` comes behind `value`.
    fn behind(
        self,
        column: &ColumnName,
        direction: Direction,
        value: &SqlValue<'static>,
        required: bool,
        segments: &mut Vec<Self>,
    ) {
        let place = || Place::Column(column.clone());
        match (direction, value) {
            // Missing values are first ascending and last descending.
            (Direction::Ascending, SqlValue::Null) => {
                segments.push(self.with(Node::Not(Box::new(Node::IsNull(place()))), None));
            }
            (Direction::Descending, SqlValue::Null) => {}
            (Direction::Ascending, value) => segments.push(self.with(Node::Compare(place(), Comparison::Gt), Some(value))),
            (Direction::Descending, value) => {
                segments.push(self.clone().with(Node::Compare(place(), Comparison::Lt), Some(value)));
                if !required {
                    segments.push(self.with(Node::IsNull(place()), None));
                }
            }
        }
    }
}

/// Not expired; binds the present time.
pub(crate) fn live() -> Expr {
    let expires = || Expr::col(ident(EXPIRES_AT));
    expires().is_null().or(expires().gt(placeholder()))
}
