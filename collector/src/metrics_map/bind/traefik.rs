//! Traefik: the entry and the service are counted apart.

use windrose_proto::Text;

use super::Bound;
use super::reading::Reading;
use crate::metrics_map::PeerNode;
use crate::metrics_map::state::Origin;
use crate::metrics_map::sums::Field;
use crate::metrics_map::table::Canonical;

impl Reading<'_> {
    pub(super) fn traefik(&self) -> Bound {
        let is_entry = self.shape.rule.name.starts_with("traefik_entrypoint_");
        let edge = if is_entry {
            self.incoming(Origin::Primary)
        } else {
            match self.label("service") {
                Some(service) if self.shape.rule.name.starts_with("traefik_service_") => {
                    self.outgoing(traefik_service(&service), Origin::Primary)
                }
                // Routers tell the entry's requests once more.
                _ => return Bound::Nothing,
            }
        };
        match self.canonical() {
            Canonical::Requests | Canonical::RequestsUpstream => self.requests(&edge, self.code("code"), false),
            Canonical::Duration | Canonical::DurationUpstream => self.duration_of(&edge),
            Canonical::Retries => self.one(&edge, Field::Retries),
            Canonical::BytesFromClient | Canonical::BytesSentUpstream => self.one(&edge, Field::BytesSent),
            Canonical::BytesToClient | Canonical::BytesReceivedUpstream => self.one(&edge, Field::BytesReceived),
            _ => Bound::Nothing,
        }
    }
}

/// `NAMESPACE-NAME-PORT@kubernetes`, `NAME@docker`. The namespace cannot be told from the name, so
/// both stay together.
fn traefik_service(label: &str) -> PeerNode {
    let (name, provider) = label.split_once('@').unwrap_or((label, ""));
    let name = match name.rsplit_once('-') {
        Some((stem, port)) if provider.starts_with("kubernetes") && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            stem
        }
        _ => name,
    };
    PeerNode { service: Text::from(name), external: Some(false), ..PeerNode::default() }
}
