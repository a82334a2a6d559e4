//! A batch as a record of the log.
//!
//! ```text
//! record     := version(1) count definition* count sample* count exemplar* count family*
//! definition := slot texts                      the label set behind a slot from here on
//! sample     := slot time value
//! exemplar   := slot time raw texts             raw = bits of the value
//! family     := name kind help unit
//! texts      := count (name value)*             sorted by name
//! slot, time := signed varint, difference to the one before in the same list
//! value      := 1 (staleness marker) | 2 raw | varint(z + 3)
//!               z = zigzag of the difference to the integer before in the list
//! name …     := varint: 0 and a length-prefixed text when it is new, else its number, from 1
//! ```
//! The samples of a page have the same time, neighbouring buckets similar counts: four bytes a
//! sample are usual.
//!
//! Invariant: a record names only slots that it defines itself or that a record defines which was
//! acknowledged before this one was made, in the same epoch. So the log can be replayed from any
//! start of an epoch.
//!
//! Pure. Nothing read is believed before it is checked; memory is bounded by the length of the
//! record.

use std::sync::Arc;

use hashbrown::HashMap;
use windrose_proto::metric::{Exemplar, Label, Labels, Metadata, MetricKind, STALE_MARKER_BITS, is_stale_marker};

use super::append::Batch;
use super::head::Head;
use super::index::Slot;
use super::series::Epoch;
use super::tokens::{self, Reader};

const VERSION: u8 = 1;

/// What is added to a zigzag of a value.
const VALUE_SHIFT: u64 = 3;

/// Integers below this are exact as floats.
const INTEGER_MAX: f64 = (1_u64 << 53) as f64;

/// A record that does not hold what we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("the record was written by a newer version ({0})")]
    Version(u8),
    #[error("the record ends early or holds something that is not written there")]
    Damaged,
}

/// A record read back; slots are those of the process that wrote it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decoded {
    pub(super) definitions: Vec<(Slot, Labels)>,
    pub(super) samples: Vec<(Slot, i64, f64)>,
    pub(super) exemplars: Vec<(Slot, Exemplar)>,
    pub(super) families: Vec<(String, Metadata)>,
}

// ── writing ────────────────────────────────────────────────────────────────────────────────────

/// Encodes a batch whose series are live. Also returns the slots it defines, because the log of
/// `epoch` does not yet.
pub(super) fn encode(batch: &Batch, head: &Head, epoch: Epoch) -> (Vec<u8>, Vec<Slot>) {
    let mut undefined: Vec<Slot> =
        batch.references().map(|series| series.slot()).filter(|slot| head.defined(*slot) != epoch).collect();
    undefined.sort_unstable();
    undefined.dedup();
    let mut writer = Writer { bytes: Vec::with_capacity(64 + batch.samples.len() * 5), known: HashMap::new() };
    writer.bytes.push(VERSION);
    writer.definitions(&undefined, head);
    writer.samples(batch);
    writer.exemplars(batch);
    writer.families(batch);
    (writer.bytes, undefined)
}

struct Writer {
    bytes: Vec<u8>,
    /// Numbers of texts that were written.
    known: HashMap<Arc<str>, u64>,
}

impl Writer {
    fn definitions(&mut self, slots: &[Slot], head: &Head) {
        tokens::put_varint(&mut self.bytes, slots.len() as u64);
        let mut last = 0;
        for slot in slots {
            last = self.difference(i64::from(*slot), last);
            self.texts(&head.index.labels(*slot));
        }
    }

    fn samples(&mut self, batch: &Batch) {
        tokens::put_varint(&mut self.bytes, batch.samples.len() as u64);
        let (mut last_slot, mut last_ms, mut last_integer) = (0, 0, 0);
        for sample in &batch.samples {
            last_slot = self.difference(i64::from(sample.series.slot()), last_slot);
            last_ms = self.difference(sample.timestamp_ms, last_ms);
            last_integer = self.value(sample.value, last_integer);
        }
    }

    fn value(&mut self, value: f64, last: i64) -> i64 {
        if value.abs() < INTEGER_MAX {
            let integer = value as i64;
            if (integer as f64).to_bits() == value.to_bits() {
                tokens::put_varint(&mut self.bytes, tokens::zigzag(integer - last) + VALUE_SHIFT);
                return integer;
            }
        }
        if is_stale_marker(value) {
            tokens::put_varint(&mut self.bytes, tokens::STALE);
        } else {
            tokens::put_varint(&mut self.bytes, tokens::RAW);
            self.bytes.extend(value.to_bits().to_le_bytes());
        }
        last
    }

    fn exemplars(&mut self, batch: &Batch) {
        tokens::put_varint(&mut self.bytes, batch.exemplars.len() as u64);
        let (mut last_slot, mut last_ms) = (0, 0);
        for (series, exemplar) in &batch.exemplars {
            last_slot = self.difference(i64::from(series.slot()), last_slot);
            last_ms = self.difference(exemplar.timestamp, last_ms);
            self.bytes.extend(exemplar.value.to_bits().to_le_bytes());
            self.texts(&exemplar.labels);
        }
    }

    fn families(&mut self, batch: &Batch) {
        tokens::put_varint(&mut self.bytes, batch.metadata.len() as u64);
        for (family, metadata) in &batch.metadata {
            tokens::put_text(&mut self.bytes, family);
            self.bytes.push(byte_of(metadata.kind));
            tokens::put_text(&mut self.bytes, &metadata.help);
            tokens::put_text(&mut self.bytes, &metadata.unit);
        }
    }

    fn texts(&mut self, labels: &Labels) {
        tokens::put_varint(&mut self.bytes, labels.len() as u64);
        for label in labels.iter() {
            self.text(&label.name);
            self.text(&label.value);
        }
    }

    fn text(&mut self, text: &Arc<str>) {
        if let Some(number) = self.known.get(text) {
            tokens::put_varint(&mut self.bytes, *number);
            return;
        }
        tokens::put_varint(&mut self.bytes, 0);
        tokens::put_text(&mut self.bytes, text);
        self.known.insert(Arc::clone(text), self.known.len() as u64 + 1);
    }

    fn difference(&mut self, value: i64, last: i64) -> i64 {
        tokens::put_signed(&mut self.bytes, value.wrapping_sub(last));
        value
    }
}

// ── reading ────────────────────────────────────────────────────────────────────────────────────

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, BadRecord> {
    let mut parser = Parser { reader: Reader::new(bytes), texts: Vec::new(), len: bytes.len() };
    match parser.reader.byte() {
        Some(VERSION) => parser.record().ok_or(BadRecord::Damaged),
        Some(version) => Err(BadRecord::Version(version)),
        None => Err(BadRecord::Damaged),
    }
}

struct Parser<'a> {
    reader: Reader<'a>,
    texts: Vec<Arc<str>>,
    len: usize,
}

impl Parser<'_> {
    fn record(&mut self) -> Option<Decoded> {
        let mut decoded = Decoded::default();
        let mut slot = 0_i64;
        for _ in 0..self.count()? {
            slot = slot.checked_add(self.reader.signed()?)?;
            decoded.definitions.push((Slot::try_from(slot).ok()?, self.labels()?));
        }
        self.samples(&mut decoded)?;
        self.exemplars(&mut decoded)?;
        for _ in 0..self.count()? {
            let family = self.reader.text()?.to_owned();
            let kind = kind_of(self.reader.byte()?)?;
            let metadata =
                Metadata { kind, help: self.reader.text()?.to_owned(), unit: self.reader.text()?.to_owned() };
            decoded.families.push((family, metadata));
        }
        self.reader.is_empty().then_some(decoded)
    }

    fn samples(&mut self, decoded: &mut Decoded) -> Option<()> {
        let count = self.count()?;
        decoded.samples.reserve(count);
        let (mut slot, mut timestamp_ms, mut integer) = (0_i64, 0_i64, 0_i64);
        for _ in 0..count {
            slot = slot.checked_add(self.reader.signed()?)?;
            timestamp_ms = timestamp_ms.wrapping_add(self.reader.signed()?);
            let value = match self.reader.varint()? {
                0 => return None,
                tokens::STALE => f64::from_bits(STALE_MARKER_BITS),
                tokens::RAW => f64::from_bits(self.reader.raw()?),
                token => {
                    integer = integer.wrapping_add(tokens::unzigzag(token - VALUE_SHIFT));
                    integer as f64
                }
            };
            decoded.samples.push((Slot::try_from(slot).ok()?, timestamp_ms, value));
        }
        Some(())
    }

    fn exemplars(&mut self, decoded: &mut Decoded) -> Option<()> {
        let (mut slot, mut timestamp) = (0_i64, 0_i64);
        for _ in 0..self.count()? {
            slot = slot.checked_add(self.reader.signed()?)?;
            timestamp = timestamp.wrapping_add(self.reader.signed()?);
            let value = f64::from_bits(self.reader.raw()?);
            let exemplar = Exemplar { labels: self.labels()?, value, timestamp };
            decoded.exemplars.push((Slot::try_from(slot).ok()?, exemplar));
        }
        Some(())
    }

    /// Everything counted takes at least two bytes.
    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.reader.varint()?).ok().filter(|count| *count <= self.len / 2)
    }

    fn labels(&mut self) -> Option<Labels> {
        let count = self.count()?;
        let mut labels: Vec<Label> = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            let label = Label { name: self.text()?, value: self.text()? };
            if labels.last().is_some_and(|last| last.name >= label.name) {
                return None;
            }
            labels.push(label);
        }
        Some(Labels::from_sorted(labels))
    }

    fn text(&mut self) -> Option<Arc<str>> {
        match self.reader.varint()? {
            0 => {
                let text: Arc<str> = self.reader.text()?.into();
                self.texts.push(Arc::clone(&text));
                Some(text)
            }
            number => self.texts.get(usize::try_from(number).ok()? - 1).map(Arc::clone),
        }
    }
}

const KINDS: [MetricKind; 8] = [
    MetricKind::Unknown,
    MetricKind::Counter,
    MetricKind::Gauge,
    MetricKind::Histogram,
    MetricKind::GaugeHistogram,
    MetricKind::Summary,
    MetricKind::Info,
    MetricKind::StateSet,
];

fn byte_of(kind: MetricKind) -> u8 {
    KINDS.iter().position(|known| *known == kind).unwrap_or_default() as u8
}

fn kind_of(byte: u8) -> Option<MetricKind> {
    KINDS.get(usize::from(byte)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::append::Sample;
    use super::*;

    fn labels(text: &str) -> Labels {
        Labels::from_pairs(text.split(' ').filter_map(|pair| pair.split_once('=')))
    }

    fn batch_of(head: &mut Head, samples: &[(u32, i64, f64)]) -> Batch {
        let mut batch = Batch::default();
        for (series, timestamp_ms, value) in samples {
            let labels = labels(&format!("__name__=requests pod={series} zone=a"));
            let pairs = labels.iter().map(|label| (&*label.name, &*label.value));
            let series = head.find(pairs).unwrap_or_else(|| head.create(&labels, 1));
            batch.samples.push(Sample { series, timestamp_ms: *timestamp_ms, value: *value });
        }
        batch
    }

    proptest! {
        #[test]
        fn records_survive(
            samples in prop::collection::vec(
                (0_u32..20, any::<i64>(), prop_oneof![
                    (-1000_i64..1000).prop_map(|value| value as f64),
                    any::<u64>().prop_map(f64::from_bits),
                    Just(f64::from_bits(STALE_MARKER_BITS)),
                ]),
                0..50,
            ),
        ) {
            let mut head = Head::default();
            let batch = batch_of(&mut head, &samples);
            let (bytes, defined) = encode(&batch, &head, 1);
            let decoded = decode(&bytes).unwrap();
            let expect: Vec<(Slot, Labels)> = defined.iter().map(|slot| (*slot, head.index.labels(*slot))).collect();
            prop_assert_eq!(decoded.definitions, expect);
            let bits = |samples: Vec<(Slot, i64, f64)>| -> Vec<(Slot, i64, u64)> {
                samples.into_iter().map(|(slot, time, value)| (slot, time, value.to_bits())).collect()
            };
            let expect = batch.samples.iter().map(|sample| (sample.series.slot(), sample.timestamp_ms, sample.value));
            prop_assert_eq!(bits(decoded.samples), bits(expect.collect()));
        }

        #[test]
        fn any_bytes_are_read_without_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            drop(decode(&bytes));
        }

        #[test]
        fn a_cut_record_is_refused(cut in 1_usize..100) {
            let mut head = Head::default();
            let batch = batch_of(&mut head, &[(1, 1000, 5.0), (2, 1000, 5.0), (3, 1000, 0.1)]);
            let (bytes, _) = encode(&batch, &head, 1);
            prop_assume!(cut < bytes.len());
            prop_assert_eq!(decode(&bytes[..bytes.len() - cut]), Err(BadRecord::Damaged));
        }
    }

    #[test]
    fn a_page_takes_few_bytes_and_defines_its_series_once() {
        let mut head = Head::default();
        let samples: Vec<_> = (0..1000).map(|series| (series, 1_795_219_200_000, f64::from(series * 3))).collect();
        let batch = batch_of(&mut head, &samples);
        let (first, defined) = encode(&batch, &head, 1);
        head.set_defined(&defined, 1);
        let (second, defined) = encode(&batch, &head, 1);
        assert!(defined.is_empty());
        assert!(first.len() < 1000 * 18, "{}", first.len());
        assert!(second.len() < 1000 * 4, "{}", second.len());
        assert_eq!(encode(&batch, &head, 2).1.len(), 1000, "the log of another epoch knows nothing");
    }

    #[test]
    fn exemplars_and_families_survive() {
        let mut head = Head::default();
        let mut batch = batch_of(&mut head, &[(1, 1, 1.0)]);
        let series = batch.samples[0].series;
        let exemplar = Exemplar { labels: labels("trace_id=abc"), value: 0.25, timestamp: -5 };
        batch.exemplars.push((series, exemplar.clone()));
        for kind in KINDS {
            let metadata = Metadata { kind, help: "Helps.".to_owned(), unit: "seconds".to_owned() };
            batch.metadata.push((format!("{kind:?}").into(), metadata));
        }
        let decoded = decode(&encode(&batch, &head, 1).0).unwrap();
        assert_eq!(decoded.exemplars, [(series.slot(), exemplar)]);
        let expect: Vec<_> =
            batch.metadata.iter().map(|(family, metadata)| (family.to_string(), metadata.clone())).collect();
        assert_eq!(decoded.families, expect);
        assert_eq!(decode(&[9]), Err(BadRecord::Version(9)));
    }
}
