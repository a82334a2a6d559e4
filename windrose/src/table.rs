//! Plain tables for the terminal: aligned columns, numbers to the right, nothing else.

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows under titles.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Longest cell shown; longer ones are cut with an ellipsis so that a row stays one line.
const CELL_MAX_CHARS: usize = 60;

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with one cell per column.
    pub fn push(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell per column");
        self.rows.push(cells.into_iter().map(|cell| shorten(&cell)).collect());
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The first `rows` rows.
    #[must_use]
    pub fn truncated(mut self, rows: usize) -> Self {
        self.rows.truncate(rows);
        self
    }

    /// The table as lines, without trailing blanks.
    #[must_use]
    pub fn render(&self) -> String {
        let width = |column: usize, title: &str| {
            self.rows.iter().map(|row| row[column].chars().count()).chain([title.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(column, (title, _))| width(column, title)).collect();
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        std::iter::once(&titles)
            .chain(&self.rows)
            .map(|row| self.render_row(row, &widths))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn render_row(&self, row: &[String], widths: &[usize]) -> String {
        let cells = row.iter().zip(widths).zip(&self.columns).map(|((cell, width), (_, align))| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// Cuts in the middle: names differ at their ends.
fn shorten(cell: &str) -> String {
    let chars: Vec<char> = cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if chars.len() <= CELL_MAX_CHARS {
        return chars.into_iter().collect();
    }
    let half = (CELL_MAX_CHARS - 1) / 2;
    let head = chars[..CELL_MAX_CHARS - 1 - half].iter();
    let tail = chars[chars.len() - half..].iter();
    head.chain(std::iter::once(&'…')).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[("EDGE", Align::Left), ("RPS", Align::Right), ("NOTE", Align::Left)]);
        table.push(vec!["a → b".to_owned(), "12.5".to_owned(), String::new()]);
        table.push(vec!["gateway → orders".to_owned(), "3".to_owned(), "ok".to_owned()]);
        assert_eq!(table.render(), "EDGE               RPS  NOTE\na → b             12.5\ngateway → orders     3  ok");
    }

    #[test]
    fn hostile_cells_cannot_break_the_line_or_the_terminal() {
        let mut table = Table::new(&[("NAME", Align::Left)]);
        table.push(vec![format!("\x1b[2J{}\nend", "x".repeat(500))]);
        let text = table.render();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\x1b'));
        assert!(text.lines().all(|line| line.chars().count() <= CELL_MAX_CHARS));
        assert!(text.ends_with("end"));
    }
}
