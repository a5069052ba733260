//! Tables for people.

/// How the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table with a head and, if there is one, a last row set apart by a rule.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
    foot: Option<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(head: impl IntoIterator<Item = (S, Align)>) -> Self {
        Self { head: head.into_iter().map(|(name, align)| (name.into(), align)).collect(), rows: Vec::new(), foot: None }
    }

    /// Adds a row. Cells that are missing stay empty, and cells beyond the head are left out.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn foot(&mut self, cells: Vec<String>) {
        self.foot = Some(cells);
    }

    /// The table as lines without blanks at their ends; the last line has no line break.
    pub(crate) fn render(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|(name, _)| name.clone()).collect();
        let widths = self.widths(&head);
        let rule = widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("  ");
        let mut lines = vec![self.line(&head, &widths), rule.clone()];
        lines.extend(self.rows.iter().map(|row| self.line(row, &widths)));
        if let Some(foot) = &self.foot {
            lines.push(rule);
            lines.push(self.line(foot, &widths));
        }
        lines.join("\n")
    }

    fn widths(&self, head: &[String]) -> Vec<usize> {
        let rows = || std::iter::once(head).chain(self.rows.iter().map(Vec::as_slice)).chain(self.foot.as_deref());
        (0..head.len())
            .map(|column| rows().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (index, ((_, align), width)) in self.head.iter().zip(widths).enumerate() {
            let cell = cells.get(index).map_or("", String::as_str);
            if index > 0 {
                line.push_str("  ");
            }
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("suite", Align::Left), ("cases", Align::Right)]);
        table.row(vec!["a — b".to_owned(), "7".to_owned()]);
        table.row(vec!["transactions".to_owned()]);
        table.foot(vec!["total".to_owned(), "1234567".to_owned(), "beyond the head".to_owned()]);
        let expected = "\
suite           cases
────────────  ───────
a — b               7
transactions
────────────  ───────
total         1234567";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn a_table_without_rows_is_its_head() {
        assert_eq!(Table::new([("a", Align::Left)]).render(), "a\n─");
    }
}
