//! The operator's overrides at present, one value for everybody who reads them: replaced as a whole
//! while the process runs, never changed in place.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::normalise::overrides::Overrides;

/// A place that always holds the overrides in force. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct InForce(Arc<ArcSwap<Overrides>>);

impl InForce {
    /// With these from the start.
    #[must_use]
    pub fn new(overrides: Overrides) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(overrides)))
    }

    /// Those in force now. Who must not mix two of them asks once.
    #[must_use]
    pub fn get(&self) -> Arc<Overrides> {
        self.0.load_full()
    }

    /// Puts others into force.
    pub fn replace(&self, overrides: Overrides) {
        self.0.store(Arc::new(overrides));
    }
}
