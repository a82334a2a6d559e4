//! Which overrides a trace is read with.
//!
//! Operators may replace their overrides at any time, and a trace that is read half with the old
//! ones and half with the new would be two halves that do not fit. So a trace has one edition of
//! them for as long as its spans are in memory: the one in force when its first span came. Late
//! spans of it are read with the same, and what they change is exactly what was shown.

use std::sync::Arc;

use super::derive::DeriveOptions;
use crate::normalise::Normaliser;
use crate::normalise::overrides::Overrides;

/// The number of an edition, ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edition(u32);

/// The normaliser of every edition that a trace in memory may still need.
#[derive(Debug)]
pub(super) struct Editions {
    /// Ascending; the last is in force. Rarely more than one.
    normalisers: Vec<(Edition, Normaliser)>,
    latest: Edition,
}

impl Editions {
    pub(super) fn new(normaliser: Normaliser) -> Self {
        let latest = Edition::default();
        Self { normalisers: vec![(latest, normaliser)], latest }
    }

    /// The one in force.
    pub(super) const fn latest(&self) -> Edition {
        self.latest
    }

    /// Puts `overrides` into force. Returns whether they are others than those that are.
    pub(super) fn follow(&mut self, overrides: &Arc<Overrides>) -> bool {
        if self.normalisers.last().is_some_and(|(_, normaliser)| Arc::ptr_eq(normaliser.overrides(), overrides)) {
            return false;
        }
        self.latest = Edition(self.latest.0 + 1);
        self.normalisers.push((self.latest, Normaliser::new(Arc::clone(overrides))));
        true
    }

    /// The normaliser of an edition.
    ///
    /// # Panics
    /// When [`Self::retain`] was told that nobody needs it.
    pub(super) fn of(&mut self, edition: Edition) -> &mut Normaliser {
        let found = self.normalisers.iter_mut().find(|(other, _)| *other == edition);
        &mut found.expect("an edition is kept as long as a trace needs it").1
    }

    /// How traces of an edition are derived.
    pub(super) fn options(&mut self, edition: Edition) -> DeriveOptions {
        DeriveOptions::from(&*self.of(edition))
    }

    /// Whether there is more than the one in force.
    pub(super) const fn has_old(&self) -> bool {
        self.normalisers.len() > 1
    }

    /// Lets go of the editions that no trace needs; the one in force stays.
    pub(super) fn retain(&mut self, is_needed: impl Fn(Edition) -> bool) {
        let latest = self.latest;
        self.normalisers.retain(|(edition, _)| *edition == latest || is_needed(*edition));
    }
}
