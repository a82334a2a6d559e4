use std::collections::BTreeMap;
use std::path::Path;

use super::reader::env_name;
use super::*;

fn overrides(environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Overrides {
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    Overrides { environment: owned(environment), flags: owned(flags) }
}

fn load(yaml: &str) -> Loaded {
    Config::load(Some(("test.yaml", yaml)), &Overrides::default()).expect("a good configuration")
}

/// The lines of the error after the heading.
#[track_caller]
fn check_refused(yaml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)], expect: &[&str]) {
    let error =
        Config::load(Some(("test.yaml", yaml)), &overrides(environment, flags)).expect_err("mistakes").to_string();
    let lines: Vec<&str> = error.lines().skip(1).map(str::trim).collect();
    assert_eq!(lines, expect, "{error}");
}

#[test]
fn nothing_given_means_the_defaults() {
    let Loaded { config, effective, scrape_yaml } =
        Config::load(None, &Overrides::default()).expect("defaults are good");
    assert_eq!(config.listen.otlp_grpc, DEFAULT_OTLP_GRPC);
    assert_eq!(config.wal.sync, WalSync::Always);
    assert_eq!(config.join.settle_after, Duration::from_secs(10));
    assert!(config.scrape.pools.is_empty());
    assert!(scrape_yaml.is_empty());
    assert!(effective.iter().all(|value| value.origin == Origin::Default));
}

#[test]
fn an_empty_section_is_all_defaults() {
    assert_eq!(load("wal:\njoin:\n").config.wal.segment_bytes, DEFAULT_WAL_SEGMENT_BYTES);
}

#[test]
fn flags_win_over_environment_over_file() {
    let yaml = "wal:\n  sync: interval\n  segment_bytes: 32MiB\nseal: {max_bytes: 5MiB}\n";
    let layers = overrides(
        &[("WINDROSE_WAL_SYNC", "never"), ("WINDROSE_SEAL_MAX_BYTES", "6MiB")],
        &[("wal.sync", "always"), ("data_dir", "/var/lib/windrose")],
    );
    let Loaded { config, effective, .. } = Config::load(Some(("test.yaml", yaml)), &layers).expect("good");
    assert_eq!(config.wal.sync, WalSync::Always);
    assert_eq!(config.wal.segment_bytes, ByteSize::mib(32));
    assert_eq!(config.seal.max_bytes, ByteSize::mib(6));
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/windrose"));
    let origin = |path: &str| effective.iter().find(|value| value.path == path).map(|value| value.origin.clone());
    assert_eq!(origin("wal.sync"), Some(Origin::Flag));
    assert_eq!(origin("wal.segment_bytes"), Some(Origin::File { line: 3 }));
    assert_eq!(origin("seal.max_bytes"), Some(Origin::Environment { variable: "WINDROSE_SEAL_MAX_BYTES".to_owned() }));
}

#[test]
fn all_mistakes_are_reported_at_once() {
    check_refused(
        "data_dir: ./data\nwal:\n  snyc: always\n  sync_interval: 5\njoin:\n  tick: [1s]\n  overrides:\n    roles:\n      edge: door\nqeury: {}\nlisten:\n  http: 7070\n",
        &[
            ("WINDROSE_WALL_SYNC", "never"),
            ("WINDROSE_PORT", "tcp://10.0.0.1:7070"),
            ("WINDROSE_QUERY_TIMEOUT", "soon"),
        ],
        &[("log.levle", "debug")],
        &[
            "line 3: wal.snyc: unknown key; did you mean `sync`?",
            "line 4: wal.sync_interval: `5` is not accepted; write a duration with units, largest first: ms, s, m, h, d, w, y (500ms, 10s, 1h30m)",
            "line 6: join.tick: a list stands where one value is expected",
            "line 9: join.overrides.roles.edge: `door` is not accepted; write one of gateway, egress, eastwest, sidecar, waypoint, node_proxy, app, external, unknown",
            "line 10: qeury: unknown key; did you mean `query`?",
            "line 12: listen.http: `7070` is not accepted; write an address and port (127.0.0.1:4317, 0.0.0.0:4317, [::]:4317; port 0 picks a free one)",
            "environment WINDROSE_QUERY_TIMEOUT: query.timeout: `soon` is not accepted; write a duration with units, largest first: ms, s, m, h, d, w, y (500ms, 10s, 1h30m)",
            "environment WINDROSE_WALL_SYNC: unknown key; did you mean `WINDROSE_WAL_SYNC`?",
            "flag: log.levle: unknown key; did you mean `log.level`?",
        ],
    );
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    check_refused(
        "join: {settle_after: 20s, max_age: 10s}\nwal: {max_bytes: 64MiB}\nlisten:\n  otlp_http: 127.0.0.1:4317\nlog: {level: 'windrose=loud'}\nseal: {}\n",
        &[],
        &[],
        &[
            "line 1: join.max_age: `10s` is shorter than join.settle_after (20s)",
            "line 2: wal.max_bytes: `64MiB` is too small for segments of 64MiB; write at least twice wal.segment_bytes, because space comes back one whole segment at a time",
            "line 4: listen.otlp_http: `127.0.0.1:4317` is taken by listen.otlp_grpc",
            "line 5: log.level: `windrose=loud` is not accepted; write error, warn, info, debug, trace, or directives such as info,windrose_store=debug",
        ],
    );
}

#[test]
fn a_role_that_is_no_regular_expression_is_refused() {
    check_refused(
        "join:\n  overrides:\n    roles:\n      'edge(': gateway\n    internal_cidrs: [10.0.0.0/33]\n",
        &[],
        &[],
        &[
            "line 4: join.overrides.roles: `edge(` is not a regular expression",
            "line 5: join.overrides.internal_cidrs: `10.0.0.0/33` is not accepted; write a network in CIDR notation (10.0.0.0/8, fd00::/8)",
        ],
    );
}

#[test]
fn a_wrong_scrape_configuration_is_refused_together_with_the_rest() {
    let yaml = "wal: {sync: perhaps}\nscrape_configs:\n- job_name: envoy\n  scrape_intervall: 5s\n";
    let error = Config::load(Some(("test.yaml", yaml)), &Overrides::default()).expect_err("mistakes").to_string();
    assert!(error.contains("wal.sync") && error.contains("scrape_intervall"), "{error}");
}

#[test]
fn passwords_inside_addresses_are_blanked() {
    let printed = effective_yaml(
        &[],
        &render::foreign_yaml(
            &Node::parse("scrape_configs: [{proxy_url: 'http://user:hunter2@proxy:3128/'}]").expect("YAML"),
            &["scrape_configs"],
        ),
    );
    assert_eq!(printed, "scrape_configs:\n  - proxy_url: \"http://user:<secret>@proxy:3128/\"\n");
}

#[test]
fn what_is_shipped_loads() {
    let files = ["istio/scrape.yaml", "prometheus/scrape_configs.yaml"];
    for file in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
        let yaml = std::fs::read_to_string(&path).expect("a shipped file");
        let loaded = Config::load(Some((file, &yaml)), &Overrides::default()).expect("a good configuration");
        assert!(!loaded.config.scrape.pools.is_empty(), "{file}");
    }
}

/// The configuration inside the Kubernetes manifest.
#[test]
fn the_shipped_config_map_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/windrose.yaml");
    let manifest = std::fs::read_to_string(path).expect("the manifest");
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&manifest).expect("YAML");
    let kinds: Vec<&str> = documents.iter().filter_map(|document| document["kind"].as_str()).collect();
    assert_eq!(kinds, ["ConfigMap", "Service", "StatefulSet"]);
    let yaml = documents[0]["data"]["windrose.yaml"].as_str().expect("the configuration");
    let config = Config::load(Some(("ConfigMap", yaml)), &Overrides::default()).expect("a good configuration").config;
    let served: Vec<u64> = config.listen.named().iter().map(|(_, address)| u64::from(address.port())).collect();
    let ports: Vec<u64> = documents[1]["spec"]["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .filter_map(|port| port["targetPort"].as_u64())
        .collect();
    assert_eq!(ports, served, "the Service sends to the ports that are listened on");
}

#[test]
fn every_shipped_yaml_file_is_yaml() {
    for file in ["envoy/tracing-and-stats.yaml", "istio/telemetry.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
        let text = std::fs::read_to_string(path).expect("a shipped file");
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        assert!(documents.iter().all(serde_json::Value::is_object), "{file}");
    }
}

#[test]
fn a_file_that_is_not_yaml_says_where() {
    let error =
        Config::load(Some(("bad.yaml", "wal:\n  sync: [always\n")), &Overrides::default()).expect_err("not YAML");
    let text = error.to_string();
    assert!(text.contains("bad.yaml") && text.contains("not readable as YAML"), "{text}");
}

#[test]
fn a_duplicate_key_is_refused() {
    let error =
        Config::load(Some(("twice.yaml", "wal: {}\nseal: {}\nwal: {}\n")), &Overrides::default()).expect_err("twice");
    assert!(error.to_string().contains("wal"), "{error}");
}

#[test]
fn what_is_printed_loads_again_and_means_the_same() {
    let yaml = "data_dir: '/tmp/with space'\njoin:\n  overrides:\n    aliases: {orders: orders.shop}\n    roles: {'^edge-.*': gateway}\n    internal_suffixes: [.corp, .lan]\n    internal_cidrs: [100.64.0.0/10]\nglobal:\n  scrape_interval: 5s\nscrape_configs:\n- job_name: envoy\n  static_configs:\n  - targets: ['127.0.0.1:15000']\n    labels: {}\n  authorization: {type: Bearer, credentials: hunter2}\n  relabel_configs: []\n";
    let first = load(yaml);
    let printed = effective_yaml(&first.effective, &first.scrape_yaml);
    assert_eq!(first.config.scrape.pools.len(), 1);
    assert!(!printed.contains("hunter2"), "secrets are not shown:\n{printed}");
    let second = Config::load(Some(("printed.yaml", &printed)), &Overrides::default()).expect("printed is good");
    let values = |loaded: &Loaded| -> Vec<(String, EffectiveValue)> {
        loaded.effective.iter().map(|value| (value.path.clone(), value.value.clone())).collect()
    };
    assert_eq!(values(&first), values(&second), "{printed}");
    assert_eq!(second.scrape_yaml, first.scrape_yaml);
    let roles = &second.config.join.overrides.roles;
    assert!(matches!(roles.as_slice(), [role] if role.role == NodeRole::Gateway && role.service.is_match("edge-1")));
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    let reference = include_str!("../../../docs/configuration.md");
    let known = load("").effective;
    for key in &known {
        assert!(reference.contains(&format!("| `{}` |", key.path)), "docs/configuration.md lacks `{}`", key.path);
    }
    for row in reference.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (path, rest) = row.split_once("` |").expect("a table row");
        let key = known.iter().find(|key| key.path == path);
        let key = key.unwrap_or_else(|| panic!("docs/configuration.md describes `{path}`, which does not exist"));
        let default = match &key.value {
            EffectiveValue::Scalar(text) => text.clone(),
            EffectiveValue::List(_) | EffectiveValue::Map(_) => "none".to_owned(),
        };
        let written = rest.split('|').next().map(|cell| cell.trim().trim_matches('`').to_owned());
        assert_eq!(written, Some(default), "the documented default of `{path}`");
    }
}

#[test]
fn no_two_keys_share_a_variable() {
    let mut names: Vec<String> = load("").effective.iter().map(|key| env_name(&key.path)).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
