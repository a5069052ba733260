//! Shared access signatures of the service, made with an account's key.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use storage_azure::AccountKey;
use storage_core::{Result, Secret, SignedAccess};

use crate::remote::wire::with_query;

const VERSION: &str = "2020-12-06";
/// Clocks differ: a signature holds from a little earlier on.
const EARLIER: Duration = Duration::from_secs(300);

/// The query part that lets whoever has it use one blob. object_store signs the encoded name, which the service does not accept of names that
/// need encoding.
pub(super) fn sign(
    (account, key): (&str, &Secret),
    container: &str,
    blob: &str,
    access: SignedAccess,
    now: DateTime<Utc>,
    expires_in: Duration,
) -> Result<String> {
    let permissions = match access {
        SignedAccess::Get => "r",
        // Create and write: of a blob that is new, and of one that is there.
        SignedAccess::Put => "cw",
    };
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let (start, end) = (time(now - EARLIER), time(now + expires_in));
    let resource = format!("/blob/{account}/{container}/{blob}");
    let nothing = "";
    // Permissions, times, resource, identifier, address, protocol, version, kind of resource, snapshot, encryption scope, five headers.
    let to_sign = [
        permissions,
        &start,
        &end,
        &resource,
        nothing,
        nothing,
        nothing,
        VERSION,
        "b",
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
    ]
    .join("\n");
    let signature = AccountKey::new(key)?.sign(&to_sign);
    let query = [("sv", VERSION), ("sp", permissions), ("st", &start), ("se", &end), ("sr", "b"), ("sig", &signature)];
    Ok(with_query("", &query))
}
