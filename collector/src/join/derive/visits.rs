//! Visits: one entry span per time a request enters a process, and the spans of that process that
//! belong to it (rule V11).

use windrose_proto::model::{NodeRole, Rule, Vantage};

use super::rows::{RowId, Rows};

/// The spans of each visit besides its entry.
#[derive(Debug)]
pub(super) struct Visits {
    /// By entry, in the order of the rows; empty for rows that are no entries.
    members: Vec<Vec<RowId>>,
}

impl Visits {
    /// The spans of the visit that begins with `entry`.
    pub(super) fn of(&self, entry: RowId) -> &[RowId] {
        &self.members[entry as usize]
    }
}

/// Finds entries, carriers and visits.
pub(super) fn find(rows: &mut Rows<'_>) -> Visits {
    for id in rows.ids() {
        if rows.get(id).vantage != Vantage::Downstream {
            continue;
        }
        if is_nested(rows, id) {
            let row = rows.get_mut(id);
            (row.vantage, row.vantage_rule) = (Vantage::Phase, Rule("V11"));
        } else {
            rows.get_mut(id).is_entry = true;
        }
    }
    for place in 0..rows.order.len() {
        let id = rows.order[place];
        let parent = rows.get(id).parent;
        let above = parent.map(|parent| rows.get(parent));
        let entry = if rows.get(id).is_entry { Some(id) } else { above.and_then(|above| above.entry) };
        let carrier =
            if above.is_some_and(|above| above.is_phase()) { above.and_then(|above| above.carrier) } else { parent };
        let row = rows.get_mut(id);
        (row.entry, row.carrier) = (entry, carrier);
    }
    let mut members = vec![Vec::new(); rows.len()];
    for id in rows.ids().filter(|id| !rows.get(*id).is_entry) {
        if let Some(entry) = rows.get(id).entry.filter(|entry| rows.same_process(*entry, id)) {
            members[entry as usize].push(id);
        }
    }
    Visits { members }
}

/// V11: a SERVER span directly below another of the same process is work inside it. A sidecar that
/// makes SERVER spans on its way out is entered anew, by its application.
fn is_nested(rows: &Rows<'_>, id: RowId) -> bool {
    let row = rows.get(id);
    let Some(parent) = row.parent else { return false };
    let above = rows.get(parent);
    let turns_around = above.span.upstream_is_own_app && row.is_outbound_sidecar();
    !above.is_client_kind() && row.role != NodeRole::Waypoint && !turns_around && rows.same_process(parent, id)
}
