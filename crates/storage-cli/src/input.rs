//! What a command reads: JSON, keys, schemas, lines.

use std::path::Path;

use serde_json::Value;
use storage_core::{Error, Fields, Key, KeyPart, KeyType, Result, TableSchema};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _};

/// The largest JSON document or message body that is read from stdin or a file, in bytes.
pub(crate) const MAX_DOCUMENT: u64 = 256 << 20;

/// Reads everything, up to `max` bytes.
pub(crate) async fn read_all(from: impl AsyncRead + Unpin, max: u64, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(max.saturating_add(1)).read_to_end(&mut bytes).await.map_err(|e| Error::from(e).with_subject(what.to_owned()))?;
    if bytes.len() as u64 > max {
        return Err(Error::invalid(format!("{what} has more than {max} bytes, which is too much here")));
    }
    Ok(bytes)
}

/// The argument itself, or stdin where it is `-`.
pub(crate) async fn text_or_stdin(argument: &str, what: &str) -> Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let bytes = read_all(tokio::io::stdin(), MAX_DOCUMENT, "stdin").await?;
    String::from_utf8(bytes).map_err(|e| Error::invalid(format!("{what} on stdin is not UTF-8: {e}")))
}

/// JSON in an argument, or on stdin where it is `-`.
pub(crate) async fn json_or_stdin(argument: &str, what: &str) -> Result<Value> {
    let text = text_or_stdin(argument, what).await?;
    serde_json::from_str(&text)
        .map_err(|e| Error::invalid(format!("{what} is not JSON: {e}; in a shell, put it in single quotes")))
}

/// A JSON object in an argument, or on stdin where it is `-`.
pub(crate) async fn object_or_stdin(argument: &str, what: &str) -> Result<Fields> {
    match json_or_stdin(argument, what).await? {
        Value::Object(fields) => Ok(fields),
        other => Err(Error::invalid(format!("{what} is a JSON object like {{\"name\": \"value\"}}, not {}", kind_of(&other)))),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A key as it is typed: `alice`, `17`, `acme/17` for a table with two key columns, or a JSON array (`["a/b", 17]`) where a part holds a slash.
pub(crate) fn key(schema: &TableSchema, text: &str) -> Result<Key> {
    if schema.partition.is_some()
        && text.starts_with('[')
        && let Ok(Value::Array(parts)) = serde_json::from_str(text)
    {
        return two_parts(schema, &parts);
    }
    let Some(partition) = &schema.partition else { return Ok(Key::new(part(schema, schema.id.kind, text)?)) };
    let Some((first, second)) = text.split_once('/') else {
        return Err(Error::invalid(format!(
            "table `{}` has two key columns, `{}` and `{}`: write the key like {}/{}, not {text:?}",
            schema.name,
            partition.name,
            schema.id.name,
            partition.name.as_str().to_uppercase(),
            schema.id.name.as_str().to_uppercase()
        )));
    };
    Ok(Key::partitioned(part(schema, partition.kind, first)?, part(schema, schema.id.kind, second)?))
}

fn two_parts(schema: &TableSchema, parts: &[Value]) -> Result<Key> {
    let [first, second] = parts else {
        return Err(Error::invalid(format!("a key of table `{}` has two parts, not {}", schema.name, parts.len())));
    };
    let part = |value: &Value| match value {
        Value::String(text) => Ok(KeyPart::Text(text.clone())),
        Value::Number(n) if n.is_i64() => Ok(KeyPart::Integer(n.as_i64().unwrap_or_default())),
        other => Err(Error::invalid(format!("{} can't be a part of a key: text or an integer can", kind_of(other)))),
    };
    Ok(Key::partitioned(part(first)?, part(second)?))
}

fn part(schema: &TableSchema, kind: KeyType, text: &str) -> Result<KeyPart> {
    match kind {
        KeyType::Text => Ok(KeyPart::Text(text.to_owned())),
        KeyType::Integer => text
            .parse()
            .map(KeyPart::Integer)
            .map_err(|_| Error::invalid(format!("the key of table `{}` is an integer, not {text:?}", schema.name))),
    }
}

/// A key for programs: its part, or both in an array.
pub(crate) fn key_value(key: &Key) -> Value {
    let id = storage_core::part_value(&key.id);
    match &key.partition {
        Some(partition) => Value::Array(vec![storage_core::part_value(partition), id]),
        None => id,
    }
}

/// Reads a table's schema from a file: TOML, YAML or JSON by its ending; `-`: JSON or YAML on stdin.
pub(crate) async fn schema(file: &Path) -> Result<TableSchema> {
    const MAX_SCHEMA: u64 = 1 << 20;
    let shown = if file == Path::new("-") { "stdin".to_owned() } else { format!("file {}", file.display()) };
    let bytes = if file == Path::new("-") {
        read_all(tokio::io::stdin(), MAX_SCHEMA, &shown).await?
    } else {
        let opened = tokio::fs::File::open(file).await.map_err(|e| Error::from(e).with_subject(&shown))?;
        read_all(opened, MAX_SCHEMA, &shown).await?
    };
    let text = String::from_utf8(bytes).map_err(|e| Error::invalid(format!("it is not UTF-8: {e}")).with_subject(&shown))?;
    let bad = |form: &str, error: &dyn std::fmt::Display| {
        Error::invalid(format!("not a table's schema in {form}: {error}; `storage table create --help` shows one"))
            .with_subject(&shown)
    };
    let ending = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "toml" => toml::from_str(&text).map_err(|e| bad("TOML", &e.message())),
        "json" => serde_json::from_str(&text).map_err(|e| bad("JSON", &e)),
        "yaml" | "yml" => serde_saphyr::from_str(&text).map_err(|e| bad("YAML", &e)),
        // JSON is YAML too.
        "" => serde_saphyr::from_str(&text).map_err(|e| bad("JSON or YAML", &e)),
        _ => Err(Error::invalid("a schema's file ends with .toml, .yaml, .yml or .json").with_subject(&shown)),
    }
}

/// Reads the next line without its end (`\n` or `\r\n`), in bounded memory. `None` after the last.
pub(crate) async fn next_line(from: &mut (impl AsyncBufRead + Unpin), max: usize) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // Two more than allowed: the line's end, and one to know that it is too long.
    let mut limited = from.take(max as u64 + 3);
    let read = limited.read_until(b'\n', &mut line).await.map_err(|e| Error::from(e).with_subject("stdin"))?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    if line.len() > max {
        return Err(Error::invalid(format!("a line has more than {max} bytes, which no message may have on this backend")));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use storage_core::ColumnType;

    use super::*;

    #[test]
    fn keys_are_read_as_the_schema_says() {
        let text = TableSchema::builder("t").key("id").build().unwrap();
        assert_eq!(key(&text, "a/b").unwrap(), Key::new("a/b"));
        assert_eq!(key(&text, "17").unwrap(), Key::new("17"));
        let number = TableSchema::builder("t").key_of("id", KeyType::Integer).column("x", ColumnType::Text).build().unwrap();
        assert_eq!(key(&number, "-17").unwrap(), Key::new(-17));
        assert!(key(&number, "x").unwrap_err().message().contains("integer"));
        let two = TableSchema::builder("t").partition("tenant", KeyType::Text).key_of("id", KeyType::Integer).build().unwrap();
        assert_eq!(key(&two, "acme/17").unwrap(), Key::partitioned("acme", 17));
        assert_eq!(key(&two, r#"["a/b", 17]"#).unwrap(), Key::partitioned("a/b", 17));
        assert!(key(&two, "acme").unwrap_err().message().contains("TENANT/ID"));
    }

    #[tokio::test]
    async fn lines_are_bounded() {
        let mut input: &[u8] = b"abc\r\n\nabcd";
        assert_eq!(next_line(&mut input, 4).await.unwrap().unwrap(), b"abc");
        assert_eq!(next_line(&mut input, 4).await.unwrap().unwrap(), b"");
        assert!(next_line(&mut input, 3).await.is_err());
        let mut input: &[u8] = b"abc\nx";
        assert_eq!(next_line(&mut input, 3).await.unwrap().unwrap(), b"abc");
        assert_eq!(next_line(&mut input, 3).await.unwrap().unwrap(), b"x");
        assert_eq!(next_line(&mut input, 3).await.unwrap(), None);
    }
}
