//! Identities that a span does not carry itself but its neighbours in the same process or pod do.

use std::sync::Arc;

use hashbrown::HashMap;
use windrose_proto::model::{Rule, Vantage};
use windrose_proto::normal::Identity;

use super::rows::{RowId, Rows};

/// Completes identities, then numbers the nodes anew.
pub(super) fn adopt_identities(rows: &mut Rows<'_>) {
    let routers = inherit_in_routers(rows);
    let apps = adopt_in_apps(rows);
    if routers || apps {
        rows.number_nodes();
    }
}

/// Envoy writes its node id only on the spans of the connection manager. The spans of its router
/// (one per attempt) take identity and role from there (rule R2i).
fn inherit_in_routers(rows: &mut Rows<'_>) -> bool {
    let mut changed = false;
    for place in 0..rows.order.len() {
        let id = rows.order[place];
        let row = rows.get(id);
        let is_router = row.kind.is_envoy_family() && row.vantage == Vantage::Upstream;
        let Some(parent) = row.parent.filter(|_| is_router && row.span.process.node_id.is_none()) else { continue };
        let above = rows.get(parent);
        let is_same_process = above.span.process.resource_hash == row.span.process.resource_hash;
        if !is_same_process || above.kind != row.kind || above.span.process.node_id.is_none() {
            continue;
        }
        let (identity, role, is_open) = (Arc::clone(&above.identity), above.role, above.role_is_open);
        let row = rows.get_mut(id);
        changed |= row.identity != identity;
        row.identity = identity;
        if row.role_rule != Rule("R1") && !is_open && (row.role_is_open || row.role != role) {
            (row.role, row.role_is_open, row.role_rule) = (role, false, Rule("R2i"));
        }
    }
    changed
}

/// An application behind a sidecar often calls itself `orders` where the sidecar knows `orders` in
/// `shop`: what the application leaves open comes from the nearest sidecar above it with the same
/// service name, else the namespace from the only one in the trace (rule I5).
fn adopt_in_apps(rows: &mut Rows<'_>) -> bool {
    let is_candidate = |rows: &Rows<'_>, id: RowId| rows.get(id).is_app() && rows.get(id).identity.namespace.is_none();
    if !rows.ids().any(|id| is_candidate(rows, id)) || !rows.rows.iter().any(|row| row.is_sidecar()) {
        return false;
    }
    let nearest = nearest_sidecars(rows);
    let mut namespaces: HashMap<&str, Option<&Identity>> = HashMap::new();
    for row in rows.rows.iter().filter(|row| row.is_sidecar()) {
        let known = namespaces.entry(&row.identity.service).or_insert(Some(&row.identity));
        if known.is_some_and(|known| known.namespace != row.identity.namespace) {
            *known = None;
        }
    }
    let mut adopted: Vec<(RowId, Arc<Identity>)> = Vec::new();
    for id in rows.ids().filter(|id| is_candidate(rows, *id)) {
        let own = &rows.get(id).identity;
        let above = nearest[id as usize].map(|id| &rows.get(id).identity).filter(|above| above.service == own.service);
        let identity = match (above, namespaces.get(&*own.service).copied().flatten()) {
            (Some(above), _) => completed(own, above),
            (None, Some(other)) => Identity {
                namespace: other.namespace.clone(),
                cluster: own.cluster.clone().or_else(|| other.cluster.clone()),
                ..(**own).clone()
            },
            (None, None) => continue,
        };
        adopted.push((id, Arc::new(identity)));
    }
    drop(namespaces);
    let changed = !adopted.is_empty();
    for (id, identity) in adopted {
        rows.get_mut(id).identity = identity;
    }
    changed
}

fn nearest_sidecars(rows: &Rows<'_>) -> Vec<Option<RowId>> {
    let mut nearest = vec![None; rows.len()];
    for id in &rows.order {
        if let Some(parent) = rows.get(*id).parent {
            nearest[*id as usize] = if rows.get(parent).is_sidecar() { Some(parent) } else { nearest[parent as usize] };
        }
    }
    nearest
}

fn completed(own: &Identity, above: &Identity) -> Identity {
    let or = |own: &Option<_>, above: &Option<_>| own.clone().or_else(|| above.clone());
    Identity {
        service: own.service.clone(),
        namespace: or(&own.namespace, &above.namespace),
        workload: or(&own.workload, &above.workload),
        version: or(&own.version, &above.version),
        pod: or(&own.pod, &above.pod),
        cluster: or(&own.cluster, &above.cluster),
        ip: own.ip,
    }
}
