//! ingress-nginx: one series for the entry and the service behind it.

use windrose_proto::Text;

use super::Bound;
use super::reading::Reading;
use crate::metrics_map::PeerNode;
use crate::metrics_map::state::Origin;
use crate::metrics_map::sums::Field;
use crate::metrics_map::table::{Canonical, Part};

impl Reading<'_> {
    pub(super) fn ingress_nginx(&self) -> Bound {
        let destination = self.label("service").map(|service| PeerNode {
            service: Text::from(service.into_owned()),
            namespace: self.known(&["namespace"]),
            external: Some(false),
            ..PeerNode::default()
        });
        match self.canonical() {
            Canonical::Requests => self.gateway_requests(destination, self.code("status"), false),
            Canonical::Duration => self.duration_of(&self.incoming(Origin::Primary)),
            Canonical::DurationUpstream => match destination {
                Some(destination) => self.duration_of(&self.outgoing(destination, Origin::Primary)),
                None => Bound::Nothing,
            },
            Canonical::RequestSize if self.shape.part == Part::Sum => {
                self.one(&self.incoming(Origin::Primary), Field::BytesSent)
            }
            Canonical::ResponseBytes if self.shape.part == Part::Sum => {
                self.one(&self.incoming(Origin::Primary), Field::BytesReceived)
            }
            _ => Bound::Nothing,
        }
    }
}
