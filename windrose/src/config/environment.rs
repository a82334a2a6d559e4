//! The environment: the only place of the product that reads it.

use super::reader::{ENV_PREFIX, Notes, Origin, Overrides, Problem, env_name, unknown};

/// Our variables of the process, and those that describe access to S3.
#[must_use]
pub fn read() -> std::collections::BTreeMap<String, String> {
    // Variables that are not UTF-8 cannot be ours.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX) || name.starts_with(AWS_PREFIX))
        .collect()
}

/// What the variables begin with that every program which uses S3 understands.
pub(super) const AWS_PREFIX: &str = "AWS_";

/// Reports variables and flags that name no key.
pub(super) fn check(overrides: &Overrides, notes: &mut Notes) {
    let paths: Vec<String> = notes.effective.iter().map(|known| known.path.clone()).collect();
    let names: Vec<String> = paths.iter().map(|path| env_name(path)).collect();
    for variable in overrides.environment.keys().filter(|name| name.starts_with(ENV_PREFIX)) {
        if !names.contains(variable) && !is_service_link(variable) && variable != CONFIG_VARIABLE {
            notes.problems.push(Problem {
                path: String::new(),
                origin: Origin::Environment { variable: variable.clone() },
                what: unknown(variable, names.iter().map(String::as_str)),
            });
        }
    }
    for path in overrides.flags.keys().filter(|path| !paths.contains(path)) {
        let what = unknown(path, paths.iter().map(String::as_str));
        notes.problems.push(Problem { path: path.clone(), origin: Origin::Flag, what });
    }
}

/// Names the configuration file instead of `--config`.
pub const CONFIG_VARIABLE: &str = "WINDROSE_CONFIG";

/// Kubernetes puts `WINDROSE_PORT=tcp://…`, `WINDROSE_SERVICE_HOST=…` and the like into every pod
/// of a namespace that has a Service named `windrose`. They are not meant for us.
fn is_service_link(variable: &str) -> bool {
    let after = |marker: &str| variable.rsplit_once(marker).map(|(_, rest)| rest);
    variable.ends_with("_SERVICE_HOST")
        || after("_SERVICE_PORT").is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        || variable.ends_with("_PORT")
        || after("_PORT_").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::is_service_link;

    #[test]
    fn service_links_of_kubernetes_are_told_apart() {
        for link in [
            "WINDROSE_PORT",
            "WINDROSE_SERVICE_HOST",
            "WINDROSE_SERVICE_PORT",
            "WINDROSE_SERVICE_PORT_OTLP_GRPC",
            "WINDROSE_PORT_4317_TCP",
            "WINDROSE_PORT_4317_TCP_ADDR",
            "WINDROSE_QUERY_SERVICE_HOST",
        ] {
            assert!(is_service_link(link), "{link}");
        }
        for ours in ["WINDROSE_DATA_DIR", "WINDROSE_LISTEN_HTTP", "WINDROSE_REPORT"] {
            assert!(!is_service_link(ours), "{ours}");
        }
    }
}
