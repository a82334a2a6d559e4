//! Reading the pages of one target: lines it has sent before cost a hash and a number.

use super::line_table::{LineId, LineTable};
use super::{Dialect, Entry, ErrorKind, Numbers, ParseError, Parser};

/// One line of a page whose target is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// A sample, with the text of its series: [`super::Series::parse`] reads it.
    Sample { line: LineId, series: &'a str, numbers: Numbers<'a> },
    /// Metadata that was not on the target's pages before: type, help or unit of a family.
    Metadata(Entry<'a>),
}

/// Reads a page against what is remembered of the target's lines. `T` is what its user remembers
/// of a line.
#[derive(Debug)]
pub struct PageReader<'a, 't, T> {
    parser: Parser<'a>,
    table: &'t mut LineTable<T>,
}

impl<'a, 't, T: Default> PageReader<'a, 't, T> {
    /// Starts reading the next page of a target.
    #[must_use]
    pub fn new(page: &'a [u8], dialect: Dialect, table: &'t mut LineTable<T>) -> Self {
        table.begin_page();
        Self { parser: Parser::new(page, dialect), table }
    }

    /// Starts reading the same page once more.
    #[must_use]
    pub fn again(page: &'a [u8], dialect: Dialect, table: &'t mut LineTable<T>) -> Self {
        table.reopen_page();
        Self { parser: Parser::new(page, dialect), table }
    }

    /// The next line that says something; `None` at the end of the page.
    ///
    /// # Errors
    /// For a line that cannot be read. Reading may go on with the next.
    pub fn next_line(&mut self) -> Result<Option<Line<'a>>, ParseError<'a>> {
        loop {
            let table = &mut *self.table;
            if let Some((line, series, numbers)) = self.parser.known_sample(|series| table.find(series)) {
                return Ok(Some(Line::Sample { line, series, numbers }));
            }
            if self.parser.skip_known_comment(|comment| table.find(comment).is_some()) {
                continue;
            }
            let (entry, comment) = match self.parser.next_with_text() {
                None => return Ok(None),
                Some(Err(error)) => return Err(error),
                Some(Ok(read)) => read,
            };
            let Entry::Sample(sample) = entry else {
                self.insert(comment)?;
                return Ok(Some(Line::Metadata(entry)));
            };
            let series = sample.series;
            // Blanks where there usually are none hide a known series from the short way.
            let line = match self.table.find(series) {
                Some(line) => line,
                None => self.insert(series)?,
            };
            let numbers =
                Numbers { value: sample.value, timestamp_millis: sample.timestamp_millis, exemplar: sample.exemplar };
            return Ok(Some(Line::Sample { line, series, numbers }));
        }
    }

    /// What is remembered of a line.
    #[must_use]
    pub fn memory(&mut self, line: LineId) -> &mut T {
        self.table.memory_mut(line)
    }

    /// Whether the line read last was not on the target's previous page.
    #[must_use]
    pub const fn is_newcomer(&self) -> bool {
        self.table.is_newcomer()
    }

    fn insert(&mut self, text: &'a str) -> Result<LineId, ParseError<'a>> {
        self.table.insert(text, T::default()).ok_or(ParseError { kind: ErrorKind::TooManySeries, line: text })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Line, PageReader};
    use crate::exposition::line_table::LineTable;
    use crate::exposition::{Dialect, Entry, Numbers, Parser};

    type Read = (String, f64, Option<i64>, bool);

    /// Reads a page against a table; returns the samples, and how many were known.
    fn read(table: &mut LineTable<String>, page: &str, dialect: Dialect) -> Result<(Vec<Read>, usize), String> {
        let mut reader = PageReader::new(page.as_bytes(), dialect, table);
        let (mut samples, mut known) = (Vec::new(), 0);
        while let Some(line) = reader.next_line().map_err(|error| error.to_string())? {
            let Line::Sample { line, series, numbers } = line else { continue };
            let memory = reader.memory(line);
            if memory.is_empty() {
                series.clone_into(memory);
            } else {
                known += 1;
            }
            assert_eq!(memory, series);
            let Numbers { value, timestamp_millis, exemplar } = numbers;
            samples.push((series.to_owned(), value, timestamp_millis, exemplar.is_some()));
        }
        Ok((samples, known))
    }

    fn plainly(page: &str, dialect: Dialect) -> Result<Vec<Read>, String> {
        let entries: Result<Vec<_>, _> = Parser::new(page.as_bytes(), dialect).collect();
        let entries = entries.map_err(|error| error.to_string())?;
        let samples = entries.into_iter().filter_map(|entry| match entry {
            Entry::Sample(sample) => {
                Some((sample.series.to_owned(), sample.value, sample.timestamp_millis, sample.exemplar.is_some()))
            }
            _ => None,
        });
        Ok(samples.collect())
    }

    /// A second reading knows `known` lines and says the same as the first.
    #[track_caller]
    fn check(page: &str, dialect: Dialect, known: usize) {
        let mut table = LineTable::default();
        let first = read(&mut table, page, dialect).unwrap();
        let second = read(&mut table, page, dialect).unwrap();
        assert_eq!(first.0, plainly(page, dialect).unwrap());
        assert_eq!(second.0, first.0);
        assert_eq!(second.1, known, "{page}");
    }

    #[test]
    fn pages_are_known_again() {
        check("# TYPE a counter\na{x=\"1\"} 1\na{x=\"}\"} 2 1700\nb 3\n", Dialect::Text, 3);
        check("a{x=\"1 # {\"} 1 # {t=\"1\"} 0.5 1.5\n# EOF\n", Dialect::OpenMetrics, 1);
        check("c_total 17.0 1.5 # {trace_id=\"f\"} 1\nd 1\n# EOF\n", Dialect::OpenMetrics, 2);
        // A label value that runs over lines, and one that looks like the end of another line.
        check("a{x=\"1\"} 1\na{x=\"\nb 3\n\"} 2\na{x=\"1\"} 1\n", Dialect::Text, 3);
        check("\ta  {x=\"1\"}\t1\nname{} 2\n", Dialect::Text, 2);
        check("{\"a.b\",x=\"1\"} 1\n", Dialect::Text, 1);
    }

    #[test]
    fn a_known_series_with_a_bad_value_is_an_error() {
        for (good, bad, dialect) in [
            ("a{x=\"1\"} 1\n", "a{x=\"1\"} one\n", Dialect::Text),
            ("a 1\n", "a 1 2 3\n", Dialect::Text),
            ("a 1\n# EOF\n", "a 1\n# EOF\na 1\n", Dialect::OpenMetrics),
            ("a 1\n# EOF\n", "a  1\n# EOF\n", Dialect::OpenMetrics),
            ("a 1\n# EOF\n", "a 1\n", Dialect::OpenMetrics),
        ] {
            let mut table = LineTable::default();
            read(&mut table, good, dialect).unwrap();
            assert_eq!(read(&mut table, bad, dialect).err(), plainly(bad, dialect).err(), "{bad}");
        }
    }

    proptest! {
        /// What is remembered of other pages never changes what a page says.
        #[test]
        fn memory_changes_nothing(
            pages in prop::collection::vec("([a-b{}\"=,# 0-3\\\\\n]|a\\{x=\"1\"\\} 2\n|a 1\n|TYPE |# EOF\n){0,12}", 1..6),
            strict in any::<bool>(),
        ) {
            let dialect = if strict { Dialect::OpenMetrics } else { Dialect::Text };
            let mut table = LineTable::default();
            for page in &pages {
                let remembered = read(&mut table, page, dialect).map(|(samples, _)| samples);
                prop_assert_eq!(format!("{remembered:?}"), format!("{:?}", plainly(page, dialect)));
            }
        }
    }
}
