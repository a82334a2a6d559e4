//! A file system in memory that fails on demand, deterministically by seed.
//!
//! Every file has two contents: what the running program reads (`current`) and what is on the
//! platter (`durable`). A write changes `current` and remembers the dirty range; a successful sync
//! copies the dirty ranges; a *failed* sync forgets them, as Linux does: those bytes stay visible
//! but never become durable. A power cut keeps `durable` plus whatever dirty sectors the seed
//! picks, which is where torn writes come from. Names behave the same way.
//!
//! Handles opened before a power cut fail afterwards: a program does not outlive its machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Access, DirEntry, Disk, DiskFile, DiskLock, LockError};

/// The unit a disk writes atomically; a power cut keeps or drops whole sectors.
const SECTOR_BYTES: usize = 512;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Disk::create`].
    Create,
    /// [`DiskFile::write_at`]; a random prefix is written before it fails.
    Write,
    /// [`DiskFile::sync_data`].
    Sync,
    /// [`DiskFile::read_at`].
    Read,
    /// [`Disk::rename`] and [`Disk::remove`].
    Name,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO: the medium.
    Io,
    /// ENOSPC: full.
    NoSpace,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()),
            Self::NoSpace => io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()),
        }
    }
}

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing: the strictest disk.
    DropUnsynced,
    /// Any subset of the dirty sectors and names, as the seed decides: torn writes.
    Tear,
}

/// The simulated disk. Cloning shares it, as processes share a machine.
#[derive(Clone, Debug)]
pub struct SimDisk {
    shared: Arc<Shared>,
    /// The life of the process that uses it; `None` for the world outside, which does not die.
    process: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    random: SplitMix,
    boots: u64,
    next_file: u64,
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    capacity_bytes: Option<u64>,
    planned: BTreeMap<Operation, (Fault, u32)>,
    random_faults: BTreeMap<Operation, (Fault, u32)>,
    held_syncs: u32,
    syncs: u64,
    /// How many more changes the machine makes before it stops.
    halt_after: Option<u64>,
    halted: bool,
}

#[derive(Debug, Default)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    dirty: Vec<Range<usize>>,
}

/// Sequence of pseudo-random numbers; small, seeded and good enough to pick sectors.
#[derive(Debug, Default)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % (bound.max(1) as u64)) as usize
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

impl SimDisk {
    /// An empty disk whose accidents are decided by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State { random: SplitMix(seed), ..State::default() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), released: Condvar::new() }), process: None }
    }

    /// The same disk as a process sees it that starts now: after the next
    /// [`SimDisk::kill_process`] or [`SimDisk::cut_power`] everything it tries fails.
    #[must_use]
    pub fn process(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), process: Some(self.state().boots) }
    }

    /// The next `times` operations of this kind fail.
    pub fn fail_next(&self, operation: Operation, fault: Fault, times: u32) {
        self.state().planned.insert(operation, (fault, times));
    }

    /// From now on each operation of this kind fails with this chance; 0 ends it.
    pub fn fail_randomly(&self, operation: Operation, fault: Fault, per_mille: u32) {
        self.state().random_faults.insert(operation, (fault, per_mille));
    }

    /// Stops the machine at the next change but `changes`: a write, sync, creation, renaming or
    /// removal. That change fails (a write is torn), and so does everything after it, until the
    /// power is cut or the process killed. This is how a crash is put at any point of a protocol.
    pub fn halt_after(&self, changes: u64) {
        self.state().halt_after = Some(changes);
    }

    /// Stops the machine at once.
    pub fn halt_now(&self) {
        self.state().halted = true;
    }

    /// What all files together hold.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Whether the machine has stopped.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.state().halted
    }

    /// Ends all planned and random faults. A machine that has stopped stays so.
    pub fn heal(&self) {
        let mut state = self.state();
        state.halt_after = None;
        state.planned.clear();
        state.random_faults.clear();
    }

    /// Limits what all files together may hold; `None` is unlimited.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.state().capacity_bytes = capacity_bytes;
    }

    /// Lets every sync wait until the returned guard is dropped: a disk that has stalled.
    #[must_use]
    pub fn hold_syncs(&self) -> SyncHold {
        self.state().held_syncs += 1;
        SyncHold { shared: Arc::clone(&self.shared) }
    }

    /// Cuts the power and starts the machine again: unsynced bytes and names are lost as
    /// `power_cut` says, locks are gone, open handles are dead, planned faults are forgotten.
    pub fn cut_power(&self, power_cut: PowerCut) {
        let mut state = self.state();
        state.restart();
        state.planned.clear();
        state.lose_names(power_cut);
        state.lose_contents(power_cut);
        self.shared.released.notify_all();
    }

    /// Kills the process: everything written stays, locks are gone, open handles are dead.
    pub fn kill_process(&self) {
        self.state().restart();
        self.shared.released.notify_all();
    }

    /// Flips one bit of a file, now and on the platter. Returns false outside of the file.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut state = self.state();
        let Some(content) = state.named(path) else { return false };
        let Some(index) = usize::try_from(offset).ok().filter(|index| *index < content.current.len()) else {
            return false;
        };
        content.current[index] ^= 1 << (bit % 8);
        if let Some(byte) = content.durable.get_mut(index) {
            *byte ^= 1 << (bit % 8);
        }
        true
    }

    /// The content of a file as the running program sees it.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.state().named(path).map(|content| content.current.clone())
    }

    /// Puts a file there, durably, replacing what was.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let content = Content { current: bytes.to_vec(), durable: bytes.to_vec(), dirty: Vec::new() };
        let file = state.add(content);
        state.names.insert(path.to_owned(), file);
        state.durable_names.insert(path.to_owned(), file);
        if let Some(dir) = path.parent() {
            state.dirs.insert(dir.to_owned());
        }
    }

    /// How many syncs have succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        match self.process {
            Some(boots) if boots != state.boots || state.halted => Err(Fault::Io.error()),
            _ => Ok(state),
        }
    }
}

/// Syncs wait while this lives.
#[derive(Debug)]
pub struct SyncHold {
    shared: Arc<Shared>,
}

impl Drop for SyncHold {
    fn drop(&mut self) {
        self.shared.state().held_syncs -= 1;
        self.shared.released.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, content: Content) -> u64 {
        self.next_file += 1;
        self.files.insert(self.next_file, content);
        self.next_file
    }

    fn named(&mut self, path: &Path) -> Option<&mut Content> {
        let file = self.names.get(path)?;
        self.files.get_mut(file)
    }

    fn restart(&mut self) {
        self.boots += 1;
        self.locks.clear();
        (self.halt_after, self.halted) = (None, false);
    }

    /// Fails when the machine stops here, or a planned or random fault says so.
    fn accident(&mut self, operation: Operation) -> io::Result<()> {
        if operation != Operation::Read
            && let Some(left) = &mut self.halt_after
        {
            self.halted = *left == 0;
            *left = left.saturating_sub(1);
            if self.halted {
                return Err(Fault::Io.error());
            }
        }
        if let Some((fault, times)) = self.planned.get_mut(&operation)
            && *times > 0
        {
            *times -= 1;
            return Err(fault.error());
        }
        if let Some((fault, per_mille)) = self.random_faults.get(&operation).copied()
            && self.random.below(1000) < per_mille as usize
        {
            return Err(fault.error());
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().filter_map(|file| self.files.get(file)).map(|content| content.current.len() as u64).sum()
    }

    fn room_for(&self, more_bytes: u64) -> io::Result<()> {
        match self.capacity_bytes {
            Some(capacity) if self.used_bytes() + more_bytes > capacity => Err(Fault::NoSpace.error()),
            _ => Ok(()),
        }
    }

    fn lose_names(&mut self, power_cut: PowerCut) {
        let paths: BTreeSet<PathBuf> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        for path in paths {
            let (now, before) = (self.names.get(&path).copied(), self.durable_names.get(&path).copied());
            let keep_new = now == before || (power_cut == PowerCut::Tear && self.random.coin());
            let left = if keep_new { now } else { before };
            match left {
                Some(file) => {
                    self.names.insert(path.clone(), file);
                    self.durable_names.insert(path, file);
                }
                None => {
                    self.names.remove(&path);
                    self.durable_names.remove(&path);
                }
            }
        }
        let alive: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| alive.contains(file));
    }

    fn lose_contents(&mut self, power_cut: PowerCut) {
        for content in self.files.values_mut() {
            if power_cut == PowerCut::Tear {
                content.tear(&mut self.random);
            }
            content.dirty.clear();
            content.current.clone_from(&content.durable);
        }
    }
}

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.current.len() < end {
            self.resize(end);
        }
        self.current[offset..end].copy_from_slice(bytes);
        self.dirty.push(offset..end);
    }

    /// Cuts, or extends with zeros, which are as dirty as written ones.
    fn resize(&mut self, len: usize) {
        let before = self.current.len();
        self.current.resize(len, 0);
        if len > before {
            self.dirty.push(before..len);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        for range in self.dirty.drain(..) {
            let end = range.end.min(self.current.len());
            if range.start < end {
                self.durable[range.start..end].copy_from_slice(&self.current[range.start..end]);
            }
        }
    }

    /// Lets some dirty sectors reach the platter.
    fn tear(&mut self, random: &mut SplitMix) {
        if self.durable.len() != self.current.len() && random.coin() {
            self.durable.resize(self.current.len(), 0);
        }
        let len = self.durable.len().min(self.current.len());
        for range in &self.dirty {
            let mut start = range.start;
            while start < range.end.min(len) {
                let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(range.end).min(len);
                if random.coin() {
                    self.durable[start..end].copy_from_slice(&self.current[start..end]);
                }
                start = end;
            }
        }
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn create(&self, path: &Path, reserve_bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.alive()?;
        state.accident(Operation::Create)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.room_for(reserve_bytes)?;
        let len = usize::try_from(reserve_bytes).map_err(io::Error::other)?;
        let file = state.add(Content { current: vec![0; len], ..Content::default() });
        state.names.insert(path.to_owned(), file);
        Ok(Box::new(SimFile { shared: Arc::clone(&self.shared), file, boots: state.boots }))
    }

    fn open(&self, path: &Path, _access: Access) -> io::Result<Box<dyn DiskFile>> {
        let state = self.alive()?;
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { shared: Arc::clone(&self.shared), file, boots: state.boots }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.alive()?;
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut entries = Vec::new();
        for (path, file) in &state.names {
            let inside = path.parent() == Some(dir);
            if inside && let (Some(name), Some(content)) = (path.file_name(), state.files.get(file)) {
                let name = name.to_string_lossy().into_owned();
                entries.push(DirEntry { name, len_bytes: content.current.len() as u64 });
            }
        }
        Ok(entries)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.state().names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.accident(Operation::Name)?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        state.durable_names.remove(from);
        state.durable_names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.accident(Operation::Name)?;
        state.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.accident(Operation::Sync)?;
        let State { names, durable_names, .. } = &mut *state;
        durable_names.retain(|path, _| path.parent() != Some(dir) || names.contains_key(path));
        let inside = names.iter().filter(|(path, _)| path.parent() == Some(dir));
        durable_names.extend(inside.map(|(path, file)| (path.clone(), *file)));
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.alive()?;
        Ok(state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        let mut state = self.alive().map_err(|source| LockError::Io { path: path.to_owned(), source })?;
        if !state.locks.insert(path.to_owned()) {
            let dir = path.parent().unwrap_or(path).to_owned();
            return Err(LockError::Held { dir, pid: None });
        }
        Ok(Box::new(SimLock { shared: Arc::clone(&self.shared), path: path.to_owned(), boots: state.boots }))
    }
}

/// A handle; dead once the machine or the process has gone.
#[derive(Debug)]
struct SimFile {
    shared: Arc<Shared>,
    file: u64,
    boots: u64,
}

impl SimFile {
    fn alive(&self, state: &State) -> io::Result<()> {
        if state.boots == self.boots && !state.halted { Ok(()) } else { Err(Fault::Io.error()) }
    }

    fn content<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Content> {
        state.files.get_mut(&self.file).ok_or_else(|| Fault::Io.error())
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut state = self.shared.state();
        self.alive(&state)?;
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let len = self.content(&mut state)?.current.len();
        let more_bytes = (offset + bytes.len()).saturating_sub(len) as u64;
        let outcome = state.accident(Operation::Write).and_then(|()| state.room_for(more_bytes));
        if outcome.is_err() {
            let kept = state.random.below(bytes.len()).min(len.saturating_sub(offset));
            bytes.truncate(kept);
        }
        self.content(&mut state)?.write(offset, &bytes);
        outcome
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.shared.state();
        while state.held_syncs > 0 && state.boots == self.boots {
            state = self.shared.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.alive(&state)?;
        if let Err(error) = state.accident(Operation::Sync) {
            // The kernel marks the pages clean although they never reached the disk.
            self.content(&mut state)?.dirty.clear();
            return Err(error);
        }
        self.content(&mut state)?.sync();
        state.syncs += 1;
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.state();
        self.alive(&state)?;
        state.accident(Operation::Read)?;
        let content = self.content(&mut state)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.current.len());
        let read = buffer.len().min(content.current.len() - from);
        buffer[..read].copy_from_slice(&content.current[from..from + read]);
        Ok(read)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let mut state = self.shared.state();
        self.alive(&state)?;
        Ok(self.content(&mut state)?.current.len() as u64)
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        let mut state = self.shared.state();
        self.alive(&state)?;
        let len = usize::try_from(len_bytes).map_err(io::Error::other)?;
        self.content(&mut state)?.resize(len);
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock {
    shared: Arc<Shared>,
    path: PathBuf,
    boots: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if state.boots == self.boots {
            state.locks.remove(&self.path);
        }
    }
}

impl DiskLock for SimLock {}
