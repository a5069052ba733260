//! Every case is registered, once: a case that is written and forgotten would prove nothing.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;

/// The cases written in the modules of a suite, by theme.
fn written(suite: &str) -> BTreeMap<String, Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(suite);
    let mut themes = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        let cases: Vec<String> = source
            .split("pub async fn ")
            .skip(1)
            .filter_map(|rest| rest.split_once("(h: &dyn Harness) -> CaseResult").map(|(name, _)| name.to_owned()))
            .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
            .collect();
        if !cases.is_empty() {
            themes.insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), cases);
        }
    }
    themes
}

/// The cases that the suite's macro names, by theme.
fn registered(suite: &str) -> BTreeMap<String, Vec<String>> {
    let list = include_str!("../src/suites.rs");
    let (_, list) = list.split_once(&format!("$harness; {suite};")).unwrap();
    let (list, _) = list.split_once("    };").unwrap();
    let mut themes = BTreeMap::new();
    for theme in list.split('}').filter(|theme| theme.contains('{')) {
        let (name, cases) = theme.split_once('{').unwrap();
        let cases = cases.split(',').map(|case| case.trim().to_owned()).filter(|case| !case.is_empty()).collect();
        assert!(themes.insert(name.trim().to_owned(), cases).is_none(), "theme {name} is there twice");
    }
    themes
}

#[test]
fn every_case_is_registered_once() {
    let mut count = 0;
    for suite in ["records", "transactions", "queues", "blobs"] {
        let written = written(suite);
        assert_eq!(registered(suite), written, "{suite}");
        let mut all: Vec<&String> = written.values().flatten().collect();
        count += all.len();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "two cases of {suite} have one name");
    }
    assert!(count >= 130, "only {count} cases");
}
