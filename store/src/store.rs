//! The published state of all tenants: one pointer, swapped by the joiner, read by everyone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use windrose_proto::tenant::TenantId;

use crate::snapshot::TenantSnapshot;

/// All tenants at one instant.
pub type Tenants = BTreeMap<TenantId, Arc<TenantSnapshot>>;

/// Where readers find the current snapshots. Cloning shares the state.
#[derive(Clone, Debug, Default)]
pub struct Store {
    tenants: Arc<ArcSwap<Tenants>>,
}

impl Store {
    /// The current snapshot of one tenant; `None` when nothing was ever received for it.
    #[must_use]
    pub fn snapshot(&self, tenant: &TenantId) -> Option<Arc<TenantSnapshot>> {
        self.tenants.load().get(tenant).map(Arc::clone)
    }

    /// Names of all tenants.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantId> {
        self.tenants.load().keys().cloned().collect()
    }

    /// Makes new snapshots visible, all at once. Only the joiner calls this.
    pub fn publish(&self, changed: impl IntoIterator<Item = (TenantId, TenantSnapshot)>) {
        let mut next = Tenants::clone(&self.tenants.load());
        next.extend(changed.into_iter().map(|(tenant, snapshot)| (tenant, Arc::new(snapshot))));
        self.tenants.store(Arc::new(next));
    }
}
