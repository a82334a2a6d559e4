//! `windrose demo`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use windrose_collector::scrape::ScrapeConfig;
use windrose_proto::edge::LIVE_WINDOW_NANOS;
use windrose_proto::time::{Clock, SystemClock, UnixNanos};
use windrose_store::disk::OsDisk;

use super::{exit_of, load_config, with_causes};
use crate::app::App;
use crate::cli::{DemoArgs, Exit};
use crate::client::{ApiClient, ApiError};
use crate::config::{Loaded, Origin};
use crate::demo::screen::{self, Answers};
use crate::demo::{Driver, Fleet};
use crate::tasks::Tasks;
use crate::{logging, output, signals};

/// Where the demo's own server keeps its data: apart from what a real one would keep in `./data`.
const DATA_DIR: &str = "./data-demo";
/// Between two looks at the server.
const REFRESH: Duration = Duration::from_secs(1);
/// Between two tables where nobody watches a terminal.
const REFRESH_PLAIN: Duration = Duration::from_secs(5);
/// Answers cover the last minute.
const WINDOW: Duration = Duration::from_secs(60);
/// `--once` gives up after this long: the first trace settles in 10 s, the slowest machine takes its time.
const ONCE_WITHIN: Duration = Duration::from_secs(45);
/// With `--once`, how long counters are waited for after all nodes have been seen.
const ONCE_COUNTERS_WITHIN: Duration = Duration::from_secs(10);

/// Twice the interval at which our own server scrapes the pages.
const FIRST_SCRAPES_WITHIN: Duration = Duration::from_secs(4);

/// Why the demo cannot run.
struct Failure {
    message: String,
    exit: Exit,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), exit }
    }
}

/// The server that is driven.
struct Target {
    /// `None` when it is somebody else's.
    app: Option<App>,
    api: String,
    otlp: String,
    /// Where its data lies, when it is ours.
    data_dir: Option<PathBuf>,
}

/// Runs the demo to its end.
pub(super) fn run(args: &DemoArgs) -> Exit {
    match start(args) {
        Ok(exit) => exit,
        Err(failure) => {
            output::error_line(&failure.message);
            failure.exit
        }
    }
}

fn start(args: &DemoArgs) -> Result<Exit, Failure> {
    let failed = |message: String| Failure::new(Exit::Failed, message);
    let loaded = load_config(&args.config).map_err(|message| Failure::new(Exit::Usage, message))?;
    let loaded = with_demo_defaults(loaded);
    logging::init(&loaded.config.log);
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("demo").enable_all().build();
    let runtime = runtime.map_err(|error| failed(format!("starting a runtime: {error}")))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let pages = Tasks::new(runtime.handle().clone());
    let fleet = Fleet::start(Arc::clone(&clock), &pages)
        .map_err(|error| failed(format!("opening the ports of the synthetic proxies: {error}")))?;
    let target = match &args.target {
        Some(url) => foreign_target(url, args.target_otlp.clone(), &fleet)?,
        None => own_target(loaded, &fleet, Arc::clone(&clock))?,
    };
    let exit = play(args, &runtime, &fleet, &target, &clock);
    runtime.block_on(pages.stop());
    if let Some(app) = target.app {
        app.shutdown();
    }
    exit
}

/// What nobody has set is set for a demo: its own data, and a log that leaves the table alone.
fn with_demo_defaults(mut loaded: Loaded) -> Loaded {
    let is_default =
        |path: &str| loaded.effective.iter().any(|value| value.path == path && value.origin == Origin::Default);
    let (data_dir, log_level) = (is_default("data_dir"), is_default("log.level"));
    if data_dir {
        loaded.config.data_dir = PathBuf::from(DATA_DIR);
    }
    if log_level {
        "warn".clone_into(&mut loaded.config.log.level);
    }
    loaded
}

fn own_target(mut loaded: Loaded, fleet: &Fleet, clock: Arc<dyn Clock>) -> Result<Target, Failure> {
    loaded.scrape_yaml = fleet.scrape_yaml();
    loaded.config.scrape = ScrapeConfig::parse(&loaded.scrape_yaml).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::new(Exit::Failed, format!("scraping the synthetic proxies: {}", problems.join("; ")))
    })?;
    // The demo's configuration is made here; there is nothing to read again.
    let made = loaded.clone();
    let app = App::start(&loaded, Arc::new(move || Ok(made.clone())), Arc::new(OsDisk), clock);
    let app = app.map_err(|error| Failure::new(Exit::Failed, with_causes(&error)))?;
    let url = |address: SocketAddr| format!("http://{}", reachable(address));
    Ok(Target {
        api: url(app.addresses().http),
        otlp: url(app.addresses().otlp_grpc),
        data_dir: Some(loaded.config.data_dir),
        app: Some(app),
    })
}

/// An address that listens everywhere is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback: std::net::IpAddr =
        if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    if address.ip().is_unspecified() { SocketAddr::new(loopback, address.port()) } else { address }
}

/// A server that runs already has to be told what to scrape.
fn foreign_target(url: &str, otlp: Option<String>, fleet: &Fleet) -> Result<Target, Failure> {
    let wrong = || {
        Failure::new(
            Exit::Usage,
            format!("`{url}` is not the address of a server; write one like http://127.0.0.1:7070"),
        )
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?.to_owned();
    output::line("The server's configuration needs this to scrape the synthetic proxies while the demo runs:\n");
    output::line(&fleet.scrape_yaml());
    let otlp = otlp.unwrap_or_else(|| format!("http://{host}:4317"));
    Ok(Target { app: None, api: url.to_owned(), otlp, data_dir: None })
}

fn play(
    args: &DemoArgs,
    runtime: &Runtime,
    fleet: &Fleet,
    target: &Target,
    clock: &Arc<dyn Clock>,
) -> Result<Exit, Failure> {
    let client = ApiClient::new(&target.api, None).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    if target.app.is_some() {
        runtime.block_on(first_scrapes(fleet));
    }
    // A lazy channel takes its place in a runtime when it is made.
    let in_runtime = runtime.enter();
    let driver = Driver::new(fleet.clone(), &target.otlp, args.seed, args.rps).map_err(|error| {
        Failure::new(Exit::Usage, format!("`{}` is no address to push to: {}", target.otlp, with_causes(&error)))
    })?;
    drop(in_runtime);
    let show = Show { args, client, fleet, target, clock, started: clock.now() };
    let drivers = Tasks::new(runtime.handle().clone());
    let stop = drivers.stopping();
    drivers.spawn("driver", driver.run(stop.cancelled_owned()));
    let exit = runtime.block_on(async {
        let ended = end_of(args.duration)?;
        let exit = if args.once { show.once(&ended).await } else { show.live(&ended).await };
        drivers.stop().await;
        Ok(exit)
    });
    exit.map_err(|error: std::io::Error| Failure::new(Exit::Failed, format!("cannot wait for signals: {error}")))
}

/// Waits until our own server has fetched every page, so that counters are complete from the start.
async fn first_scrapes(fleet: &Fleet) {
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let scraped = async {
        while !fleet.is_scraped() {
            looks.tick().await;
        }
    };
    // Without them the demo is still a demo: its edges show spans alone.
    drop(tokio::time::timeout(FIRST_SCRAPES_WITHIN, scraped).await);
}

/// Fires at a signal, or after `duration`.
fn end_of(duration: Option<Duration>) -> std::io::Result<CancellationToken> {
    let signal = signals::Stop::listen()?;
    let ended = CancellationToken::new();
    let fire = ended.clone();
    tokio::spawn(async move {
        let expired = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signal.requested() => {}
            () = expired => {}
        }
        fire.cancel();
    });
    Ok(ended)
}

/// Looks at the server and shows what it says.
struct Show<'a> {
    args: &'a DemoArgs,
    client: ApiClient,
    fleet: &'a Fleet,
    target: &'a Target,
    clock: &'a Arc<dyn Clock>,
    started: UnixNanos,
}

impl Show<'_> {
    async fn live(&self, ended: &CancellationToken) -> Exit {
        let watched = output::is_terminal();
        let mut ticks = tokio::time::interval(if watched { REFRESH } else { REFRESH_PLAIN });
        let mut last: Option<ApiError> = None;
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => break,
                _ = ticks.tick() => {}
            }
            match self.answers().await {
                Ok(answers) => {
                    last = None;
                    let text = self.render(&answers);
                    if watched { output::redraw(&text) } else { output::line(&format!("{text}\n")) }
                }
                Err(error) => {
                    output::error_line(&error.to_string());
                    last = Some(error);
                }
            }
        }
        last.map_or(Exit::Ok, |error| exit_of(&error))
    }

    async fn once(&self, ended: &CancellationToken) -> Exit {
        let mut ticks = tokio::time::interval(REFRESH);
        let mut whole_since: Option<UnixNanos> = None;
        let mut last = Err(ApiError::NotReady { url: self.target.api.clone(), reason: "not asked yet".to_owned() });
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => break,
                _ = ticks.tick() => {}
            }
            last = self.answers().await;
            let now = self.clock.now();
            if let Ok(answers) = &last
                && screen::is_whole(&answers.topology)
            {
                let since = *whole_since.get_or_insert(now);
                if screen::has_counters(&answers.topology) || now >= since.plus(ONCE_COUNTERS_WITHIN) {
                    break;
                }
            } else if now >= self.started.plus(ONCE_WITHIN) {
                break;
            }
        }
        match last {
            Ok(answers) => {
                output::line(&self.render(&answers));
                if screen::is_whole(&answers.topology) {
                    return Exit::Ok;
                }
                output::error_line("the topology lacks a gateway, a sidecar or an egress node");
                Exit::Failed
            }
            Err(error) => {
                output::error_line(&error.to_string());
                exit_of(&error)
            }
        }
    }

    async fn answers(&self) -> Result<Answers, ApiError> {
        let start = self.started.max(self.clock.now().minus(WINDOW)).window_start(LIVE_WINDOW_NANOS);
        let range = [("start", format!("{:.3}", start.as_secs_f64()))];
        let (topology, routes, completeness) = tokio::try_join!(
            self.client.data("/api/v1/topology", &range),
            self.client.data("/api/v1/routes", &range),
            self.client.data("/api/v1/completeness", &range),
        )?;
        Ok(Answers { topology, routes, completeness })
    }

    fn render(&self, answers: &Answers) -> String {
        let running = Duration::from_nanos(self.clock.now().since(self.started));
        screen::render(answers, &self.fleet.progress(), running, &self.places())
    }

    /// What to open next.
    fn places(&self) -> String {
        let api = &self.target.api;
        let data = self.target.data_dir.as_ref().map(|dir| format!("Data in {}. ", dir.display())).unwrap_or_default();
        let until = if self.args.duration.is_none() && !self.args.once { "Stop with Ctrl-C." } else { "" };
        format!(
            "Open {api}/api/v1/topology?format=mermaid · {api}/api/v1/topology · {api}/api/v1/routes · \
             {api}/api/v1/egress\nAsk windrose topology --url {api} (or routes, egress, latency, completeness). {data}{until}"
        )
    }
}
