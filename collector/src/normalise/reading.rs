//! One span with everything the rules look at more than once.

use windrose_proto::Text;
use windrose_proto::span::Span;

use super::attrs::{Key, View};
use super::cluster::{Cluster, parse_cluster_with};
use super::host::HostRules;
use super::node_id::NodeId;
use super::resource::ResourceFacts;

/// A span being read.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) span: &'a Span,
    pub(super) view: View<'a>,
    pub(super) facts: &'a ResourceFacts,
    pub(super) hosts: &'a HostRules,
    pub(super) node_id: Option<NodeId<'a>>,
    /// The upstream cluster as written.
    pub(super) cluster_text: Option<&'a Text>,
    pub(super) cluster: Option<Cluster<'a>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(span: &'a Span, facts: &'a ResourceFacts, hosts: &'a HostRules) -> Self {
        let view = View::read(&span.attributes);
        let cluster_text = view.first_text(&[Key::UpstreamCluster, Key::UpstreamClusterName]);
        Self {
            node_id: view.text(Key::NodeId).and_then(|text| NodeId::parse(text)),
            cluster: cluster_text.and_then(|text| parse_cluster_with(text, hosts)),
            cluster_text,
            span,
            view,
            facts,
            hosts,
        }
    }
}
