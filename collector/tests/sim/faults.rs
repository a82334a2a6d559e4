//! Single faults, each with the outcome that docs/faults.md promises.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use windrose_collector::pipeline::StartError;
use windrose_collector::receive::IntakeError;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::{Clock as _, TimeRange, UnixNanos};
use windrose_store::disk::{Disk as _, Fault, Operation};
use windrose_store::tables::Table;
use windrose_store::wal::DamageReason;

use crate::load::{Message, whole_trace};
use crate::world::{START, World};

/// Longer than the interval of seals.
const A_SEAL: Duration = Duration::from_millis(7_100);

/// A request with all spans of one trace.
fn request(world: &World, tenant: &str, number: u64) -> Message {
    whole_trace(TenantId::new(tenant).unwrap(), number, world.clock.now())
}

/// Sends one request of the default tenant.
fn send(world: &mut World, number: u64) -> Result<(), IntakeError> {
    let message = request(world, "default", number);
    world.send(&[message]).remove(0)
}

/// A world with some requests sealed and some only in the log.
fn busy_world() -> World {
    let mut world = World::new(1);
    for number in 1..=6 {
        assert_eq!(send(&mut world, number), Ok(()));
        if number == 4 {
            world.tick(A_SEAL);
            world.tick(A_SEAL);
        }
    }
    world
}

/// The one file below a directory whose path contains `text`.
#[track_caller]
fn file(world: &World, dir: &str, text: &str) -> PathBuf {
    let files = world.files_below(dir);
    let found = files.iter().find(|path| path.to_string_lossy().contains(text));
    found.unwrap_or_else(|| panic!("no {text} in {files:?}")).clone()
}

fn flip(world: &World, path: &Path, at: impl Fn(usize) -> usize) {
    let len = world.disk.content(path).expect("the file").len();
    assert!(world.disk.flip_bit(path, at(len) as u64, 2));
}

/// A seal that one tenant's rows make due says for the others too which of their traces are open.
#[test]
fn a_seal_without_rows_of_a_tenant_remembers_its_open_traces() {
    let mut world = World::new(1);
    world.tick(Duration::from_millis(6_900));
    let of_other = request(&world, "other", 1);
    assert_eq!(world.send(&[of_other]), [Ok(())]);
    world.tick(Duration::from_millis(200));
    assert_eq!(world.files_below("tables/_seals").len(), 1, "the trace is open and its spans are sealed");
    for number in 0..20 {
        let messages: Vec<Message> = (0..5).map(|of| request(&world, "default", 100 + number * 5 + of)).collect();
        world.send(&messages);
    }
    world.tick(Duration::from_millis(200));
    assert_eq!(world.files_below("tables/_seals").len(), 2, "the other tenant's rows made a seal due");
    world.kill();
    world.check_answers();
}

#[test]
fn a_full_disk_refuses_with_a_time_to_come_back_and_recovers_by_itself() {
    let mut world = busy_world();
    world.leave_room(0);
    let mut refusals = 0;
    for number in 100..400 {
        match send(&mut world, number) {
            Ok(()) => {}
            Err(IntakeError::DiskFull { retry_after }) => {
                assert!(!retry_after.is_zero());
                refusals += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refusals > 0, "the preallocated segment is used up");
    world.tick(A_SEAL);
    let failures = world.stages().pipeline().join_stats().seal_failures();
    assert!(failures > 0, "a seal has no room either");
    world.disk.set_capacity_bytes(None);
    assert_eq!(send(&mut world, 400), Ok(()), "accepted again, without a restart");
    world.check_answers();
    world.kill();
    world.check_answers();
}

#[test]
fn a_used_up_budget_of_the_log_refuses_until_a_seal_makes_room() {
    let mut world = World::new(2);
    let mut number = 0;
    let refusal = loop {
        number += 1;
        if let Err(refusal) = send(&mut world, number) {
            break refusal;
        }
    };
    assert!(matches!(refusal, IntakeError::DiskFull { .. }), "{refusal}");
    for _ in 0..4 {
        world.tick(A_SEAL);
    }
    assert_eq!(send(&mut world, number + 1), Ok(()));
    world.check_answers();
}

#[test]
fn a_failing_disk_refuses_what_it_cannot_keep_and_nothing_else() {
    for operation in [Operation::Write, Operation::Sync, Operation::Create] {
        let mut world = busy_world();
        // A segment has room for two more; a creation comes when it is full.
        let mut number = 100;
        world.disk.fail_next(operation, Fault::Io, 1);
        let refusal = loop {
            number += 1;
            if let Err(refusal) = send(&mut world, number) {
                break refusal;
            }
        };
        assert_eq!(refusal, IntakeError::Internal, "{operation:?}");
        assert_eq!(send(&mut world, number + 1), Ok(()), "the next one goes to a new segment, {operation:?}");
        world.check_answers();
        world.kill();
        world.check_answers();
    }
}

#[test]
fn a_log_that_cannot_be_read_is_read_again() {
    let mut world = World::new(3);
    for number in 1..40 {
        assert_eq!(send(&mut world, number), Ok(()));
    }
    assert!(world.lag_bytes() > 0);
    world.disk.fail_next(Operation::Read, Fault::Io, 2);
    world.tick(Duration::from_millis(300));
    world.check_answers();
}

#[test]
fn an_answer_from_a_file_that_cannot_be_read_is_an_error_and_not_a_smaller_number() {
    let mut world = busy_world();
    let store = world.stages().pipeline().store().clone();
    let sealed = Arc::clone(&store.snapshot(&TenantId::default()).unwrap().sealed);
    world.disk.fail_next(Operation::Read, Fault::Io, 1_000);
    assert!(world.block_on(sealed.read_hops(TimeRange::ALL)).is_err());
    world.disk.heal();
    assert!(!world.block_on(sealed.read_hops(TimeRange::ALL)).unwrap().is_empty());
    assert_eq!(world.stages().pipeline().sealed().catalog().quarantined(), [], "the file is not to blame");
    world.check_answers();
}

#[test]
fn a_flipped_bit_in_the_log_costs_one_record_and_is_counted() {
    let mut world = World::new(4);
    for number in 1..=3 {
        assert_eq!(send(&mut world, number), Ok(()));
    }
    world.disk.kill_process();
    let log = file(&world, "wal", "wal-");
    // In the body of the first record.
    flip(&world, &log, |_| 128 + 32 + 200);
    world.try_start().unwrap();
    let damages = &world.stages().pipeline().recovery().damages;
    assert_eq!(damages.iter().map(|damage| damage.reason).collect::<Vec<_>>(), [DamageReason::RecordBody]);
    world.tick(Duration::from_secs(1));
    assert_eq!(world.stages().pipeline().wal_stats().damaged_places.load(Ordering::Relaxed), 1);
    let snapshot = world.stages().pipeline().store().snapshot(&TenantId::default()).unwrap();
    assert_eq!(snapshot.hot.span_rows(), 10, "two of three requests");
    assert_eq!(send(&mut world, 4), Ok(()));
}

#[test]
fn a_flipped_bit_in_a_parquet_file_quarantines_it_and_the_rest_answers() {
    for table in [Table::Spans, Table::Hops, Table::Requests, Table::Edges] {
        let mut world = busy_world();
        world.tick(A_SEAL);
        world.tick(A_SEAL);
        let damaged = file(&world, &format!("tables/{}", table.name()), ".parquet");
        flip(&world, &damaged, |len| len / 2);
        world.disk.kill_process();
        world.try_start().unwrap();
        let snapshot = world.stages().pipeline().store().snapshot(&TenantId::default()).unwrap();
        let rows = world.rows(&snapshot.sealed, table);
        let quarantined = world.stages().pipeline().sealed().catalog().quarantined();
        assert_eq!(quarantined.len(), 1, "{table:?}");
        assert!(damaged.to_string_lossy().ends_with(&quarantined[0].path), "{quarantined:?}");
        assert!(rows > 0, "the other files of {table:?} answer");
        world.tick(Duration::from_secs(1));
        assert_eq!(world.stages().pipeline().join_stats().quarantined_files(), 1);
        assert_eq!(send(&mut world, 100), Ok(()));
    }
}

#[test]
fn a_flipped_bit_in_a_trace_index_loses_nothing() {
    for part in [0, 2, 3] {
        let mut world = busy_world();
        let index = file(&world, "tables/spans/_traces", ".index");
        flip(&world, &index, |len| len * part / 4);
        world.kill();
        world.check_answers();
        // Late and repeated spans of sealed traces still find them.
        assert_eq!(world.send(&[whole_trace(TenantId::default(), 1, START)]), [Ok(())]);
        world.check_answers();
    }
}

#[test]
fn a_flipped_bit_in_a_seal_record_loses_nothing() {
    for part in 0..8 {
        let mut world = busy_world();
        let record = world.files_below("tables/_seals").pop().expect("the record of the last seal");
        flip(&world, &record, |len| len * part / 8);
        world.kill();
        world.check_answers();
    }
}

#[test]
fn damage_of_a_table_log_is_named_and_stops_the_start() {
    let mut world = busy_world();
    let commit = file(&world, "tables/hops/_delta_log", "00000000000000000000.json");
    flip(&world, &commit, |_| 0);
    world.disk.kill_process();
    let error = world.try_start().unwrap_err();
    assert!(matches!(error, StartError::Tables(_)), "{error}");
    let mut chain = format!("{error}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        chain.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    assert!(chain.contains("hops/_delta_log/00000000000000000000.json"), "{chain}");
    flip(&world, &commit, |_| 0);
    world.start();
    world.check_answers();
}

#[test]
fn a_clock_set_back_neither_loses_nor_delays() {
    let mut world = busy_world();
    world.clock.set(UnixNanos(world.clock.now().0 - 3_600_000_000_000));
    assert_eq!(send(&mut world, 100), Ok(()));
    world.tick(Duration::from_secs(1));
    world.tick(Duration::from_secs(3));
    assert_eq!(
        world.stages().pipeline().join_stats().read().1.open_traces,
        0,
        "settled in three seconds, not in an hour"
    );
    world.check_answers();
    world.kill();
    world.check_answers();
}

#[test]
fn a_second_process_is_told_who_has_the_directory() {
    let world = busy_world();
    let error = World::start_second(&world).unwrap_err();
    assert!(matches!(error, StartError::Wal { .. }), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("/data/wal is in use by"), "{cause}");
    assert!(world.disk.list(Path::new("/data/wal")).is_ok());
}
