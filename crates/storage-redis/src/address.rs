//! Where the servers are: what a URL says.

use std::fmt;

use percent_encoding::percent_decode_str;
use storage_core::{Error, Result, Secret};

/// The port of a server.
pub(crate) const PORT: u16 = 6379;
/// The port of a sentinel.
pub(crate) const SENTINEL_PORT: u16 = 26379;

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// A user name, and the password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
}

/// A URL behind its scheme: `user:password@host:port,host/path/path`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) credentials: Credentials,
    pub(crate) hosts: Vec<Host>,
    pub(crate) path: Vec<String>,
}

const ADVICE: &str = "write `@`, `:` and `/` in passwords as %40, %3A and %2F";

impl Address {
    /// # Errors
    /// `Config`, without what may be a password.
    pub(crate) fn parse(text: &str, port: u16) -> Result<Self> {
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        // Else half a password would be taken for a path, which errors show.
        if path.contains('@') {
            return Err(Error::config(format!("the URL has an `@` behind its first `/`: {ADVICE}")));
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (read_credentials(credentials)?, hosts),
            None => (Credentials::default(), authority),
        };
        let path = path.split('/').filter(|part| !part.is_empty()).map(|part| decode(part, "the path")).collect::<Result<_>>()?;
        Ok(Self { credentials, hosts: read_hosts(hosts, port)?, path })
    }
}

fn read_credentials(text: &str) -> Result<Credentials> {
    let (username, password) = match text.split_once(':') {
        Some((username, password)) => (username, Some(password)),
        None => (text, None),
    };
    let some = |text: &str, what| if text.is_empty() { Ok(None) } else { decode(text, what).map(Some) };
    Ok(Credentials {
        username: some(username, "the user name")?,
        password: some(password.unwrap_or_default(), "the password")?.map(Secret::from),
    })
}

fn decode(text: &str, what: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| Error::config(format!("{what} in the URL is not UTF-8 behind its %XX")))
}

/// Hosts that commas separate.
///
/// # Errors
/// `Config` for a port that is none, or a host without a name.
pub(crate) fn read_hosts(text: &str, port: u16) -> Result<Vec<Host>> {
    text.split(',').map(str::trim).filter(|host| !host.is_empty()).map(|host| read_host(host, port)).collect()
}

fn read_host(text: &str, port: u16) -> Result<Host> {
    let (name, digits) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => match text.rsplit_once(':') {
            Some((name, digits)) => (name, Some(digits)),
            None => (text, None),
        },
    };
    let number = digits.map_or(Ok(port), str::parse);
    match number {
        Ok(port) if !name.is_empty() && port > 0 => Ok(Host { name: name.to_owned(), port }),
        _ => Err(Error::config(format!("a server in the URL is not of the form HOST:PORT; {ADVICE}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host { name: name.into(), port }
    }

    #[test]
    fn urls_are_taken_apart() {
        let all = Address::parse("joe:p%40ss@a:1,[::1]:2,c/main/3", PORT).unwrap();
        assert_eq!(all.hosts, [host("a", 1), host("::1", 2), host("c", 6379)]);
        assert_eq!(all.path, ["main", "3"]);
        assert_eq!(all.credentials.username.as_deref(), Some("joe"));
        assert_eq!(all.credentials.password.unwrap().expose(), "p@ss");
        let plain = Address::parse("localhost", PORT).unwrap();
        assert_eq!((plain.hosts, plain.credentials), (vec![host("localhost", 6379)], Credentials::default()));
        assert!(Address::parse("", PORT).unwrap().hosts.is_empty());
        let password = Address::parse(":secret@h", PORT).unwrap().credentials;
        assert_eq!((password.username, password.password.unwrap().expose()), (None, "secret"));
    }

    #[test]
    fn bad_urls_do_not_show_passwords() {
        for bad in [
            "joe:hunter2@h:port",
            "joe:hunter2/x@h",
            "joe:6379/hunter2@h",
            "joe:6379/hunter2@h/0",
            "h:0",
            ":6379",
            "joe:hunter2@h:99999",
            "a:%ff@h",
        ] {
            let outcome = Address::parse(bad, PORT);
            let error = outcome.expect_err(bad);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
