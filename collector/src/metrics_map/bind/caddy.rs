//! Caddy: every handler of the chain counts the same request.

use std::borrow::Cow;

use super::reading::Reading;
use super::{Bound, at};
use crate::exposition::{Dialect, Parser};
use crate::metrics_map::Page;
use crate::metrics_map::state::Origin;
use crate::metrics_map::sums::Field;
use crate::metrics_map::table::{Canonical, Part};

impl Reading<'_> {
    pub(super) fn caddy(&self) -> Bound {
        if self.label("handler").as_deref() != self.context.caddy_handler.as_deref() {
            return Bound::Nothing;
        }
        let edge = self.incoming(Origin::Primary);
        match (self.canonical(), self.shape.part) {
            // The count of durations is the count of requests, with their codes.
            (Canonical::Duration, Part::Count) => Bound::Fields(vec![
                (at(&edge), Field::Code(self.code("code")), 1.0),
                (at(&edge), Field::DurationCount, 1.0),
            ]),
            (Canonical::Duration, _) => self.duration_of(&edge),
            (Canonical::RequestSize, Part::Sum) => self.one(&edge, Field::BytesSent),
            (Canonical::ResponseSize, Part::Sum) => self.one(&edge, Field::BytesReceived),
            _ => Bound::Nothing,
        }
    }
}

/// The one handler of the chain whose series are read.
pub(super) fn handler(page: Page<'_>) -> Option<String> {
    const FAMILY: &str = "caddy_http_request_duration_seconds_count";
    memchr::memmem::find(page.body, FAMILY.as_bytes())?;
    let samples = Parser::new(page.body, Dialect::Text).samples();
    let handlers = samples.filter(|sample| sample.name == FAMILY).filter_map(|sample| sample.labels.get("handler"));
    // `subroute` wraps the others; without it, any one handler of the chain sees every request.
    handlers
        .min_by_key(|handler| (handler != "subroute", handler != "reverse_proxy", handler.clone().into_owned()))
        .map(Cow::into_owned)
}
