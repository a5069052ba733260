//! Configurations of existing deployments open unchanged, and land each component where they say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;

use storage_core::ErrorKind;
use storage_facade::{Component, EnvLayer, Storage, StorageBuilder};

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples").join(name)
}

fn from_file(name: &str) -> StorageBuilder {
    Storage::builder().file(example(name)).no_env()
}

/// Opens every component; answers `driver location` of each, with the working directory as `.`.
async fn places(storage: &Storage) -> Vec<(Component, String)> {
    // As the kernel names it: a temporary folder may lie behind a link.
    let here = std::env::current_dir().unwrap().canonicalize().unwrap().display().to_string();
    let mut places = Vec::new();
    for component in Component::ALL {
        let info = storage.info(component).await.unwrap_or_else(|e| panic!("{component}: {e}"));
        places.push((component, info.to_string().replace(&here, ".")));
    }
    places
}

/// Runs a test of this file again in a process of its own, whose working directory is a fresh folder.
fn in_a_fresh_folder(test: &str) -> bool {
    const INSIDE: &str = "EXAMPLES_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture"]).current_dir(folder.path()).env(INSIDE, "1");
    let output = child.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

fn assert_places(places: &[(Component, String)], expected: [&str; 6]) {
    for ((component, place), expected) in places.iter().zip(expected) {
        match expected.strip_suffix('*') {
            Some(start) => assert!(place.starts_with(start), "{component}: {place}, not {expected}"),
            None => assert_eq!(place, expected, "{component}"),
        }
    }
}

/// A task runs from its submission to its result, whatever lies where.
async fn a_task_runs(storage: &Storage) {
    let tasks = storage.tasks().await.unwrap();
    let submitted = tasks.submit("greet", "world", Default::default()).await.unwrap();
    let worker = storage_tasks::TaskWorker::new(
        &tasks,
        storage_tasks::WorkerOptions {
            consumer: storage_core::ConsumerOptions { drain: true, ..Default::default() },
            ..Default::default()
        },
    )
    .on("greet", async |context: storage_tasks::TaskContext| {
        Ok(format!("hello {}", context.task.input.as_str().unwrap_or_default()))
    });
    let report = worker.run(std::future::pending()).await.unwrap();
    assert_eq!(report.done, 1, "{report:?}");
    let id = submitted.task.id();
    let result = storage.results().await.unwrap().get(id.clone()).await.unwrap().unwrap();
    assert_eq!(result.output, Some("hello world".into()));
    let kinds: Vec<_> = storage.events().await.unwrap().of_task(id).await.unwrap().into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds, ["submitted", "started", "succeeded"]);
    assert!(storage.schedules().await.unwrap().list(10, None).await.unwrap().schedules.is_empty());
}

#[tokio::test]
async fn testing_is_all_in_memory() {
    if !in_a_fresh_folder("testing_is_all_in_memory") {
        return;
    }
    let storage = from_file("testing.yaml").open().await.unwrap();
    assert_places(&places(&storage).await, ["memory*"; 6]);
    a_task_runs(&storage).await;
    assert!(std::fs::read_dir(".").unwrap().next().is_none(), "nothing is written");
}

#[tokio::test]
async fn all_sqlite_is_a_file_for_each_component() {
    if !in_a_fresh_folder("all_sqlite_is_a_file_for_each_component") {
        return;
    }
    let storage = from_file("all_sqlite.yaml").open().await.unwrap();
    let expected = [
        "sqlite ./tasks.db",
        "sqlite ./tasks.db",
        "sqlite ./results.db",
        "sqlite ./events.db",
        "sqlite ./schedules.db",
        "fs ./tasks.db-blobs",
    ];
    assert_places(&places(&storage).await, expected);
    a_task_runs(&storage).await;
    storage.close().await.unwrap();
    for file in ["tasks.db", "results.db", "events.db", "schedules.db"] {
        assert!(std::fs::metadata(file).unwrap().len() > 0, "{file}");
    }
}

const MIXED: [&str; 6] =
    ["sqlite ./tasks.db", "sqlite ./tasks.db", "fs ./results", "memory*", "sqlite ./schedules.db", "fs ./tasks.db-blobs"];

#[tokio::test]
async fn mixed_storage_is_where_each_part_says() {
    if !in_a_fresh_folder("mixed_storage_is_where_each_part_says") {
        return;
    }
    let storage = from_file("mixed_storage.yaml").open().await.unwrap();
    assert_places(&places(&storage).await, MIXED);
    let tasks = storage.tasks().await.unwrap();
    assert!(!tasks.is_one_batch(), "events and results are elsewhere");
    a_task_runs(&storage).await;
}

#[tokio::test]
async fn omniq_env_makes_the_same_choice() {
    if !in_a_fresh_folder("omniq_env_makes_the_same_choice") {
        return;
    }
    let text = std::fs::read_to_string(example("omniq.env")).unwrap();
    let variables = text.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned()));
    let env = EnvLayer::of("OMNIQ_", variables);
    let storage = Storage::builder().no_file().env(env).open().await.unwrap();
    assert_places(&places(&storage).await, MIXED);
    a_task_runs(&storage).await;
}

#[tokio::test]
async fn the_platform_layout_opens_s3() {
    const INSIDE: &str = "EXAMPLES_TEST_PLATFORM";
    let builder = from_file("platform.yaml");
    if std::env::var_os(INSIDE).is_none() {
        // Variables are set for a child alone: tests run side by side in one process.
        let missing = builder.config().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Config);
        assert!(missing.message().contains("BRONZE_S3_"), "{missing}");
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["the_platform_layout_opens_s3", "--exact", "--nocapture"]).env(INSIDE, "1");
        child.env("BRONZE_S3_ENDPOINT", "http://127.0.0.1:9").env("BRONZE_S3_ACCESS_KEY", "AKIAEXAMPLE");
        let output = child.env("BRONZE_S3_SECRET_KEY", "hunter2").output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let config = builder.config().unwrap();
    assert_eq!(config.components.keys().copied().collect::<Vec<_>>(), [Component::Blobs]);
    let blobs = &config.components[&Component::Blobs];
    assert_eq!(blobs.driver.as_deref(), Some("s3"));
    assert_eq!(blobs.url.as_deref(), Some("s3://analytics-bronze/bronze"));
    let options = serde_json::json!({"endpoint_url": "http://127.0.0.1:9", "access_key": "AKIAEXAMPLE", "secret_key": "hunter2"});
    assert_eq!(serde_json::Value::Object(blobs.options.clone()), options);
    assert!(!format!("{config:?}").contains("hunter2"));
    #[cfg(not(feature = "s3"))]
    {
        let error = builder.open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("platform.yaml") && error.message().contains("cargo feature `s3`"), "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
    #[cfg(feature = "s3")]
    {
        let storage = builder.open().await.unwrap();
        let info = storage.info(Component::Blobs).await.unwrap();
        assert_eq!(info.to_string(), "s3 s3://analytics-bronze/bronze at http://127.0.0.1:9");
        let blobs = storage.blobs().await.unwrap();
        let options = blobs.storage_options();
        assert_eq!(options["aws_secret_access_key"].expose(), "hunter2");
        for shown in [format!("{storage:?}"), format!("{blobs:?}"), format!("{options:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        // Nobody listens there.
        let error = blobs.ping().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn versioning_keeps_what_tasks_were_and_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:///{}", folder.path().join("x.db").display());
    let open = |versioning: serde_json::Value| {
        Storage::builder().no_file().no_env().set("task_queue", serde_json::json!({"url": url, "versioning": versioning}))
    };
    let (table, key) = ("tasks".parse().unwrap(), storage_tasks::TaskId::from("t").key());
    for (versioning, expected) in
        [(serde_json::json!(true), Some(2)), (serde_json::json!(3), Some(3)), (serde_json::json!(false), None)]
    {
        let storage = open(versioning.clone()).open().await.unwrap();
        let tasks = storage.tasks().await.unwrap();
        tasks.submit("k", 1, storage_tasks::SubmitOptions::default().task_id("t")).await.unwrap();
        tasks.retry("t").await.unwrap();
        let kept = storage.records().await.unwrap().history(&table, key.clone()).await.ok().map(|versions| versions.len());
        assert_eq!(kept, expected, "{versioning}");
        storage.close().await.unwrap();
    }
}

#[test]
fn numbers_are_numbers_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("c.toml", "[task_queue]\nurl = \"memory:\"\npool_size = 4\ntimeout = 30\nversioning = 3\n"),
        ("c.yaml", "task_queue: {url: 'memory:', pool_size: 4, timeout: 30, versioning: 3}"),
        ("c.json", r#"{"task_queue": {"url": "memory:", "pool_size": 4, "timeout": 30, "versioning": 3}}"#),
    ];
    let mut configs = Vec::new();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        configs.push(Storage::builder().file(path).no_env().config().unwrap_or_else(|e| panic!("{name}: {e}")));
    }
    let variables = [("URL", "memory:"), ("POOL_SIZE", "4"), ("TIMEOUT", "30"), ("VERSIONING", "3")];
    let env = EnvLayer::of("STORAGE_", variables.map(|(name, value)| (format!("STORAGE_TASK_QUEUE_{name}"), value.to_owned())));
    configs.push(Storage::builder().no_file().env(env).config().unwrap());
    let table = serde_json::json!({"url": "memory:", "pool_size": 4, "timeout": 30, "versioning": 3});
    configs.push(Storage::builder().no_file().no_env().set("task_queue", table).config().unwrap());
    for config in &configs {
        let records = &config.components[&Component::TaskQueue];
        assert_eq!((records.pool_size, records.timeout), (Some(4), Some(std::time::Duration::from_secs(30))));
        assert_eq!(records.versioning, storage_facade::Versioning::Keep(3));
    }
}
