//! Relative links in Markdown files: the file has to be there, and the heading too.

use std::path::{Path, PathBuf};

use crate::{Result, doing};

/// Folders without documentation of ours.
const LEFT_OUT: [&str; 3] = ["target", "node_modules", ".git"];

/// Checks the Markdown files below `root`. Gives back how many there are, and what is wrong.
///
/// # Errors
///
/// When a file or folder can't be read.
pub(crate) fn check(root: &Path) -> Result<(usize, Vec<String>)> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut problems = Vec::new();
    for file in &files {
        let shown = file.strip_prefix(root).unwrap_or(file).display().to_string();
        for (line, link) in links(&read(file)?) {
            if let Some(problem) = broken(file, &link)? {
                problems.push(format!("{shown}:{line}: link to '{link}': {problem}"));
            }
        }
    }
    Ok((files.len(), problems))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let what = || format!("cannot read the folder {}", folder.display());
    for entry in doing(std::fs::read_dir(folder), what)? {
        let entry = doing(entry, what)?;
        let path = entry.path();
        // Not followed, so a link to a folder above can't make a loop.
        if doing(entry.file_type(), what)?.is_dir() {
            if !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "md") {
            files.push(path);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    doing(std::fs::read_to_string(file), || format!("cannot read {}", file.display()))
}

/// What is wrong with a link in `file`, if anything.
fn broken(file: &Path, link: &str) -> Result<Option<String>> {
    if link.contains("://") || link.starts_with("mailto:") {
        return Ok(None);
    }
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = match file.parent() {
        Some(folder) if !path.is_empty() => folder.join(path),
        _ => file.to_owned(),
    };
    if !target.exists() {
        return Ok(Some("there is no such file".to_owned()));
    }
    if heading.is_empty() || target.extension().is_none_or(|ending| ending != "md") {
        return Ok(None);
    }
    if headings(&read(&target)?).iter().any(|known| known == heading) {
        return Ok(None);
    }
    Ok(Some(format!("there is no heading '#{heading}'")))
}

/// Links with the numbers of their lines: `[text](target)`, `[name]: target`, `href="target"`, `src="target"`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        let mut add = |target: &str| {
            let target = target.trim().trim_start_matches('<');
            let target = target.split([' ', '>']).next().unwrap_or_default();
            if !target.is_empty() {
                links.push((number, target.to_owned()));
            }
        };
        for (start, end) in [("](", ')'), ("href=\"", '"'), ("src=\"", '"')] {
            line.split(start).skip(1).filter_map(|rest| rest.split_once(end)).for_each(|(target, _)| add(target));
        }
        let definition = line.trim_start().strip_prefix('[').filter(|rest| !rest.starts_with('^'));
        if let Some((_, target)) = definition.and_then(|rest| rest.split_once("]: ")) {
            add(target);
        }
    }
    links
}

/// The anchors of headings, as GitHub makes them.
fn headings(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        if !(1..=6).contains(&level) || !title.starts_with(' ') {
            continue;
        }
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
        let mut unique = anchor.clone();
        let mut copy = 0;
        while anchors.contains(&unique) {
            copy += 1;
            unique = format!("{anchor}-{copy}");
        }
        anchors.push(unique);
    }
    anchors
}

/// The lines outside of code blocks, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let mark = ["```", "~~~"].into_iter().find(|mark| line.trim_start().starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((index + 1, line)),
            _ => {}
        }
        None
    })
}

/// A line without what stands between backticks.
fn without_code(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').collect();
    // An odd number of backticks: the last one opens nothing.
    let closed = if parts.len().is_multiple_of(2) { parts.len() - 2 } else { parts.len() };
    parts.iter().enumerate().filter(|(index, _)| *index >= closed || index % 2 == 0).map(|(_, part)| *part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "\
See [one](a.md), ![two](<b.png> \"Title\") and `[no](code.md)`.
```md
[no](fenced.md)
```
[three]: c.md#part
[^note]: not a link
<a href=\"d.md\">four</a> [five](#here) it`s [six](e.md)
";
        let expected = [(1, "a.md"), (1, "b.png"), (5, "c.md#part"), (7, "#here"), (7, "e.md"), (7, "d.md")];
        assert_eq!(links(text), expected.map(|(line, link)| (line, link.to_owned())));
    }

    #[test]
    fn anchors_are_githubs() {
        let text = "# The `get` call, at last!\n## Part\n## Part\n#no\n```\n# no\n```\n### Größe & Maß\n";
        assert_eq!(headings(text), ["the-get-call-at-last", "part", "part-1", "größe--maß"]);
    }

    #[test]
    fn links_that_lead_nowhere_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "README.md",
            "# Top\n[a](docs/a.md#part) [b](docs/b.md) [c](docs/a.md#none) [d](https://x/y) [e](#top) [f](docs)\n",
        );
        write("docs/a.md", "## Part\n[up](../README.md)\n");
        write("target/x.md", "[no](nowhere.md)");
        let (files, problems) = check(folder.path()).unwrap();
        assert_eq!(files, 2);
        let expected = [
            "README.md:2: link to 'docs/b.md': there is no such file",
            "README.md:2: link to 'docs/a.md#none': there is no heading '#none'",
        ];
        assert_eq!(problems, expected);
    }
}
