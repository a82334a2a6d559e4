use std::sync::Arc;

use windrose_proto::Text;
use windrose_proto::edge::{CounterStats, EdgeKey, EdgeRow, EdgeStats, SEALED_WINDOW_NANOS, SpanStats};
use windrose_proto::hop::{Entry, EntryRoute, Node};
use windrose_proto::model::{Direction, NodeRole, Protocol, ProxyKind};
use windrose_proto::time::UnixNanos;

use super::{EdgeTotals, FocusDirection, Graph, NodeId, Scope, Selection, VolumeSource};

fn node(name: &str, role: NodeRole) -> Node {
    let (namespace, service) =
        name.split_once('/').map_or((None, name), |(ns, service)| (Some(Text::from(ns)), service));
    let (service, version) = service.split_once('@').map_or((service, None), |(s, v)| (s, Some(Text::from(v))));
    Node {
        cluster: None,
        namespace,
        service: Text::from(service),
        workload: None,
        version,
        role,
        proxy_kind: ProxyKind::None,
    }
}

fn row(source: Node, destination: Node, direction: Direction, route: Option<&str>, calls: i64) -> EdgeRow {
    let entry = route.map(|route| Entry::Route(Arc::new(EntryRoute { route: Text::from(route), host: None })));
    let key = EdgeKey {
        source: Arc::new(source),
        destination: Arc::new(destination),
        direction,
        protocol: Protocol::Http1,
        entry,
        origin: None,
    };
    let stats =
        EdgeStats { spans: SpanStats { calls, attempts: calls, ..SpanStats::default() }, ..EdgeStats::default() };
    EdgeRow {
        window_start: UnixNanos(0),
        window_nanos: SEALED_WINDOW_NANOS,
        key: Arc::new(key),
        stats: Arc::new(stats),
    }
}

/// gateway → orders (v1 90, v2 10) → users, and a caller that names `users` without its namespace.
fn mesh() -> Vec<EdgeRow> {
    let gateway = || node("istio-system/gateway", NodeRole::Gateway);
    vec![
        row(Node::client(), gateway(), Direction::NorthSouth, Some("GET /orders/{id}"), 100),
        row(gateway(), node("shop/orders@v1", NodeRole::Sidecar), Direction::NorthSouth, Some("GET /orders/{id}"), 90),
        row(gateway(), node("shop/orders@v2", NodeRole::Sidecar), Direction::NorthSouth, Some("GET /orders/{id}"), 10),
        row(
            node("shop/orders@v1", NodeRole::Sidecar),
            node("shop/users", NodeRole::Sidecar),
            Direction::EastWest,
            Some("GET /orders/{id}"),
            180,
        ),
        row(node("shop/orders@v2", NodeRole::Sidecar), node("users", NodeRole::App), Direction::EastWest, None, 20),
        row(node("shop/users", NodeRole::Sidecar), node("shop/users", NodeRole::App), Direction::Local, None, 200),
    ]
}

fn edges(graph: &Graph) -> Vec<String> {
    graph.edges.iter().map(|((from, to), edge)| format!("{from} -> {to} {}", edge.stats.spans.calls)).collect()
}

#[test]
fn services_merge_over_versions_and_missing_namespaces_and_local_legs_are_no_edges() {
    let graph = Graph::build(&mesh(), Scope::Service);
    assert_eq!(
        edges(&graph),
        [
            "(client) -> istio-system/gateway 100",
            "istio-system/gateway -> shop/orders 100",
            "shop/orders -> shop/users 200"
        ]
    );
}

#[test]
fn versions_are_nodes_when_asked_for() {
    let graph = Graph::build(&mesh(), Scope::Version);
    assert!(edges(&graph).contains(&"istio-system/gateway -> shop/orders@v2 10".to_owned()), "{:?}", edges(&graph));
}

#[test]
fn two_namespaces_of_one_service_stay_apart() {
    let mut rows = mesh();
    rows.push(row(
        node("shop/orders@v1", NodeRole::Sidecar),
        node("billing/users", NodeRole::Sidecar),
        Direction::EastWest,
        None,
        1,
    ));
    let graph = Graph::build(&rows, Scope::Service);
    assert!(
        edges(&graph).contains(&"shop/orders -> users 20".to_owned()),
        "merging would be a guess: {:?}",
        edges(&graph)
    );
}

#[test]
fn requests_are_counted_where_they_enter() {
    let graph = Graph::build(&mesh(), Scope::Service);
    let requests: Vec<_> =
        graph.requests.iter().map(|(id, calls)| (graph.routes.route(*id).route.to_string(), *calls)).collect();
    assert_eq!(requests, [("GET /orders/{id}".to_owned(), 100)]);
}

#[test]
fn volume_comes_from_counters_unless_they_saw_less_than_the_spans() {
    let check = |counted: i64, expect: (i64, VolumeSource)| {
        let mut row = mesh().remove(1);
        let counters = CounterStats { calls: counted, scrapes: 1, ..CounterStats::default() };
        Arc::make_mut(&mut row.stats).client_counters = counters;
        let graph = Graph::build(&[row], Scope::Service);
        let volume = graph.edges.values().next().expect("one edge").volume();
        assert_eq!((volume.calls, volume.source), expect, "{counted} counted");
    };
    check(900, (900, VolumeSource::Counter));
    check(90, (90, VolumeSource::Counter));
    check(12, (90, VolumeSource::Spans));
}

/// `kong -> orders` by spans; orders' versions count 900 and 100 requests of somebody.
#[test]
fn an_unknown_caller_is_the_only_one_that_the_callee_does_not_name() {
    let counted = |from: Node, version: &str, calls: i64| {
        let mut row =
            row(from, node(&format!("shop/orders@{version}"), NodeRole::Sidecar), Direction::Unknown, None, 0);
        let counters = CounterStats { calls, scrapes: 1, ..CounterStats::default() };
        Arc::make_mut(&mut row.stats).server_counters = counters;
        row
    };
    let traced = |from: &str, calls| {
        row(node(from, NodeRole::Gateway), node("shop/orders", NodeRole::Sidecar), Direction::NorthSouth, None, calls)
    };
    let check = |rows: &[EdgeRow], expect: &[(&str, i64)]| {
        let graph = Graph::build(rows, Scope::Service);
        let found: Vec<(String, i64)> =
            graph.edges.iter().map(|((from, _), edge)| (from.to_string(), edge.volume().calls)).collect();
        let expect: Vec<(String, i64)> = expect.iter().map(|(from, calls)| ((*from).to_owned(), *calls)).collect();
        assert_eq!(found, expect);
        assert_eq!(
            graph.nodes.keys().any(|id| &*id.name == "(unknown)"),
            expect.iter().any(|(id, _)| id == "(unknown)")
        );
        graph
    };
    let unknown = || [counted(Node::unknown(), "v1", 900), counted(Node::unknown(), "v2", 100)];
    let sidecar = || counted(node("shop/users", NodeRole::Sidecar), "v1", 50);

    let graph =
        check(&[&unknown()[..], &[traced("kong", 20), sidecar()]].concat(), &[("kong", 1000), ("shop/users", 50)]);
    let versions: Vec<(&str, i64)> =
        graph.edges.values().next().unwrap().versions().iter().map(|(v, n)| (&**v, *n)).collect();
    assert_eq!(versions, [("v1", 900), ("v2", 100)], "counted, not sampled");

    // Two that it may be, or none: it stays unknown.
    let two = [traced("kong", 20), traced("nginx", 20)];
    check(&[&unknown()[..], &two].concat(), &[("(unknown)", 1000), ("kong", 20), ("nginx", 20)]);
    check(&unknown(), &[("(unknown)", 1000)]);
}

#[test]
fn a_whole_is_not_told_beside_its_parts() {
    let counted = |to: &str, calls: i64, is_client: bool| {
        let mut row = row(node("kong", NodeRole::Gateway), node(to, NodeRole::Sidecar), Direction::NorthSouth, None, 0);
        let by_code = [(Text::from("200"), calls)].into();
        let counters = CounterStats { calls, by_code, scrapes: 1, ..CounterStats::default() };
        let stats = Arc::make_mut(&mut row.stats);
        *(if is_client { &mut stats.client_counters } else { &mut stats.server_counters }) = counters;
        row
    };
    let check = |whole: i64, parts: &[(&str, i64, bool)], expect: &[&str]| {
        let mut rows = vec![counted("shop/orders", whole, true)];
        rows.extend(parts.iter().map(|(part, calls, is_client)| counted(part, *calls, *is_client)));
        let graph = Graph::build(&rows, Scope::Version);
        let told = |(ends, edge): (&(NodeId, NodeId), &EdgeTotals)| {
            let codes: i64 = edge.counters().unwrap().by_code.values().sum();
            format!("{} {} {codes}", ends.1, edge.volume().calls)
        };
        assert_eq!(graph.edges.iter().map(told).collect::<Vec<_>>(), expect);
        assert_eq!(graph.nodes.len(), expect.len() + 1, "no node without an edge");
        let service = Graph::build(&rows, Scope::Service);
        assert_eq!(service.edges.len(), 1);
    };
    let (v1, v2) = (("shop/orders@v1", 900, false), ("shop/orders@v2", 95, false));
    check(1000, &[], &["shop/orders 1000 1000"]);
    // Pages of two proxies are not of the same moment.
    check(1000, &[v1, v2], &["shop/orders@v1 900 900", "shop/orders@v2 95 95"]);
    // Nobody scrapes v2: the rest went to whom nobody says.
    check(1000, &[v1], &["shop/orders 100 100", "shop/orders@v1 900 900"]);
    // The caller itself counts by version, and the rest without one.
    let by_caller = ("shop/orders@v1", 900, true);
    check(100, &[by_caller], &["shop/orders 100 100", "shop/orders@v1 900 900"]);
}

#[test]
fn focus_walks_the_asked_way() {
    let check = |focus_direction, expect: &[&str]| {
        let mut graph = Graph::build(&mesh(), Scope::Service);
        let selection =
            Selection { focus: Some("shop/orders".into()), focus_direction, depth: 1, ..Selection::default() };
        selection.apply(&mut graph, 60.0);
        assert_eq!(edges(&graph), expect);
    };
    check(FocusDirection::Up, &["istio-system/gateway -> shop/orders 100"]);
    check(FocusDirection::Down, &["shop/orders -> shop/users 200"]);
    check(FocusDirection::Both, &["istio-system/gateway -> shop/orders 100", "shop/orders -> shop/users 200"]);
}

#[test]
fn one_odd_trace_does_not_turn_a_sidecar_into_a_gateway() {
    let users = || node("shop/users", NodeRole::Sidecar);
    let mut rows = mesh();
    // Only the middle of this trace came, and its rules took orders for a gateway.
    rows.push(row(node("shop/orders@v1", NodeRole::Gateway), users(), Direction::NorthSouth, None, 1));
    let graph = Graph::build(&rows, Scope::Service);
    let role = |name: &str| graph.nodes.iter().find(|(id, _)| &*id.name == name).map(|(_, node)| node.role);
    assert_eq!(role("orders"), Some(NodeRole::Sidecar));
    assert_eq!(role("gateway"), Some(NodeRole::Gateway));
    assert_eq!(role("users"), Some(NodeRole::Sidecar), "a proxy's own word beats what a caller without it sees");
}
