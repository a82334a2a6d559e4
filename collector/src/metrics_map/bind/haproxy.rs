//! HAProxy: frontends, backends and servers tell the same story on three levels.

use windrose_proto::Text;

use super::reading::Reading;
use super::{Bound, at};
use crate::metrics_map::PeerNode;
use crate::metrics_map::state::Origin;
use crate::metrics_map::sums::Field;
use crate::metrics_map::table::{Canonical, Layer};

impl Reading<'_> {
    pub(super) fn haproxy(&self) -> Bound {
        let Some(proxy) = self.label("proxy") else { return Bound::Nothing };
        if matches!(proxy.as_ref(), "stats" | "prom" | "prometheus" | "admin") || proxy.starts_with("health") {
            return Bound::Internal;
        }
        let layer = self.shape.rule.layer;
        let edge = if layer == Layer::Plain {
            self.incoming(Origin::Primary)
        } else {
            let service = PeerNode { service: Text::from(proxy.into_owned()), ..PeerNode::default() };
            self.outgoing(service, Origin::Primary)
        };
        if layer == Layer::Server {
            // A failure the backend counts and no server does was made by HAProxy itself.
            let is_failure = self.canonical() == Canonical::Requests && self.code("code").is_error();
            return if is_failure { Bound::Fields(vec![(at(&edge), Field::ProxyFault, -1.0)]) } else { Bound::Nothing };
        }
        match self.canonical() {
            // Codes `other` are requests without a valid answer.
            Canonical::Requests => self.requests(&edge, self.code("code"), layer == Layer::Backend),
            Canonical::Retries => self.one(&edge, Field::Retries),
            Canonical::ConnectFailures => self.one(&edge, Field::ConnectFailures),
            Canonical::UpstreamResets => self.one(&edge, Field::Resets),
            Canonical::Denied => self.one(&edge, Field::Denied),
            Canonical::BytesFromClient => self.one(&edge, Field::BytesSent),
            Canonical::BytesToClient => self.one(&edge, Field::BytesReceived),
            _ => Bound::Nothing,
        }
    }
}
