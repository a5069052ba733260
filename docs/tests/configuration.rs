//! `configuration.md` against what the facade accepts and what the drivers declare.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use storage_core::{Error, Result};
use storage_facade::{Component, Config, EnvLayer, Registry, Storage};

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("configuration.md")).unwrap()
}

/// The page from a heading to the next of the same level or above.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let level = heading.split(' ').next().unwrap();
    let ends = (2..=level.len()).filter_map(|n| rest.find(&format!("\n{} ", "#".repeat(n))));
    &rest[..ends.min().unwrap_or(rest.len())]
}

/// The rows of the tables in a section, cell by cell, without their heads.
fn rows(section: &str) -> Vec<Vec<String>> {
    let lines = section.lines().filter(|line| line.starts_with('|'));
    let cells = lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    cells.filter(|cells| cells[0].starts_with('`')).collect()
}

fn drivers() -> Registry {
    let mut drivers = Registry::default();
    drivers.register(Arc::new(storage_fs::FsDriver));
    drivers.register(Arc::new(storage_memory::MemoryDriver));
    drivers.register(Arc::new(storage_sqlite::SqliteDriver));
    drivers
}

fn code(cell: &str) -> String {
    cell.split('`').nth(1).unwrap_or_default().to_owned()
}

/// The code blocks in a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split_once("\n```").unwrap().0.to_owned()).collect()
}

fn from_file(ending: &str, text: &str) -> Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("example.{ending}"));
    fs::write(&file, text).unwrap();
    Storage::builder().file(file).no_env().config()
}

fn from_code(component: &str, table: serde_json::Value) -> Result<Config> {
    Storage::builder().no_file().no_env().set(component, table).config()
}

fn from_env(prefix: &str, variables: &[(String, String)]) -> Result<Config> {
    Storage::builder().no_file().env(EnvLayer::of(prefix, variables.to_vec())).config()
}

/// The names that an error for an unknown name lists.
fn listed(error: &Error) -> BTreeSet<String> {
    let (_, names) = error.message().split_once("there are: ").unwrap_or_else(|| panic!("no list in: {error}"));
    names.split(", ").map(str::to_owned).collect()
}

#[test]
fn components_are_those_of_the_facade() {
    let page = page();
    let documented: BTreeMap<_, _> = rows(section(&page, "## Components"))
        .iter()
        .map(|row| (code(&row[0]), row.get(2).cloned().unwrap_or_default()))
        .collect();
    // The one key at the top that is no component has a section of its own.
    assert!(!section(&page, "## Metrics").is_empty());
    let names: BTreeSet<_> = documented.keys().cloned().chain(["metrics".to_owned()]).collect();
    assert_eq!(names, listed(&from_code("qqqq", json!("memory:")).unwrap_err()));
    for component in Component::ALL {
        let needs = component.needs();
        let kinds = [(needs.records, "records"), (needs.queue, "queues"), (needs.blobs, "blobs")];
        let kinds: Vec<_> = kinds.iter().filter(|(on, _)| *on).map(|(_, kind)| *kind).collect();
        assert_eq!(documented[component.key()], kinds.join(" and "), "{component}");
    }
}

#[test]
fn keys_are_those_of_the_facade() {
    let page = page();
    let rows = rows(section(&page, "## Keys of a component"));
    let documented: BTreeSet<_> =
        rows.iter().flat_map(|row| [code(&row[0]), code(&row[1])]).filter(|key| !key.is_empty()).collect();
    assert_eq!(documented, listed(&from_code("records", json!({"qqqq": 1})).unwrap_err()));
}

/// Names, and what is said of them: `Driver::options` is the source.
#[test]
fn options_are_those_of_the_drivers() {
    let page = page();
    let drivers = drivers();
    let documented = page.lines().filter_map(|line| line.strip_prefix("### Driver ")).map(code).collect::<BTreeSet<_>>();
    assert_eq!(documented, drivers.drivers().map(|driver| driver.name().to_owned()).collect());
    for driver in drivers.drivers() {
        let section = section(&page, &format!("### Driver `{}`", driver.name()));
        let documented: Vec<_> = rows(section).iter().map(|row| (code(&row[0]), row[1].clone())).collect();
        let declared: Vec<_> = driver.options().iter().map(|option| (option.name.to_owned(), option.help.to_owned())).collect();
        assert_eq!(documented, declared, "the options of `{}`", driver.name());
        assert_eq!(section.contains("It has no options."), declared.is_empty(), "{}", driver.name());
        for name in driver.schemes().iter().chain(driver.aliases()) {
            assert!(section.contains(&format!("`{name}`")), "`{}` does not mention `{name}`", driver.name());
        }
    }
}

/// Names, and what is said of them: `Settings::KEYS` is the source.
#[test]
fn keys_of_policies_are_those_of_the_layers() {
    use storage_layers::policy::{Breaker, Concurrency, RateLimit, Retry, Settings, Timeouts};
    let page = page();
    let parts = [
        ("timeouts", Timeouts::KEYS),
        ("retry", Retry::KEYS),
        ("breaker", Breaker::KEYS),
        ("rate_limit", RateLimit::KEYS),
        ("concurrency", Concurrency::KEYS),
    ];
    for (part, keys) in parts {
        let section = section(&page, &format!("### Policy `{part}`"));
        let documented: Vec<_> = rows(section).iter().map(|row| (code(&row[0]), row[1].clone())).collect();
        let declared: Vec<_> = keys.iter().map(|key| (key.name.to_owned(), key.help.to_owned())).collect();
        assert_eq!(documented, declared, "{part}");
    }
}

#[test]
fn files_are_accepted() {
    let page = page();
    let mut seen = 0;
    for language in ["toml", "yaml"] {
        for text in blocks(&page, language) {
            match from_file(language, &text) {
                Ok(config) => assert!(!config.components.is_empty() || config.metrics.is_some(), "nothing in: {text}"),
                // Blocks that show `_env` get as far as the variable.
                Err(error) => {
                    assert!(error.message().contains("which is not set") && text.contains("_env"), "{error}\n{text}");
                }
            }
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen} blocks");
}

#[test]
fn variables_are_accepted() {
    let page = page();
    let example = &blocks(&page, "sh")[0];
    let variables: Vec<_> =
        example.lines().map(|l| l.split_once('=').unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let config = from_env("OMNIQ_", &variables).unwrap();
    assert_eq!(config.components.len(), 4);

    let rows = rows(section(&page, "### Environment variables"));
    assert!(rows.len() >= 5);
    for row in rows {
        let (name, key) = (code(&row[0]), code(&row[1]));
        if key == "metrics.listen" {
            let metrics = from_env("STORAGE_", &[(name, "127.0.0.1:9000".to_owned())]).unwrap().metrics.unwrap();
            assert_eq!(metrics.listen, Some("127.0.0.1:9000".parse().unwrap()));
            continue;
        }
        let value = if name.ends_with("POOL_SIZE") { "4" } else { "memory" };
        // Every setting needs a backend beside it.
        let component = key.split('.').next().unwrap().to_uppercase();
        let beside = if key.ends_with(".type") { "URL" } else { "TYPE" };
        let mut variables = vec![(name.clone(), value.to_owned())];
        if key.contains('.') {
            variables.push((format!("STORAGE_{component}_{beside}"), "memory:".to_owned()));
        }
        let config = from_env("STORAGE_", &variables).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = match component.as_str() {
            "DEFAULT" => config.default,
            _ => config.components.into_iter().find(|(c, _)| c.key().to_uppercase() == component).map(|(_, backend)| backend),
        };
        let found = found.unwrap_or_else(|| panic!("{name} does not set {key}"));
        let last = key.rsplit('.').next().unwrap();
        let reached = match last {
            "url" | "blobs" => found.url.is_some_and(|url| url == "memory"),
            "type" => found.driver.is_some_and(|driver| driver == "memory"),
            "pool_size" => found.pool_size == Some(4),
            option => found.options.contains_key(option),
        };
        assert!(reached, "{name} does not reach {key}");
    }
}
