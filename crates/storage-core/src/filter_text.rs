//! Filters as text: `status = 'done' and priority > 3`.

use serde_json::{Number, Value};
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned as _, UnaryOperator, Value as Sql,
    ValueWithSpan,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

use crate::value::excerpt;
use crate::{ColumnName, Error, Filter, Result};

/// The longest text of a filter, in bytes.
pub(crate) const MAX_FILTER_TEXT: usize = 256 << 10;
/// How many operators the text may hold: each may be a level of the syntax tree.
const MAX_OPERATORS: usize = 1000;
/// How deep parentheses may be nested: sqlparser takes some 60 KiB of stack for a level in a debug build, and threads have 2 MiB.
const MAX_PARENTHESES: usize = 16;
/// How deep its recursion may be, for what nests without parentheses.
const MAX_RECURSION: usize = 20;
/// Words that are not names of columns, unless they are in double quotes.
const KEYWORDS: [&str; 11] = ["and", "or", "not", "in", "is", "null", "like", "ilike", "between", "true", "false"];
/// Tests of text, written as `starts_with(name, 'a')` or `name starts_with 'a'`.
const TESTS: [&str; 2] = ["starts_with", "contains"];

impl Filter {
    /// Reads a filter from text, in the manner of SQL:
    ///
    /// - `= != <> < <= > >=`, `in (…)`, `not in (…)`, `between … and …`, `is null`, `is not null`, `and`, `or`, `not`, parentheses
    /// - `starts_with(name, 'a')`, `contains(name, 'a')`, also as `name starts_with 'a'`; `like 'a%'` and `like '%a%'` mean the same
    /// - text in single quotes (`'it''s'`), numbers, `true`, `false`, `null`; a column alone is one that is true
    /// - names with a `-`, or like one of the words above, in double quotes
    ///
    /// What it means is what [`Filter`] says, not SQL's three-valued logic: `x != 1` also means records without `x`.
    ///
    /// ```
    /// use storage_core::Filter;
    /// let filter = Filter::parse("status = 'done' and not priority < 3")?;
    /// assert_eq!(filter, Filter::eq("status", "done")? & !Filter::lt("priority", 3)?);
    /// # Ok::<(), storage_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that says what is wrong and where: anything else, or too much of it.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_FILTER_TEXT {
            return Err(Error::invalid(format!("the filter has {} bytes, {MAX_FILTER_TEXT} at most", text.len())));
        }
        if text.trim().is_empty() {
            return Err(Error::invalid("the filter is empty: write one like `status = 'done'`, or none"));
        }
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location();
        let tokens = tokens.map_err(|e| at(e.location, &e.message))?;
        let tokens = infix_tests(prepared(tokens)?);
        let mut parser =
            Parser::new(&PostgreSqlDialect {}).with_recursion_limit(MAX_RECURSION).with_tokens_with_locations(tokens);
        let expression = parser.parse_expr().map_err(parse_error)?;
        let rest = parser.peek_token();
        if rest.token != Token::EOF {
            return Err(at(rest.span.start, &format!("expected `and`, `or` or the end, not `{}`", rest.token)));
        }
        predicate(expression)
    }
}

fn at(place: Location, what: &str) -> Error {
    let line = if place.line > 1 { format!("line {}, ", place.line) } else { String::new() };
    match place.column {
        0 => Error::invalid(format!("the filter can't be read: {what}")),
        column => Error::invalid(format!("the filter can't be read at {line}column {column}: {what}")),
    }
}

fn refuse<T>(expression: &Expr, what: &str) -> Result<T> {
    Err(at(expression.span().start, what))
}

fn parse_error(error: ParserError) -> Error {
    match error {
        ParserError::RecursionLimitExceeded => Error::invalid("the filter can't be read: it is nested too deep"),
        ParserError::ParserError(what) | ParserError::TokenizerError(what) => {
            // sqlparser puts the place at the end.
            let place = what.rsplit_once(" at Line: ").and_then(|(what, place)| {
                let (line, column) = place.split_once(", Column: ")?;
                Some((what.to_owned(), Location { line: line.parse().ok()?, column: column.parse().ok()? }))
            });
            match place {
                Some((what, place)) => at(place, &what.replace("Expected: ", "expected ").replace("found: ", "not ")),
                None => at(Location { line: 0, column: 0 }, &what.replace("Expected: ", "expected ").replace("found: ", "not ")),
            }
        }
    }
}

/// The tokens without spaces. Those that no filter has are refused here, so that the parser's wider language can't be reached, and words
/// that are no keywords of ours become names, whatever they mean in SQL.
fn prepared(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let (mut operators, mut open) = (0, 0_usize);
    // Within `a = 1`, behind its operator: a second one would make a tree as deep as such a chain is long.
    let mut compared = false;
    for mut token in tokens {
        let fail = |what: &str| Err(at(token.span.start, what));
        let behind_value = kept.last().is_some_and(|t| is_value(&t.token));
        match &mut token.token {
            Token::Whitespace(_) | Token::EOF => continue,
            Token::Word(word) if word.quote_style.is_some_and(|quote| quote != '"') => {
                return fail("names are quoted with \", text with '");
            }
            Token::Word(word) if is_keyword(word) => {
                operators += 1;
                let connects = ["and", "or"].iter().any(|k| word.value.eq_ignore_ascii_case(k));
                compared = !connects && (compared || word.value.eq_ignore_ascii_case("is"));
            }
            Token::Word(word) if word.quote_style.is_none() && is_test(word) => {}
            Token::Word(word) => {
                *word = Word { value: word.value.clone(), quote_style: Some('"'), keyword: Keyword::NoKeyword };
            }
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Comma => {}
            Token::LParen => (open, compared) = (open + 1, false),
            Token::RParen => (open, compared) = (open.saturating_sub(1), true),
            Token::Minus if behind_value => {
                return fail("there is no arithmetic; a name with a `-` in it goes into double quotes");
            }
            Token::Minus => {}
            Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => {
                if std::mem::replace(&mut compared, true) {
                    return fail("expected `and` or `or` between two comparisons");
                }
            }
            Token::DoubleEq => return fail("write `=` rather than `==`"),
            Token::StringConcat | Token::Overlap => return fail("write `or` and `and` rather than `||` and `&&`"),
            Token::Period => return fail("fields within a field can't be filtered on"),
            other => return Err(at(token.span.start, &format!("`{other}` is no part of a filter"))),
        }
        if operators > MAX_OPERATORS {
            return fail(&format!("more than {MAX_OPERATORS} of `and`, `or`, `not`, `is` and so on"));
        }
        if open > MAX_PARENTHESES {
            return fail(&format!("parentheses are nested more than {MAX_PARENTHESES} deep"));
        }
        kept.push(token);
    }
    Ok(kept)
}

/// True for what ends a value: a `-` behind it is no sign.
fn is_value(token: &Token) -> bool {
    match token {
        Token::Word(word) => !is_keyword(word),
        token => matches!(token, Token::Number(..) | Token::SingleQuotedString(_) | Token::RParen),
    }
}

fn is_keyword(word: &Word) -> bool {
    word.quote_style.is_none() && KEYWORDS.iter().any(|k| word.value.eq_ignore_ascii_case(k))
}

fn is_test(word: &Word) -> bool {
    TESTS.iter().any(|t| word.value.eq_ignore_ascii_case(t))
}

/// `name starts_with 'a'` → `starts_with(name, 'a')`, `name not contains 'a'` → `not contains(name, 'a')`.
fn infix_tests(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let infix = matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && is_test(word))
            && matches!(tokens.peek().map(|t| &t.token), Some(Token::SingleQuotedString(_)));
        let is_name = |t: Option<&TokenWithSpan>| matches!(t.map(|t| &t.token), Some(Token::Word(word)) if !is_keyword(word));
        let negated = infix
            && matches!(out.last().map(|t| &t.token), Some(Token::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("not"))
            && is_name(out.len().checked_sub(2).and_then(|index| out.get(index)));
        if !infix || !(negated || is_name(out.last())) {
            out.push(token);
            continue;
        }
        let not = if negated { out.pop() } else { None };
        let (Some(name), Some(text)) = (out.pop(), tokens.next()) else { continue };
        let mark = |mark| TokenWithSpan { token: mark, span: token.span };
        let (open, comma, close) = (mark(Token::LParen), mark(Token::Comma), mark(Token::RParen));
        out.extend(not.into_iter().chain([token, open, name, comma, text, close]));
    }
    out
}

/// What a condition means.
fn predicate(expression: Expr) -> Result<Filter> {
    match expression {
        Expr::Nested(inner) => predicate(*inner),
        Expr::BinaryOp { op: BinaryOperator::And, .. } => Ok(Filter::And(chain(expression, &BinaryOperator::And)?)),
        Expr::BinaryOp { op: BinaryOperator::Or, .. } => Ok(Filter::Or(chain(expression, &BinaryOperator::Or)?)),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => Ok(!predicate(*expr)?),
        Expr::BinaryOp { left, op, right } => comparison(*left, &op, *right),
        Expr::IsNull(expr) => Ok(Filter::IsNull(column(&expr)?)),
        Expr::IsNotNull(expr) => Ok(!Filter::IsNull(column(&expr)?)),
        Expr::IsTrue(expr) => Filter::eq(column(&expr)?, true),
        Expr::IsFalse(expr) => Filter::eq(column(&expr)?, false),
        Expr::IsNotTrue(expr) => Filter::ne(column(&expr)?, true),
        Expr::IsNotFalse(expr) => Filter::ne(column(&expr)?, false),
        Expr::InList { expr, list, negated } => {
            let values = list.iter().map(literal).collect::<Result<_>>()?;
            Ok(negate(Filter::In(column(&expr)?, values), negated))
        }
        Expr::Between { expr, negated, low, high } => {
            let column = column(&expr)?;
            let range = Filter::Ge(column.clone(), ordered(&low)?) & Filter::Le(column, ordered(&high)?);
            Ok(negate(range, negated))
        }
        Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
            Ok(negate(like(column(&expr)?, &pattern)?, negated))
        }
        Expr::ILike { .. } => refuse(&expression, "text is compared with its letter case: use `like`"),
        Expr::Function(function) => test(&function),
        Expr::Identifier(_) => Filter::eq(column(&expression)?, true),
        Expr::Value(ValueWithSpan { value: Sql::Boolean(all), .. }) => Ok(if all { Filter::All } else { Filter::Or(Vec::new()) }),
        other => refuse(&other, "expected a comparison like `status = 'done'`"),
    }
}

fn negate(filter: Filter, negated: bool) -> Filter {
    if negated { !filter } else { filter }
}

/// `a and b and c`, which the parser makes a tree of, as deep as the chain is long: taken apart without recursion.
fn chain(mut expression: Expr, operator: &BinaryOperator) -> Result<Vec<Filter>> {
    let mut parts = Vec::new();
    while let Expr::BinaryOp { left, op, right } = expression {
        if op != *operator {
            expression = Expr::BinaryOp { left, op, right };
            break;
        }
        parts.push(*right);
        expression = *left;
    }
    parts.push(expression);
    parts.into_iter().rev().map(predicate).collect()
}

fn comparison(left: Expr, operator: &BinaryOperator, right: Expr) -> Result<Filter> {
    use BinaryOperator as Op;
    let is_column = |e: &Expr| matches!(e, Expr::Identifier(_));
    let (name, value, flipped) = match (is_column(&left), is_column(&right)) {
        (true, true) => return refuse(&right, "two columns can't be compared; text is in single quotes: 'done'"),
        (true, false) => (left, right, false),
        (false, true) => (right, left, true),
        (false, false) => return refuse(&left, "a comparison needs a column on one side and a value on the other"),
    };
    let column = column(&name)?;
    let operator = match (operator, flipped) {
        (Op::Lt, true) => &Op::Gt,
        (Op::LtEq, true) => &Op::GtEq,
        (Op::Gt, true) => &Op::Lt,
        (Op::GtEq, true) => &Op::LtEq,
        (operator, _) => operator,
    };
    match operator {
        Op::Eq => Ok(Filter::Eq(column, literal(&value)?)),
        Op::NotEq => Ok(Filter::Ne(column, literal(&value)?)),
        Op::Lt => Ok(Filter::Lt(column, ordered(&value)?)),
        Op::LtEq => Ok(Filter::Le(column, ordered(&value)?)),
        Op::Gt => Ok(Filter::Gt(column, ordered(&value)?)),
        Op::GtEq => Ok(Filter::Ge(column, ordered(&value)?)),
        other => refuse(&name, &format!("`{other}` is no operator of filters")),
    }
}

fn column(expression: &Expr) -> Result<ColumnName> {
    match expression {
        // A keyword that the parser took for a name.
        Expr::Identifier(name) if name.quote_style.is_none() && KEYWORDS.contains(&&*name.value.to_ascii_lowercase()) => {
            refuse(expression, &format!("expected a condition, not `{name}`"))
        }
        Expr::Identifier(name) => ColumnName::new(&name.value).map_err(|e| at(name.span.start, e.message())),
        Expr::Nested(inner) => column(inner),
        other => refuse(other, "expected the name of a column"),
    }
}

/// A value that has an order.
fn ordered(expression: &Expr) -> Result<Value> {
    match literal(expression)? {
        Value::Null => refuse(expression, "nothing is less or greater than null: use `is null`"),
        value => Ok(value),
    }
}

fn literal(expression: &Expr) -> Result<Value> {
    match expression {
        Expr::Nested(inner) => literal(inner),
        Expr::Value(ValueWithSpan { value, .. }) => match value {
            Sql::Number(digits, false) => number(expression, digits),
            Sql::SingleQuotedString(text) => Ok(Value::from(text.as_str())),
            Sql::Boolean(value) => Ok(Value::from(*value)),
            Sql::Null => Ok(Value::Null),
            other => {
                refuse(expression, &format!("`{other}` is no value: use text in single quotes, a number, true, false or null"))
            }
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match &**expr {
            Expr::Value(ValueWithSpan { value: Sql::Number(digits, false), .. }) => number(expression, &format!("-{digits}")),
            other => refuse(other, "expected a number behind the `-`"),
        },
        Expr::Identifier(name) => refuse(expression, &format!("expected a value; text is in single quotes: '{}'", name.value)),
        other => refuse(other, "expected a value: text in single quotes, a number, true, false or null"),
    }
}

fn number(place: &Expr, digits: &str) -> Result<Value> {
    if let Ok(n) = digits.parse::<i64>() {
        return Ok(Value::from(n));
    }
    if digits.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        let real = digits.parse().ok().and_then(Number::from_f64);
        return real
            .map_or_else(|| refuse(place, &format!("{} is beyond any real number", excerpt(digits))), |n| Ok(Value::Number(n)));
    }
    digits.parse::<u64>().map(Value::from).or_else(|_| refuse(place, &format!("{} is beyond any integer", excerpt(digits))))
}

/// A pattern that has an exact meaning here.
fn like(column: ColumnName, pattern: &Expr) -> Result<Filter> {
    let Value::String(text) = literal(pattern)? else { return refuse(pattern, "expected a pattern in single quotes: 'abc%'") };
    let inner = text.trim_start_matches('%').trim_end_matches('%');
    if inner.is_empty() || inner.contains(['%', '_', '\\']) {
        return refuse(
            pattern,
            "`like` takes 'abc%' or '%abc%' alone, without `_` and `\\`; in starts_with(name, '…') and contains(name, '…') all characters are ordinary",
        );
    }
    match (text.starts_with('%'), text.ends_with('%')) {
        (false, false) => Filter::eq(column, inner),
        (false, true) => Filter::starts_with(column, inner),
        (true, true) => Filter::contains(column, inner),
        (true, false) => refuse(pattern, "there is no test for how a text ends: `like` takes 'abc%' or '%abc%'"),
    }
}

fn test(function: &Function) -> Result<Filter> {
    let call = Expr::Function(function.clone());
    let name = function.name.to_string().to_ascii_lowercase();
    let usage = || refuse(&call, &format!("write it like {name}(name, 'abc')"));
    if !TESTS.contains(&name.as_str()) {
        return refuse(&call, &format!("there is no function {name}: there are starts_with and contains"));
    }
    let FunctionArguments::List(list) = &function.args else { return usage() };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(name_part)), FunctionArg::Unnamed(FunctionArgExpr::Expr(text))] = &*list.args
    else {
        return usage();
    };
    let Value::String(text) = literal(text)? else { return usage() };
    let column = column(name_part)?;
    if name == "contains" { Filter::contains(column, text) } else { Filter::starts_with(column, text) }
}

#[cfg(test)]
mod tests;
