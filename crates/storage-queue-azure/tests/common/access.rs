//! What the ways to be known to Azure's services have in common.

use chrono::{SecondsFormat, TimeDelta, Utc};
use storage_azure::{AccountKey, EMULATOR_ACCOUNT, EMULATOR_KEY};
use storage_core::{Error, ErrorKind, Secret};

use super::server::{Server, token};

/// A signature of the emulator's account for one of its services, with these permissions. `rest` is what the version signs at its end.
pub(crate) fn signature(service: char, version: &str, permissions: &str, rest: &str) -> String {
    let end = (Utc::now() + TimeDelta::hours(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let signed = format!("{EMULATOR_ACCOUNT}\n{permissions}\n{service}\nsco\n\n{end}\n\n\n{version}\n{rest}");
    let signature = AccountKey::new(&Secret::new(EMULATOR_KEY)).unwrap().sign(&signed);
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("sv={version}&ss={service}&srt=sco&sp={permissions}&se={}&sig={signature}", end.replace(':', "%3A"))
}

/// Tokens of Entra ID go over TLS. `open` is given the address of the account, a token, and the file of the authority; `round_trip` uses what it opened, and
/// `ping` asks it whether it is there.
pub(crate) async fn tokens_of_entra_id<S>(
    service: &'static str,
    open: impl Fn(&str, String, String) -> S,
    round_trip: impl AsyncFn(&S),
    ping: impl AsyncFn(&S) -> Result<(), Error>,
) {
    let folder = tempfile::tempdir().unwrap();
    if let Err(reason) = storage_conformance::certificates::authority(folder.path(), "ca") {
        return storage_conformance::skip(&reason);
    }
    let [key, certificate, authority] =
        ["ca-own.key", "ca-own.pem", "ca.pem"].map(|name| folder.path().join(name).display().to_string());
    let Some(server) = Server::start_or_skip(service, &["--cert", &certificate, "--key", &key, "--oauth", "basic"]) else {
        return;
    };
    let endpoint = format!("https://127.0.0.1:{}/{EMULATOR_ACCOUNT}", server.port());
    round_trip(&open(&endpoint, token(TimeDelta::hours(1)), authority.clone())).await;
    let expired = token(TimeDelta::hours(-1));
    let error = ping(&open(&endpoint, expired.clone(), authority)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    assert!(!format!("{error:?}").contains(&expired));
}
