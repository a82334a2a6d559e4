//! Health of a node in one word, with the reasons.

use serde::Serialize;
use utoipa::ToSchema;

/// Share of failed calls from which a node is degraded: one in a hundred is past any usual
/// objective for a single service.
const DEGRADED_RATIO: f64 = 0.01;
/// Share of failed calls from which a node is failing.
const FAILING_RATIO: f64 = 0.10;

/// How a node is doing, by the calls it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Healthy,
    Degraded,
    Failing,
    /// Nothing was received in the window.
    Idle,
    /// Nothing measures it.
    Unknown,
}

/// Judges a node by what arrived at it.
pub(super) fn judge(calls: i64, errors: f64, is_source: bool) -> (Health, Vec<String>) {
    if calls == 0 {
        let reason = if is_source { "only calls others" } else { "no calls in the window" };
        let health = if is_source { Health::Unknown } else { Health::Idle };
        return (health, vec![reason.to_owned()]);
    }
    let share = errors / calls as f64;
    let told =
        |limit: f64| vec![format!("{:.1} % of {calls} calls failed (limit {:.0} %)", share * 100.0, limit * 100.0)];
    if share >= FAILING_RATIO {
        (Health::Failing, told(FAILING_RATIO))
    } else if share >= DEGRADED_RATIO {
        (Health::Degraded, told(DEGRADED_RATIO))
    } else {
        (Health::Healthy, Vec::new())
    }
}
