//! Both disks behave the same, and the simulated one fails as it should.

use std::io::Write as _;

use super::*;

/// What any disk must do, whichever it is.
fn check_contract(disk: &dyn Disk, root: &Path) {
    let dir = root.join("a/b");
    disk.create_dir_all(&dir).unwrap();
    disk.create_dir_all(&dir).unwrap();
    let path = dir.join("file");
    let file = disk.create(&path, 100).unwrap();
    assert_eq!(file.len_bytes().unwrap(), 100);
    assert_eq!(disk.create(&path, 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);

    let mut slices = [IoSlice::new(b""), IoSlice::new(b"hello "), IoSlice::new(b""), IoSlice::new(b"world")];
    file.write_at(95, &mut slices).unwrap();
    file.sync_data().unwrap();
    let mut buffer = [1; 20];
    assert_eq!(file.read_at(93, &mut buffer).unwrap(), 13);
    assert_eq!(&buffer[..13], b"\0\0hello world");
    assert_eq!(file.read_at(1000, &mut buffer).unwrap(), 0);
    file.truncate(101).unwrap();
    assert_eq!(read_file(disk, &path, 101).unwrap()[95..], *b"hello ");
    assert_eq!(read_file(disk, &path, 100).unwrap_err().kind(), io::ErrorKind::FileTooLarge);

    let moved = dir.join("moved");
    disk.rename(&path, &moved).unwrap();
    assert_eq!(disk.open(&path, Access::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.list(&dir).unwrap(), [DirEntry { name: "moved".to_owned(), len_bytes: 101 }]);
    assert_eq!(disk.list_dirs(&root.join("a")).unwrap(), ["b"]);
    assert!(disk.list_dirs(&dir).unwrap().is_empty());
    disk.create(&path, 1).unwrap();
    assert_eq!(disk.rename_new(&path, &moved).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    disk.rename_new(&path, &dir.join("other")).unwrap();
    disk.remove(&dir.join("other")).unwrap();
    assert_eq!(disk.remove(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    write_atomic(disk, &moved, b"new").unwrap();
    write_atomic(disk, &moved, b"newer").unwrap();
    assert_eq!(read_file(disk, &moved, 10).unwrap(), b"newer");
    disk.remove(&moved).unwrap();
    assert_eq!(disk.remove(&moved).unwrap_err().kind(), io::ErrorKind::NotFound);
    disk.sync_dir(&dir).unwrap();
    assert!(disk.list(&dir).unwrap().is_empty());
    assert_eq!(disk.list(&root.join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);

    let mut writer = SequentialWriter::create(disk, &dir.join("sequence")).unwrap();
    writer.write_all(b"one ").unwrap();
    writer.write_all(b"two").unwrap();
    assert_eq!(writer.finish().unwrap(), 7);
    assert_eq!(read_file(disk, &dir.join("sequence"), 10).unwrap(), b"one two");

    let lock = disk.lock(&dir.join("LOCK")).unwrap();
    assert!(matches!(disk.lock(&dir.join("LOCK")), Err(LockError::Held { .. })));
    drop(lock);
    disk.lock(&dir.join("LOCK")).unwrap();
    assert!(disk.free_bytes(&dir).unwrap() > 0);
}

#[test]
fn the_contract_holds_for_both_disks() {
    let dir = tempfile::tempdir().unwrap();
    check_contract(&OsDisk, dir.path());
    check_contract(&SimDisk::new(1), Path::new("/sim"));
}

#[test]
fn a_write_of_more_slices_than_one_call_takes_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsDisk.create(&dir.path().join("many"), 0).unwrap();
    let bytes: Vec<u8> = (0..5000_u32).map(|number| number as u8).collect();
    let mut slices: Vec<IoSlice<'_>> = bytes.chunks(1).map(IoSlice::new).collect();
    file.write_at(3, &mut slices).unwrap();
    assert_eq!(read_file(&OsDisk, &dir.path().join("many"), 6000).unwrap()[3..], bytes);
}

#[test]
fn a_held_lock_names_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let _lock = OsDisk.lock(&dir.path().join("LOCK")).unwrap();
    let message = OsDisk.lock(&dir.path().join("LOCK")).unwrap_err().to_string();
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
}

fn sim_with(content: &[u8]) -> (SimDisk, PathBuf, Box<dyn DiskFile>) {
    let disk = SimDisk::new(7);
    let dir = Path::new("/sim");
    disk.create_dir_all(dir).unwrap();
    let path = dir.join("file");
    let file = disk.create(&path, content.len() as u64).unwrap();
    file.write_at(0, &mut [IoSlice::new(content)]).unwrap();
    (disk, path, file)
}

#[test]
fn a_power_cut_keeps_only_what_was_synced() {
    let (disk, path, file) = sim_with(b"first");
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/sim")).unwrap();
    file.write_at(0, &mut [IoSlice::new(b"SECOND")]).unwrap();
    disk.cut_power(PowerCut::DropUnsynced);
    assert_eq!(disk.content(&path).unwrap(), b"first");
    assert!(file.sync_data().is_err(), "handles do not survive the machine");
}

#[test]
fn a_killed_process_does_nothing_any_more_but_what_it_wrote_stays() {
    let (disk, path, file) = sim_with(b"first");
    let process = disk.process();
    process.open(&path, Access::Read).unwrap();
    disk.kill_process();
    assert!(process.open(&path, Access::Read).is_err() && process.lock(&path).is_err() && file.sync_data().is_err());
    assert_eq!(disk.content(&path).unwrap(), b"first");
    disk.process().open(&path, Access::Read).unwrap();
}

#[test]
fn a_power_cut_loses_names_that_were_not_synced() {
    let (disk, path, file) = sim_with(b"first");
    file.sync_data().unwrap();
    disk.cut_power(PowerCut::DropUnsynced);
    assert_eq!(disk.content(&path), None);
}

#[test]
fn what_a_failed_sync_left_never_becomes_durable() {
    let (disk, path, file) = sim_with(b"first");
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/sim")).unwrap();
    file.write_at(0, &mut [IoSlice::new(b"SECOND")]).unwrap();
    disk.fail_next(Operation::Sync, Fault::Io, 1);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.content(&path).unwrap(), b"SECOND", "the running program still sees it");
    disk.cut_power(PowerCut::Tear);
    assert_eq!(disk.content(&path).unwrap()[..5], *b"first");
}

#[test]
fn a_torn_write_keeps_whole_sectors() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        let dir = Path::new("/sim");
        let path = dir.join("file");
        disk.put(&path, &[0; 2048]);
        let file = disk.open(&path, Access::ReadWrite).unwrap();
        file.write_at(0, &mut [IoSlice::new(&[1; 2048])]).unwrap();
        disk.cut_power(PowerCut::Tear);
        let content = disk.content(&path).unwrap();
        let sectors: Vec<u8> = content.chunks(512).map(|sector| sector[0]).collect();
        for (index, sector) in content.chunks(512).enumerate() {
            assert!(sector.iter().all(|byte| *byte == sectors[index]));
        }
        seen.insert(sectors);
    }
    assert!(seen.len() > 8, "tears differ by seed: {seen:?}");
}

#[test]
fn a_full_disk_says_so() {
    let (disk, path, file) = sim_with(b"12345");
    disk.set_capacity_bytes(Some(8));
    assert_eq!(disk.free_bytes(&path).unwrap(), 3);
    let error = file.write_at(5, &mut [IoSlice::new(b"6789")]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let error = disk.create(Path::new("/sim/other"), 4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.list(Path::new("/sim")).unwrap().len(), 1);
}

#[test]
fn a_halted_machine_tears_one_write_and_does_nothing_more() {
    let disk = SimDisk::new(9);
    let dir = Path::new("/sim");
    let process = disk.process();
    process.create_dir_all(dir).unwrap();
    let file = process.create(&dir.join("a"), 0).unwrap();
    disk.halt_after(2);
    file.write_at(0, &mut [IoSlice::new(b"first")]).unwrap();
    file.sync_data().unwrap();
    assert!(!disk.is_halted());
    file.write_at(5, &mut [IoSlice::new(b"second")]).unwrap_err();
    assert!(disk.is_halted());
    assert!(file.sync_data().is_err() && file.len_bytes().is_err() && process.list(dir).is_err());
    assert!(disk.content(&dir.join("a")).unwrap().starts_with(b"first"));
    disk.kill_process();
    assert!(!disk.is_halted());
    assert!(process.list(dir).is_err(), "the process is gone");
    assert_eq!(disk.process().list(dir).unwrap().len(), 1);
}
