//! Serves recorded Prometheus pages, each proxy's on a port of its own, the first until told to move on.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::capture::ProxyPages;
use crate::truth::Workload;
use crate::wait::until;

/// A proxy that only answers scrapes.
#[derive(Debug)]
struct Target {
    proxy: String,
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    pages: Vec<Bytes>,
    shown: AtomicUsize,
    /// How often the page that is shown now was served.
    served: AtomicUsize,
}

/// All proxies of a mesh. Ends with the value.
#[derive(Debug)]
pub struct Pages {
    targets: Vec<Target>,
    _servers: JoinSet<()>,
}

impl Pages {
    /// Starts to serve the first page of every proxy.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn serve(proxies: &[ProxyPages]) -> Self {
        let mut targets = Vec::new();
        let mut servers = JoinSet::new();
        for proxy in proxies {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("a bound port");
            let state =
                Arc::new(State { pages: proxy.pages.clone(), shown: AtomicUsize::new(0), served: AtomicUsize::new(0) });
            servers.spawn(accept(listener, Arc::clone(&state)));
            targets.push(Target { proxy: proxy.proxy.clone(), address, state });
        }
        Self { targets, _servers: servers }
    }

    /// Shows every proxy's last page from now on.
    pub fn show_last(&self) {
        for target in &self.targets {
            target.state.shown.store(target.state.pages.len() - 1, Ordering::SeqCst);
            target.state.served.store(0, Ordering::SeqCst);
        }
    }

    /// Waits until the page shown now was served twice by every proxy: the first of them was taken in by then.
    pub async fn scraped(&self) {
        let lacking = || {
            let behind = self.targets.iter().filter(|target| target.state.served.load(Ordering::SeqCst) < 2);
            behind.map(|target| target.proxy.as_str()).collect::<Vec<_>>().join(", ")
        };
        until("every proxy to be scraped", Duration::from_secs(30), async || match lacking() {
            none if none.is_empty() => Ok(()),
            proxies => Err(format!("not scraped: {proxies}")),
        })
        .await;
    }

    /// Where each proxy is scraped.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.targets.iter().map(|target| (target.proxy.as_str(), target.address))
    }

    /// The targets as Prometheus' `file_sd` writes them, with the labels that service discovery would give.
    #[must_use]
    pub fn file_sd(&self, workloads: &[Workload]) -> Value {
        let described = self.targets.iter().map(|target| {
            let workload = workloads.iter().find(|workload| workload.name == target.proxy).expect("a page's workload");
            json!({
                "targets": [target.address.to_string()],
                "labels": {
                    "__metrics_path__": "/stats/prometheus",
                    "pod": workload.pod, "app": workload.app, "version": workload.version, "namespace": workload.ns,
                    "kind": workload.kind,
                },
            })
        });
        described.collect()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |_| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(state.page()) }
        });
        connections.spawn(async move {
            // A scraper that hangs up is its own business.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

impl State {
    fn page(&self) -> Response<Full<Bytes>> {
        self.served.fetch_add(1, Ordering::SeqCst);
        let page = self.pages[self.shown.load(Ordering::SeqCst)].clone();
        let mut response = Response::new(Full::new(page));
        *response.status_mut() = StatusCode::OK;
        let content_type = http::HeaderValue::from_static("text/plain; charset=UTF-8");
        response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
        response
    }
}
