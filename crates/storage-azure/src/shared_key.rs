//! SharedKey: how a request is signed with an account's key.

use std::fmt::Write as _;

use crate::AccountKey;

/// The headers that are signed by their values alone, in this order. The date is `x-ms-date`, which is among the others.
const STANDARD: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// A request as it will go out.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// `GET`.
    pub verb: &'a str,
    /// The path of its URL, encoded, with the slash at its beginning.
    pub path: &'a str,
    /// The query of its URL, decoded.
    pub query: &'a [(String, String)],
    /// Its headers, with names in lower case. `x-ms-date` and `x-ms-version` must be among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// How many bytes its body has.
    pub content_length: usize,
}

/// The value of the header `authorization`, for blobs and queues.
#[must_use]
pub fn authorization(account: &str, key: &AccountKey, request: &SignedRequest<'_>) -> String {
    format!("SharedKey {account}:{}", key.sign(&string_to_sign(account, request)))
}

/// The value of the header `authorization`, for tables. Of the query, `comp` alone is signed.
#[must_use]
pub fn table_authorization(account: &str, key: &AccountKey, request: &SignedRequest<'_>) -> String {
    format!("SharedKey {account}:{}", key.sign(&table_string_to_sign(account, request)))
}

fn table_string_to_sign(account: &str, request: &SignedRequest<'_>) -> String {
    let header = |name: &str| request.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| *value);
    let [md5, kind, date] = ["content-md5", "content-type", "x-ms-date"].map(header);
    let comp =
        request.query.iter().find(|(name, _)| name == "comp").map_or_else(String::new, |(_, value)| format!("?comp={value}"));
    format!("{}\n{md5}\n{kind}\n{date}\n/{account}{}{comp}", request.verb, request.path)
}

fn string_to_sign(account: &str, request: &SignedRequest<'_>) -> String {
    let header = |name: &str| request.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| *value);
    let mut text = request.verb.to_owned();
    for name in STANDARD {
        text.push('\n');
        match name {
            // No length is signed as nothing, not as 0.
            "content-length" if request.content_length == 0 => {}
            "content-length" => _ = write!(text, "{}", request.content_length),
            name => text.push_str(header(name)),
        }
    }
    text.push('\n');
    let mut own: Vec<_> = request.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
    own.sort_unstable();
    for (name, value) in own {
        _ = writeln!(text, "{name}:{}", value.trim());
    }
    _ = write!(text, "/{account}{}", request.path);
    let mut query: Vec<(String, &str)> =
        request.query.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
    query.sort_unstable();
    let mut last = None;
    for (name, value) in &query {
        // A name that comes more than once has its values in one line.
        _ = if last == Some(name) { write!(text, ",{value}") } else { write!(text, "\n{name}:{value}") };
        last = Some(name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed() {
        let query = [("visibilitytimeout", "30"), ("a", "2"), ("numofmessages", "1"), ("a", "1")];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers = [
            ("x-ms-version", "2024-11-04"),
            ("accept", "application/xml"),
            ("content-type", "application/xml"),
            ("x-ms-date", "Fri, 27 Nov 2026 00:00:00 GMT"),
        ];
        let mut request =
            SignedRequest { verb: "POST", path: "/acme/q/messages", query: &query, headers: &headers, content_length: 7 };
        let resource = "/acme/acme/q/messages\na:1,2\nnumofmessages:1\nvisibilitytimeout:30";
        let own = "x-ms-date:Fri, 27 Nov 2026 00:00:00 GMT\nx-ms-version:2024-11-04";
        let signed = |length: &str| format!("POST\n\n\n{length}\n\napplication/xml\n\n\n\n\n\n\n{own}\n{resource}");
        assert_eq!(string_to_sign("acme", &request), signed("7"));
        request.content_length = 0;
        assert_eq!(string_to_sign("acme", &request), signed(""));
        let table = "POST\n\napplication/xml\nFri, 27 Nov 2026 00:00:00 GMT\n/acme/acme/q/messages";
        assert_eq!(table_string_to_sign("acme", &request), table);
        request.query = &[];
        assert_eq!(table_string_to_sign("acme", &request), table);
    }
}
