//! Random actions and accidents against a model of what must be in the log.
//!
//! The model knows, for every record ever offered, whether it was acknowledged. After each crash
//! the log must hold every acknowledged record that was not cut, none twice, in order, nothing
//! that was refused before something acknowledged later, and no damage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::*;
use crate::disk::{Fault, Operation, PowerCut};

#[derive(Clone, Debug)]
enum Action {
    /// Append records of these lengths and sync.
    Append(Vec<usize>),
    /// Write them and do not sync.
    WriteOnly(Vec<usize>),
    /// Write them, do not sync, and acknowledge them all the same.
    Promise(Vec<usize>),
    /// Cut before this fraction of the acknowledged records.
    Cut(u8),
    /// Kill the process and open again.
    Kill,
    /// Cut the power and open again.
    PowerCut(PowerCut),
    /// Stop cleanly and open again.
    Restart,
    /// Let the next operations fail.
    Fail(Operation, Fault, u32),
    /// Leave room for this many more bytes.
    Capacity(Option<u64>),
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![4 => 0_usize..200, 2 => 200_usize..1500, 1 => Just(3900)], 1..8)
}

fn action(may_lose_unsynced: bool) -> BoxedStrategy<Action> {
    let operation =
        prop_oneof![Just(Operation::Create), Just(Operation::Write), Just(Operation::Sync), Just(Operation::Name),];
    let fault = prop_oneof![Just(Fault::Io), Just(Fault::NoSpace)];
    let common = prop_oneof![
        8 => lengths().prop_map(Action::Append),
        2 => lengths().prop_map(Action::WriteOnly),
        2 => any::<u8>().prop_map(Action::Cut),
        1 => Just(Action::Kill),
        1 => Just(Action::Restart),
        3 => (operation, fault, 1_u32..4).prop_map(|(operation, fault, times)| Action::Fail(operation, fault, times)),
        1 => prop::option::of(0_u64..20_000).prop_map(Action::Capacity),
    ];
    if may_lose_unsynced {
        return prop_oneof![13 => common, 2 => lengths().prop_map(Action::Promise)].boxed();
    }
    let cut = prop_oneof![Just(PowerCut::DropUnsynced), Just(PowerCut::Tear)];
    prop_oneof![13 => common, 2 => cut.prop_map(Action::PowerCut)].boxed()
}

/// When somebody who appends is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    OnceSynced,
    OnceWritten,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged(WalPosition),
    /// The caller was told that it failed.
    Refused,
    /// The caller has heard nothing.
    Unknown,
    /// Nobody was promised anything, and a sync of it has failed: the kernel shows it and may forget it.
    Doubtful,
}

struct World {
    disk: SimDisk,
    config: WalConfig,
    wal: Option<Wal>,
    fates: BTreeMap<u64, Fate>,
    cut: WalPosition,
}

impl World {
    fn new(seed: u64, sync: SyncPolicy) -> Self {
        let disk = SimDisk::new(seed);
        let config = WalConfig { sync, max_bytes: 40 * 4096, ..small_config() };
        let (wal, _) = open(&disk, config.clone());
        Self { disk, config, wal: Some(wal), fates: BTreeMap::new(), cut: WalPosition::START }
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Append(lengths) => self.append(&lengths, self.answer()),
            Action::WriteOnly(lengths) => self.append(&lengths, Answer::Never),
            Action::Promise(lengths) => self.append(&lengths, Answer::OnceWritten),
            Action::Cut(fraction) => self.cut(fraction),
            Action::Kill => {
                self.disk.kill_process();
                self.reopen();
            }
            Action::PowerCut(power_cut) => {
                self.disk.cut_power(power_cut);
                self.reopen();
            }
            Action::Restart => {
                // What is written but not synced is acknowledged by nobody; closing syncs it, or fails.
                if self.wal.take().unwrap().close().is_err() {
                    doubt(&mut self.fates, Fate::Unknown);
                }
                self.reopen();
            }
            Action::Fail(operation, fault, times) => self.disk.fail_next(operation, fault, times),
            Action::Capacity(room) => {
                self.disk.set_capacity_bytes(None);
                let used = u64::MAX - self.disk.free_bytes(Path::new(DIR)).unwrap();
                assert_eq!(used, 0);
                self.disk.set_capacity_bytes(room.map(|room| room + self.used_bytes()));
            }
        }
    }

    /// When an append is answered as the policy says.
    fn answer(&self) -> Answer {
        if self.config.sync == SyncPolicy::Never { Answer::OnceWritten } else { Answer::OnceSynced }
    }

    fn used_bytes(&self) -> u64 {
        self.disk.list(Path::new(DIR)).unwrap().iter().map(|entry| entry.len_bytes).sum()
    }

    /// As the commit thread does: one write and one sync per segment.
    fn append(&mut self, lengths: &[usize], answer: Answer) {
        let first = self.fates.last_key_value().map_or(1, |(id, _)| id + 1);
        let records: Vec<Record> =
            lengths.iter().enumerate().map(|(index, length)| record(first + index as u64, *length)).collect();
        let mut rest: Vec<(u64, &Record)> = records.iter().enumerate().map(|(i, r)| (first + i as u64, r)).collect();
        self.fates.extend(rest.iter().map(|(id, _)| (*id, Fate::Unknown)));
        let wal = self.wal.as_mut().unwrap();
        let failed_syncs = |wal: &Wal| wal.stats().fsync_failures.load(Ordering::Relaxed);
        while !rest.is_empty() {
            let batch: Vec<&Record> = rest.iter().map(|(_, record)| *record).collect();
            let failed_before = failed_syncs(wal);
            let written = wal.write(&batch);
            // A write that needs the next segment syncs this one first, and that may fail.
            if failed_syncs(wal) > failed_before {
                let offered = rest.first().map_or(first, |(id, _)| *id);
                doubt(self.fates.range_mut(..offered), Fate::Unknown);
            }
            match written {
                Err(failure) => {
                    for (id, _) in rest.drain(..failure.records) {
                        self.fates.insert(id, Fate::Refused);
                    }
                }
                Ok(appended) => {
                    let is_kept = match answer {
                        Answer::OnceSynced => wal.sync().is_ok(),
                        Answer::OnceWritten => {
                            wal.promise();
                            true
                        }
                        Answer::Never => true,
                    };
                    if !is_kept {
                        doubt(&mut self.fates, Fate::Unknown);
                    }
                    for ((id, _), place) in rest.drain(..appended.len()).zip(&appended) {
                        let fate = match (answer, is_kept) {
                            (Answer::Never, _) => Fate::Unknown,
                            (_, true) => Fate::Acknowledged(place.position),
                            (_, false) => Fate::Refused,
                        };
                        self.fates.insert(id, fate);
                    }
                    if answer == Answer::Never {
                        return;
                    }
                    // A sync covers what an earlier call only wrote, but nobody was waiting for it.
                }
            }
        }
    }

    fn cut(&mut self, fraction: u8) {
        let acknowledged: Vec<WalPosition> = self.acknowledged().map(|(_, position)| position).collect();
        if acknowledged.is_empty() {
            return;
        }
        let index = acknowledged.len() * usize::from(fraction) / 256;
        self.cut = self.cut.max(acknowledged[index]);
        if self.wal.as_ref().unwrap().cut_before(self.cut).is_err() {
            self.disk.heal();
            self.wal.as_ref().unwrap().cut_before(self.cut).unwrap();
        }
    }

    fn acknowledged(&self) -> impl Iterator<Item = (u64, WalPosition)> + '_ {
        self.fates.iter().filter_map(|(id, fate)| match fate {
            Fate::Acknowledged(position) => Some((*id, *position)),
            Fate::Refused | Fate::Unknown | Fate::Doubtful => None,
        })
    }

    fn reopen(&mut self) {
        self.wal = None;
        let opened = try_open(&self.disk, self.config.clone());
        let (wal, recovery) = opened.unwrap_or_else(|_| {
            doubt(&mut self.fates, Fate::Unknown);
            self.disk.heal();
            open(&self.disk, self.config.clone())
        });
        self.disk.heal();
        assert_eq!(recovery.damages, []);
        self.wal = Some(wal);
        self.check(recovery.end);
    }

    /// Compares the log with the model. What is there counts as acknowledged from now on: the
    /// consumer will process it.
    fn check(&mut self, end: WalPosition) {
        // What precedes the cut may be there in part: removals need not have become durable.
        let (records, damages) = read_all(&self.disk, self.cut);
        let losses: Vec<&Damage> = damages.iter().filter(|damage| damage.reason.is_loss()).collect();
        assert!(losses.is_empty(), "{losses:?}");
        assert!(records.is_sorted_by(|one, next| one.after <= next.position), "positions grow");
        assert_eq!(records.last().map_or(WalPosition::START, |record| record.after).max(end), end);
        let ids: Vec<u64> = records.iter().map(id_of).collect();
        assert!(ids.is_sorted_by(|one, next| one < next), "in order, none twice: {ids:?}");
        let present: BTreeSet<u64> = ids.iter().copied().collect();
        for (id, position) in self.acknowledged() {
            assert!(position < self.cut || present.contains(&id), "acknowledged {id} at {position} is lost");
        }
        let last_acknowledged = self.acknowledged().last().map_or(0, |(id, _)| id);
        for (id, record) in ids.iter().zip(&records) {
            let fate = self.fates[id];
            assert!(fate != Fate::Refused || *id > last_acknowledged, "refused {id} has come back");
            assert!(!matches!(fate, Fate::Acknowledged(position) if position != record.position));
            let fate = match fate {
                Fate::Acknowledged(_) | Fate::Unknown => Fate::Acknowledged(record.position),
                // Its sync failed: what the kernel shows of it need not be on the disk.
                Fate::Refused | Fate::Doubtful => Fate::Doubtful,
            };
            self.fates.insert(*id, fate);
        }
        let first_present = ids.first().copied().unwrap_or(u64::MAX);
        for (id, fate) in &mut self.fates {
            if *fate == Fate::Unknown && !present.contains(id) && *id > first_present {
                *fate = Fate::Refused;
            }
        }
    }
}

/// A sync has failed that covered all records of this fate.
fn doubt<'a>(fates: impl IntoIterator<Item = (&'a u64, &'a mut Fate)>, of: Fate) {
    for (_, fate) in fates.into_iter().filter(|(_, fate)| **fate == of) {
        *fate = Fate::Doubtful;
    }
}

/// A sync that fails may be followed by a kill and then by a power cut.
#[test]
fn a_refused_record_may_show_after_a_kill_and_be_gone_after_a_power_cut() {
    let fail = |operation, times| Action::Fail(operation, Fault::Io, times);
    let cut = Action::PowerCut(PowerCut::DropUnsynced);
    let actions = vec![
        Action::WriteOnly(vec![0]),
        fail(Operation::Name, 1),
        fail(Operation::Sync, 2),
        Action::Append(vec![0]),
        Action::Kill,
        cut,
    ];
    run(0, SyncPolicy::Always, actions);
}

/// The sync may be the one before the next segment, and what it did not make durable may stay in a
/// file that could not be removed: a kill shows it, a power cut forgets it, nobody was promised it.
#[test]
fn what_a_rotation_failed_to_sync_is_promised_to_nobody() {
    let fail = |operation| Action::Fail(operation, Fault::Io, 2);
    let actions = vec![
        fail(Operation::Write),
        Action::Append(vec![0]),
        fail(Operation::Name),
        Action::Append(vec![0]),
        Action::WriteOnly(vec![3900]),
        fail(Operation::Sync),
        Action::Append(vec![0]),
        Action::Kill,
        Action::PowerCut(PowerCut::DropUnsynced),
    ];
    run(0, SyncPolicy::Always, actions);
}

/// What a restart finds is processed, so it is made durable, also in front of a segment that was never started.
#[test]
fn what_a_restart_shows_survives_the_next_power_cut() {
    let fail = |operation, times| Action::Fail(operation, Fault::Io, times);
    let actions = vec![
        Action::WriteOnly(vec![0]),
        fail(Operation::Name, 2),
        fail(Operation::Write, 2),
        Action::Append(vec![0, 3900]),
        Action::Kill,
        Action::PowerCut(PowerCut::DropUnsynced),
    ];
    run(0, SyncPolicy::Always, actions);
}

fn run(seed: u64, sync: SyncPolicy, actions: Vec<Action>) {
    let mut world = World::new(seed, sync);
    for action in actions {
        world.run(action);
    }
    world.disk.kill_process();
    world.disk.heal();
    world.reopen();
    world.disk.set_capacity_bytes(None);
    world.append(&[10, 20], world.answer());
    world.disk.kill_process();
    world.reopen();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// With a sync before each acknowledgement, neither kill nor power cut nor disk error loses
    /// what was acknowledged.
    #[test]
    fn nothing_acknowledged_is_lost(seed: u64, actions in prop::collection::vec(action(false), 1..40)) {
        run(seed, SyncPolicy::Always, actions);
    }

    /// With lax syncs the same holds as long as the machine stays up.
    #[test]
    fn lax_syncs_survive_a_killed_process(seed: u64, actions in prop::collection::vec(action(true), 1..40)) {
        run(seed, SyncPolicy::Never, actions);
    }

    /// And so it does for what was appended lazily among what is synced.
    #[test]
    fn what_was_appended_lazily_survives_a_killed_process(
        seed: u64, actions in prop::collection::vec(action(true), 1..40),
    ) {
        run(seed, SyncPolicy::Always, actions);
    }
}
