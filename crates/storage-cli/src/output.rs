//! What a command writes: tables for people, JSON lines for programs.

use std::io::{BufWriter, Stdout, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use comfy_table::{CellAlignment, ContentArrangement, Table};
use console::Term;
use serde::Serialize;

use crate::args::Global;
use crate::exit::Failure;

/// How many rows are laid out together: bounds the memory of a long listing.
const CHUNK: usize = 1000;

/// Standard output, in the form that was asked for.
#[derive(Debug)]
pub(crate) struct Out {
    json: bool,
    quiet: bool,
    writer: Mutex<BufWriter<Stdout>>,
}

impl Out {
    pub(crate) fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet, writer: Mutex::new(BufWriter::with_capacity(1 << 16, std::io::stdout())) }
    }

    /// True where programs read the output.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// True where progress bars make sense.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.quiet && Term::stderr().is_term()
    }

    /// True where a person looks at the output as it comes.
    pub(crate) fn is_terminal(&self) -> bool {
        Term::stdout().is_term()
    }

    fn writer(&self) -> MutexGuard<'_, BufWriter<Stdout>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one JSON object and a line break.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut writer = self.writer();
        serde_json::to_writer(&mut *writer, value)?;
        Ok(writer.write_all(b"\n")?)
    }

    /// Writes a line.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.bytes(text.as_ref().as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.writer().write_all(bytes)?)
    }

    /// Says what was done: JSON for programs, a sentence for people who want to hear it.
    pub(crate) fn done(&self, value: &impl Serialize, sentence: impl FnOnce() -> String) -> Result<(), Failure> {
        match (self.json, self.quiet) {
            (true, _) => self.json(value),
            (false, true) => Ok(()),
            (false, false) => self.line(sentence()),
        }
    }

    /// Says something beside the output, on stderr.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            // Where stderr is gone, there is nobody to tell.
            let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
        }
    }

    /// What was written so far goes out.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        Ok(self.writer().flush()?)
    }

    /// Starts a listing. Headings that begin with `>` are of numbers, to the right.
    pub(crate) fn listing<const N: usize>(&self, headings: [&'static str; N]) -> Listing<'_> {
        self.listing_of(headings.map(str::to_owned).into())
    }

    /// Starts a listing with headings that are known only now.
    pub(crate) fn listing_of(&self, headings: Vec<String>) -> Listing<'_> {
        Listing { out: self, headings, rows: Vec::new(), written: 0 }
    }

    /// Writes names and values below each other.
    pub(crate) fn details<'a>(&self, rows: impl IntoIterator<Item = (&'a str, String)>) -> Result<(), Failure> {
        let rows: Vec<_> = rows.into_iter().collect();
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in rows {
            self.line(format!("{name:width$}  {}", printable(&value)))?;
        }
        Ok(())
    }
}

/// Rows of one kind.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    out: &'a Out,
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    written: u64,
}

impl Listing<'_> {
    /// Adds a row: an object for programs, cells for people.
    pub(crate) fn row(&mut self, value: &impl Serialize, cells: impl FnOnce() -> Vec<String>) -> Result<(), Failure> {
        self.written += 1;
        if self.out.json {
            return self.out.json(value);
        }
        self.rows.push(cells());
        if self.rows.len() >= CHUNK { self.write() } else { Ok(()) }
    }

    /// Writes what is left; answers how many rows there were.
    pub(crate) fn end(mut self) -> Result<u64, Failure> {
        self.write()?;
        self.out.flush()?;
        Ok(self.written)
    }

    fn write(&mut self) -> Result<(), Failure> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if self.out.is_terminal() {
            let (_, width) = Term::stdout().size();
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.max(40));
        }
        table.set_header(self.headings.iter().map(|h| h.trim_start_matches('>')));
        for cells in rows {
            let mut row = comfy_table::Row::from(cells.iter().map(|cell| printable(cell)).collect::<Vec<_>>());
            // One line each: what does not fit ends in dots, `--json` has it all.
            row.max_height(1);
            table.add_row(row);
        }
        for (index, heading) in self.headings.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                if heading.starts_with('>') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        self.out.line(table.trim_fmt())
    }
}

/// Text without what would move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default().collect::<String>());
            escaped.unwrap_or_else(|| c.to_string()).chars().collect::<Vec<_>>()
        })
        .collect()
}

/// A time for people: to the second, UTC.
pub(crate) fn time(at: chrono::DateTime<chrono::Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A size for people: `1.5 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// `1 message`, `2 messages`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", indicatif::HumanCount(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\nü"), "a\\u{1b}[2Jb\\nü");
    }
}
