//! Patterns: `*`, `?`, `[…]`, and `**` for any number of folders.

use std::fmt;
use std::sync::Arc;

use clap::Args;
use glob::{MatchOptions, Pattern};
use storage_core::{BlobPath, Error, PathFilter, Result};

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// True where a text may be meant as a pattern.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn compile(text: &str) -> Result<Pattern> {
    Pattern::new(text)
        .map_err(|e| Error::invalid(format!("the pattern `{text}` is broken at character {}: {}", e.pos + 1, e.msg)))
}

/// A path with a pattern in it: the part before it, and what is to match below that.
#[derive(Clone, Debug)]
pub(crate) struct Glob {
    /// The folders before the first that is a pattern, `/`-separated.
    pub(crate) base: String,
    text: String,
    whole: Pattern,
    parts: Vec<Pattern>,
}

impl Glob {
    pub(crate) fn new(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let fixed = parts.iter().take_while(|part| !is_pattern(part)).count();
        let (base, rest) = parts.split_at(fixed);
        // Of `/*` the base is the root.
        let base = if base == [""] { "/".to_owned() } else { base.join("/") };
        Ok(Self {
            base,
            text: text.to_owned(),
            whole: compile(&rest.join("/"))?,
            parts: rest.iter().map(|part| compile(part)).collect::<Result<_>>()?,
        })
    }

    /// The part before the pattern as a blob's path. `None`: there is none.
    pub(crate) fn prefix(&self) -> Result<Option<BlobPath>> {
        super::prefix_of(&self.base)
    }

    /// True where what matches lies directly below the base.
    pub(crate) fn is_one_level(&self) -> bool {
        self.parts.len() == 1 && self.whole.as_str() != "**"
    }

    /// Answers for paths below the base.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match path.strip_suffix('/') {
            None => self.whole.matches_with(path, OPTIONS),
            Some(folder) => self.may_be_below(folder),
        }
    }

    fn may_be_below(&self, folder: &str) -> bool {
        let mut parts = self.parts.iter();
        for name in folder.split('/') {
            match parts.next() {
                Some(part) if part.as_str() == "**" => return true,
                Some(part) if part.matches_with(name, OPTIONS) => {}
                _ => return false,
            }
        }
        parts.next().is_some()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.text)
    }
}

/// Which files of folders take part.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Of folders: only what matches. Without a slash: a name, of a file or of a folder above it; else a path from the top. Several times: any of them
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Of folders: not what matches, whatever is included
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
}

impl Selection {
    /// What is selected, of what matches `glob`. `None`: everything.
    pub(crate) fn filter(&self, glob: Option<Glob>) -> Result<Option<PathFilter>> {
        let rules = |texts: &[String]| texts.iter().map(|text| Rule::new(text)).collect::<Result<Vec<_>>>();
        let (include, exclude) = (rules(&self.include)?, rules(&self.exclude)?);
        if glob.is_none() && include.is_empty() && exclude.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(move |path| {
            let is_folder = path.ends_with('/');
            glob.as_ref().is_none_or(|glob| glob.matches(path))
                && !exclude.iter().any(|rule| rule.matches(path))
                && (is_folder || include.is_empty() || include.iter().any(|rule| rule.matches(path)))
        })))
    }
}

#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    anchored: bool,
    /// It names a folder, for what is below it.
    folder: bool,
}

impl Rule {
    fn new(text: &str) -> Result<Self> {
        let inner = text.strip_suffix("/**").or_else(|| text.strip_suffix('/'));
        let path = inner.unwrap_or(text);
        let anchored = path.contains('/');
        Ok(Self { pattern: compile(path.trim_start_matches('/'))?, anchored, folder: inner.is_some() })
    }

    /// The path itself, or a folder that it is in.
    fn matches(&self, path: &str) -> bool {
        let (path, is_folder) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
        let names: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
        names.iter().enumerate().any(|(index, end)| {
            let start = if self.anchored || index == 0 { 0 } else { names[index - 1] + 1 };
            let last = *end == path.len();
            (!self.folder || !last || is_folder) && self.pattern.matches_with(&path[start..*end], OPTIONS)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_know_folders() {
        let glob = Glob::new("data/2026/**/*.csv").unwrap();
        assert_eq!(glob.base, "data/2026");
        for (path, matches) in [("a.csv", true), ("x/y/a.csv", true), ("a.txt", false), ("x/", true), ("x/y/", true)] {
            assert_eq!(glob.matches(path), matches, "{path}");
        }
        let glob = Glob::new("logs-*/?.gz").unwrap();
        for (path, matches) in [
            ("logs-1/a.gz", true),
            ("logs-1/ab.gz", false),
            ("logs-1/x/a.gz", false),
            ("logs-1/", true),
            ("other/", false),
            ("logs-1/x/", false),
        ] {
            assert_eq!(glob.matches(path), matches, "{path}");
        }
        assert!(Glob::new("*").unwrap().is_one_level() && !Glob::new("**").unwrap().is_one_level());
        assert!(Glob::new("a**b").is_err() && Glob::new("[a").is_err());
    }

    fn selected(include: &[&str], exclude: &[&str], path: &str) -> bool {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let selection = Selection { include: texts(include), exclude: texts(exclude) };
        selection.filter(None).unwrap().is_none_or(|filter| filter(path))
    }

    #[test]
    fn selections() {
        assert!(selected(&[], &[], "a"));
        assert!(!selected(&[], &["*.tmp"], "x/y/a.tmp"));
        assert!(!selected(&[], &["node_modules"], "x/node_modules/"));
        assert!(!selected(&[], &["node_modules"], "x/node_modules/a/b"));
        assert!(selected(&[], &["node_modules/"], "x/node_modules"));
        assert!(!selected(&[], &["cache/**"], "x/cache/"));
        assert!(selected(&[], &["/cache/x"], "y/cache/x") && !selected(&[], &["/cache/x"], "cache/x/z"));
        assert!(selected(&["*.csv"], &[], "x/a.csv") && !selected(&["*.csv"], &[], "x/a.txt"));
        assert!(selected(&["*.csv"], &[], "x/"), "a folder may hold some");
        assert!(!selected(&["*.csv"], &["old"], "old/a.csv"));
        assert!(!selected(&[], &["/top"], "top") && selected(&[], &["a/*"], "x/a/b"));
    }
}
