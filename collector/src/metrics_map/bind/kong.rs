//! Kong: one series for the entry and the service behind it; `source` says who answered.

use super::Bound;
use super::reading::Reading;
use crate::metrics_map::state::Origin;
use crate::metrics_map::table::Canonical;

impl Reading<'_> {
    pub(super) fn kong(&self) -> Bound {
        let destination = self.label("service").map(|service| self.node_of_host(&service));
        let latency = self.label("type");
        match (self.canonical(), latency.as_deref()) {
            (Canonical::Requests, _) => {
                let is_own = self.label("source").as_deref() == Some("kong");
                self.gateway_requests(destination, self.code("code"), is_own)
            }
            (Canonical::Duration, _) | (Canonical::DurationByType, Some("request")) => {
                self.duration_of(&self.incoming(Origin::Primary))
            }
            (Canonical::DurationUpstream, _) | (Canonical::DurationByType, Some("upstream")) => match destination {
                Some(destination) => self.duration_of(&self.outgoing(destination, Origin::Primary)),
                None => Bound::Nothing,
            },
            (Canonical::Bytes, kind) => self.gateway_bytes(kind),
            _ => Bound::Nothing,
        }
    }
}
