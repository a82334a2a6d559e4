//! agentgateway: one series for the entry and the backend; `reason` says who answered.

use super::Bound;
use super::reading::Reading;
use crate::metrics_map::state::Origin;
use crate::metrics_map::table::Canonical;

impl Reading<'_> {
    pub(super) fn agentgateway(&self) -> Bound {
        let destination = self.label("backend").map(|backend| self.node_of_host(&backend));
        match self.canonical() {
            Canonical::Requests => {
                let is_own = self.label("reason").is_some_and(|reason| reason != "Upstream");
                self.gateway_requests(destination, self.code("status"), is_own)
            }
            Canonical::Duration => self.duration_of(&self.incoming(Origin::Primary)),
            _ => Bound::Nothing,
        }
    }
}
