//! Nginx without an ingress controller: its entry only.

use super::Bound;
use super::reading::Reading;
use crate::metrics_map::state::Origin;
use crate::metrics_map::sums::{Code, Field};
use crate::metrics_map::table::Canonical;

impl Reading<'_> {
    pub(super) fn nginx(&self) -> Bound {
        let edge = self.incoming(Origin::Primary);
        match self.canonical() {
            Canonical::RequestsNginx => match self.label("status") {
                Some(status) => self.requests(&edge, Code::of_label(&status), false),
                None => self.one(&edge, Field::Completed),
            },
            // The handled ones are the same connections again.
            Canonical::ConnectionsOpened if self.shape.rule.name.ends_with("_accepted") => {
                self.one(&edge, Field::ConnectionsOpened)
            }
            Canonical::Duration => self.duration_of(&edge),
            _ => Bound::Nothing,
        }
    }
}
