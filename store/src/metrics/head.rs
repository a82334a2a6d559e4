//! What one tenant has in memory: the index of its series, their newest samples, exemplars and
//! metadata.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use roaring::RoaringBitmap;
use windrose_proto::metric::{Exemplar, Labels, Metadata};

use super::index::{SeriesIndex, Slot};
use super::series::{Epoch, MemSeries, Outcome};

/// Exemplars kept of one series: dashboards show a few per step, and a trace that is older than the
/// last dozen is found by its time, not by its series.
const EXEMPLARS_PER_SERIES_MAX: usize = 12;

/// Exemplars kept of all series together, about 300 bytes each.
const EXEMPLARS_MAX: usize = 100_000;

/// Metric families whose metadata is kept; a mesh has about a thousand.
const FAMILIES_MAX: usize = 50_000;

/// Time streams remembered in order to be shared: one per target and chunk length is enough.
const SHARED_TIMES_MAX: usize = 4_096;

/// A series of one tenant for as long as the process lives. It may expire when nothing was appended
/// to it for hours; [`super::Append::commit`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(u64);

impl SeriesRef {
    pub(super) const fn new(slot: Slot, generation: u32) -> Self {
        Self((generation as u64) << 32 | slot as u64)
    }

    pub(super) const fn slot(self) -> Slot {
        self.0 as u32
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One tenant.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) index: SeriesIndex,
    /// By slot.
    pub(super) series: Vec<MemSeries>,
    metadata: BTreeMap<Arc<str>, KnownMetadata>,
    /// By time, each with the epoch it came in.
    exemplars: HashMap<Slot, VecDeque<(Exemplar, Epoch)>>,
    exemplar_count: usize,
    times: SharedTimes,
    /// Everything that was ever stored at or after this time is in memory.
    pub(super) complete_from_ms: i64,
    /// Earliest and latest time ever appended by this process.
    pub(super) range: Option<(i64, i64)>,
}

#[derive(Debug)]
struct KnownMetadata {
    metadata: Metadata,
    /// Epoch whose part of the log has it.
    logged: Epoch,
}

/// Equal time streams of closed chunks, kept once.
#[derive(Debug, Default)]
struct SharedTimes(HashSet<Arc<[u8]>>);

impl SharedTimes {
    fn share(&mut self, bytes: &[u8]) -> Arc<[u8]> {
        if let Some(known) = self.0.get(bytes) {
            return Arc::clone(known);
        }
        if self.0.len() >= SHARED_TIMES_MAX {
            self.0.retain(|stream| Arc::strong_count(stream) > 1);
        }
        let stream: Arc<[u8]> = bytes.into();
        // When all are in use, the next ones are not shared: a waste, not an error.
        if self.0.len() < SHARED_TIMES_MAX {
            self.0.insert(Arc::clone(&stream));
        }
        stream
    }
}

impl Default for Head {
    fn default() -> Self {
        Self {
            index: SeriesIndex::default(),
            series: Vec::new(),
            metadata: BTreeMap::new(),
            exemplars: HashMap::new(),
            exemplar_count: 0,
            times: SharedTimes::default(),
            complete_from_ms: i64::MIN,
            range: None,
        }
    }
}

impl Head {
    /// A series that is there.
    pub(super) fn find<'a>(&self, labels: impl IntoIterator<Item = (&'a str, &'a str)> + Clone) -> Option<SeriesRef> {
        self.index.find(labels).map(|slot| self.reference(slot))
    }

    /// A series that was not there.
    pub(super) fn create(&mut self, labels: &Labels, epoch: Epoch) -> SeriesRef {
        let slot = self.index.insert(labels);
        match self.series.get_mut(slot as usize) {
            Some(series) => *series = MemSeries::new(series.generation.wrapping_add(1), epoch),
            None => self.series.push(MemSeries::new(0, epoch)),
        }
        self.reference(slot)
    }

    fn reference(&self, slot: Slot) -> SeriesRef {
        SeriesRef::new(slot, self.series[slot as usize].generation)
    }

    /// Whether the series behind a reference is still there.
    pub(super) fn is_live(&self, series: SeriesRef) -> bool {
        // A series that expires takes its generation with it.
        self.series.get(series.slot() as usize).is_some_and(|known| known.generation == series.generation())
    }

    /// The epoch whose log defines a series.
    pub(super) fn defined(&self, slot: Slot) -> Epoch {
        self.series[slot as usize].defined
    }

    /// The log of `epoch` defines these series from now on.
    pub(super) fn set_defined(&mut self, slots: &[Slot], epoch: Epoch) {
        slots.iter().for_each(|slot| self.series[*slot as usize].defined = epoch);
    }

    /// Appends a sample to a live series.
    pub(super) fn append(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64, epoch: Epoch) -> Outcome {
        let (times, series) = (&mut self.times, &mut self.series[series.slot() as usize]);
        let outcome = series.append(timestamp_ms, value, epoch, |bytes| times.share(bytes));
        if outcome == Outcome::Stored {
            let (first, last) = self.range.unwrap_or((timestamp_ms, timestamp_ms));
            self.range = Some((first.min(timestamp_ms), last.max(timestamp_ms)));
        }
        outcome
    }

    /// Appends an exemplar unless the series has it; the oldest makes room.
    pub(super) fn append_exemplar(&mut self, series: SeriesRef, exemplar: Exemplar, epoch: Epoch) -> bool {
        let ring = self.exemplars.entry(series.slot()).or_default();
        if ring.iter().any(|(known, _)| *known == exemplar) || (self.exemplar_count >= EXEMPLARS_MAX && ring.is_empty())
        {
            return false;
        }
        let place = ring.partition_point(|(known, _)| known.timestamp <= exemplar.timestamp);
        ring.insert(place, (exemplar, epoch));
        self.exemplar_count += 1;
        if ring.len() > EXEMPLARS_PER_SERIES_MAX {
            ring.pop_front();
            self.exemplar_count -= 1;
        }
        true
    }

    pub(super) fn exemplars_of(&self, slot: Slot) -> impl Iterator<Item = &Exemplar> {
        self.exemplars.get(&slot).into_iter().flatten().map(|(exemplar, _)| exemplar)
    }

    // ── metadata ───────────────────────────────────────────────────────────────────────────────

    /// Whether the log of this epoch must be told about a family.
    pub(super) fn needs_metadata(&self, family: &str, metadata: &Metadata, epoch: Epoch) -> bool {
        match self.metadata.get(family) {
            Some(known) => known.logged != epoch || known.metadata != *metadata,
            None => self.metadata.len() < FAMILIES_MAX,
        }
    }

    pub(super) fn set_metadata(&mut self, family: &str, metadata: Metadata, epoch: Epoch) {
        self.metadata.insert(family.into(), KnownMetadata { metadata, logged: epoch });
    }

    pub(super) fn metadata(&self) -> impl Iterator<Item = (&Arc<str>, &Metadata)> {
        self.metadata.iter().map(|(family, known)| (family, &known.metadata))
    }

    // ── the end of an epoch ────────────────────────────────────────────────────────────────────

    /// Closes the chunks of one series that are due for sealing; see [`MemSeries::chunks_to_seal`].
    pub(super) fn chunks_to_seal(
        &mut self,
        slot: Slot,
        sealed: Epoch,
        epoch: Epoch,
    ) -> impl Iterator<Item = &super::chunk::Chunk> {
        let times = &mut self.times;
        self.series[slot as usize].chunks_to_seal(sealed, epoch, |bytes| times.share(bytes))
    }

    /// The exemplars of one series that are in no block yet.
    pub(super) fn exemplars_to_seal(&self, slot: Slot, sealed: Epoch, epoch: Epoch) -> Vec<Exemplar> {
        let ring = self.exemplars.get(&slot).into_iter().flatten();
        let due = ring.filter(|(_, came)| *came > sealed && *came <= epoch);
        due.map(|(exemplar, _)| exemplar.clone()).collect()
    }

    /// Forgets samples that are in blocks and older than `keep_from_ms`, and series of which nothing
    /// is left and that nobody has touched since before `sealed`. Returns how many series expired.
    pub(super) fn drop_sealed(&mut self, sealed: Epoch, keep_from_ms: i64) -> u64 {
        let mut expired = RoaringBitmap::new();
        for slot in self.index.live() {
            let series = &mut self.series[slot as usize];
            if let Some(dropped_ms) = series.drop_sealed(sealed, keep_from_ms) {
                self.complete_from_ms = self.complete_from_ms.max(dropped_ms.saturating_add(1));
            }
            if series.is_empty() && series.touched < sealed {
                expired.insert(slot);
            }
        }
        if expired.is_empty() {
            return 0;
        }
        for slot in &expired {
            let series = &mut self.series[slot as usize];
            *series = MemSeries::new(series.generation.wrapping_add(1), 0);
            self.exemplar_count -= self.exemplars.remove(&slot).map_or(0, |ring| ring.len());
        }
        self.index.rebuild(&expired);
        expired.len()
    }

    /// Memory of samples, roughly, and the number of chunks.
    pub(super) fn sample_bytes_and_chunks(&self) -> (usize, usize) {
        self.series
            .iter()
            .fold((0, 0), |(bytes, chunks), series| (bytes + series.bytes(), chunks + series.chunk_count()))
    }
}
