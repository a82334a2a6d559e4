//! `kubernetes_sd_configs`: pods, services, nodes and endpoints of a cluster, listed once and then
//! watched.
//!
//! A watch that ends, which the server does every few minutes, is followed by another from where it
//! ended; one that came too late is followed by a new list. What each object becomes is pure
//! ([`objects`]).

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, Uri};
use serde::Deserialize;
use tokio::time::Instant;

use self::objects::{Object, groups_of};
use super::Found;
use crate::scrape::client::{Client, Lines};
use crate::scrape::config::{Authorization, Credential, KubernetesDiscovery, KubernetesRole, TlsConfig};

mod objects;

/// Where a pod finds the server of its cluster, under a name that is in the server's certificate.
const IN_CLUSTER: &str = "https://kubernetes.default.svc";
const IN_CLUSTER_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const IN_CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const IN_CLUSTER_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Largest list: five thousand pods with all their fields are about 50 MB.
const LIST_MAX_BYTES: usize = 256 << 20;

/// Largest event of a watch: etcd stores no object above 1.5 MB.
const EVENT_MAX_BYTES: usize = 4 << 20;

/// Pause after a failure; the targets stay as they are.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The server ends a watch after so long, so that a connection that died unnoticed is noticed.
const WATCH_SECS: u64 = 300;

/// Objects by namespace and name.
type Objects = BTreeMap<(String, String), Object>;

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: Object,
}

/// One list of objects to be followed: all of a role, or those of one namespace.
struct Watch<'a> {
    client: &'a Client,
    authorization: Option<&'a Authorization>,
    /// Up to and with the path.
    base: String,
    selectors: String,
}

/// Follows the cluster until it is dropped.
pub(super) async fn follow(config: &KubernetesDiscovery, found: &Found) {
    loop {
        if let Err(problem) = follow_once(config, found).await {
            found.fail("kubernetes", problem);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn follow_once(config: &KubernetesDiscovery, found: &Found) -> Result<(), String> {
    let is_inside = config.api_server.is_none();
    let server = config.api_server.as_deref().unwrap_or(IN_CLUSTER).trim_end_matches('/');
    let tls = match &config.tls {
        tls if is_inside && *tls == TlsConfig::default() => {
            TlsConfig { ca_file: Some(IN_CLUSTER_CA.to_owned()), ..TlsConfig::default() }
        }
        tls => tls.clone(),
    };
    let client = Client::new(&tls).map_err(|error| error.to_string())?;
    let service_account = Authorization::Scheme {
        scheme: "Bearer".to_owned(),
        credential: Credential::File(IN_CLUSTER_TOKEN.to_owned()),
    };
    let authorization = config.authorization.as_ref().or_else(|| is_inside.then_some(&service_account));
    let mut namespaces = config.namespaces.clone();
    if config.own_namespace {
        let own =
            super::read_secret(IN_CLUSTER_NAMESPACE).map_err(|error| format!("{IN_CLUSTER_NAMESPACE}: {error}"))?;
        namespaces.push(own);
    }
    let watches = paths(config.role, &namespaces).into_iter().map(|path| {
        let (base, selectors) = (format!("{server}{path}"), config.selectors.clone());
        Watch { client: &client, authorization, base, selectors }
    });
    let watches: Vec<Watch<'_>> = watches.collect();
    let mut lists = Vec::with_capacity(watches.len());
    for watch in &watches {
        lists.push(watch.list().await?);
    }
    let (mut objects, versions): (Vec<Objects>, Vec<String>) = lists.into_iter().unzip();
    publish(config.role, &objects, found);
    let (sender, mut events) = tokio::sync::mpsc::channel(EVENTS_WAITING_MAX);
    let following = watches.iter().zip(versions).enumerate().map(|(place, (watch, version))| {
        let sender = sender.clone();
        async move { watch.events(version, place, &sender).await }
    });
    let following = futures::future::try_join_all(following);
    tokio::pin!(following);
    loop {
        tokio::select! {
            ended = &mut following => return ended.map(drop),
            Some((place, event)) = events.recv() => {
                apply(&mut objects[place], event);
                while let Ok((place, event)) = events.try_recv() {
                    apply(&mut objects[place], event);
                }
                publish(config.role, &objects, found);
            }
        }
    }
}

/// Events of a watch that wait to be applied: each is an object of some KB.
const EVENTS_WAITING_MAX: usize = 256;

fn publish(role: KubernetesRole, objects: &[Objects], found: &Found) {
    found.publish(objects.iter().flat_map(BTreeMap::values).flat_map(|object| groups_of(role, object)).collect());
}

fn apply(objects: &mut Objects, event: Event) {
    let key = event.object.key();
    match event.r#type.as_str() {
        "ADDED" | "MODIFIED" => drop(objects.insert(key, event.object)),
        "DELETED" => drop(objects.remove(&key)),
        // Bookmarks only move the version.
        _ => {}
    }
}

/// What is listed: everything, or each namespace.
fn paths(role: KubernetesRole, namespaces: &[String]) -> Vec<String> {
    let (group, resource) = match role {
        KubernetesRole::Pod => ("/api/v1", "pods"),
        KubernetesRole::Service => ("/api/v1", "services"),
        KubernetesRole::Node => ("/api/v1", "nodes"),
        KubernetesRole::Endpoints => ("/api/v1", "endpoints"),
        KubernetesRole::EndpointSlice => ("/apis/discovery.k8s.io/v1", "endpointslices"),
    };
    if namespaces.is_empty() || role == KubernetesRole::Node {
        return vec![format!("{group}/{resource}")];
    }
    namespaces.iter().map(|namespace| format!("{group}/namespaces/{namespace}/{resource}")).collect()
}

impl Watch<'_> {
    fn uri(&self, more: &str) -> Result<Uri, String> {
        let joint = if self.selectors.is_empty() || more.is_empty() { "" } else { "&" };
        let text = format!("{}?{}{joint}{more}", self.base, self.selectors);
        text.parse().map_err(|error: http::uri::InvalidUri| format!("{text}: {error}"))
    }

    async fn list(&self) -> Result<(Objects, String), String> {
        let uri = self.uri("")?;
        let asking = self.client.get(&uri, HeaderMap::new(), self.authorization, LIST_MAX_BYTES);
        let (_, body) = asking.await.map_err(|error| format!("{}: {error}", self.base))?;
        let list: List = serde_json::from_slice(&body).map_err(|error| format!("{}: {error}", self.base))?;
        let objects = list.items.into_iter().map(|object| (object.key(), object)).collect();
        Ok((objects, list.metadata.resource_version))
    }

    /// Hands on the events after `version`. `Err` when the objects must be listed again.
    async fn events(
        &self,
        mut version: String,
        place: usize,
        sender: &tokio::sync::mpsc::Sender<(usize, Event)>,
    ) -> Result<(), String> {
        loop {
            let started = Instant::now();
            let more =
                format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECS}&resourceVersion={version}");
            let uri = self.uri(&more)?;
            let opening = self.client.open(&uri, HeaderMap::new(), self.authorization);
            let response = opening.await.map_err(|error| format!("{}: {error}", self.base))?;
            let mut lines = Lines::new(response, EVENT_MAX_BYTES);
            // The server ends the watch by itself; what outlives that is a dead connection.
            let patience = Duration::from_secs(WATCH_SECS + 30);
            loop {
                let line = tokio::time::timeout(patience, lines.next()).await;
                let line = line.map_err(|_elapsed| format!("{}: the watch fell silent", self.base))?;
                let Some(line) = line.map_err(|error| format!("{}: {error}", self.base))? else { break };
                let event: Event = serde_json::from_slice(&line).map_err(|error| format!("{}: {error}", self.base))?;
                if event.r#type == "ERROR" {
                    // The version is too old, as a rule.
                    return Err(format!("{}: the watch must begin anew", self.base));
                }
                version = event.object.resource_version().to_owned();
                if sender.send((place, event)).await.is_err() {
                    return Ok(());
                }
            }
            // A server that ends watches at once must not be asked without pause.
            if started.elapsed() < RETRY_PAUSE {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
