//! Reading blocks: an index of their series, and a cache of their row groups.
//!
//! The series of blocks are mostly the same. So a tenant has one index for all blocks that were
//! looked at, by `series_id`: labels are decoded once, and for every further block only numbers are
//! kept. Row groups are kept as chunks, a tenth of what they take decoded, within a budget of bytes;
//! what was used longest ago goes first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use hashbrown::HashMap;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use roaring::RoaringBitmap;
use windrose_proto::metric::{Exemplar, Labels, Matcher};

use super::catalog::{Block, FileFacts};
use super::encode::ROWS_PER_GROUP;
use super::tables::{self, BadColumn, SeriesRow, Texts};
use crate::metrics::chunk::Chunk;
use crate::metrics::index::{SeriesIndex, Slot};
use crate::metrics::reader::{ReadError, ReadLimits};
use crate::segment::Failure;
use crate::segment::file_reader::FileReader;

/// Rows per batch when a whole file is read.
const BATCH_ROWS: usize = 8 * 1024;

/// What one tenant's readers know of its blocks.
#[derive(Debug)]
pub(in crate::metrics) struct Archive {
    store: Arc<dyn ObjectStore>,
    known: Mutex<Known>,
    groups: Arc<GroupCache>,
}

/// Series of the blocks looked at so far.
#[derive(Debug, Default)]
struct Known {
    index: SeriesIndex,
    by_id: HashMap<u64, Slot>,
    /// By the name of the block.
    blocks: HashMap<String, Arc<BlockRows>>,
}

/// Where the samples of a block's series are.
#[derive(Debug, Default)]
struct BlockRows {
    slots: RoaringBitmap,
    /// In the order of `slots`: first row and number of rows in the file of samples.
    rows: Vec<(u32, u32)>,
}

/// A series found in blocks.
#[derive(Debug)]
pub(in crate::metrics) struct Found {
    pub(in crate::metrics) id: u64,
    pub(in crate::metrics) labels: Labels,
    pub(in crate::metrics) chunks: Vec<Chunk>,
}

/// Rows of one block that a query wants.
struct Wanted {
    block: Arc<Block>,
    /// Place among the found series, first row, number of rows.
    rows: Vec<(usize, u32, u32)>,
}

impl Archive {
    pub(in crate::metrics) fn new(store: Arc<dyn ObjectStore>, groups: Arc<GroupCache>) -> Self {
        Self { store, known: Mutex::default(), groups }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series of `blocks` that satisfy all matchers, in label order, with the chunks that may
    /// have samples in the range.
    pub(in crate::metrics) async fn select(
        &self,
        blocks: &[Arc<Block>],
        matchers: &[Matcher],
        (min_ms, max_ms): (i64, i64),
        limits: ReadLimits,
    ) -> Result<Vec<Found>, ReadError> {
        self.load(blocks).await?;
        let (mut found, wanted) = self.plan(blocks, matchers, limits)?;
        let mut samples = 0;
        for Wanted { block, rows } in wanted {
            let Some(file) = &block.samples else { continue };
            let mut group: Option<(usize, Arc<Vec<Vec<Chunk>>>)> = None;
            for row_of in
                rows.into_iter().flat_map(|(place, first, count)| (first..first + count).map(move |row| (place, row)))
            {
                let (place, row) = row_of;
                let number = row as usize / ROWS_PER_GROUP;
                if group.as_ref().is_none_or(|(known, _)| *known != number) {
                    let read = self.group(&block, file, number).await;
                    let Some(chunks) = quarantine_damage(&block, file, read)? else { break };
                    group = Some((number, chunks));
                }
                let chunks = group.as_ref().and_then(|(_, rows)| rows.get(row as usize % ROWS_PER_GROUP));
                for chunk in chunks.into_iter().flatten().filter(|chunk| chunk.overlaps(min_ms, max_ms)) {
                    samples += chunk.count() as u64;
                    found[place].chunks.push(chunk.clone());
                }
                if samples > limits.max_samples {
                    return Err(ReadError::TooManySamples { samples, limit: limits.max_samples });
                }
            }
        }
        Ok(found)
    }

    /// Which series match, and which rows of which blocks hold their samples.
    fn plan(
        &self,
        blocks: &[Arc<Block>],
        matchers: &[Matcher],
        limits: ReadLimits,
    ) -> Result<(Vec<Found>, Vec<Wanted>), ReadError> {
        let known = self.known();
        let rows: Vec<(&Arc<Block>, &Arc<BlockRows>)> =
            blocks.iter().filter_map(|block| Some((block, known.blocks.get(&block.name)?))).collect();
        let listed: RoaringBitmap = rows.iter().fold(RoaringBitmap::new(), |all, (_, rows)| all | &rows.slots);
        let matching = known.index.select(matchers) & listed;
        if matching.len() > limits.max_series as u64 {
            return Err(ReadError::TooManySeries { series: matching.len() as usize, limit: limits.max_series });
        }
        let mut slots: Vec<Slot> = matching.iter().collect();
        slots.sort_by(|left, right| known.index.compare(*left, *right));
        let found =
            |slot: &Slot| Found { id: known.index.id_of(*slot), labels: known.index.labels(*slot), chunks: Vec::new() };
        let places: HashMap<Slot, usize> = slots.iter().enumerate().map(|(place, slot)| (*slot, place)).collect();
        let wanted = rows.into_iter().map(|(block, rows)| {
            let mut wanted: Vec<(usize, u32, u32)> = (&matching & &rows.slots)
                .iter()
                .map(|slot| {
                    let (first, count) = rows.rows[rows.slots.rank(slot) as usize - 1];
                    (places[&slot], first, count)
                })
                .collect();
            // In the order of the file, so that each row group is needed once.
            wanted.sort_unstable_by_key(|(_, first, _)| *first);
            Wanted { block: Arc::clone(block), rows: wanted }
        });
        let wanted = wanted.collect();
        Ok((slots.iter().map(found).collect(), wanted))
    }

    /// Looks at the series of `blocks` that match one of `sets`; at all of them without sets.
    pub(in crate::metrics) async fn with_series<T>(
        &self,
        blocks: &[Arc<Block>],
        sets: &[Vec<Matcher>],
        look: impl FnOnce(&SeriesIndex, &RoaringBitmap) -> T,
    ) -> Result<T, ReadError> {
        self.load(blocks).await?;
        let known = self.known();
        let rows = blocks.iter().filter_map(|block| known.blocks.get(&block.name));
        let mut slots = rows.fold(RoaringBitmap::new(), |all, rows| all | &rows.slots);
        if !sets.is_empty() {
            slots &= known.index.select_any(sets);
        }
        Ok(look(&known.index, &slots))
    }

    /// The exemplars of `blocks` whose series match one of `sets`.
    pub(in crate::metrics) async fn exemplars(
        &self,
        blocks: &[Arc<Block>],
        sets: &[Vec<Matcher>],
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, ReadError> {
        let mut found: Vec<(Labels, Vec<Exemplar>)> = self
            .with_series(blocks, sets, |index, slots| slots.iter().map(|slot| (index.labels(slot), vec![])).collect())
            .await?;
        let id_of = |labels: &Labels| {
            crate::metrics::label_hash::label_hash(labels.iter().map(|label| (&*label.name, &*label.value)))
        };
        let places: HashMap<u64, usize> =
            found.iter().enumerate().map(|(place, (labels, _))| (id_of(labels), place)).collect();
        for block in blocks {
            let Some(file) = &block.exemplars else { continue };
            let read = self.read_file(file).await.and_then(|batches| {
                let rows: Result<Vec<_>, BadColumn> = batches.iter().map(tables::read_exemplars).collect();
                rows.map_err(damaged)
            });
            for row in quarantine_damage(block, file, read)?.into_iter().flatten().flatten() {
                if let Some(place) = places.get(&row.series_id) {
                    found[*place].1.push(row.exemplar);
                }
            }
        }
        found.retain(|(_, exemplars)| !exemplars.is_empty());
        Ok(found)
    }

    // ── loading ────────────────────────────────────────────────────────────────────────────────

    /// Makes the series of `blocks` known.
    async fn load(&self, blocks: &[Arc<Block>]) -> Result<(), ReadError> {
        for block in blocks {
            if self.known().blocks.contains_key(&block.name) {
                continue;
            }
            let read = self.read_file(&block.series).await;
            let Some(batches) = quarantine_damage(block, &block.series, read)? else { continue };
            let taken = self.known().take(block, &batches);
            quarantine_damage(block, &block.series, taken.map_err(damaged))?;
        }
        // Blocks that retention removed or that nobody asks for any more are forgotten with the rest.
        let mut known = self.known();
        if known.bytes() > self.groups.budget_bytes {
            let wanted: HashMap<String, Arc<BlockRows>> = known
                .blocks
                .iter()
                .filter(|(name, _)| blocks.iter().any(|block| block.name == **name))
                .map(|(name, rows)| (name.clone(), Arc::clone(rows)))
                .collect();
            if wanted.len() < known.blocks.len() {
                known.keep_only(wanted);
            }
        }
        Ok(())
    }

    async fn read_file(&self, file: &FileFacts) -> Result<Vec<RecordBatch>, Failure> {
        let content = self.store.get(&file.path).await?.bytes().await?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(content)?.with_batch_size(BATCH_ROWS).build()?;
        reader.collect::<Result<_, _>>().map_err(|error| Failure::Damaged(error.to_string()))
    }

    /// The chunks of each row of a row group.
    async fn group(&self, block: &Block, file: &FileFacts, number: usize) -> Result<Arc<Vec<Vec<Chunk>>>, Failure> {
        if let Some(known) = self.groups.get(&block.name, number) {
            return Ok(known);
        }
        let mut reader = FileReader { store: Arc::clone(&self.store), path: file.path.clone(), bytes: file.bytes };
        let metadata = match self.groups.metadata(&block.name) {
            Some(metadata) => metadata,
            None => {
                let read = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await?;
                self.groups.insert_metadata(&block.name, &read);
                read
            }
        };
        if number >= metadata.metadata().num_row_groups() {
            return Err(Failure::Damaged("the file of series names rows beyond the end of the samples".to_owned()));
        }
        let batches: Vec<RecordBatch> = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_row_groups(vec![number])
            .with_batch_size(ROWS_PER_GROUP)
            .build()?
            .try_collect()
            .await?;
        let mut rows = Vec::with_capacity(ROWS_PER_GROUP);
        for batch in &batches {
            for row in tables::read_samples(batch).map_err(damaged)? {
                rows.push(row.to_chunks().map_err(damaged)?);
            }
        }
        let rows = Arc::new(rows);
        self.groups.insert(&block.name, number, &rows);
        Ok(rows)
    }
}

fn damaged(error: impl std::error::Error) -> Failure {
    Failure::Damaged(error.to_string())
}

/// `None` for a damaged block, which is left out from now on.
fn quarantine_damage<T>(block: &Block, file: &FileFacts, read: Result<T, Failure>) -> Result<Option<T>, ReadError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Failure::Damaged(reason)) => {
            block.quarantine(reason);
            Ok(None)
        }
        Err(Failure::Store(source)) => Err(ReadError::Store { path: file.path.clone(), source }),
    }
}

impl Known {
    fn take(&mut self, block: &Block, batches: &[RecordBatch]) -> Result<(), BadColumn> {
        let mut texts = Texts::default();
        let mut entries: Vec<(Slot, u32, u32)> = Vec::new();
        for batch in batches {
            let by_id = &self.by_id;
            let rows = tables::read_series(batch, &mut texts, |id| by_id.contains_key(&id))?;
            for SeriesRow { series_id, labels, samples_row, samples_rows, .. } in rows {
                let index = &mut self.index;
                let slot = *self.by_id.entry(series_id).or_insert_with(|| {
                    let pairs = labels.iter().map(|label| (&*label.name, &*label.value));
                    index.find(pairs).unwrap_or_else(|| index.insert(&labels))
                });
                entries.push((slot, u32::try_from(samples_row).unwrap_or(u32::MAX), samples_rows));
            }
        }
        entries.sort_unstable();
        entries.dedup_by_key(|(slot, ..)| *slot);
        let slots = entries.iter().map(|(slot, ..)| *slot).collect();
        let rows = entries.into_iter().map(|(_, row, rows)| (row, rows)).collect();
        self.blocks.insert(block.name.clone(), Arc::new(BlockRows { slots, rows }));
        Ok(())
    }

    /// Forgets all other blocks, and the series that only they had.
    fn keep_only(&mut self, blocks: HashMap<String, Arc<BlockRows>>) {
        self.blocks = blocks;
        let used = self.blocks.values().fold(RoaringBitmap::new(), |all, rows| all | &rows.slots);
        let unused = self.index.live() - used;
        self.by_id.retain(|_, slot| !unused.contains(*slot));
        self.index.rebuild(&unused);
    }

    /// Memory, roughly.
    fn bytes(&self) -> usize {
        let rows: usize = self.blocks.values().map(|rows| rows.rows.len() * 10).sum();
        self.index.bytes() + self.by_id.capacity() * 14 + rows
    }
}

// ── cache ──────────────────────────────────────────────────────────────────────────────────────

/// Row groups that were read, of all tenants.
#[derive(Debug)]
pub(in crate::metrics) struct GroupCache {
    budget_bytes: usize,
    inner: Mutex<Groups>,
}

#[derive(Debug, Default)]
struct Groups {
    groups: HashMap<(String, usize), Entry>,
    metadata: HashMap<String, ArrowReaderMetadata>,
    bytes: usize,
    /// Counts uses, to tell which was last.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    rows: Arc<Vec<Vec<Chunk>>>,
    bytes: usize,
    last_use: u64,
}

/// Footers kept; one takes some 100 KB for 100 row groups.
const FOOTERS_MAX: usize = 128;

impl GroupCache {
    pub(in crate::metrics) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Groups> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, block: &str, number: usize) -> Option<Arc<Vec<Vec<Chunk>>>> {
        let mut inner = self.inner();
        inner.uses += 1;
        let now = inner.uses;
        let entry = inner.groups.get_mut(&(block.to_owned(), number))?;
        entry.last_use = now;
        Some(Arc::clone(&entry.rows))
    }

    fn insert(&self, block: &str, number: usize, rows: &Arc<Vec<Vec<Chunk>>>) {
        let bytes = rows.iter().map(|chunks| chunks_bytes(chunks)).sum::<usize>();
        if bytes > self.budget_bytes {
            return;
        }
        let mut inner = self.inner();
        inner.uses += 1;
        let entry = Entry { rows: Arc::clone(rows), bytes, last_use: inner.uses };
        inner.bytes += bytes;
        if let Some(old) = inner.groups.insert((block.to_owned(), number), entry) {
            inner.bytes -= old.bytes;
        }
        if inner.bytes > self.budget_bytes {
            inner.shrink(self.budget_bytes - self.budget_bytes / 8);
        }
    }

    fn metadata(&self, block: &str) -> Option<ArrowReaderMetadata> {
        self.inner().metadata.get(block).cloned()
    }

    fn insert_metadata(&self, block: &str, metadata: &ArrowReaderMetadata) {
        let mut inner = self.inner();
        if inner.metadata.len() >= FOOTERS_MAX {
            inner.metadata.clear();
        }
        inner.metadata.insert(block.to_owned(), metadata.clone());
    }
}

impl Groups {
    /// Drops what was used longest ago; to some way below the budget, so that it is rare.
    fn shrink(&mut self, to_bytes: usize) {
        let mut by_use: Vec<(u64, (String, usize))> =
            self.groups.iter().map(|(key, entry)| (entry.last_use, key.clone())).collect();
        by_use.sort_unstable();
        for (_, key) in by_use {
            if self.bytes <= to_bytes {
                return;
            }
            if let Some(dropped) = self.groups.remove(&key) {
                self.bytes -= dropped.bytes;
            }
        }
    }
}

fn chunks_bytes(chunks: &[Chunk]) -> usize {
    size_of::<Vec<Chunk>>() + chunks.iter().map(|chunk| size_of::<Chunk>() + chunk.heap_bytes()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_budget_and_keeps_what_is_used() {
        let rows = Arc::new(vec![vec![Chunk::new(&[1, 2], &[1.0, 2.0])]; 10]);
        let one = rows.iter().map(|chunks| chunks_bytes(chunks)).sum::<usize>();
        let cache = GroupCache::new(one * 4);
        for number in 0..4 {
            cache.insert("a", number, &rows);
        }
        assert!(cache.get("a", 0).is_some());
        cache.insert("b", 0, &rows);
        assert!(cache.get("a", 1).is_none() && cache.get("a", 2).is_none(), "used longest ago");
        assert!(cache.get("a", 0).is_some() && cache.get("b", 0).is_some());
        let large = Arc::new(vec![vec![Chunk::new(&[1], &[1.0])]; 60]);
        cache.insert("c", 0, &large);
        assert!(cache.get("c", 0).is_none() && cache.get("a", 0).is_some());
    }
}
