//! The columns of a topology node, under a prefix: `src_service`, `dst_role` and so on.

use std::sync::Arc;

use arrow::array::{Array, StringArray};
use hashbrown::HashMap;
use windrose_proto::Text;
use windrose_proto::hop::{Entry, EntryRoute, Gap, Node};
use windrose_proto::model::{NodeRole, ProxyKind};

use super::TableError;
use super::columns::{Columns, Reader, parse_word, text_at};

/// Adds the columns of a node that is always there.
pub(super) fn push_node<'a>(columns: &mut Columns, prefix: &str, nodes: impl Iterator<Item = &'a Node> + Clone) {
    columns.text(format!("{prefix}_service"), nodes.clone().map(|node| &*node.service));
    push_rest(columns, prefix, nodes.clone().map(Some));
    columns.text(format!("{prefix}_role"), nodes.clone().map(|node| node.role.as_str()));
    columns.text(format!("{prefix}_proxy_kind"), nodes.map(|node| node.proxy_kind.as_str()));
}

/// Adds the columns of a node that may be absent.
pub(super) fn push_node_opt<'a>(
    columns: &mut Columns,
    prefix: &str,
    nodes: impl Iterator<Item = Option<&'a Node>> + Clone,
) {
    columns.text_opt(format!("{prefix}_service"), nodes.clone().map(|node| node.map(|node| &*node.service)));
    push_rest(columns, prefix, nodes.clone());
    columns.text_opt(format!("{prefix}_role"), nodes.clone().map(|node| node.map(|node| node.role.as_str())));
    columns.text_opt(format!("{prefix}_proxy_kind"), nodes.map(|node| node.map(|node| node.proxy_kind.as_str())));
}

#[expect(clippy::needless_pass_by_value, reason = "an iterator that is cloned for every column")]
fn push_rest<'a>(columns: &mut Columns, prefix: &str, nodes: impl Iterator<Item = Option<&'a Node>> + Clone) {
    let part =
        |pick: fn(&Node) -> Option<&Text>| nodes.clone().map(move |node| node.and_then(pick).map(|text| &**text));
    columns.text_opt(format!("{prefix}_namespace"), part(|node| node.namespace.as_ref()));
    columns.text_opt(format!("{prefix}_workload"), part(|node| node.workload.as_ref()));
    columns.text_opt(format!("{prefix}_version"), part(|node| node.version.as_ref()));
    columns.text_opt(format!("{prefix}_cluster"), part(|node| node.cluster.as_ref()));
}

/// Reads the columns of a node and shares equal nodes.
pub(super) struct NodeReader<'a> {
    prefix: String,
    service: &'a StringArray,
    namespace: &'a StringArray,
    workload: &'a StringArray,
    version: &'a StringArray,
    cluster: &'a StringArray,
    role: &'a StringArray,
    proxy_kind: &'a StringArray,
    seen: HashMap<Node, Arc<Node>>,
}

impl<'a> NodeReader<'a> {
    pub(super) fn new(reader: Reader<'a>, prefix: &str) -> Result<Self, TableError> {
        let column = |part: &str| reader.text(&format!("{prefix}_{part}"));
        Ok(Self {
            prefix: prefix.to_owned(),
            service: column("service")?,
            namespace: column("namespace")?,
            workload: column("workload")?,
            version: column("version")?,
            cluster: column("cluster")?,
            role: column("role")?,
            proxy_kind: column("proxy_kind")?,
            seen: HashMap::new(),
        })
    }

    /// The node of `row`; `None` when it has none.
    pub(super) fn get(&mut self, row: usize) -> Result<Option<Arc<Node>>, TableError> {
        if self.service.is_null(row) {
            return Ok(None);
        }
        let text = |array: &StringArray| text_at(array, row).map(Text::from);
        let word = |array: &'a StringArray| text_at(array, row).unwrap_or_default();
        let node = Node {
            cluster: text(self.cluster),
            namespace: text(self.namespace),
            service: Text::from(self.service.value(row)),
            workload: text(self.workload),
            version: text(self.version),
            role: parse_word(&format!("{}_role", self.prefix), word(self.role), NodeRole::parse)?,
            proxy_kind: parse_word(&format!("{}_proxy_kind", self.prefix), word(self.proxy_kind), ProxyKind::parse)?,
        };
        if let Some(shared) = self.seen.get(&node) {
            return Ok(Some(Arc::clone(shared)));
        }
        let shared = Arc::new(node.clone());
        self.seen.insert(node, Arc::clone(&shared));
        Ok(Some(shared))
    }

    /// The node of `row`, which must have one.
    pub(super) fn require(&mut self, row: usize) -> Result<Arc<Node>, TableError> {
        self.get(row)?.ok_or_else(|| TableError::Inconsistent {
            column: format!("{}_service", self.prefix),
            why: "null where a node is required",
        })
    }
}

/// Adds the columns of the public route: `entry_route`, `entry_host`, or why it is not known.
pub(super) fn push_entry<'a>(columns: &mut Columns, entries: impl Iterator<Item = Option<&'a Entry>> + Clone) {
    let route = |entry: Option<&'a Entry>| match entry {
        Some(Entry::Route(route)) => Some(&**route),
        Some(Entry::Unknown(_)) | None => None,
    };
    let gap = |entry: Option<&'a Entry>| match entry {
        Some(Entry::Unknown(gap)) => Some(gap.as_str()),
        Some(Entry::Route(_)) | None => None,
    };
    columns.text_opt("entry_route", entries.clone().map(move |entry| route(entry).map(|route| &*route.route)));
    let host = move |entry| route(entry).and_then(|route: &EntryRoute| route.host.as_ref()).map(|host| &**host);
    columns.text_opt("entry_host", entries.clone().map(host));
    columns.text_opt("entry_gap", entries.map(gap));
}

/// Reads the public route and shares equal ones.
pub(super) struct EntryReader<'a> {
    route: &'a StringArray,
    host: &'a StringArray,
    gap: &'a StringArray,
    seen: HashMap<EntryRoute, Arc<EntryRoute>>,
}

impl<'a> EntryReader<'a> {
    pub(super) fn new(reader: Reader<'a>) -> Result<Self, TableError> {
        Ok(Self {
            route: reader.text("entry_route")?,
            host: reader.text("entry_host")?,
            gap: reader.text("entry_gap")?,
            seen: HashMap::new(),
        })
    }

    /// The entry of `row`; `None` when there is neither a route nor a reason.
    pub(super) fn get(&mut self, row: usize) -> Result<Option<Entry>, TableError> {
        if let Some(gap) = text_at(self.gap, row) {
            return parse_word("entry_gap", gap, Gap::parse).map(|gap| Some(Entry::Unknown(gap)));
        }
        let Some(route) = text_at(self.route, row) else { return Ok(None) };
        let route = EntryRoute { route: Text::from(route), host: text_at(self.host, row).map(Text::from) };
        let shared = self.seen.entry(route).or_insert_with_key(|route| Arc::new(route.clone()));
        Ok(Some(Entry::Route(Arc::clone(shared))))
    }

    /// The entry of `row`, which must have one.
    pub(super) fn require(&mut self, row: usize) -> Result<Entry, TableError> {
        self.get(row)?.ok_or_else(|| TableError::Inconsistent {
            column: "entry_route".to_owned(),
            why: "neither a route nor a reason",
        })
    }
}
