//! What the operator knows better takes effect while the server runs.

use std::collections::BTreeMap;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::capture::ProxyPages;
use windrose_tests::client::Http;
use windrose_tests::pages::Pages;
use windrose_tests::replay::{connect, export};
use windrose_tests::server::{Home, TestServer};
use windrose_tests::synthetic::Request;
use windrose_tests::topology::Topology;
use windrose_tests::wait::until;

use crate::support::{SHOWN_WITHIN, window};

/// Direction, calls by spans, calls by counters.
type Told = (String, u64, Option<u64>);

async fn send(server: &TestServer, part: ResourceSpans) {
    let request = ExportTraceServiceRequest { resource_spans: vec![part] };
    export(connect(server.ports().otlp_grpc), request).await.unwrap();
}

async fn shown(http: &Http, expect: &[(&str, &str, &str, u64, Option<u64>)]) {
    let expect: BTreeMap<(String, String), Told> = expect
        .iter()
        .map(|(source, target, direction, calls, counted)| {
            (((*source).to_owned(), (*target).to_owned()), ((*direction).to_owned(), *calls, *counted))
        })
        .collect();
    until("the topology under the names in force", SHOWN_WITHIN, async || {
        let answer = Topology::fetch(http, &window().parameters()).await?;
        let told = |edge: &windrose_tests::topology::Edge<'_>| {
            (edge.text("/direction").to_owned(), edge.calls(), edge.0["evidence"]["counter_requests"].as_u64())
        };
        let found: BTreeMap<(String, String), Told> =
            answer.edges().iter().map(|(pair, edge)| (pair.clone(), told(edge))).collect();
        if found == expect { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .await;
}

#[tokio::test]
async fn names_roles_and_hosts_take_effect_without_a_restart() {
    let page = |value: u64| {
        Bytes::from(format!(
            "envoy_cluster_upstream_rq{{response_code=\"200\",cluster_name=\"outbound|443||crm.corp.example\"}} {value}\n"
        ))
    };
    let pages = Pages::serve(&[ProxyPages { proxy: "edge".to_owned(), pages: vec![page(100), page(105)] }]).await;
    let address = pages.addresses().next().unwrap().1;
    let base = format!(
        "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\nscrape_configs:\n  - job_name: mesh\n    static_configs:\n      \
         - targets: [\"{address}\"]\n        labels: {{app: edge, kind: gateway}}\njoin:\n  settle_after: 1s\n  tick: 200ms\n"
    );
    let home = Home::new(&base);
    let server = home.start().await;
    let http = server.http();
    pages.scraped().await;
    let now = SystemClock.now();
    let [before, across, after, back] = [1, 2, 3, 4].map(|number| Request::new(number, now));
    for part in [before.gateway(), before.sidecar(), across.gateway()] {
        send(&server, part).await;
    }
    let client = ("(client)", "ingress", "north_south", 2, None);
    shown(&http, &[client, ("ingress", "orders", "north_south", 2, None)]).await;

    let plain = std::fs::read_to_string(home.config()).unwrap();
    let overrides = "  overrides:\n    aliases: {orders: sales/store}\n    roles: {'^ingress$': app}\n    internal_suffixes: [corp.example]\n";
    std::fs::write(home.config(), format!("{plain}{overrides}")).unwrap();
    let answer = http.post("/-/reload", &[], Bytes::new()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "reloaded\n"));
    let config = http.data("/api/v1/status/config").await;
    assert!(config["yaml"].as_str().unwrap().contains("sales/store"), "{config}");
    // What began before keeps its names, though the rest of it comes now; so do counts.
    for part in [across.sidecar(), after.gateway(), after.sidecar()] {
        send(&server, part).await;
    }
    pages.show_last();
    let client = ("(client)", "ingress", "north_south", 3, None);
    let crm = ("edge", "crm.corp.example", "north_south", 0, Some(5));
    let orders = ("ingress", "orders", "north_south", 2, None);
    shown(&http, &[client, orders, ("ingress", "store", "east_west", 1, None), crm]).await;

    // A mistake changes nothing.
    std::fs::write(home.config(), format!("{plain}  overrides:\n    roles: {{'(': egress}}\n")).unwrap();
    assert_eq!(http.post("/-/reload", &[], Bytes::new()).await.status, 500);
    // SIGHUP does the same as the request.
    std::fs::write(home.config(), &plain).unwrap();
    server.hang_up();
    until("the reload", SHOWN_WITHIN, async || {
        let config = http.data("/api/v1/status/config").await;
        if config.to_string().contains("sales/store") { Err(config.to_string()) } else { Ok(()) }
    })
    .await;
    for part in [back.gateway(), back.sidecar()] {
        send(&server, part).await;
    }
    let client = ("(client)", "ingress", "north_south", 4, None);
    let orders = ("ingress", "orders", "north_south", 3, None);
    shown(&http, &[client, orders, ("ingress", "store", "east_west", 1, None), crm]).await;
}
