//! The command line: what can be typed, and which command it runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use windrose_store::wal::WalPosition;

use crate::config::value::Setting;
use crate::{commands, output};

#[cfg(test)]
mod tests;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Ok,
    /// It could not.
    Failed,
    /// It was not asked properly: arguments or configuration.
    Usage,
    /// The server is not there or not ready yet: trying again may help.
    NotReady,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotReady => 3,
        })
    }
}

/// One collector for the telemetry of gateways, sidecars and egress proxies: who calls whom, on
/// behalf of which public route, how fast, how often wrong.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 server not ready.
#[derive(Debug, Parser)]
#[command(name = "windrose", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Receive, scrape, store and answer until stopped.
    Serve(ServeArgs),
    /// Run a synthetic mesh that pushes to and is scraped by a server, and show what it answers.
    Demo(DemoArgs),
    /// Check a configuration and print what is in force.
    CheckConfig(CheckConfigArgs),
    /// Who calls whom.
    Topology(TopologyArgs),
    /// How fast: quantiles of an edge, a node or a route.
    Latency(LatencyArgs),
    /// The public routes and what they reach.
    Routes(AskArgs),
    /// External hosts and who calls them.
    Egress(AskArgs),
    /// Every service known from any evidence.
    Services(AskArgs),
    /// One trace, joined.
    Trace(TraceArgs),
    /// Per proxy: spans it says it sent against spans received.
    Completeness(AskArgs),
    /// What lies on disk: only reads, also beside a running server and on damaged files.
    #[command(subcommand)]
    Inspect(InspectCommand),
    /// The version.
    Version,
}

#[derive(Debug, Subcommand)]
pub enum InspectCommand {
    /// The records of a write-ahead log.
    Wal(InspectWalArgs),
    /// A sealed file: columns, encodings, bytes, row groups, and whether all rows can be read.
    Segment(InspectSegmentArgs),
    /// The log of a table: its files and its last commits.
    Table(InspectTableArgs),
}

#[derive(Debug, Args)]
pub struct InspectWalArgs {
    /// The directory of the log, for example ./data/wal.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// List records from this position on.
    #[arg(long, value_name = "SEGMENT:OFFSET", value_parser = wal_position)]
    pub from: Option<WalPosition>,
    /// How many records are listed; all are counted.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub records: u64,
}

#[derive(Debug, Args)]
pub struct InspectSegmentArgs {
    /// A Parquet file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct InspectTableArgs {
    /// The directory of a table, for example ./data/tables/spans.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// How many commits are listed.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub commits: u64,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file (also WINDROSE_CONFIG); without one the defaults are used.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where data lies [default: ./data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Address for OTLP over gRPC [default: 127.0.0.1:4317].
    #[arg(long, value_name = "ADDRESS")]
    pub listen_otlp_grpc: Option<String>,
    /// Address for OTLP over HTTP [default: 127.0.0.1:4318].
    #[arg(long, value_name = "ADDRESS")]
    pub listen_otlp_http: Option<String>,
    /// Address for Zipkin [default: 127.0.0.1:9411].
    #[arg(long, value_name = "ADDRESS")]
    pub listen_zipkin: Option<String>,
    /// Address for the API [default: 127.0.0.1:7070].
    #[arg(long, value_name = "ADDRESS")]
    pub listen_http: Option<String>,
    /// Log level or directives [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Set any key of the configuration, for example --set wal.sync=never.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

impl ConfigArgs {
    /// The flags as the top layer of the configuration. A named flag wins over `--set`.
    #[must_use]
    pub fn flags(&self) -> BTreeMap<String, String> {
        let named = [
            ("data_dir", &self.data_dir),
            ("listen.otlp_grpc", &self.listen_otlp_grpc),
            ("listen.otlp_http", &self.listen_otlp_http),
            ("listen.zipkin", &self.listen_zipkin),
            ("listen.http", &self.listen_http),
            ("log.level", &self.log_level),
        ];
        let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        self.set.iter().cloned().chain(named).collect()
    }
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// The file; without one the defaults, environment and flags are checked.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What every question to a server can carry.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070")]
    pub url: String,
    /// Whose data, where the server keeps several tenants.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// From: now-15m, RFC 3339 or unix seconds [default: an hour ago].
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// To [default: now].
    #[arg(long, value_name = "TIME")]
    pub end: Option<String>,
    /// Print the server's JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct TopologyArgs {
    #[command(flatten)]
    pub ask: AskArgs,
    /// What counts as one node: service, workload or version.
    #[arg(long)]
    pub scope: Option<String>,
    /// Only this namespace.
    #[arg(long)]
    pub namespace: Option<String>,
    /// Only what is around this node.
    #[arg(long, value_name = "NODE")]
    pub focus: Option<String>,
    /// How many hops around the focus.
    #[arg(long)]
    pub depth: Option<usize>,
    /// Only edges of this kind: north_south, east_west or egress.
    #[arg(long)]
    pub direction: Option<String>,
    /// Only edges that serve this public route.
    #[arg(long)]
    pub route: Option<String>,
    /// Only edges with at least this many calls per second.
    #[arg(long)]
    pub min_rps: Option<f64>,
}

#[derive(Debug, Args)]
pub struct LatencyArgs {
    #[command(flatten)]
    pub ask: AskArgs,
    /// Calling node.
    #[arg(long, value_name = "NODE")]
    pub source: Option<String>,
    /// Called node.
    #[arg(long, value_name = "NODE")]
    pub target: Option<String>,
    /// Any node, as the called one.
    #[arg(long)]
    pub node: Option<String>,
    /// Public route.
    #[arg(long)]
    pub route: Option<String>,
    /// north_south, east_west or egress.
    #[arg(long)]
    pub direction: Option<String>,
    /// Quantiles, for example 0.5,0.99.
    #[arg(long)]
    pub quantiles: Option<String>,
    /// Width of one step, for example 1m.
    #[arg(long)]
    pub step: Option<String>,
    /// client: what the caller waited; server: what the callee took.
    #[arg(long)]
    pub side: Option<String>,
}

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The trace id.
    #[arg(value_name = "TRACE_ID")]
    pub trace_id: String,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Drive this running server instead of starting one: the address of its HTTP API.
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// Where to push spans with --target [default: port 4317 of the target].
    #[arg(long, value_name = "URL", requires = "target")]
    pub target_otlp: Option<String>,
    /// Public requests per second.
    #[arg(long, default_value_t = 40.0, value_parser = requests_per_second)]
    pub rps: f64,
    /// The same seed makes the same traffic.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// End by itself after this long.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Print one table as soon as gateway, sidecars and egress are seen, then end.
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(answer) => {
            let wrong = answer.use_stderr();
            let text = answer.render();
            let text = if output::is_terminal() { text.ansi().to_string() } else { text.to_string() };
            if wrong {
                output::error_line(text.trim_end())
            } else {
                output::line(text.trim_end())
            }
            return if wrong { Exit::Usage } else { Exit::Ok };
        }
    };
    commands::run(cli.command)
}

fn wal_position(text: &str) -> Result<WalPosition, String> {
    let (segment, offset) = text.split_once(':').ok_or("write SEGMENT:OFFSET, for example 7:128")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(WalPosition::new(number(segment)?, number(offset)?))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, for example wal.sync=never")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::read(text).ok_or_else(|| format!("write {}", Duration::ACCEPTED))
}

/// One request costs about fifteen spans; a thousand a second keep one core of the demo busy.
const DEMO_RPS_MAX: f64 = 1000.0;

fn requests_per_second(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "write a number".to_owned())?;
    let possible = number.is_finite() && number > 0.0 && number <= DEMO_RPS_MAX;
    possible.then_some(number).ok_or_else(|| format!("write a number above 0 and up to {DEMO_RPS_MAX}"))
}
