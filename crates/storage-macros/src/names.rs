//! The rules of names, as `storage-core` checks them at run time.

use syn::{Error, LitStr, Result};

/// The longest name, in bytes.
const MAX_LEN: usize = 63;

/// Checks a table, column or index name.
pub(crate) fn check(what: &str, name: &str, span: proc_macro2::Span) -> Result<()> {
    let mut bytes = name.bytes();
    let head_ok = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let tail_ok = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !head_ok || !tail_ok || name.len() > MAX_LEN {
        return Err(Error::new(
            span,
            format!("{name:?} is not {what}: use a letter or `_`, then letters, digits, `_` or `-`, {MAX_LEN} at most"),
        ));
    }
    Ok(())
}

/// Checks a table name.
pub(crate) fn check_table(name: &LitStr) -> Result<()> {
    check("a table name", &name.value(), name.span())?;
    if name.value().to_ascii_lowercase().starts_with("_storage") {
        return Err(Error::new(name.span(), "table names beginning with `_storage` are reserved"));
    }
    Ok(())
}

/// Checks a column name.
pub(crate) fn check_column(name: &str, span: proc_macro2::Span) -> Result<()> {
    check("a column name", name, span)?;
    if let Some(rest) = name.strip_prefix('_') {
        let message = format!("column names beginning with `_` are reserved: name it with `#[entity(column = {rest:?})]`");
        return Err(Error::new(span, message));
    }
    Ok(())
}

/// "; did you mean …", or a list of what there is.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let nearest = known
        .clone()
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("there is: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    }
}
