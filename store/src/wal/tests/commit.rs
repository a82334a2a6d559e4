//! The commit thread and the hand-over.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::handover::{Handover, Published};
use super::super::log::Appended;
use super::*;
use crate::disk::{Fault, Operation, PowerCut};

fn start(disk: &SimDisk, config: WalConfig, from: WalPosition) -> (CommitLog<u64>, Consumer<u64>) {
    let (wal, _) = open(disk, config);
    CommitLog::start(wal, from).unwrap()
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn id_delivered(committed: &Committed<u64>) -> u64 {
    assert_eq!((committed.kind, &committed.tenant), (RecordKind::OtlpTracesProtobuf, &TenantId::default()));
    match &committed.delivery {
        Delivery::Live(id) => *id,
        Delivery::Stored(payload) => u64::from_le_bytes(*payload.first_chunk().unwrap()),
    }
}

/// Everything there is now.
fn drain(consumer: &mut Consumer<u64>) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Received::Batch(batch) = consumer.recv(Duration::ZERO).unwrap() {
        ids.extend(batch.iter().map(id_delivered));
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_senders_share_syncs_and_arrive_in_log_order() {
    let disk = SimDisk::new(1);
    let config = WalConfig { segment_bytes: 1 << 16, max_bytes: 1 << 24, ..small_config() };
    let (log, mut consumer) = start(&disk, config, WalPosition::START);
    let log = Arc::new(log);
    let stalled = disk.hold_syncs();
    let send = |id: u64| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { (log.append(record(id, 100), id, 100).await.unwrap(), id) })
    };
    let mut senders = vec![send(1)];
    // The first group hangs in the sync of the new segment; meanwhile the others gather.
    while !disk.list(Path::new(DIR)).unwrap().iter().any(|entry| entry.name.starts_with("wal-")) {
        tokio::task::yield_now().await;
    }
    senders.extend((2..=64).map(send));
    while load(&log.stats().queued_bytes) < 63 * record(2, 100).frame_bytes() {
        tokio::task::yield_now().await;
    }
    assert!(drain(&mut consumer).is_empty(), "nothing is handed over before it is durable");
    drop(stalled);
    let mut placed = Vec::new();
    for sender in senders {
        placed.push(sender.await.unwrap());
    }
    placed.sort_unstable();
    let in_log_order: Vec<u64> = placed.iter().map(|(_, id)| *id).collect();
    assert_eq!(drain(&mut consumer), in_log_order);
    assert_eq!(read_ids(&disk, WalPosition::START), in_log_order);
    let stats = log.stats();
    assert_eq!((load(&stats.appended_records), load(&stats.lag_bytes), load(&stats.queued_bytes)), (64, 0, 0));
    assert_eq!(load(&stats.groups), 2);
    log.close().unwrap();
    assert!(matches!(consumer.recv(Duration::ZERO).unwrap(), Received::Closed));
}

#[tokio::test]
async fn an_acknowledged_record_survives_a_power_cut_at_once() {
    let disk = SimDisk::new(1);
    let (log, _consumer) = start(&disk, small_config(), WalPosition::START);
    for id in 1..=30 {
        log.append(record(id, 400), id, 400).await.unwrap();
    }
    disk.cut_power(PowerCut::DropUnsynced);
    assert_eq!(read_ids(&disk, WalPosition::START), (1..=30).collect::<Vec<_>>());
}

/// Power cuts under load, one after the other on the same disk: what was acknowledged by then is
/// there, in order, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_under_load_lose_nothing_acknowledged() {
    let disk = SimDisk::new(5);
    let config = WalConfig { max_bytes: 1 << 24, handover_max_bytes: 2_000, ..small_config() };
    let next_id = Arc::new(AtomicU64::new(1));
    let mut acknowledged = Vec::new();
    for round in 1..=40 {
        let (log, mut consumer) = start(&disk, config.clone(), WalPosition::START);
        let log = Arc::new(log);
        let senders: Vec<_> = (0..6)
            .map(|_| {
                let (log, next_id) = (Arc::clone(&log), Arc::clone(&next_id));
                tokio::spawn(async move {
                    let mut accepted = Vec::new();
                    loop {
                        let id = next_id.fetch_add(1, Ordering::Relaxed);
                        match log.append(record(id, 150), id, 150).await {
                            Ok(_) => accepted.push(id),
                            Err(_) => return accepted,
                        }
                    }
                })
            })
            .collect();
        while load(&log.stats().appended_records) < 5 * round {
            tokio::task::yield_now().await;
        }
        let power_cut = if round % 2 == 0 { PowerCut::Tear } else { PowerCut::DropUnsynced };
        disk.cut_power(power_cut);
        let mut accepted = Vec::new();
        for sender in senders {
            accepted.extend(sender.await.unwrap());
        }
        // The machine is gone for this process; whatever it still acknowledged would be a lie.
        drop(log.close());
        drop(consumer.recv(Duration::ZERO));
        acknowledged.extend(accepted);
    }
    let (wal, recovery) = open(&disk, config);
    assert_eq!(recovery.damages, []);
    drop(wal);
    let (records, damages) = read_all(&disk, WalPosition::START);
    assert!(damages.iter().all(|damage| !damage.reason.is_loss()), "{damages:?}");
    let mut ids: Vec<u64> = records.iter().map(id_of).collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "none twice");
    let lost: Vec<&u64> = acknowledged.iter().filter(|id| ids.binary_search(id).is_err()).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged are lost", lost.len(), acknowledged.len());
}

#[tokio::test]
async fn a_disk_error_fails_exactly_the_affected_appends() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = SimDisk::new(1);
        let (log, mut consumer) = start(&disk, small_config(), WalPosition::START);
        log.append(record(1, 100), 1, 100).await.unwrap();
        disk.fail_next(operation, Fault::Io, 1);
        let error = log.append(record(2, 100), 2, 100).await.unwrap_err();
        assert!(matches!(error, AppendError::Io(_)), "{error}");
        log.append(record(3, 100), 3, 100).await.unwrap();
        assert_eq!(drain(&mut consumer), [1, 3]);
        assert_eq!(load(&log.stats().refused_io), 1);
        disk.kill_process();
        assert_eq!(read_ids(&disk, WalPosition::START), [1, 3], "the refused one does not come back");
    }
}

#[tokio::test]
async fn a_used_up_budget_refuses_and_a_cut_makes_room() {
    let disk = SimDisk::new(1);
    let config = WalConfig { max_bytes: 3 * 4096, ..small_config() };
    let (log, mut consumer) = start(&disk, config, WalPosition::START);
    let mut accepted = 0;
    let error = loop {
        match log.append(record(accepted + 1, 500), accepted + 1, 500).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(accepted >= 20, "{accepted}");
    assert!(matches!(error, AppendError::OutOfSpace { retry_after, .. } if !retry_after.is_zero()));
    assert!(error.to_string().contains("wal.max_bytes"), "{error}");
    assert_eq!(drain(&mut consumer).len() as u64, accepted, "what was accepted is still processed");
    assert_eq!(log.cut_before(cut_point(&[consumer.position()], None)).unwrap(), 2);
    log.append(record(accepted + 1, 500), accepted + 1, 500).await.unwrap();
    assert_eq!(drain(&mut consumer), [accepted + 1]);
    assert_eq!(load(&log.stats().refused_out_of_space), 1);
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let disk = SimDisk::new(1);
    let (log, mut consumer) = start(&disk, small_config(), WalPosition::START);
    log.append(record(1, 3900), 1, 3900).await.unwrap();
    disk.set_capacity_bytes(Some(4096 + 100));
    let error = log.append(record(2, 3900), 2, 3900).await.unwrap_err();
    assert!(matches!(error, AppendError::OutOfSpace { .. }), "{error}");
    disk.set_capacity_bytes(None);
    log.append(record(3, 3900), 3, 3900).await.unwrap();
    assert_eq!(drain(&mut consumer), [1, 3]);
}

#[tokio::test]
async fn a_record_larger_than_a_segment_is_refused_for_good() {
    let disk = SimDisk::new(1);
    let (log, _consumer) = start(&disk, small_config(), WalPosition::START);
    let max = small_config().record_max_bytes();
    let fitting = (max - 32 - 7 - 8) as usize / 8 * 8;
    log.append(record(1, fitting), 1, 0).await.unwrap();
    let error = log.append(record(2, fitting + 8), 2, 0).await.unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_stalled_disk_fills_the_queue_and_then_refuses() {
    let disk = SimDisk::new(1);
    let config = WalConfig { queue_max_bytes: 4000, queue_wait: Duration::from_millis(20), ..small_config() };
    let (log, mut consumer) = start(&disk, config, WalPosition::START);
    let log = Arc::new(log);
    let stalled = disk.hold_syncs();
    let senders: Vec<_> = (1..=8_u64)
        .map(|id| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.append(record(id, 500), id, 500).await.map(|_| id) })
        })
        .collect();
    while load(&log.stats().refused_overloaded) < 5 {
        tokio::task::yield_now().await;
    }
    drop(stalled);
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for sender in senders {
        match sender.await.unwrap() {
            Ok(id) => accepted.push(id),
            Err(AppendError::Overloaded { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    accepted.sort_unstable();
    assert_eq!(accepted, [1, 2, 3], "as many as the queue holds");
    assert_eq!(refused, 5);
    assert_eq!(drain(&mut consumer), accepted);
}

#[tokio::test]
async fn closing_commits_what_waits_and_refuses_what_comes() {
    let disk = SimDisk::new(1);
    let (log, mut consumer) = start(&disk, small_config(), WalPosition::START);
    for id in 1..=5 {
        log.append(record(id, 100), id, 100).await.unwrap();
    }
    log.close().unwrap();
    let error = log.append(record(6, 100), 6, 100).await.unwrap_err();
    assert!(matches!(error, AppendError::Closed));
    assert_eq!(drain(&mut consumer), [1, 2, 3, 4, 5]);
    assert!(matches!(consumer.recv(Duration::MAX / 4).unwrap(), Received::Closed));
}

#[tokio::test]
async fn lax_policies_acknowledge_without_a_sync_and_sync_later() {
    let disk = SimDisk::new(1);
    let config = WalConfig { sync: SyncPolicy::Interval(Duration::from_millis(1)), ..small_config() };
    let (log, _consumer) = start(&disk, config, WalPosition::START);
    log.append(record(1, 100), 1, 100).await.unwrap();
    while load(&log.stats().fsyncs) == 0 {
        tokio::task::yield_now().await;
    }
    let never = SimDisk::new(1);
    let (log, _consumer) = start(&never, WalConfig { sync: SyncPolicy::Never, ..small_config() }, WalPosition::START);
    let header_syncs = {
        log.append(record(1, 100), 1, 100).await.unwrap();
        never.syncs()
    };
    for id in 2..=5 {
        log.append(record(id, 100), id, 100).await.unwrap();
    }
    assert_eq!(never.syncs(), header_syncs);
}

#[tokio::test]
async fn what_is_appended_lazily_waits_for_no_sync_but_gets_one() {
    let disk = SimDisk::new(1);
    let config = WalConfig { lazy_sync: Duration::from_secs(3600), ..small_config() };
    let (log, mut consumer) = start(&disk, config, WalPosition::START);
    log.append(record(1, 100), 1, 100).await.unwrap();
    let before = load(&log.stats().fsyncs);
    log.append_lazily(record(2, 100), 2, 100).await.unwrap();
    log.append_lazily(record(3, 100), 3, 100).await.unwrap();
    assert_eq!((load(&log.stats().fsyncs), drain(&mut consumer)), (before, vec![1, 2, 3]));
    log.append(record(4, 100), 4, 100).await.unwrap();
    assert_eq!(load(&log.stats().fsyncs), before + 1, "the next that waits for a sync takes the others along");
    drop(log);
    disk.cut_power(PowerCut::DropUnsynced);
    assert_eq!(read_all(&disk, WalPosition::START).0.len(), 4);

    let disk = SimDisk::new(1);
    let config = WalConfig { lazy_sync: Duration::from_millis(1), ..small_config() };
    let (log, _consumer) = start(&disk, config, WalPosition::START);
    log.append_lazily(record(1, 100), 1, 100).await.unwrap();
    while load(&log.stats().fsyncs) == 0 {
        tokio::task::yield_now().await;
    }
}

/// Stands for any bug that ends the commit thread.
struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a bug on the commit thread");
    }
}

#[tokio::test]
async fn a_dead_commit_thread_leaves_nobody_waiting() {
    let disk = SimDisk::new(1);
    let (wal, _) = open(&disk, WalConfig { handover_max_bytes: 0, ..small_config() });
    let (log, mut consumer) = CommitLog::start(wal, WalPosition::START).unwrap();
    // Lagging from the first record on, the hand-over drops the attachment.
    let error = log.append(record(1, 10), Some(PanicsWhenDropped), 1).await.unwrap_err();
    assert!(matches!(error, AppendError::Closed));
    let error = log.append(record(2, 10), None, 1).await.unwrap_err();
    assert!(matches!(error, AppendError::Closed));
    assert!(log.close().is_err());
    let Received::Batch(batch) = consumer.recv(Duration::ZERO).unwrap() else { panic!("the record is on disk") };
    assert!(matches!(&batch[..], [Committed { delivery: Delivery::Stored(_), .. }]));
    assert!(matches!(consumer.recv(Duration::ZERO).unwrap(), Received::Closed));
}

#[test]
fn blocking_appends_need_no_runtime() {
    let disk = SimDisk::new(1);
    let (log, mut consumer) = start(&disk, small_config(), WalPosition::START);
    let place = log.append_blocking(record(1, 20), 1, 0).unwrap();
    assert_eq!(place, WalPosition::new(1, SEGMENT_HEADER_BYTES));
    assert_eq!(drain(&mut consumer), [1]);
}

#[tokio::test]
async fn a_restart_replays_from_where_the_tables_are() {
    let disk = SimDisk::new(1);
    let (log, mut consumer) = start(&disk, small_config(), WalPosition::START);
    let mut places = Vec::new();
    for id in 1..=30 {
        places.push(log.append(record(id, 400), id, 400).await.unwrap());
    }
    assert_eq!(drain(&mut consumer).len(), 30);
    drop(log);
    let (log, mut consumer) = start(&disk, small_config(), places[10]);
    assert!(log.is_lagging());
    assert!(load(&log.stats().lag_bytes) > 19 * 400);
    log.append(record(31, 400), 31, 400).await.unwrap();
    assert_eq!(drain(&mut consumer), (11..=31).collect::<Vec<_>>());
    assert_eq!((log.is_lagging(), load(&log.stats().lag_bytes)), (false, 0));
    log.append(record(32, 400), 32, 400).await.unwrap();
    assert_eq!(drain(&mut consumer), [32]);
    assert_eq!(load(&log.stats().replayed_records), 21);
}

#[tokio::test]
async fn a_removed_log_does_not_reuse_positions() {
    let disk = SimDisk::new(1);
    let committed = WalPosition::new(41, 999);
    let (log, mut consumer) = start(&disk, small_config(), committed);
    assert_eq!(log.append(record(1, 10), 1, 10).await.unwrap().segment, 42);
    assert_eq!(drain(&mut consumer), [1]);
    assert!(consumer.position() > committed);
}

#[tokio::test]
async fn an_unreadable_segment_is_given_up_after_several_attempts() {
    let disk = SimDisk::new(1);
    let (log, mut consumer) = start(&disk, WalConfig { handover_max_bytes: 0, ..small_config() }, WalPosition::START);
    for id in 1..=30 {
        log.append(record(id, 400), id, 400).await.unwrap();
    }
    disk.fail_next(Operation::Read, Fault::Io, 5);
    let errors = (0..4).filter(|_| consumer.recv(Duration::ZERO).is_err()).count();
    assert_eq!(errors, 4);
    let ids = drain(&mut consumer);
    assert!(ids[0] > 1 && ids.len() > 15, "only the first segment is missing: {ids:?}");
    assert_eq!(ids, (ids[0]..=30).collect::<Vec<_>>());
    assert_eq!(load(&log.stats().damaged_places), 1);
    log.append(record(31, 400), 31, 400).await.unwrap();
    assert_eq!(drain(&mut consumer), [31]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_gets_everything_once_in_order_while_memory_stays_bounded() {
    let disk = SimDisk::new(1);
    let config = WalConfig { handover_max_bytes: 2_000, max_bytes: 1 << 22, ..small_config() };
    let (log, mut consumer) = start(&disk, config, WalPosition::START);
    let log = Arc::new(log);
    let total = 600_u64;
    let reading = std::thread::spawn(move || {
        let mut ids = Vec::new();
        loop {
            match consumer.recv(Duration::from_secs(20)).unwrap() {
                Received::Batch(batch) => {
                    let live: usize = batch.iter().filter(|c| matches!(c.delivery, Delivery::Live(_))).count();
                    assert!(live <= 10, "the queue is bounded");
                    ids.extend(batch.iter().map(id_delivered));
                }
                Received::Closed => return ids,
                Received::Idle => panic!("nothing came for 20 s"),
            }
        }
    });
    let senders: Vec<_> = (0..4_u64)
        .map(|sender| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                for id in (1..=total).filter(|id| id % 4 == sender) {
                    log.append(record(id, 200), id, 200).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    log.close().unwrap();
    let ids = reading.join().unwrap();
    assert_eq!(ids, read_ids(&disk, WalPosition::START));
    assert_eq!(ids.len() as u64, total);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<usize>),
    Receive,
    Cut,
    Restart,
}

proptest! {
    /// The hand-over is exact at any speed of the consumer, over rotations, cuts and restarts.
    #[test]
    fn the_hand_over_has_no_gap_and_no_double(
        max_bytes in 0_usize..3000,
        steps in prop::collection::vec(
            prop_oneof![
                4 => prop::collection::vec(0_usize..1200, 1..6).prop_map(Step::Publish),
                3 => Just(Step::Receive),
                1 => Just(Step::Cut),
                1 => Just(Step::Restart),
            ],
            1..60,
        ),
    ) {
        let disk = SimDisk::new(1);
        let config = WalConfig { max_bytes: 1 << 22, ..small_config() };
        let hand_over = |wal: &Wal, from| {
            let handover = Handover::new(from, wal.end(), max_bytes, wal.segments(), wal.stats());
            let handover = Arc::new(handover);
            let consumer = Consumer::new(Arc::clone(&handover), wal.disk(), wal.dir().to_owned());
            (handover, consumer)
        };
        let (mut wal, _) = open(&disk, config.clone());
        let (mut handover, mut consumer) = hand_over(&wal, WalPosition::START);
        let (mut offered, mut taken) = (0_u64, 0_u64);
        for step in steps.into_iter().chain([Step::Receive]) {
            match step {
                Step::Publish(lengths) => {
                    let first = offered + 1;
                    offered += lengths.len() as u64;
                    let records: Vec<Record> = (first..).zip(&lengths).map(|(id, len)| record(id, *len)).collect();
                    let places: Vec<Appended> = wal.append_batch(&records.iter().collect::<Vec<_>>()).unwrap();
                    let publish = |((id, appended), attachment_bytes)| Published {
                        appended,
                        kind: RecordKind::OtlpTracesProtobuf,
                        encoding: ContentEncoding::Identity,
                        tenant: TenantId::default(),
                        arrival: UnixNanos(id),
                        attachment: id,
                        attachment_bytes,
                    };
                    handover.publish((first..).zip(places).zip(lengths).map(publish).collect());
                }
                Step::Receive => {
                    for id in drain(&mut consumer) {
                        taken += 1;
                        prop_assert_eq!(id, taken);
                    }
                    prop_assert_eq!(taken, offered);
                    prop_assert_eq!(load(&wal.stats().lag_bytes), 0);
                    prop_assert!(!handover.is_lagging());
                }
                Step::Cut => {
                    wal.cut_before(consumer.position()).unwrap();
                }
                Step::Restart => {
                    let from = consumer.position();
                    drop(wal);
                    wal = open(&disk, config.clone()).0;
                    (handover, consumer) = hand_over(&wal, from);
                }
            }
        }
    }
}
