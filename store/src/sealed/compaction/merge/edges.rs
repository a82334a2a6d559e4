//! Merging rollup files: rows of one window and edge are added up, and old rows get wider windows.
//!
//! Files are ordered by window, so one window at a time is in memory. All sums are exact; a file
//! that is not in order costs rows that are not added up, and no sum.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats};
use windrose_proto::time::UnixNanos;

use crate::segment::{BatchEncoder, Encoded};
use crate::tables::{Table, TableError, edges};

/// Rows read at a time from each file, and written at a time: at about 1 KiB a row, 64 files are 32 MiB.
const BATCH_ROWS: usize = 512;

pub(super) fn merge(files: &[Bytes], window_nanos: u64) -> Result<Encoded, TableError> {
    let mut sources = files.iter().map(|file| Source::open(file, window_nanos)).collect::<Result<Vec<_>, _>>()?;
    let mut encoder = BatchEncoder::new(Table::Edges)?;
    let mut done: Vec<EdgeRow> = Vec::new();
    while let Some(window) = sources.iter().filter_map(Source::window).min() {
        let mut cells: BTreeMap<(u64, Arc<EdgeKey>), EdgeStats> = BTreeMap::new();
        for source in &mut sources {
            while source.window() == Some(window) {
                let Some(row) = source.next()? else { break };
                cells.entry((row.window_nanos, row.key)).or_default().merge(&row.stats);
            }
        }
        for ((window_nanos, key), stats) in cells {
            done.push(EdgeRow { window_start: window, window_nanos, key, stats: Arc::new(stats) });
            if done.len() == BATCH_ROWS {
                encoder.write(&edges::to_batch(&std::mem::take(&mut done)))?;
            }
        }
    }
    encoder.write(&edges::to_batch(&done))?;
    Ok(encoder.finish()?)
}

/// The rows of one file in order, with windows of at least the wanted width.
struct Source {
    reader: ParquetRecordBatchReader,
    rows: VecDeque<EdgeRow>,
    window_nanos: u64,
}

impl Source {
    fn open(file: &Bytes, window_nanos: u64) -> Result<Self, TableError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone())?.with_batch_size(BATCH_ROWS).build()?;
        let mut source = Self { reader, rows: VecDeque::new(), window_nanos };
        source.fetch()?;
        Ok(source)
    }

    /// Start of the window of the next row.
    fn window(&self) -> Option<UnixNanos> {
        self.rows.front().map(|row| row.window_start)
    }

    fn next(&mut self) -> Result<Option<EdgeRow>, TableError> {
        let row = self.rows.pop_front();
        self.fetch()?;
        Ok(row)
    }

    fn fetch(&mut self) -> Result<(), TableError> {
        while self.rows.is_empty() {
            let Some(batch) = self.reader.next() else { return Ok(()) };
            self.rows = edges::from_batch(&batch?)?.into();
            for row in self.rows.iter_mut().filter(|row| row.window_nanos < self.window_nanos) {
                row.window_nanos = self.window_nanos;
                row.window_start = row.window_start.window_start(self.window_nanos);
            }
        }
        Ok(())
    }
}
