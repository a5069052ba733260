//! The pages as a whole: all of them are tested, and what they show is what is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// Languages of code blocks that are not compiled. `rust` is.
const OTHER_LANGUAGES: [&str; 6] = ["console", "json", "sh", "text", "toml", "yaml"];

struct Block {
    /// The page and the number of the line on which it begins.
    at: String,
    /// What stands behind the fence.
    language: String,
    /// The file of `<!-- source: file -->` on the line before.
    source: Option<String>,
    text: String,
}

fn all_blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| blocks(page)).collect()
}

fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    pages.push(Path::new(FOLDER).join("../README.md"));
    pages
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut before = "";
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                let source = before.strip_prefix("<!-- source: ").and_then(|rest| rest.strip_suffix(" -->"));
                open = Some(Block {
                    at: format!("{}:{}", page.display(), number + 1),
                    language: language.to_owned(),
                    source: source.map(str::to_owned),
                    text: String::new(),
                });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
        before = line;
    }
    assert!(open.is_none(), "{}: a code block without an end", page.display());
    blocks
}

/// A page that `src/lib.rs` does not name would not be compiled.
#[test]
fn every_page_is_compiled() {
    let lib = fs::read_to_string(Path::new(FOLDER).join("src/lib.rs")).unwrap();
    for page in pages() {
        let name = page.file_name().unwrap().to_str().unwrap();
        let has_rust = blocks(&page).iter().any(|block| block.language == "rust");
        assert!(!has_rust || lib.contains(&format!("../{name}\"")), "src/lib.rs does not name {name}");
    }
}

/// Nothing escapes the compiler: a block is Rust as it stands, a file that a test compiles, or of another language.
#[test]
fn every_block_is_compiled_or_of_another_language() {
    let mut seen = 0;
    for block in all_blocks() {
        let Block { at, language, source, .. } = block;
        let is_source = source.is_some() && language == "rust,ignore";
        let fits = is_source || language == "rust" || OTHER_LANGUAGES.contains(&language.as_str());
        assert!(fits, "{at}: language {language:?}");
        seen += 1;
    }
    assert!(seen > 10, "only {seen} blocks found");
}

/// The sources that pages show whole are the ones that tests compile.
#[test]
fn shown_sources_are_the_files() {
    let sources = all_blocks().into_iter().filter(|block| block.source.is_some());
    let mut seen = 0;
    for block in sources {
        let file = Path::new(FOLDER).join(block.source.unwrap());
        let text = fs::read_to_string(&file).unwrap();
        assert!(block.text == text, "{}: the block is not {}: copy the file into the page", block.at, file.display());
        seen += 1;
    }
    assert!(seen > 0, "no page shows a source");
}

/// The page promises so.
#[test]
fn the_tiny_backend_is_tiny() {
    let lines = fs::read_to_string(Path::new(FOLDER).join("examples/tiny_backend.rs")).unwrap().lines().count();
    assert!(lines < 150, "{lines} lines");
}

/// A case of the conformance suites that a page names is there.
#[test]
fn named_cases_are_there() {
    let suites = fs::read_to_string(Path::new(FOLDER).join("../crates/storage-conformance/src/suites.rs")).unwrap();
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let Some((suite, case)) = name.split_once("::") else { continue };
            let Some((_, list)) = suites.split_once(&format!("macro_rules! test_{suite} ")) else { continue };
            let list = list.split("macro_rules!").next().unwrap();
            let there = list.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == case);
            assert!(there, "{}: there is no case `{name}`", page.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} cases named");
}
