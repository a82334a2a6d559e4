//! Ports: bound first, so that a taken port is noticed before anything else is done; closed first,
//! so that no sender gets an answer we could not keep.
//!
//! Every port speaks HTTP/1.1 and HTTP/2 without TLS; which one is seen from the first bytes.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::map_response_with_state;
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Listen;
use crate::tasks::Tasks;
use crate::telemetry::PortStats;

#[cfg(test)]
mod tests;

/// Connections per port. Envoy keeps one per worker thread; ten thousand proxies fit. Beyond it
/// connections wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;

/// A sender that does not finish its request head is not one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams at once on one HTTP/2 connection; Envoy's own default is 100, exporters use a few.
const STREAMS_MAX: u32 = 1024;

/// A peer that went away without saying so is noticed after this long.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Pause after the system refused a connection (too many open files): trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A port that is bound but not served yet.
#[derive(Debug)]
pub struct Port {
    pub name: &'static str,
    pub address: SocketAddr,
    listener: StdListener,
}

/// All ports, bound.
#[derive(Debug)]
pub struct Ports {
    pub otlp_grpc: Port,
    pub otlp_http: Port,
    pub zipkin: Port,
    pub http: Port,
}

/// Where the ports really are, once port 0 has been replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub otlp_grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub zipkin: SocketAddr,
    pub http: SocketAddr,
}

/// Ports that cannot be had: all of them, not only the first.
#[derive(Debug)]
pub struct BindError(Vec<(&'static str, SocketAddr, io::Error)>);

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot listen:")?;
        for (name, address, error) in &self.0 {
            write!(f, "\n  listen.{name} = {address}: {error}")?;
        }
        f.write_str("\nend the process that has the port, or choose another with --set listen.<name>=<address>")
    }
}

impl std::error::Error for BindError {}

impl Ports {
    /// Binds every port.
    ///
    /// # Errors
    /// With every port that cannot be had.
    pub fn bind(listen: &Listen) -> Result<Self, BindError> {
        let bound = listen.named().map(|(name, address)| Port::bind(name, address).map_err(|e| (name, address, e)));
        match bound {
            [Ok(otlp_grpc), Ok(otlp_http), Ok(zipkin), Ok(http)] => Ok(Self { otlp_grpc, otlp_http, zipkin, http }),
            some => Err(BindError(some.into_iter().filter_map(Result::err).collect())),
        }
    }

    /// Where they are.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        Addresses {
            otlp_grpc: self.otlp_grpc.address,
            otlp_http: self.otlp_http.address,
            zipkin: self.zipkin.address,
            http: self.http.address,
        }
    }
}

impl Port {
    /// Binds one port; port 0 picks a free one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn bind(name: &'static str, address: SocketAddr) -> io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { name, address: listener.local_addr()?, listener })
    }

    /// Serves `router` until the group stops. Then the port closes, requests in flight get `drain`
    /// to finish, and what is left is cut off.
    ///
    /// # Errors
    /// When the listener cannot be handed to the runtime.
    pub fn serve(self, router: Router, stats: Arc<PortStats>, drain: Duration, tasks: &Tasks) -> io::Result<()> {
        let Self { name, listener, .. } = self;
        let listener = {
            let _in_runtime = tasks.runtime().enter();
            TcpListener::from_std(listener)?
        };
        let router = router.layer(map_response_with_state(Arc::clone(&stats), count_answer));
        let server = Server { name, router, stats, drain, connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
        let group = tasks.clone();
        tasks.spawn(name, async move { server.run(listener, &group).await });
        Ok(())
    }
}

async fn count_answer(State(stats): State<Arc<PortStats>>, answer: Response) -> Response {
    stats.answered(answer.status());
    answer
}

struct Server {
    name: &'static str,
    router: Router,
    stats: Arc<PortStats>,
    drain: Duration,
    connections: Arc<Semaphore>,
}

impl Server {
    async fn run(self, listener: TcpListener, tasks: &Tasks) {
        let stop = tasks.stopping();
        let graceful = GracefulShutdown::new();
        while let Some(stream) = self.next(&listener, &stop).await {
            self.start(stream, &graceful, tasks).await;
        }
        drop(listener);
        tracing::debug!(port = self.name, open_connections = graceful.count(), "port closed");
        if tokio::time::timeout(self.drain, graceful.shutdown()).await.is_err() {
            let drain_secs = self.drain.as_secs_f64();
            tracing::warn!(port = self.name, drain_secs, "requests did not finish in time and were cut off");
        }
    }

    /// The next connection; `None` when the port is to close.
    async fn next(&self, listener: &TcpListener, stop: &CancellationToken) -> Option<TcpStream> {
        loop {
            // Stopping comes first: a flood of connections must not keep the port open.
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => return Some(stream),
                Err(error) => {
                    tracing::warn!(port = self.name, error = %error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn start(&self, stream: TcpStream, graceful: &GracefulShutdown, tasks: &Tasks) {
        let stop = tasks.stopping();
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            place = Arc::clone(&self.connections).acquire_owned() => place,
        };
        // Answers are small and awaited: no reason to wait for more bytes. A failure costs latency only.
        drop(stream.set_nodelay(true));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .adaptive_window(true);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        let stats = Arc::clone(&self.stats);
        let cut_off = self.drain;
        tasks.spawn("connection", async move {
            let open = stats.connection();
            // The port's own deadline has passed by then; this ends what ignores it.
            let too_late = async {
                stop.cancelled().await;
                tokio::time::sleep(cut_off).await;
            };
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %error, "a connection ended badly");
                    }
                }
                () = too_late => {}
            }
            drop(open);
            drop(place);
        });
    }
}
