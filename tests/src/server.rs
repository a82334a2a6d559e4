//! Runs the real binary: own ports, own data directory, signals, exit status, captured log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::client::Http;
use crate::places;
use crate::wait::until;

/// A debug build on two busy cores starts in about a second; replaying a log of some hundred MiB takes some more.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The drain's own limit is half of this.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub otlp_grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub zipkin: SocketAddr,
    pub http: SocketAddr,
}

/// A directory that a server keeps its data in, with the configuration that it reads. Outlives the process, so that the
/// next one can start on it.
#[derive(Clone, Debug)]
pub struct Home {
    directory: Arc<TempDir>,
    /// Of the environment, besides what the tests have themselves.
    variables: Vec<(&'static str, String)>,
}

impl Home {
    /// Ports picked by the system, data in a new directory, everything else as `more` says (YAML).
    ///
    /// # Panics
    /// When no directory can be made.
    #[must_use]
    pub fn new(more: &str) -> Self {
        Self::new_in(&std::env::temp_dir(), more)
    }

    /// The same, in a directory below `place`.
    ///
    /// # Panics
    /// When no directory can be made.
    #[must_use]
    pub fn new_in(place: &Path, more: &str) -> Self {
        let directory = TempDir::with_prefix_in("windrose-test-", place).expect("a temporary directory");
        let home = Self { directory: Arc::new(directory), variables: Vec::new() };
        let data = home.data();
        let config = format!(
            "data_dir: {}\nlisten:\n  otlp_grpc: 127.0.0.1:0\n  otlp_http: 127.0.0.1:0\n  zipkin: 127.0.0.1:0\n  http: 127.0.0.1:0\n\
             log:\n  format: json\n{more}",
            data.display()
        );
        std::fs::write(home.config(), config).expect("writing the configuration");
        home
    }

    /// A server that settles traces soon, so that a test need not wait for what production waits for.
    #[must_use]
    pub fn brisk() -> Self {
        Self::new("join:\n  settle_after: 1s\n  tick: 200ms\n")
    }

    /// With another variable in the environment of its servers.
    #[must_use]
    pub fn with_variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// What the server reads.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("windrose.yaml")
    }

    /// What the server writes.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The directory of both.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a server on it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(&self) -> TestServer {
        let mut server = self.spawn();
        server.ready().await;
        server
    }

    /// Starts a server on it.
    ///
    /// # Panics
    /// When the binary is missing.
    #[must_use]
    pub fn spawn(&self) -> TestServer {
        let mut child = Command::new(places::binary())
            .args(["serve", "--config"])
            .arg(self.config())
            .envs(self.variables.iter().map(|(name, value)| (*name, value)))
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starting the binary");
        let log = Log::default();
        let readers = [
            log.collect(child.stdout.take().expect("a piped output")),
            log.collect(child.stderr.take().expect("a piped output")),
        ];
        TestServer { child, log, readers, home: self.clone(), ports: None }
    }
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct TestServer {
    child: Child,
    log: Log,
    readers: [JoinHandle<()>; 2],
    home: Home,
    ports: Option<Ports>,
}

impl TestServer {
    /// Waits until it says where it listens and that it is ready.
    ///
    /// # Panics
    /// When it ends, or is not ready in time.
    pub async fn ready(&mut self) {
        let deadline = READY_WITHIN;
        let ports = loop_until_ports(&mut self.child, &self.log, deadline).await;
        self.ports = Some(ports);
        let http = Http::new(ports.http);
        until("the server to be ready", deadline, async || {
            let answer = http.try_get("/readyz").await?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
        })
        .await;
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Before it was ready.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.ports.expect("a server that is ready")
    }

    /// A client of its API.
    #[must_use]
    pub fn http(&self) -> Http {
        Http::new(self.ports().http)
    }

    /// The directory it runs in.
    #[must_use]
    pub const fn home(&self) -> &Home {
        &self.home
    }

    /// Everything it wrote to its output so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// What it complained about: lines of its log above `info`.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let complains = |line: &String| {
            let level =
                serde_json::from_str::<Value>(line).ok().and_then(|line| Some(line["level"].as_str()?.to_owned()));
            !matches!(level.as_deref(), Some("INFO" | "DEBUG" | "TRACE"))
        };
        self.log().into_iter().filter(complains).collect()
    }

    /// A metric of its own, by name and labels as they are written. Absent is 0, as a counter is before it first counts.
    ///
    /// # Panics
    /// When it serves no metrics.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = self.http().get("/metrics").await;
        assert_eq!(page.status, 200, "{}", page.text());
        let text = page.text();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap_or_else(|_| panic!("{series} is {value}")))
    }

    /// A metric of its own over all labels.
    ///
    /// # Panics
    /// When it serves no metrics.
    pub async fn sum_of(&self, name: &str) -> f64 {
        let page = self.http().get("/metrics").await;
        assert_eq!(page.status, 200, "{}", page.text());
        let text = page.text();
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().expect("a sample has a number"))
        });
        values.sum()
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("a running process")
    }

    /// Ends it the hard way, as a power cut would.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("killing the server");
    }

    /// Asks it to end.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("asking the server to end");
    }

    /// Asks it to read its configuration again.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn hang_up(&self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::HUP).expect("asking the server to reload");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(ENDED_WITHIN, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("the server did not end:\n{}", self.log.text()));
        for reader in &mut self.readers {
            drop(reader.await);
        }
        status.expect("the status of the server")
    }
}

async fn loop_until_ports(child: &mut Child, log: &Log, deadline: Duration) -> Ports {
    let child = std::cell::RefCell::new(child);
    until("the server to say where it listens", deadline, async || {
        if let Ok(Some(status)) = child.borrow_mut().try_wait() {
            panic!("the server ended with {status}:\n{}", log.text());
        }
        ports(&log.lines()).ok_or_else(|| log.text())
    })
    .await
}

/// The addresses that the server logs, one line per port.
fn ports(lines: &[String]) -> Option<Ports> {
    let fields = lines.iter().filter_map(|line| Some(serde_json::from_str::<Value>(line).ok()?["fields"].take()));
    let listening: Vec<Value> = fields.filter(|fields| fields["message"] == "listening").collect();
    let address =
        |port: &str| listening.iter().find(|fields| fields["port"] == port)?["address"].as_str()?.parse().ok();
    Some(Ports {
        otlp_grpc: address("otlp_grpc")?,
        otlp_http: address("otlp_http")?,
        zipkin: address("zipkin")?,
        http: address("http")?,
    })
}

/// Lines of output, as they come.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn collect(&self, output: impl AsyncRead + Send + Unpin + 'static) -> JoinHandle<()> {
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                log.0.lock().expect("the log").push(line);
            }
        })
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("the log").clone()
    }

    fn text(&self) -> String {
        self.lines().join("\n")
    }
}
