//! The machine, the process on it, and what happens to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use tokio::runtime::{Builder, Runtime};
use windrose_collector::decode::{BodyFormat, Origin, decode};
use windrose_collector::in_force::InForce;
use windrose_collector::join::joiner::JoinLimits;
use windrose_collector::pipeline::{PipelineConfig, SealPolicy, Stages, StartError, TablesConfig};
use windrose_collector::receive::{Intake as _, IntakeError, Submission};
use windrose_proto::model::IngestProtocol;
use windrose_proto::time::{Clock as _, ManualClock, TimeRange, UnixNanos};
use windrose_store::disk::{Disk as _, PowerCut, SimDisk};
use windrose_store::sealed::TenantCatalog;
use windrose_store::tables::{Table, spans};
use windrose_store::wal::WalConfig;

use crate::load::Message;
use crate::oracle::{Key, Oracle};

/// When the world begins: 2027.
pub(crate) const START: UnixNanos = UnixNanos(1_800_000_000_000_000_000);

/// Where the process keeps its data.
const DATA: &str = "/data";

/// How long a trace stays open without a new span.
pub(crate) const SETTLE_AFTER: Duration = Duration::from_millis(2_500);

/// How often the process is started again after faults of the disk have kept it from starting.
const STARTS_MAX: usize = 20;

pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) clock: ManualClock,
    pub(crate) oracle: Oracle,
    pub(crate) figures: Figures,
    runtime: Runtime,
    stages: Option<Stages>,
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) power_cuts: u64,
    pub(crate) kills: u64,
    pub(crate) restarts: u64,
    pub(crate) failed_starts: u64,
}

impl Figures {
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.power_cuts += other.power_cuts;
        self.kills += other.kills;
        self.restarts += other.restarts;
        self.failed_starts += other.failed_starts;
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            disk: SimDisk::new(seed),
            clock: ManualClock::new(START),
            oracle: Oracle::default(),
            figures: Figures::default(),
            runtime: Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
            stages: None,
        };
        world.start();
        world
    }

    // The process.

    /// Starts the process; when the disk keeps it from starting, mends the disk and starts again.
    pub(crate) fn start(&mut self) {
        for _ in 0..STARTS_MAX {
            match self.try_start() {
                Ok(()) => {
                    let recovery = self.stages().pipeline().recovery();
                    assert_eq!(recovery.damages, [], "a crash is no damage");
                    return;
                }
                Err(_) => {
                    self.figures.failed_starts += 1;
                    if self.disk.is_halted() {
                        self.disk.kill_process();
                    }
                    self.disk.heal();
                    self.disk.set_capacity_bytes(None);
                }
            }
        }
        panic!("the process does not start on a healthy disk");
    }

    pub(crate) fn try_start(&mut self) -> Result<(), StartError> {
        self.stages = None;
        let disk = Arc::new(self.disk.process());
        let handle = self.runtime.handle().clone();
        let opening = Stages::open(config(), disk, Arc::new(self.clock.clone()), handle);
        self.stages = Some(self.runtime.block_on(opening)?);
        Ok(())
    }

    /// Another process on the same directory.
    pub(crate) fn start_second(&self) -> Result<Stages, StartError> {
        let disk = Arc::new(self.disk.process());
        let handle = self.runtime.handle().clone();
        self.runtime.block_on(Stages::open(config(), disk, Arc::new(self.clock.clone()), handle))
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// How many rows readers get of a sealed table.
    pub(crate) fn rows(&self, sealed: &TenantCatalog, table: Table) -> usize {
        self.runtime.block_on(async {
            match table {
                Table::Spans => {
                    let mut rows = 0;
                    for segment in sealed.segments(Table::Spans) {
                        rows += segment.read_rows(spans::from_batch).await.unwrap().len();
                    }
                    rows
                }
                Table::Hops => sealed.read_hops(TimeRange::ALL).await.unwrap().len(),
                Table::Requests => sealed.read_requests(TimeRange::ALL).await.unwrap().len(),
                Table::Edges => sealed.read_edges(TimeRange::ALL).await.unwrap().len(),
            }
        })
    }

    pub(crate) fn stages(&mut self) -> &mut Stages {
        self.stages.as_mut().expect("a running process")
    }

    fn process_ended(&mut self) {
        self.stages = None;
        self.oracle.process_died();
    }

    pub(crate) fn kill(&mut self) {
        self.figures.kills += 1;
        self.disk.kill_process();
        self.process_ended();
        self.start();
    }

    pub(crate) fn cut_power(&mut self, power_cut: PowerCut) {
        self.figures.power_cuts += 1;
        // The machine stops first: what was under way must not go on while the platter is looked at.
        self.disk.halt_now();
        self.process_ended();
        self.disk.cut_power(power_cut);
        self.start();
    }

    /// Ends the process as an operator does, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.figures.restarts += 1;
        if let Some(stages) = self.stages.take() {
            stages.shutdown();
        }
        self.disk.kill_process();
        self.process_ended();
        self.start();
    }

    // What happens in it.

    /// Sends messages at the same time and notes what was answered.
    pub(crate) fn send(&mut self, messages: &[Message]) -> Vec<Result<(), IntakeError>> {
        let arrived = self.clock.now();
        let submissions: Vec<Submission> = messages.iter().filter_map(|message| submission(message, arrived)).collect();
        let keys: Vec<Vec<Key>> = submissions.iter().map(keys_of).collect();
        for (submission, keys) in submissions.iter().zip(&keys) {
            submission.decoded.spans.iter().zip(keys).for_each(|(span, key)| self.oracle.sent(key, span));
        }
        let stages = self.stages.as_mut().expect("a running process");
        let answers = self.runtime.block_on(async {
            let intake = Arc::clone(stages.pipeline().intake());
            let mut waiting = Box::pin(join_all(submissions.into_iter().map(|submission| intake.submit(submission))));
            // Hands all of them in, in this order.
            assert!((&mut waiting).now_or_never().is_none(), "nothing is answered before it is committed");
            stages.commit();
            waiting.await
        });
        for (answer, keys) in answers.iter().zip(keys) {
            if answer.is_ok() {
                self.figures.acknowledged += keys.len();
                self.oracle.acknowledged(keys);
            } else {
                self.figures.refused += keys.len();
                self.oracle.refused(keys);
            }
        }
        answers
    }

    /// Lets time pass; the process joins, publishes and seals.
    pub(crate) fn tick(&mut self, passed: Duration) {
        self.clock.advance(passed);
        let stages = self.stages();
        stages.join();
        stages.tick();
        stages.await_seal();
    }

    /// Mends the disk and lets the process catch up.
    pub(crate) fn quiesce(&mut self) {
        self.disk.heal();
        self.disk.set_capacity_bytes(None);
        // A failed seal is repeated after five seconds, and may have kept the joiner waiting.
        for _ in 0..10 {
            self.tick(Duration::from_millis(5_300));
            if self.lag_bytes() == 0 {
                break;
            }
        }
        self.tick(Duration::from_millis(5_300));
        assert_eq!(self.lag_bytes(), 0, "the joiner has caught up");
        let stages = self.stages();
        let wal = stages.pipeline().wal_stats();
        assert_eq!(wal.damaged_places.load(Ordering::Relaxed), 0, "nothing in the log is damaged");
        assert_eq!(stages.pipeline().join_stats().unreadable_records(), 0);
        assert_eq!(stages.pipeline().sealed().catalog().quarantined(), []);
    }

    pub(crate) fn lag_bytes(&mut self) -> u64 {
        self.stages().pipeline().wal_stats().lag_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn check_spans(&mut self) -> usize {
        self.quiesce();
        let store = self.stages().pipeline().store().clone();
        self.oracle.check_spans(&store, &self.runtime).len()
    }

    pub(crate) fn check_answers(&mut self) {
        self.quiesce();
        let store = self.stages().pipeline().store().clone();
        self.oracle.check_answers(&store, &self.runtime);
    }

    /// Leaves room for so many more bytes.
    pub(crate) fn leave_room(&self, more_bytes: u64) {
        self.disk.set_capacity_bytes(Some(self.disk.used_bytes() + more_bytes));
    }

    /// The files below a directory of the data, by path.
    pub(crate) fn files_below(&self, dir: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut dirs = vec![Path::new(DATA).join(dir)];
        while let Some(dir) = dirs.pop() {
            files.extend(self.disk.list(&dir).unwrap().into_iter().map(|entry| dir.join(entry.name)));
            dirs.extend(self.disk.list_dirs(&dir).unwrap().into_iter().map(|name| dir.join(name)));
        }
        files.sort();
        files
    }
}

/// Small enough that segments rotate, the joiner lags and seals overlap with everything.
fn config() -> PipelineConfig {
    PipelineConfig {
        data_dir: DATA.into(),
        tables: TablesConfig::in_directory(Path::new(DATA).join("tables")),
        wal: WalConfig {
            segment_bytes: 16 << 10,
            max_bytes: 256 << 10,
            keep_free_bytes: 32 << 10,
            group_max_bytes: 8 << 10,
            handover_max_bytes: 16 << 10,
            ..WalConfig::default()
        },
        join: JoinLimits { settle_after: SETTLE_AFTER, max_age: Duration::from_secs(15), max_open_bytes: 400 << 10 },
        overrides: InForce::default(),
        tick: Duration::from_millis(200),
        drain: Duration::from_secs(15),
        seal: SealPolicy { interval: Duration::from_secs(7), max_bytes: 300 << 10 },
    }
}

/// What the receiver makes of a message; `None` when all of it is refused.
fn submission(message: &Message, arrived: UnixNanos) -> Option<Submission> {
    let origin = Origin { ingest: IngestProtocol::OtlpGrpc, arrived };
    let decoded = decode(BodyFormat::OtlpProtobuf, message.encoding, &message.body, origin).unwrap();
    (!decoded.spans.is_empty()).then(|| Submission {
        tenant: message.tenant.clone(),
        format: BodyFormat::OtlpProtobuf,
        encoding: message.encoding,
        body: message.body.clone(),
        origin,
        decoded,
    })
}

fn keys_of(submission: &Submission) -> Vec<Key> {
    let key = |span: &windrose_proto::span::Span| (submission.tenant.clone(), span.trace_id, span.span_id);
    submission.decoded.spans.iter().map(key).collect()
}
