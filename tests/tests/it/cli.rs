//! The command line: what a person types first, and what scripts rely on.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use windrose_proto::time::{Clock as _, SystemClock};
use windrose_tests::places;
use windrose_tests::replay::{connect, export};
use windrose_tests::server::Home;
use windrose_tests::synthetic::Request;
use windrose_tests::topology::Topology;
use windrose_tests::wait::until;

use crate::support::SHOWN_WITHIN;

/// Longer than any command takes; then the test fails instead of hanging.
const COMMAND_WITHIN: Duration = Duration::from_secs(120);

/// Runs a command in a directory of its own.
async fn windrose(arguments: &[&str]) -> (Output, TempDir) {
    let directory = TempDir::with_prefix("windrose-cli-").unwrap();
    let output = windrose_in(&directory, arguments).await;
    (output, directory)
}

async fn windrose_in(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(places::binary());
    command.args(arguments).current_dir(directory.path()).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(COMMAND_WITHIN, command.output()).await;
    ended.unwrap_or_else(|_| panic!("windrose {arguments:?} does not end")).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn version() {
    for arguments in [["version"], ["--version"]] {
        let (output, _) = windrose(&arguments).await;
        assert!(output.status.success());
        assert!(stdout(&output).contains(env!("CARGO_PKG_VERSION")), "{}", stdout(&output));
    }
}

#[tokio::test]
async fn wrong_usage() {
    for arguments in [&["serve", "--no-such-flag"][..], &["fly"], &["topology", "--start"]] {
        let (output, _) = windrose(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{arguments:?}: says what is wrong");
    }
}

#[tokio::test]
async fn a_configuration_that_holds_is_printed() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("good.yaml"), "wal:\n  sync: interval\n  sync_interval: 250ms\n").unwrap();
    let output = windrose_in(&directory, &["check-config", "good.yaml"]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("sync_interval: 250ms"), "{}", stdout(&output));
    let printed = directory.path().join("printed.yaml");
    std::fs::write(&printed, stdout(&output)).unwrap();
    let again = windrose_in(&directory, &["check-config", "printed.yaml"]).await;
    assert!(again.status.success(), "what it prints is a configuration: {}", stderr(&again));
}

#[tokio::test]
async fn every_mistake_of_a_configuration_at_once() {
    let directory = TempDir::new().unwrap();
    let mistakes = "wal:\n  sync: sometimes\n  max_bytes: lots\nlisten:\n  http: everywhere\nnonsense: 1\n";
    std::fs::write(directory.path().join("bad.yaml"), mistakes).unwrap();
    for command in [&["check-config", "bad.yaml"][..], &["serve", "--config", "bad.yaml"]] {
        let output = windrose_in(&directory, command).await;
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", stderr(&output));
        for said in
            ["wal.sync", "sometimes", "wal.max_bytes", "lots", "listen.http", "everywhere", "nonsense", "bad.yaml"]
        {
            assert!(stderr(&output).contains(said), "{command:?} says {said}: {}", stderr(&output));
        }
    }
}

#[tokio::test]
async fn the_demo_shows_a_gateway_sidecars_and_an_egress() {
    let listen = ["otlp-grpc", "otlp-http", "zipkin", "http"].map(|port| format!("--listen-{port}=127.0.0.1:0"));
    let mut arguments = vec!["demo", "--once", "--duration", "90s", "--data-dir", "data"];
    arguments.extend(listen.iter().map(String::as_str));
    let (output, _directory) = windrose(&arguments).await;
    let shown = stdout(&output);
    assert!(output.status.success(), "{shown}\n{}", stderr(&output));
    for said in ["gateway", "egress", "north_south", "east_west", "→"] {
        assert!(shown.contains(said), "shows {said}:\n{shown}");
    }
}

#[tokio::test]
async fn questions_to_a_running_server() {
    let server = Home::brisk().start().await;
    let request = Request::new(1, SystemClock.now().minus(Duration::from_secs(1)));
    export(connect(server.ports().otlp_grpc), request.export()).await.unwrap();
    let http = server.http();
    until("the edges to be shown", SHOWN_WITHIN, async || {
        let answer = Topology::fetch(&http, "").await?;
        if answer.edges().len() == 2 { Ok(()) } else { Err(answer.raw.to_string()) }
    })
    .await;
    let (url, trace) = (format!("http://{}", server.ports().http), request.trace_hex());
    let cases: [(&[&str], &str); 5] = [
        (&["topology"], "orders"),
        (&["services"], "orders"),
        (&["routes"], "/api/orders"),
        (&["trace", &trace], "orders"),
        (&["completeness"], "ingress"),
    ];
    for (command, said) in cases {
        let table = [command, &["--url", &url]].concat();
        let (output, _) = windrose(&table).await;
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
        assert!(stdout(&output).contains(said), "{command:?} says {said}: {}", stdout(&output));
        let (output, _) = windrose(&[&table[..], &["--json"]].concat()).await;
        let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(json.to_string().contains(said), "{command:?} --json: {json}");
    }
}

#[tokio::test]
async fn no_server_is_not_ready() {
    // Port 1 of the loopback address: nothing listens there, and asking it harms nobody.
    let (output, _) = windrose(&["topology", "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("127.0.0.1:1"), "{}", stderr(&output));
}
