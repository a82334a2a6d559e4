//! Kills a server at random instants under load, again and again, and compares what it acknowledged with what is there.
//!
//!     cargo build -p windrose && cargo run -p windrose-tests --example crash_campaign -- [KILLS] [SEED] [full-disk]
//!
//! Some kills come while the server still starts and replays. With `full-disk` the server runs on a small file system of
//! its own (tmpfs, which takes root), which is filled up and emptied again in every second round, so that log and seals run
//! out of space at any point, and senders must be told to come back and nothing else.
//!
//! After every restart all ids are compared, and the edges before a server is left for a new one. Ends with an error when a
//! span was lost or doubled.

#![expect(clippy::print_stdout, reason = "a program that reports")]

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tempfile::TempDir;
use windrose_tests::senders::Senders;
use windrose_tests::server::Home;

/// Settles and seals so often that kills fall into both; small segments, so that the log rotates and is cut.
const CONFIG: &str = "join:\n  settle_after: 500ms\n  tick: 100ms\nseal:\n  interval: 1s\nwal:\n  segment_bytes: 17MiB\n\
                      query:\n  timeout: 60s\n";
/// Kills of servers on the same directory. Each leaves a few small files, and comparing reads them all.
const KILLS_PER_HOME: u64 = 20;
/// Holds the log's minimum of two segments, what it keeps free for seals, and the tables of a campaign.
const SMALL_DISK: &str = "size=700m";
/// What is written at once to fill it.
const FILLER_BYTES: usize = 1 << 20;

/// A file system that can be filled. Unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let place = TempDir::with_prefix("windrose-small-").expect("a temporary directory");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]).arg(place.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "full-disk needs root, to mount a small tmpfs");
        Self(place)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all the space there is, or leaves some.
    fn fill(&self, leave: usize) {
        let mut file = File::create(self.filler()).expect("a file");
        let block = vec![1; FILLER_BYTES];
        let mut length = 0;
        loop {
            match file.write(&block) {
                Ok(written) => length += written as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("filling the disk: {error}"),
            }
        }
        file.set_len(length.saturating_sub(leave as u64)).expect("cutting the file");
    }

    fn empty(&self) {
        match std::fs::remove_file(self.filler()) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("emptying the disk: {error}"),
            _ => {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.path()).status());
    }
}

async fn pass(random: &mut StdRng, up_to_millis: u64) {
    tokio::time::sleep(Duration::from_millis(random.random_range(0..up_to_millis))).await;
}

/// What happened so far.
#[derive(Debug, Default)]
struct Figures {
    kills: u64,
    killed_while_starting: u64,
    acknowledged: usize,
    stored: usize,
    told_to_come_back: u64,
}

struct Campaign {
    small: Option<SmallDisk>,
    random: StdRng,
    figures: Figures,
}

impl Campaign {
    /// Kills servers on one directory.
    async fn run(&mut self, kills: u64) {
        let home = match &self.small {
            Some(disk) => Home::new_in(disk.path(), CONFIG),
            None => Home::new(CONFIG),
        };
        let senders = Senders::default();
        for kill in 1..=kills {
            let server = home.start().await;
            senders.sent().await.all_stored_once(&server.http()).await;
            let mut sending = senders.start(&server);
            if let Some(disk) = self.small.as_ref().filter(|_| kill % 2 == 0) {
                pass(&mut self.random, 1_000).await;
                disk.fill(self.random.random_range(0..40 << 20));
            }
            pass(&mut self.random, 2_500).await;
            server.kill().await;
            while sending.join_next().await.is_some() {}
            if self.random.random_bool(0.2) {
                // Once more, while it starts: on a disk that may still be full.
                let server = home.spawn();
                pass(&mut self.random, 1_500).await;
                server.kill().await;
                self.figures.killed_while_starting += 1;
            }
            if let Some(disk) = &self.small {
                disk.empty();
            }
        }
        let server = home.start().await;
        let stored = senders.sent().await.all_stored_once(&server.http()).await;
        senders.sent().await.edges_count_once(&server.http(), stored).await;
        server.kill().await;
        self.figures.kills += kills;
        self.figures.stored += stored;
        self.figures.acknowledged += senders.acknowledged().await;
        self.figures.told_to_come_back += senders.told_to_come_back();
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, otherwise| arguments.get(place).map_or(otherwise, |text| text.parse().expect("a number"));
    let (kills, seed) = (number(0, 100_u64), number(1, 1_u64));
    let small = arguments.iter().any(|word| word == "full-disk").then(SmallDisk::mount);
    let mut campaign = Campaign { small, random: StdRng::seed_from_u64(seed), figures: Figures::default() };
    let started = Instant::now();
    while campaign.figures.kills < kills {
        let left = kills - campaign.figures.kills;
        campaign.run(left.min(KILLS_PER_HOME)).await;
        println!("{:.0} s, 0 lost, 0 doubled: {:?}", started.elapsed().as_secs_f64(), campaign.figures);
    }
}
