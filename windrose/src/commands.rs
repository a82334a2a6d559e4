//! What each command does.

use std::error::Error;
use std::future::Future;

use serde_json::Value;

use crate::cli::{AskArgs, CheckConfigArgs, Command, ConfigArgs, Exit, LatencyArgs, TopologyArgs, TraceArgs};
use crate::client::{ApiClient, ApiError, percent_encoded};
use crate::config::{self, Config, Loaded, Overrides};
use crate::table::Table;
use crate::{output, views};

mod demo;
mod inspect;
mod serve;

/// Runs one command to its end.
#[must_use]
pub(crate) fn run(command: Command) -> Exit {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::CheckConfig(args) => check_config(&args),
        Command::Topology(args) => ask(&args.ask, "/api/v1/topology", &topology_parameters(&args), views::topology),
        Command::Latency(args) => ask(&args.ask, "/api/v1/latency", &latency_parameters(&args), views::latency_series),
        Command::Routes(args) => ask(&args, "/api/v1/routes", &[], views::routes),
        Command::Egress(args) => ask(&args, "/api/v1/egress", &[], views::egress),
        Command::Services(args) => ask(&args, "/api/v1/services", &[], views::services),
        Command::Completeness(args) => ask(&args, "/api/v1/completeness", &[], views::completeness),
        Command::Trace(args) => trace(&args),
        Command::Inspect(command) => inspect::run(&command),
        Command::Version => {
            output::line(&format!("windrose {}", env!("CARGO_PKG_VERSION")));
            Exit::Ok
        }
    }
}

/// Loads the configuration that `args`, the environment and the file make together.
///
/// # Errors
/// With the message for the user.
pub(crate) fn load_config(args: &ConfigArgs) -> Result<Loaded, String> {
    let environment = config::read_environment();
    let path = args.config.clone().or_else(|| environment.get(config::CONFIG_VARIABLE).map(Into::into));
    let overrides = Overrides { environment, flags: args.flags() };
    let Some(path) = path else {
        return Config::load(None, &overrides).map_err(|error| error.to_string());
    };
    let name = path.display().to_string();
    let yaml = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {name}: {error}"))?;
    Config::load(Some((&name, &yaml)), &overrides).map_err(|error| error.to_string())
}

fn check_config(args: &CheckConfigArgs) -> Exit {
    let config = args.file.clone().or_else(|| args.config.config.clone());
    match load_config(&ConfigArgs { config, ..args.config.clone() }) {
        Ok(loaded) => {
            output::line(config::effective_yaml(&loaded.effective, &loaded.scrape_yaml).trim_end());
            Exit::Ok
        }
        Err(message) => {
            output::error_line(&message);
            Exit::Usage
        }
    }
}

fn topology_parameters(args: &TopologyArgs) -> Vec<(&'static str, String)> {
    given([
        ("scope", args.scope.clone()),
        ("namespace", args.namespace.clone()),
        ("focus", args.focus.clone()),
        ("depth", args.depth.map(|depth| depth.to_string())),
        ("direction", args.direction.clone()),
        ("route", args.route.clone()),
        ("min_rps", args.min_rps.map(|rps| rps.to_string())),
    ])
}

fn latency_parameters(args: &LatencyArgs) -> Vec<(&'static str, String)> {
    given([
        ("source", args.source.clone()),
        ("target", args.target.clone()),
        ("node", args.node.clone()),
        ("route", args.route.clone()),
        ("direction", args.direction.clone()),
        ("quantiles", args.quantiles.clone()),
        ("step", args.step.clone()),
        ("side", args.side.clone()),
    ])
}

fn given<const N: usize>(parameters: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn trace(args: &TraceArgs) -> Exit {
    ask(&args.ask, &format!("/api/v1/traces/{}", percent_encoded(&args.trace_id)), &[], views::trace)
}

/// Puts one question and prints the answer as a table, or as the server's JSON.
fn ask(args: &AskArgs, path: &str, parameters: &[(&str, String)], view: fn(&Value) -> Table) -> Exit {
    let range = [("start", args.start.clone()), ("end", args.end.clone())];
    let parameters: Vec<(&str, String)> = parameters.iter().cloned().chain(given(range)).collect();
    let answer = block_on(async { ApiClient::new(&args.url, args.tenant.clone())?.get(path, &parameters).await });
    match answer {
        Ok(answer) if args.json => {
            output::line(&answer.to_string());
            Exit::Ok
        }
        Ok(answer) => {
            output::line(&view(answer.get("data").unwrap_or(&Value::Null)).render());
            for warning in answer.get("warnings").and_then(Value::as_array).into_iter().flatten() {
                output::error_line(&format!("warning: {}", warning.as_str().unwrap_or_default()));
            }
            Exit::Ok
        }
        Err(error) => {
            output::error_line(&error.to_string());
            exit_of(&error)
        }
    }
}

/// What the caller's script should conclude.
pub(crate) const fn exit_of(error: &ApiError) -> Exit {
    match error {
        ApiError::BadUrl { .. } => Exit::Usage,
        ApiError::Unreachable { .. } | ApiError::NotReady { .. } => Exit::NotReady,
        ApiError::Refused { .. } | ApiError::Unreadable { .. } => Exit::Failed,
    }
}

/// Runs a client's future on a runtime of one thread; a question needs no more.
fn block_on<T>(future: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ApiError::Unreachable { url: String::new(), reason: error.to_string() })?;
    runtime.block_on(future)
}

/// An error with its causes on one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
