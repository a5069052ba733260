//! What engines are told. DuckDB's extensions and Spark's connectors are no packages that tests could install: these lists hold the names still, and prove
//! nothing of the engines. Engines on object_store read the data in `peers`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use storage_core::{BlobPath, BlobStore, Driver, DriverConfig, Engine, ErrorKind};
use storage_object::{AzureDriver, GcsDriver, S3Driver};

/// Opens without asking anybody.
async fn open(url: &str) -> BlobStore {
    let driver: &dyn Driver = match url.split_once("://").unwrap().0 {
        "s3" => &S3Driver,
        "gs" => &GcsDriver,
        _ => &AzureDriver,
    };
    let config = DriverConfig { auto_create: false, ..DriverConfig::from_url(url) };
    BlobStore::new(driver.open(&config).await.unwrap().blobs.unwrap())
}

/// Address of the blob `a/b c` and options, one in a line.
async fn told(url: &str, engine: Engine) -> Result<Vec<String>, String> {
    let blobs = open(url).await;
    let uri = blobs.engine_uri(&BlobPath::new("a/b c").unwrap(), engine);
    let shown = match blobs.storage_options(engine) {
        Ok(options) => options,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert_eq!(uri.unwrap_err().kind(), ErrorKind::Unsupported);
            return Err(error.message().to_owned());
        }
    };
    assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
    let options: BTreeMap<_, _> = shown.iter().map(|(name, value)| (name, value.expose())).collect();
    Ok([uri.unwrap()].into_iter().chain(options.into_iter().map(|(name, value)| format!("{name}={value}"))).collect())
}

async fn all(engine: Engine, expected: &[(&str, &[&str])]) {
    for (url, lines) in expected {
        assert_eq!(
            told(url, engine).await.as_deref(),
            Ok(lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>().as_slice()),
            "{url}"
        );
    }
}

async fn refused(engine: Engine, expected: &[(&str, &str)]) {
    for (url, hint) in expected {
        let reason = told(url, engine).await.unwrap_err();
        assert!(reason.contains(hint) && !reason.contains("hunter2"), "{url}: {reason}");
    }
}

const KEYS: &str = "access_key=me&secret_key=hunter2";

#[tokio::test]
async fn duck_db() {
    all(
        Engine::DuckDb,
        &[
            (
                &format!("s3://bucket/p?region=eu-central-1&{KEYS}&session_token=t"),
                &[
                    "s3://bucket/p/a/b c",
                    "KEY_ID=me",
                    "PROVIDER=config",
                    "REGION=eu-central-1",
                    "SECRET=hunter2",
                    "SESSION_TOKEN=t",
                    "TYPE=s3",
                    "URL_STYLE=vhost",
                    "USE_SSL=true",
                ],
            ),
            (
                &format!("s3://bucket?endpoint=http://localhost:9000&{KEYS}"),
                &[
                    "s3://bucket/a/b c",
                    "ENDPOINT=localhost:9000",
                    "KEY_ID=me",
                    "PROVIDER=config",
                    "REGION=us-east-1",
                    "SECRET=hunter2",
                    "TYPE=s3",
                    "URL_STYLE=path",
                    "USE_SSL=false",
                ],
            ),
            (
                "s3://bucket?anonymous=true&region=x",
                &["s3://bucket/a/b c", "PROVIDER=config", "REGION=x", "TYPE=s3", "URL_STYLE=vhost", "USE_SSL=true"],
            ),
            (
                "s3://bucket?region=x",
                &["s3://bucket/a/b c", "PROVIDER=credential_chain", "REGION=x", "TYPE=s3", "URL_STYLE=vhost", "USE_SSL=true"],
            ),
            (
                "az://container/p?account=acme&account_key=aHVudGVyMg==",
                &[
                    "az://container/p/a/b c",
                    "CONNECTION_STRING=DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=aHVudGVyMg==;BlobEndpoint=https://acme.blob.core.windows.net",
                    "TYPE=azure",
                ],
            ),
            (
                "abfss://container@acme.dfs.core.windows.net?client_id=i&client_secret=hunter2&tenant=t",
                &[
                    "az://container/a/b c",
                    "ACCOUNT_NAME=acme",
                    "CLIENT_ID=i",
                    "CLIENT_SECRET=hunter2",
                    "PROVIDER=service_principal",
                    "TENANT_ID=t",
                    "TYPE=azure",
                ],
            ),
            ("az://container?account=acme&anonymous=true", &["az://container/a/b c", "ACCOUNT_NAME=acme", "PROVIDER=config", "TYPE=azure"]),
            ("gs://bucket?anonymous=true", &["gs://bucket/a/b c", "TYPE=gcs"]),
        ],
    )
    .await;
    refused(
        Engine::DuckDb,
        &[
            ("s3://bucket?endpoint=https://host/path&anonymous=true", "has a path"),
            ("az://container?account=acme&token=hunter2&endpoint=https://blobs.acme.example", "ACCOUNT.blob.core.windows.net"),
            ("gs://bucket?token=hunter2", "HMAC"),
        ],
    )
    .await;
}

#[tokio::test]
async fn spark() {
    all(
        Engine::Spark,
        &[
            (
                &format!("s3://bucket/p?region=eu-central-1&{KEYS}&session_token=t"),
                &[
                    "s3a://bucket/p/a/b c",
                    "fs.s3a.access.key=me",
                    "fs.s3a.connection.ssl.enabled=true",
                    "fs.s3a.endpoint.region=eu-central-1",
                    "fs.s3a.path.style.access=false",
                    "fs.s3a.secret.key=hunter2",
                    "fs.s3a.session.token=t",
                ],
            ),
            (
                "s3://bucket?endpoint=http://localhost:9000&anonymous=true",
                &[
                    "s3a://bucket/a/b c",
                    "fs.s3a.aws.credentials.provider=org.apache.hadoop.fs.s3a.AnonymousAWSCredentialsProvider",
                    "fs.s3a.connection.ssl.enabled=false",
                    "fs.s3a.endpoint=http://localhost:9000",
                    "fs.s3a.endpoint.region=us-east-1",
                    "fs.s3a.path.style.access=true",
                ],
            ),
            (
                "az://container/p?account=acme&account_key=aHVudGVyMg==",
                &[
                    "abfss://container@acme.dfs.core.windows.net/p/a/b c",
                    "fs.azure.account.auth.type.acme.dfs.core.windows.net=SharedKey",
                    "fs.azure.account.key.acme.dfs.core.windows.net=aHVudGVyMg==",
                ],
            ),
            (
                "abfss://container@acme.dfs.core.chinacloudapi.cn?sas=sig=hunter2",
                &[
                    "abfss://container@acme.dfs.core.chinacloudapi.cn/a/b c",
                    "fs.azure.account.auth.type.acme.dfs.core.chinacloudapi.cn=SAS",
                    "fs.azure.sas.fixed.token.acme.dfs.core.chinacloudapi.cn=sig=hunter2",
                ],
            ),
            (
                "az://container?account=acme&client_id=i&client_secret=hunter2&tenant=t",
                &[
                    "abfss://container@acme.dfs.core.windows.net/a/b c",
                    "fs.azure.account.auth.type.acme.dfs.core.windows.net=OAuth",
                    "fs.azure.account.oauth.provider.type.acme.dfs.core.windows.net=org.apache.hadoop.fs.azurebfs.oauth2.ClientCredsTokenProvider",
                    "fs.azure.account.oauth2.client.endpoint.acme.dfs.core.windows.net=https://login.microsoftonline.com/t/oauth2/token",
                    "fs.azure.account.oauth2.client.id.acme.dfs.core.windows.net=i",
                    "fs.azure.account.oauth2.client.secret.acme.dfs.core.windows.net=hunter2",
                ],
            ),
            (
                "gs://bucket?anonymous=true&endpoint=http://localhost:4443",
                &["gs://bucket/a/b c", "fs.gs.auth.type=UNAUTHENTICATED", "fs.gs.storage.root.url=http://localhost:4443"],
            ),
        ],
    )
    .await;
    refused(
        Engine::Spark,
        &[
            ("az://container?emulator=true", "not at this endpoint"),
            ("az://container?account=acme&token=hunter2", "no bearer token"),
            ("az://container?account=acme&anonymous=true", "without credentials"),
            ("gs://bucket?token=hunter2", "no bearer token"),
        ],
    )
    .await;
}

#[tokio::test]
async fn engines_on_object_store() {
    all(
        Engine::ObjectStore,
        &[
            (
                "gs://bucket/p?token=hunter2&endpoint=http://localhost:4443",
                &[
                    "gs://bucket/p/a/b c",
                    "google_allow_http=true",
                    "google_base_url=http://localhost:4443",
                    "google_bearer_token=hunter2",
                ],
            ),
            (
                "az://container?account=acme&sas=sig=hunter2",
                &[
                    "az://container/a/b c",
                    "azure_storage_account_name=acme",
                    "azure_storage_endpoint=https://acme.blob.core.windows.net",
                    "azure_storage_sas_key=sig=hunter2",
                ],
            ),
        ],
    )
    .await;
}
