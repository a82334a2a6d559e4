//! Tables in a bucket that two collectors share.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use windrose_tests::places;
use windrose_tests::senders::Senders;
use windrose_tests::server::{Home, TestServer};

/// Kills, of one collector after the other.
const ROUNDS: usize = 4;
/// Acknowledged requests per collector and round: several seals of both.
const REQUESTS_PER_ROUND: usize = 60;
/// Python imports half of the AWS clients first.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// An object store with one bucket; ends with its standard input.
struct Bucket {
    _child: Child,
    endpoint: String,
}

impl Bucket {
    /// `None` when there is no Python that has one.
    async fn start(test: &str) -> Option<Self> {
        let Some(python) = places::python() else {
            places::skip(test, places::NO_PYTHON);
            return None;
        };
        let mut command = Command::new(python);
        command.arg(places::repository().join("tests/s3/bucket.py")).arg("tables");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("starting the object store");
        let mut lines = BufReader::new(child.stdout.take().expect("a piped output")).lines();
        let endpoint = tokio::time::timeout(STARTS_WITHIN, lines.next_line()).await;
        let endpoint = endpoint.expect("the object store in time").expect("reading from the object store");
        Some(Self { _child: child, endpoint: endpoint.expect("the address of the object store") })
    }

    /// A collector that seals into the bucket under this name, every second.
    fn home(&self, writer: &str) -> Home {
        let config = format!(
            "join:\n  settle_after: 500ms\n  tick: 100ms\nseal:\n  interval: 1s\ncompaction:\n  interval: 1s\n\
             storage:\n  url: s3://tables/mesh\n  writer: {writer}\n  refresh: 1s\n  s3_endpoint: {}\n",
            self.endpoint
        );
        Home::new(&config).with_variable("AWS_ACCESS_KEY_ID", "test").with_variable("AWS_SECRET_ACCESS_KEY", "test")
    }
}

/// A collector and those who send to it.
struct Collector {
    home: Home,
    load: Senders,
    server: TestServer,
    senders: JoinSet<()>,
}

impl Collector {
    async fn start(home: Home, load: Senders) -> Self {
        let server = home.start().await;
        let senders = load.start(&server);
        Self { home, load, server, senders }
    }

    /// Ends it the hard way, under load.
    async fn kill(self) -> (Home, Senders) {
        let Self { home, load, server, mut senders } = self;
        server.kill().await;
        while senders.join_next().await.is_some() {}
        (home, load)
    }
}

#[tokio::test]
async fn two_collectors_on_one_bucket_killed_in_turns() {
    let Some(bucket) = Bucket::start("two collectors on one bucket").await else { return };
    let mut running = Collector::start(bucket.home("one"), Senders::numbered_from(0)).await;
    let mut next = Collector::start(bucket.home("two"), Senders::numbered_from(1_000_000)).await;
    for _ in 0..ROUNDS {
        running.load.acknowledged_more(REQUESTS_PER_ROUND).await;
        next.load.acknowledged_more(REQUESTS_PER_ROUND).await;
        let (home, load) = next.kill().await;
        next = std::mem::replace(&mut running, Collector::start(home, load).await);
    }
    let (one, two) = (running.kill().await, next.kill().await);
    let servers = [one.0.start().await, two.0.start().await];
    let sent = one.1.sent().await.and(two.1.sent().await);
    for server in &servers {
        let requests = sent.all_stored_once(&server.http()).await;
        sent.edges_count_once(&server.http(), requests).await;
    }
}
