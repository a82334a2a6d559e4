//! Roles that only the rest of the trace decides (rules R4).

use hashbrown::HashMap;
use windrose_proto::model::{NodeRole, ProxyKind, Rule};
use windrose_proto::normal::SourceHint;

use super::rows::{RowId, Rows};
use crate::normalise::host::is_private_ip;
use crate::normalise::names::names_ingress;

/// Decides every open role; one decision per node and kind of proxy, callers before callees.
pub(super) fn decide(rows: &mut Rows<'_>) {
    if !rows.rows.iter().any(|row| row.role_is_open) {
        return;
    }
    let above = remote_ancestors(rows);
    let mut groups: HashMap<(u32, ProxyKind), Vec<RowId>> = HashMap::new();
    for id in rows.ids() {
        let row = rows.get(id);
        groups.entry((row.node, row.kind)).or_default().push(id);
    }
    for id in rows.ids() {
        let row = rows.get(id);
        if !row.role_is_open {
            continue;
        }
        let group = groups.get(&(row.node, row.kind)).map(Vec::as_slice).unwrap_or_default();
        let (role, rule) = decide_group(rows, id, group, above[id as usize]);
        for member in group {
            let row = rows.get_mut(*member);
            if row.role_is_open {
                (row.role, row.role_rule, row.role_is_open) = (role, Rule(rule), false);
            }
        }
    }
}

fn decide_group(rows: &Rows<'_>, id: RowId, group: &[RowId], above: Option<RowId>) -> (NodeRole, &'static str) {
    let row = rows.get(id);
    let members = || group.iter().map(|member| rows.get(*member));
    // The type of the node is in the node id: without one, the other spans of the node know.
    let has_siblings = matches!(row.kind, ProxyKind::Envoy | ProxyKind::AppMesh | ProxyKind::Consul)
        || (row.kind == ProxyKind::Istio && row.span.process.node_id.is_none());
    if let Some(settled) = members().find(|member| !member.role_is_open).filter(|_| has_siblings) {
        return (settled.role, "R4s");
    }
    let mut destinations =
        members().filter(|member| member.is_up()).filter_map(|member| member.destination.as_ref()).peekable();
    let leaves_mesh = if destinations.peek().is_some() {
        destinations.all(|destination| destination.external)
    } else {
        let mut any = members().filter_map(|member| member.destination.as_ref()).peekable();
        any.peek().is_some() && any.all(|destination| destination.external)
    };
    if leaves_mesh && above.is_some() {
        return (NodeRole::Egress, "R4a");
    }
    let is_called_from_inside = || {
        members().any(|member| matches!(member.span.source, Some(SourceHint::Address { ip, .. }) if is_private_ip(ip)))
    };
    if leaves_mesh && is_called_from_inside() && !names_ingress(&row.identity.service) {
        return (NodeRole::Egress, "R4b");
    }
    let is_below_app = above.is_some_and(|above| matches!(rows.get(above).role, NodeRole::Sidecar | NodeRole::App));
    if row.kind == ProxyKind::Envoy && is_below_app {
        return (NodeRole::Sidecar, "R4d");
    }
    (NodeRole::Gateway, "R4c")
}

/// The nearest ancestor on another node or of another kind.
pub(super) fn remote_ancestors(rows: &Rows<'_>) -> Vec<Option<RowId>> {
    let mut above: Vec<Option<RowId>> = vec![None; rows.len()];
    for id in &rows.order {
        let row = rows.get(*id);
        above[*id as usize] = row.parent.and_then(|parent| {
            let is_same = rows.same_node(parent, *id) && rows.get(parent).kind == row.kind;
            if is_same { above[parent as usize] } else { Some(parent) }
        });
    }
    above
}
