//! Spring Cloud Gateway, and Zuul with the same client library.

use super::reading::Reading;
use super::{Bound, at};
use crate::metrics_map::state::Origin;
use crate::metrics_map::sums::Field;
use crate::metrics_map::table::Part;

impl Reading<'_> {
    pub(super) fn spring_cloud_gateway(&self) -> Bound {
        let (edge, code) = match self.shape.rule.name {
            "spring_cloud_gateway_requests_seconds" => {
                let Some(uri) = self.label("routeUri") else { return Bound::Nothing };
                (self.outgoing(self.node_of_host(&uri), Origin::Primary), self.code("httpStatusCode"))
            }
            "http_client_requests_seconds" => {
                let Some(client) = self.label("client_name").or_else(|| self.label("clientName")) else {
                    return Bound::Nothing;
                };
                (self.outgoing(self.node_of_host(&client), Origin::HttpClient), self.code("status"))
            }
            _ => (self.incoming(Origin::Primary), self.code("status")),
        };
        if self.shape.part != Part::Count {
            return self.duration_of(&edge);
        }
        Bound::Fields(vec![(at(&edge), Field::Code(code), 1.0), (at(&edge), Field::DurationCount, 1.0)])
    }
}
