//! `docs/capabilities.md`: what the backends declared while the suites ran, and no case found wrong.
//!
//! Each conformance binary appends to the file that `XTASK_TEST_CAPABILITIES` names, a line of JSON for each component that it opens:
//!
//! ```text
//! {"package":"storage-fs","driver":"fs","component":"records","capabilities":{"alter":true,…}}
//! ```
//!
//! A backend that did not run (no server), or failed a case, keeps the column that it has on the page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::report::{Case, Outcome};
use crate::workspace::Workspace;
use crate::{Failure, Result, doing};

/// The environment variable that names the log.
pub(crate) const VARIABLE: &str = "XTASK_TEST_CAPABILITIES";

/// The sections of the page, and what the log calls them.
const SECTIONS: [(&str, &str); 3] = [("Records", "records"), ("Queues", "queues"), ("Blobs", "blobs")];

/// Capability and cell, of one backend and component.
type Column = BTreeMap<String, String>;

/// Columns by component and driver.
pub(crate) type Measured = BTreeMap<(String, String), Column>;

/// What was declared in a run. Declarations of a package with a failed case are left out, and so is what wrappers say of a driver that has
/// a package of its own. Where a driver was opened in several ways, what holds in all of them counts.
pub(crate) fn measured(workspace: &Workspace, log: &str, cases: &[Case]) -> Result<Measured> {
    let of_backends: BTreeMap<&str, &str> =
        workspace.packages.iter().filter_map(|package| Some((package.backend()?, package.name.as_str()))).collect();
    let failed: BTreeSet<&str> =
        cases.iter().filter(|case| case.outcome == Outcome::Failed).map(|case| case.binary.package.as_str()).collect();
    let mut declared: BTreeMap<(String, String), BTreeMap<String, Value>> = BTreeMap::new();
    for line in log.lines().collect::<BTreeSet<_>>() {
        let broken = || Failure::Failed(format!("{VARIABLE}: not a declaration: {line}"));
        let line: Value = serde_json::from_str(line).map_err(|_| broken())?;
        let text = |field: &str| line[field].as_str().ok_or_else(broken);
        let (package, driver, component) = (text("package")?, text("driver")?, text("component")?);
        let speaks = of_backends.get(driver).map_or_else(|| of_backends.values().any(|p| *p == package), |own| *own == package);
        if !speaks || failed.contains(package) {
            continue;
        }
        let capabilities = line["capabilities"].as_object().ok_or_else(broken)?;
        let column = declared.entry((component.to_owned(), driver.to_owned())).or_default();
        for (name, value) in capabilities {
            column.entry(name.clone()).and_modify(|other| *other = weaker(other, value)).or_insert_with(|| value.clone());
        }
    }
    let cells =
        |column: BTreeMap<String, Value>| column.into_iter().map(|(name, value)| (name.clone(), cell(&name, &value))).collect();
    Ok(declared.into_iter().map(|(key, column)| (key, cells(column))).collect())
}

fn weaker(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Value::Bool(*a && *b),
        (Value::Number(x), Value::Number(y)) if y.as_u64() < x.as_u64() => b.clone(),
        (Value::String(x), Value::String(y)) if reach(y) < reach(x) => b.clone(),
        _ => a.clone(),
    }
}

/// How far a batch reaches, in order.
fn reach(atomic: &str) -> Option<usize> {
    ["record", "partition", "table", "store"].iter().position(|known| *known == atomic)
}

fn cell(capability: &str, declared: &Value) -> String {
    match declared {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if capability.ends_with("bytes") => bytes(number.as_u64().unwrap_or_default()),
        other => other.to_string(),
    }
}

fn bytes(count: u64) -> String {
    match count {
        n if n >= i64::MAX.unsigned_abs() => "the disk's".to_owned(),
        n if n % (1 << 40) == 0 => format!("{} TiB", n >> 40),
        n if n % (1 << 30) == 0 => format!("{} GiB", n >> 30),
        n if n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n if n % (1 << 10) == 0 => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

/// The page with the measured columns in place of those that it had. Other columns and all text stay as they are; new ones come last.
pub(crate) fn updated(page: &str, measured: &Measured) -> Result<String> {
    let mut page = page.to_owned();
    for (title, component) in SECTIONS {
        let head = format!("\n## {title}\n\n");
        let no_section = || Failure::Failed(format!("docs/capabilities.md has no section `{title}` with a table"));
        let start = page.find(&head).ok_or_else(no_section)? + head.len();
        let rows = page[start..].lines().take_while(|line| line.starts_with('|'));
        let rows: Vec<Vec<&str>> = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
        let end = start + page[start..].find("\n\n").map_or(page.len() - start, |end| end + 1);
        let table = table(&rows, component, measured);
        page.replace_range(start..end, &table);
    }
    Ok(page)
}

fn table(rows: &[Vec<&str>], component: &str, measured: &Measured) -> String {
    let mut columns: Vec<(String, Column)> = Vec::new();
    let names = rows.first().map_or(&[][..], |head| &head[1..]);
    for (index, name) in names.iter().enumerate() {
        let cell = |row: &Vec<&str>| Some((row.first()?.trim_matches('`').to_owned(), (*row.get(index + 1)?).to_owned()));
        columns.push(((*name).to_owned(), rows.iter().skip(2).filter_map(cell).collect()));
    }
    for ((_, driver), column) in measured.iter().filter(|((of, _), _)| of == component) {
        match columns.iter_mut().find(|(name, _)| name == driver) {
            Some((_, there)) => there.clone_from(column),
            None => columns.push((driver.clone(), column.clone())),
        }
    }
    let capabilities: BTreeSet<&String> = columns.iter().flat_map(|(_, column)| column.keys()).collect();
    let heads: String = columns.iter().map(|(name, _)| format!(" {name} |")).collect();
    let mut table = format!("| |{heads}\n|---|{}\n", "---|".repeat(columns.len()));
    for capability in capabilities {
        let cells: String =
            columns.iter().map(|(_, column)| format!(" {} |", column.get(capability).map_or("?", String::as_str))).collect();
        table.push_str(&format!("| `{capability}` |{cells}\n"));
    }
    table
}

fn path(workspace: &Workspace) -> PathBuf {
    workspace.root.join("docs/capabilities.md")
}

fn read(workspace: &Workspace) -> Result<String> {
    let path = path(workspace);
    doing(std::fs::read_to_string(&path), || format!("cannot read {}", path.display()))
}

/// Writes the page anew. True where it has changed.
pub(crate) fn write(workspace: &Workspace, measured: &Measured) -> Result<bool> {
    let page = read(workspace)?;
    let updated = updated(&page, measured)?;
    if updated == page {
        return Ok(false);
    }
    let path = path(workspace);
    doing(std::fs::write(&path, updated), || format!("cannot write {}", path.display()))?;
    Ok(true)
}

/// True where the page says what was measured.
pub(crate) fn holds(workspace: &Workspace, measured: &Measured) -> Result<bool> {
    let page = read(workspace)?;
    Ok(updated(&page, measured)? == page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# C\n\ntext\n\n## Records\n\n| | memory | redis |\n|---|---|---|\n| `alter` | yes | – |\n| `max_bytes` | 1 MiB | 2 KiB |\n\n\
                        ## Queues\n\n| | memory |\n|---|---|\n| `peek` | yes |\n\n## Blobs\n\n| | memory |\n|---|---|\n| `create` | yes |\n";

    fn column(cells: &[(&str, &str)]) -> Column {
        cells.iter().map(|(name, cell)| ((*name).to_owned(), (*cell).to_owned())).collect()
    }

    #[test]
    fn columns_that_were_not_measured_stay() {
        assert_eq!(updated(PAGE, &Measured::new()).unwrap(), PAGE);
        let mut measured = Measured::new();
        measured.insert(("records".into(), "memory".into()), column(&[("alter", "–"), ("max_bytes", "1 MiB")]));
        measured.insert(("blobs".into(), "s3".into()), column(&[("create", "yes"), ("new", "–")]));
        let page = updated(PAGE, &measured).unwrap();
        assert!(page.contains("| `alter` | – | – |\n| `max_bytes` | 1 MiB | 2 KiB |\n\n## Queues"), "{page}");
        assert!(page.ends_with("| | memory | s3 |\n|---|---|---|\n| `create` | yes | yes |\n| `new` | ? | – |\n"), "{page}");
        assert_eq!(updated(&page, &measured).unwrap(), page);
        assert!(updated("# C\n", &measured).is_err());
    }

    #[test]
    fn cells_are_for_people() {
        let cells = [
            ("a", true.into()),
            ("a", false.into()),
            ("a", "store".into()),
            ("a", 5.into()),
            ("max_bytes", (3_u64 << 20).into()),
        ];
        let cells = cells.map(|(name, value): (&str, Value)| cell(name, &value));
        assert_eq!(cells, ["yes", "–", "store", "5", "3 MiB"]);
        assert_eq!((weaker(&true.into(), &false.into()), weaker(&5.into(), &3.into())), (false.into(), 3.into()));
        assert_eq!([weaker(&"store".into(), &"table".into()), weaker(&"table".into(), &"store".into())], ["table", "table"]);
    }
}
