//! Entity group transactions: many changes of one partition in one request.

use serde_json::Value;
use storage_core::{Error, Result};
use uuid::Uuid;

use crate::client::{Change, json_text, path};
use crate::error::Refusal;
use crate::keys::Place;

/// How many changes one request takes.
pub(crate) const MAX_CHANGES: usize = 100;
/// How many bytes one request takes.
const MAX_BYTES: usize = 4 << 20;

fn one(root: &str, table: &str, place: &Place, change: &Change) -> Result<String> {
    let entity = || format!("{root}/{}", path(table, place));
    let (verb, address, condition, body) = match change {
        Change::Insert(body) | Change::Vacant(body) => ("POST", format!("{root}/{table}"), None, Some(json_text(body)?)),
        Change::Replace(body, etag) => ("PUT", entity(), Some(etag), Some(json_text(body)?)),
        Change::Touch(body, etag) => ("MERGE", entity(), Some(etag), Some(json_text(body)?)),
        Change::Delete(etag) => ("DELETE", entity(), Some(etag), None),
    };
    let mut request = format!("{verb} {address} HTTP/1.1\r\nAccept: application/json;odata=minimalmetadata\r\n");
    request.push_str("DataServiceVersion: 3.0;\r\n");
    if let Some(etag) = condition {
        request.push_str(&format!("If-Match: {etag}\r\n"));
    }
    if body.is_some() {
        request.push_str("Content-Type: application/json\r\nPrefer: return-no-content\r\n");
    }
    Ok(request + "\r\n" + &body.unwrap_or_default() + "\r\n")
}

/// The boundary, and the body.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) where that is too large; [`Unsupported`](storage_core::ErrorKind::Unsupported) where they are of
/// several partitions: the service refuses that, the emulator does not.
pub(crate) fn encode(root: &str, table: &str, changes: &[(Place, Change)]) -> Result<(String, String)> {
    let mut partitions = changes.iter().map(|(place, _)| &place.partition);
    let first = partitions.next();
    if partitions.any(|other| Some(other) != first) {
        return Err(Error::unsupported("the service takes writes of one partition in a batch"));
    }
    if changes.len() > MAX_CHANGES {
        return Err(Error::invalid(format!("a batch of {} writes: the service takes {MAX_CHANGES}", changes.len())));
    }
    let (batch, set) = (format!("batch_{}", Uuid::new_v4()), format!("changeset_{}", Uuid::new_v4()));
    let mut body = format!("--{batch}\r\nContent-Type: multipart/mixed; boundary={set}\r\n\r\n");
    for (place, change) in changes {
        body.push_str(&format!("--{set}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"));
        body.push_str(&one(root, table, place, change)?);
    }
    body.push_str(&format!("--{set}--\r\n--{batch}--\r\n"));
    if body.len() > MAX_BYTES {
        return Err(Error::invalid(format!(
            "the batch has {} bytes, and the service takes {MAX_BYTES}: write fewer records at once",
            body.len()
        )));
    }
    Ok((batch, body))
}

/// The new marks, where all of the changes were made. The answer as a whole is one of success, whatever is in it.
pub(crate) fn decode(body: &[u8], changes: usize) -> Result<Vec<Option<String>>, Refusal> {
    let bad = || Refusal::from(Error::unavailable("the service's answer to a batch can't be read"));
    let body = std::str::from_utf8(body).map_err(|_| bad())?;
    let answers: Vec<&str> = body.split("HTTP/1.1 ").skip(1).collect();
    let mut marks = Vec::with_capacity(answers.len());
    for answer in &answers {
        let status: u16 = answer.get(..3).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
        if !(200..300).contains(&status) {
            let error = answer.find('{').zip(answer.rfind('}')).and_then(|(from, to)| answer.get(from..=to));
            let error: Option<Value> = error.and_then(|error| serde_json::from_str(error).ok());
            let code = error.and_then(|error| error["odata.error"]["code"].as_str().map(str::to_owned));
            return Err(Refusal::of(status, code.unwrap_or_default()));
        }
        let etag = answer.lines().find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("etag")));
        marks.push(etag.map(|(_, etag)| etag.trim().to_owned()));
    }
    if marks.len() == changes { Ok(marks) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use storage_core::ErrorKind;

    use super::*;
    use crate::entity;

    fn insert(partition: &str, row: &str) -> (Place, Change) {
        let place = Place { partition: partition.into(), row: row.into() };
        let change = Change::Insert(entity::bare(&place));
        (place, change)
    }

    #[test]
    fn one_partition_and_its_bounds() {
        let (boundary, body) = encode("http://h/a", "t", &[insert("p", "it's"), insert("p", "b")]).unwrap();
        assert_eq!(body.matches("POST http://h/a/t HTTP/1.1").count(), 2);
        assert!(body.starts_with(&format!("--{boundary}\r\n")) && body.ends_with(&format!("--{boundary}--\r\n")));
        let kind = |changes: &[(Place, Change)]| encode("http://h/a", "t", changes).unwrap_err().kind();
        assert_eq!(kind(&[insert("p", "a"), insert("q", "a")]), ErrorKind::Unsupported);
        assert_eq!(kind(&(0..101).map(|n| insert("p", &n.to_string())).collect::<Vec<_>>()), ErrorKind::InvalidInput);
        let mut large = insert("p", "a");
        if let Change::Insert(entity) = &mut large.1 {
            entity.insert("c".into(), "x".repeat(5 << 20).into());
        }
        assert_eq!(kind(&[large]), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_failure_within_a_success_is_seen() {
        let good =
            b"--b\r\n\r\nHTTP/1.1 204 No Content\r\nETag: W/\"datetime'x'\"\r\n\r\n--c\r\nHTTP/1.1 204 No Content\r\n\r\n--b--";
        assert_eq!(decode(good, 2).unwrap(), [Some("W/\"datetime'x'\"".to_owned()), None]);
        assert!(decode(good, 3).is_err());
        let bad =
            b"--b\r\nHTTP/1.1 409 Conflict\r\n\r\n{\"odata.error\":{\"code\":\"EntityAlreadyExists\",\"message\":{}}}\r\n--b--";
        assert!(decode(bad, 2).unwrap_err().is_overtaken());
        assert!(decode(b"", 1).is_err());
    }
}
