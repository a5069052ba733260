//! The key of an account.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use storage_core::{Error, Result, Secret};

/// One of an account's two keys. Never shown.
#[derive(Clone)]
pub struct AccountKey(Hmac<Sha256>);

impl AccountKey {
    /// Reads a key as the portal shows it.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config) where it is not base64.
    pub fn new(key: &Secret) -> Result<Self> {
        let bad = || Error::config("option `account_key`: not base64");
        let bytes = BASE64_STANDARD.decode(key.expose().trim()).map_err(|_| bad())?;
        if bytes.is_empty() {
            return Err(Error::config("option `account_key` is empty"));
        }
        Ok(Self(Hmac::new_from_slice(&bytes).map_err(|_| bad())?))
    }

    /// HMAC-SHA256 of `text`, in base64.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(text.as_bytes());
        BASE64_STANDARD.encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn keys_are_read_and_not_shown() {
        for bad in ["", "hunter2!", "a"] {
            let error = AccountKey::new(&Secret::new(bad)).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let key = AccountKey::new(&Secret::new(BASE64_STANDARD.encode("Jefe"))).unwrap();
        // RFC 4231, test case 2.
        let expected = "W9zBRr9gdU5qBCQIlcQHV1o56nU5ZJY5ZOwYOWRkOEM=";
        let hex = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let bytes: Vec<u8> = (0..32).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect();
        assert_eq!(key.sign("what do ya want for nothing?"), BASE64_STANDARD.encode(bytes));
        assert_ne!(key.sign("what do ya want for nothing!"), expected);
        assert_eq!(format!("{key:?}"), "***");
    }
}
