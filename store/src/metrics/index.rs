//! Which series there are, and which of them match.
//!
//! The series of one edge of a mesh differ in their name and their bucket and share twenty-odd
//! other labels. So a series is a *base* (all labels but `__name__` and `le`, kept once) with a
//! name and a bucket: twelve bytes instead of two hundred. Postings, too, are kept for bases; only
//! the two labels of its own have postings of series.
//!
//! Invariants: a slot names the same series until [`SeriesIndex::rebuild`] leaves it out; a label
//! that is absent is the same as one that is empty; bases hold at least one series after a rebuild.

mod matching;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use roaring::RoaringBitmap;
use windrose_proto::metric::labels::{BUCKET, METRIC_NAME};
use windrose_proto::metric::{Label, Labels};

use super::label_hash::label_hash;
use super::symbols::{Symbol, Symbols};

/// Number of a series in one index.
pub(super) type Slot = u32;

/// Name and value of a label.
type Pair = (Symbol, Symbol);

/// The labels a series has for itself: its name and its bucket.
const OWN: [&str; 2] = [METRIC_NAME, BUCKET];
const OWN_SYMBOLS: [Symbol; 2] = [Symbol::METRIC_NAME, Symbol::BUCKET];

/// The series of one tenant.
#[derive(Debug, Default)]
pub(super) struct SeriesIndex {
    symbols: Symbols,
    series: Vec<Option<SeriesKey>>,
    by_hash: HashTable<Slot>,
    free: Vec<Slot>,
    live: RoaringBitmap,
    /// By value of the label, for each of [`OWN`].
    own: [HashMap<Symbol, RoaringBitmap>; 2],
    bases: Vec<Base>,
    base_by_pairs: HashTable<u32>,
    /// By name and value: numbers of bases.
    labels: HashMap<Symbol, LabelPostings>,
    hasher: DefaultHashBuilder,
}

/// One series.
#[derive(Clone, Copy, Debug)]
struct SeriesKey {
    hash: u64,
    base: u32,
    own: [Symbol; 2],
}

/// What series have in common.
#[derive(Debug)]
struct Base {
    /// In the order of names.
    pairs: Box<[Pair]>,
    series: Vec<Slot>,
}

/// The values of one label name.
#[derive(Debug, Default)]
struct LabelPostings {
    values: HashMap<Symbol, RoaringBitmap>,
    present: RoaringBitmap,
}

impl SeriesIndex {
    /// Series there are.
    pub(super) fn len(&self) -> usize {
        self.live.len() as usize
    }

    /// Series in slot order.
    pub(super) const fn live(&self) -> &RoaringBitmap {
        &self.live
    }

    /// The number of a series in the tables.
    pub(super) fn id_of(&self, slot: Slot) -> u64 {
        self.key(slot).hash
    }

    /// The slot of a label set, sorted by name and without empty values.
    pub(super) fn find<'a>(&self, labels: impl IntoIterator<Item = (&'a str, &'a str)> + Clone) -> Option<Slot> {
        self.find_hashed(label_hash(labels.clone()), labels)
    }

    #[expect(clippy::needless_pass_by_value, reason = "an iterator that is cloned for every candidate")]
    fn find_hashed<'a>(&self, hash: u64, labels: impl IntoIterator<Item = (&'a str, &'a str)> + Clone) -> Option<Slot> {
        let same = |slot: &Slot| {
            self.key(*slot).hash == hash && {
                let mut wanted = labels.clone().into_iter();
                let is_next = |(name, value)| wanted.next() == Some((self.text(name), self.text(value)));
                self.pairs(*slot).all(is_next) && wanted.next().is_none()
            }
        };
        self.by_hash.find(hash, same).copied()
    }

    /// Adds a series that is not there yet.
    pub(super) fn insert(&mut self, labels: &Labels) -> Slot {
        let hash = label_hash(labels.iter().map(|label| (&*label.name, &*label.value)));
        let mut own = [Symbol::EMPTY; 2];
        let mut pairs = Vec::with_capacity(labels.len());
        for label in labels.iter() {
            let value = self.symbols.intern(&label.value);
            match OWN.iter().position(|name| **name == *label.name) {
                Some(place) => own[place] = value,
                None => pairs.push((self.symbols.intern(&label.name), value)),
            }
        }
        let base = self.base_of(pairs);
        self.insert_key(SeriesKey { hash, base, own }, None)
    }

    fn insert_key(&mut self, key: SeriesKey, at: Option<Slot>) -> Slot {
        let slot = at.or_else(|| self.free.pop()).unwrap_or(self.series.len() as Slot);
        if slot as usize >= self.series.len() {
            self.series.resize(slot as usize + 1, None);
        }
        self.series[slot as usize] = Some(key);
        self.live.insert(slot);
        for (postings, value) in self.own.iter_mut().zip(key.own) {
            postings.entry(value).or_default().insert(slot);
        }
        self.bases[key.base as usize].series.push(slot);
        let series = &self.series;
        let rehash = |slot: &Slot| series[*slot as usize].map_or(0, |key| key.hash);
        self.by_hash.insert_unique(key.hash, slot, rehash);
        slot
    }

    fn base_of(&mut self, pairs: Vec<Pair>) -> u32 {
        let hash = self.hash_pairs(&pairs);
        let bases = &self.bases;
        if let Some(base) = self.base_by_pairs.find(hash, |base| *bases[*base as usize].pairs == *pairs) {
            return *base;
        }
        let number = self.bases.len() as u32;
        for (name, value) in &pairs {
            let label = self.labels.entry(*name).or_default();
            label.present.insert(number);
            label.values.entry(*value).or_default().insert(number);
        }
        self.bases.push(Base { pairs: pairs.into(), series: Vec::new() });
        let (bases, hasher) = (&self.bases, &self.hasher);
        let rehash = |base: &u32| hash_with(hasher, &bases[*base as usize].pairs);
        self.base_by_pairs.insert_unique(hash, number, rehash);
        number
    }

    fn hash_pairs(&self, pairs: &[Pair]) -> u64 {
        hash_with(&self.hasher, pairs)
    }

    /// The same series in the same slots, without those in `expired`, whose slots become free, and
    /// without the texts that only they used.
    pub(super) fn rebuild(&mut self, expired: &RoaringBitmap) {
        let old = std::mem::take(self);
        self.series = vec![None; old.series.len()];
        for slot in &old.live - expired {
            let key = *old.key(slot);
            let mut own = [Symbol::EMPTY; 2];
            for (new, value) in own.iter_mut().zip(key.own) {
                *new = self.symbols.intern(old.symbols.text(value));
            }
            let pairs = &old.bases[key.base as usize].pairs;
            let intern = |(name, value): &Pair| {
                (self.symbols.intern(old.symbols.text(*name)), self.symbols.intern(old.symbols.text(*value)))
            };
            let pairs = pairs.iter().map(intern).collect();
            let base = self.base_of(pairs);
            self.insert_key(SeriesKey { hash: key.hash, base, own }, Some(slot));
        }
        self.free = (0..self.series.len() as Slot).rev().filter(|slot| !self.live.contains(*slot)).collect();
    }

    // ── labels of a series ─────────────────────────────────────────────────────────────────────

    fn key(&self, slot: Slot) -> &SeriesKey {
        self.series[slot as usize].as_ref().expect("only slots of live series are handed out")
    }

    fn text(&self, symbol: Symbol) -> &str {
        self.symbols.text(symbol)
    }

    /// The metric name, empty when the series has none.
    pub(super) fn metric_name(&self, slot: Slot) -> Arc<str> {
        Arc::clone(self.symbols.text(self.key(slot).own[0]))
    }

    /// The label set. One allocation; texts are shared.
    pub(super) fn labels(&self, slot: Slot) -> Labels {
        let shared = |symbol| Arc::clone(self.symbols.text(symbol));
        Labels::from_sorted(
            self.pairs(slot).map(|(name, value)| Label { name: shared(name), value: shared(value) }).collect(),
        )
    }

    /// All labels in the order of names.
    fn pairs(&self, slot: Slot) -> impl Iterator<Item = Pair> + '_ {
        let key = self.key(slot);
        let mut own = OWN_SYMBOLS.into_iter().zip(key.own).filter(|(_, value)| *value != Symbol::EMPTY);
        let mut shared = self.bases[key.base as usize].pairs.iter().copied();
        let (mut next_own, mut next_shared) = (own.next(), shared.next());
        std::iter::from_fn(move || match (next_own, next_shared) {
            (Some(pair), other) if other.is_none_or(|other| self.text(pair.0) < self.text(other.0)) => {
                next_own = own.next();
                Some(pair)
            }
            (_, Some(pair)) => {
                next_shared = shared.next();
                Some(pair)
            }
            (_, None) => None,
        })
    }

    /// The order of [`Labels::compare`], without building label sets.
    pub(super) fn compare(&self, left: Slot, right: Slot) -> Ordering {
        let by_text = |left: Symbol, right: Symbol| {
            if left == right { Ordering::Equal } else { self.text(left).cmp(self.text(right)) }
        };
        self.pairs(left).cmp_by_pairs(self.pairs(right), by_text)
    }

    // ── listings ───────────────────────────────────────────────────────────────────────────────

    /// Every label name that a series of `slots` has; all of them when `None`.
    pub(super) fn names(&self, slots: Option<&RoaringBitmap>) -> Vec<&Arc<str>> {
        let bases = slots.map(|slots| self.bases_of(slots));
        let mut names: Vec<&Arc<str>> = self
            .labels
            .iter()
            .filter(|(_, label)| bases.as_ref().is_none_or(|bases| !label.present.is_disjoint(bases)))
            .map(|(name, _)| self.symbols.text(*name))
            .collect();
        for (name, postings) in OWN_SYMBOLS.into_iter().zip(&self.own) {
            let has = |series: &RoaringBitmap| slots.is_none_or(|slots| !series.is_disjoint(slots));
            if postings.iter().any(|(value, series)| *value != Symbol::EMPTY && has(series)) {
                names.push(self.symbols.text(name));
            }
        }
        names
    }

    /// Every value of a label among the series of `slots`; of all of them when `None`.
    pub(super) fn values(&self, name: &str, slots: Option<&RoaringBitmap>) -> Vec<&Arc<str>> {
        let Some(symbol) = self.symbols.find(name) else { return Vec::new() };
        if let Some(place) = OWN.iter().position(|own| *own == name) {
            let has = |series: &RoaringBitmap| slots.is_none_or(|slots| !series.is_disjoint(slots));
            let values = self.own[place].iter().filter(|(value, series)| **value != Symbol::EMPTY && has(series));
            return values.map(|(value, _)| self.symbols.text(*value)).collect();
        }
        let Some(label) = self.labels.get(&symbol) else { return Vec::new() };
        let bases = slots.map(|slots| self.bases_of(slots));
        let values =
            label.values.iter().filter(|(_, postings)| bases.as_ref().is_none_or(|bases| !postings.is_disjoint(bases)));
        values.map(|(value, _)| self.symbols.text(*value)).collect()
    }

    fn bases_of(&self, slots: &RoaringBitmap) -> RoaringBitmap {
        slots.iter().map(|slot| self.key(slot).base).collect()
    }

    /// For every label name its values, each with the number of its series.
    pub(super) fn series_per_value(&self) -> impl Iterator<Item = (&str, Vec<(&str, u64)>)> {
        let series_of = |bases: &RoaringBitmap| -> u64 {
            bases.iter().map(|base| self.bases[base as usize].series.len() as u64).sum()
        };
        let shared = self.labels.iter().map(move |(name, label)| {
            let values = label.values.iter().map(|(value, bases)| (self.text(*value), series_of(bases)));
            (self.text(*name), values.collect())
        });
        let own = OWN.iter().zip(&self.own).map(|(name, postings)| {
            let values = postings.iter().filter(|(value, _)| **value != Symbol::EMPTY);
            (*name, values.map(|(value, series)| (self.text(*value), series.len())).collect())
        });
        shared.chain(own).filter(|(_, values): &(_, Vec<_>)| !values.is_empty())
    }

    /// Memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let bitmap = |bitmap: &RoaringBitmap| size_of::<RoaringBitmap>() + bitmap.serialized_size() + 24;
        let labels = self.labels.values().map(|label| {
            bitmap(&label.present) + label.values.values().map(|postings| 8 + bitmap(postings)).sum::<usize>()
        });
        let own = self.own.iter().flat_map(HashMap::values).map(bitmap);
        let bases = self.bases.iter().map(|base| {
            size_of::<Base>() + base.pairs.len() * size_of::<Pair>() + base.series.capacity() * size_of::<Slot>()
        });
        self.symbols.bytes()
            + self.series.capacity() * size_of::<Option<SeriesKey>>()
            + self.by_hash.capacity() * 5
            + self.base_by_pairs.capacity() * 5
            + labels.sum::<usize>()
            + own.sum::<usize>()
            + bases.sum::<usize>()
    }
}

fn hash_with(hasher: &DefaultHashBuilder, pairs: &[Pair]) -> u64 {
    let mut state = hasher.build_hasher();
    pairs.hash(&mut state);
    std::hash::Hasher::finish(&state)
}

/// Compares label by label; `Iterator::cmp_by` is not stable yet.
trait ComparePairs: Iterator<Item = Pair> + Sized {
    fn cmp_by_pairs(
        mut self,
        mut other: impl Iterator<Item = Pair>,
        by_text: impl Fn(Symbol, Symbol) -> Ordering,
    ) -> Ordering {
        loop {
            match (self.next(), other.next()) {
                (None, None) => return Ordering::Equal,
                (None, Some(_)) => return Ordering::Less,
                (Some(_), None) => return Ordering::Greater,
                (Some(left), Some(right)) => {
                    let order = by_text(left.0, right.0).then_with(|| by_text(left.1, right.1));
                    if order.is_ne() {
                        return order;
                    }
                }
            }
        }
    }
}

impl<I: Iterator<Item = Pair>> ComparePairs for I {}
