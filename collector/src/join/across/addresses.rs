//! Who had which address from when to when (rule S4).
//!
//! A process that writes its own address into its spans owns it from its first such span to its
//! last. Pods come and go and their addresses are given to others, so every answer is about an
//! instant, and two owners at one instant are a conflict, which is said and not guessed. What an
//! owner is known by is a minimum, a maximum and the fullest of its names: the order in which the
//! spans came does not matter.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use smallvec::SmallVec;
use windrose_proto::hop::Node;
use windrose_proto::model::{NodeRole, ProxyKind};
use windrose_proto::normal::{Identity, NormalSpan, RoleHint};
use windrose_proto::time::UnixNanos;

/// Addresses remembered; about 300 bytes each. The largest clusters have 150 000 pods.
const ADDRESSES_MAX: usize = 200_000;

/// Owners remembered per address. More at once is an address that many share, such as a node's.
const OWNERS_MAX: usize = 8;

/// How long before its first span and after its last an owner is believed to have had the address.
/// Quiet services send a span in five minutes; networks of pods wait longer with giving an address away.
const BELIEVED: Duration = Duration::from_secs(300);

/// How long an owner is remembered after its last span: late spans are rarely later.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Several owners at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict;

#[derive(Debug)]
struct Owner {
    identity: Arc<Identity>,
    node: Arc<Node>,
    first: UnixNanos,
    last: UnixNanos,
}

#[derive(Debug, Default)]
struct Owners {
    owners: SmallVec<[Owner; 1]>,
    /// Whether there were more than are remembered: then nobody is sure.
    crowded: bool,
}

#[derive(Debug, Default)]
pub(super) struct AddressBook {
    known: HashMap<IpAddr, Owners>,
    refused: u64,
}

impl AddressBook {
    /// Learns from one span. The address, when something about it is new.
    pub(super) fn see(&mut self, span: &NormalSpan) -> Option<IpAddr> {
        let ip = span.identity.ip?;
        let role = match span.role {
            // A proxy that names its own address and leaves its role open stands alone: a gateway.
            RoleHint::InContext => NodeRole::Gateway,
            RoleHint::Known(role) => role,
        };
        // A node's proxy speaks for many; other proxies write the address of their host.
        let owns_it = matches!(span.proxy_kind, ProxyKind::Istio | ProxyKind::Linkerd | ProxyKind::None);
        if !owns_it || role == NodeRole::NodeProxy || ip.is_loopback() && ip == IpAddr::from([127, 0, 0, 1]) {
            return None;
        }
        if !self.known.contains_key(&ip) && self.known.len() >= ADDRESSES_MAX {
            self.refused += 1;
            return None;
        }
        let owners = self.known.entry(ip).or_default();
        owners.see(span, role).then_some(ip)
    }

    /// Who had `ip` at `at`; `None` when nobody is known to have had it around then.
    pub(super) fn owner(&self, ip: IpAddr, at: UnixNanos) -> Option<Result<Arc<Node>, Conflict>> {
        self.known.get(&ip)?.at(at)
    }

    /// Forgets owners that were last seen long before `now`.
    pub(super) fn sweep(&mut self, now: UnixNanos) {
        let oldest = now.minus(REMEMBERED);
        self.known.retain(|_, owners| {
            owners.owners.retain(|owner| owner.last >= oldest);
            !owners.owners.is_empty()
        });
    }

    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }
}

impl Owners {
    fn see(&mut self, span: &NormalSpan, role: NodeRole) -> bool {
        let identity = &span.identity;
        let is_it = |owner: &&mut Owner| {
            Arc::ptr_eq(&owner.identity, identity)
                || (owner.identity.service == identity.service && owner.identity.namespace == identity.namespace)
        };
        let Some(owner) = self.owners.iter_mut().find(is_it) else {
            if self.owners.len() >= OWNERS_MAX {
                return !std::mem::replace(&mut self.crowded, true);
            }
            let node = Arc::new(node_of(identity, role, span.proxy_kind));
            self.owners.push(Owner { identity: Arc::clone(identity), node, first: span.start, last: span.end });
            return true;
        };
        let mut is_news = false;
        if span.start < owner.first {
            (owner.first, is_news) = (span.start, true);
        }
        if span.end > owner.last {
            (owner.last, is_news) = (span.end, true);
        }
        if !Arc::ptr_eq(&owner.identity, identity) || owner.node.role != role {
            let node = node_of(identity, role, span.proxy_kind);
            if fullness(&node) > fullness(&owner.node) {
                (owner.node, is_news) = (Arc::new(node), true);
            }
        }
        is_news
    }

    fn at(&self, at: UnixNanos) -> Option<Result<Arc<Node>, Conflict>> {
        let distance = |owner: &Owner| owner.first.since(at).max(at.since(owner.last));
        let nearest = self.owners.iter().map(distance).min()?;
        if u128::from(nearest) > BELIEVED.as_nanos() {
            return None;
        }
        if self.crowded {
            return Some(Err(Conflict));
        }
        let mut near: SmallVec<[&Owner; 2]> = self.owners.iter().filter(|owner| distance(owner) == nearest).collect();
        // An application rarely knows the namespace that its sidecar knows: they are one owner.
        if near.len() > 1 {
            let places: SmallVec<[(&str, &str); 2]> = near
                .iter()
                .filter_map(|owner| Some((&*owner.node.service, owner.node.namespace.as_deref()?)))
                .collect();
            near.retain(|owner| {
                owner.node.namespace.is_some() || !places.iter().any(|(service, _)| *service == &*owner.node.service)
            });
        }
        Some(match near.as_slice() {
            [only] => Ok(Arc::clone(&only.node)),
            _ => Err(Conflict),
        })
    }
}

/// How much a name says: a proxy's own word beats an application's, more parts beat fewer; the rest
/// makes the order total.
fn fullness(node: &Node) -> (bool, usize, &Node) {
    let parts = [&node.cluster, &node.namespace, &node.workload, &node.version];
    (node.proxy_kind != ProxyKind::None, parts.into_iter().flatten().count(), node)
}

fn node_of(identity: &Identity, role: NodeRole, proxy_kind: ProxyKind) -> Node {
    Node {
        cluster: identity.cluster.clone(),
        namespace: identity.namespace.clone(),
        service: identity.service.clone(),
        workload: identity.workload.clone(),
        version: identity.version.clone(),
        role,
        proxy_kind,
    }
}
