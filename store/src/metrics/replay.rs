//! The log read back into the heads.

use hashbrown::HashMap;
use windrose_proto::tenant::TenantId;

use super::append::{Batch, Sample};
use super::head::SeriesRef;
use super::index::Slot;
use super::record::{self, BadRecord};
use super::{Inner, MetricRecovery};
use crate::wal::{RecordKind, StoredRecord};

/// What is remembered from record to record.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Series by the slots of the process that wrote the record.
    series: HashMap<TenantId, HashMap<Slot, SeriesRef>>,
    pub(super) recovery: MetricRecovery,
}

impl Replay {
    /// Puts one record into the head of its tenant.
    pub(super) fn apply(&mut self, inner: &Inner, stored: &StoredRecord) {
        if stored.kind != RecordKind::MetricBatch {
            return;
        }
        match record::decode(&stored.payload) {
            Ok(decoded) => self.apply_decoded(inner, &stored.tenant, decoded),
            Err(error) => self.damaged(stored, error),
        }
    }

    fn apply_decoded(&mut self, inner: &Inner, tenant: &TenantId, decoded: record::Decoded) {
        let known = self.series.entry(tenant.clone()).or_default();
        let tenant = inner.tenant(tenant);
        let mut head = tenant.head_mut();
        let epoch = inner.epoch();
        for (slot, labels) in decoded.definitions {
            let pairs = labels.iter().map(|label| (&*label.name, &*label.value));
            // Limits were applied when it was first stored.
            let series = head.find(pairs).unwrap_or_else(|| head.create(&labels, epoch));
            known.insert(slot, series);
        }
        let mut batch = Batch::default();
        let samples = decoded.samples.into_iter();
        batch.samples.extend(samples.filter_map(|(slot, timestamp_ms, value)| {
            let series = *known.get(&slot)?;
            Some(Sample { series, timestamp_ms, value })
        }));
        let exemplars = decoded.exemplars.into_iter();
        batch.exemplars.extend(exemplars.filter_map(|(slot, exemplar)| Some((*known.get(&slot)?, exemplar))));
        for (family, metadata) in decoded.families {
            batch.metadata.push((family.into(), metadata));
        }
        self.recovery.records += 1;
        self.recovery.samples += batch.apply(&mut head, epoch).stored;
    }

    fn damaged(&mut self, stored: &StoredRecord, error: BadRecord) {
        self.recovery.damaged += 1;
        tracing::error!(
            position = %stored.position,
            error = &error as &dyn std::error::Error,
            "skipped a record of the metric log that cannot be read"
        );
    }
}
