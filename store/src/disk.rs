//! The file system, behind one trait: the only place of this crate that touches it.
//!
//! [`OsDisk`] is the real one. [`SimDisk`] keeps everything in memory and can do what real disks
//! do on a bad day (power cut, torn write, failed fsync, full disk, flipped bit, stalled sync), by
//! seed; the simulation tests of the whole product run on it.
//!
//! # What the trait promises
//! - [`DiskFile::write_at`] writes everything or returns an error; after an error any prefix may
//!   have been written.
//! - Bytes are safe from a power cut only after [`DiskFile::sync_data`] returned `Ok`. After it
//!   returned an error they never are, even if a later sync succeeds: the kernel may have dropped
//!   the dirty pages. Callers must write them again somewhere else.
//! - A created file has a durable *name* only after [`Disk::sync_dir`]; [`Disk::rename`] is atomic
//!   and durable when it returns.
//! - [`Disk::lock`] excludes other processes and other holders in this process; the lock ends when
//!   the guard is dropped or the process dies.

mod os;
mod sim;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

pub use os::OsDisk;
pub use sim::{Fault, Operation, PowerCut, SimDisk, SyncHold};

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates `dir` and what is missing above it, durably. Existing directories are fine.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Creates a file that must not exist yet, `reserve_bytes` long, reading as zeros, with its
    /// blocks allocated where the file system can do that. On an error no file is left behind.
    ///
    /// # Errors
    /// `StorageFull` when the blocks cannot be had, `AlreadyExists`, and others.
    fn create(&self, path: &Path, reserve_bytes: u64) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file.
    ///
    /// # Errors
    /// `NotFound` and others.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// The plain files directly in `dir`, in no particular order.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory, and others.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// The directories directly in `dir`, in no particular order.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory, and others.
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Moves a file to a name that must not be taken, atomically and durably.
    ///
    /// # Errors
    /// `AlreadyExists`, and those of the file system.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Moves a file, replacing what is at `to`, atomically and durably.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `NotFound` and others.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes created and removed names in `dir` durable.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes this process may still allocate in the file system that holds `dir`.
    ///
    /// # Errors
    /// Those of the file system.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes the lock file at `path`, creating it if needed, without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] when somebody else has it.
    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError>;
}

/// An open file. All methods take `&self`; concurrent writes to different ranges are fine.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Writes all of `slices`, one after the other, from `offset` on.
    ///
    /// # Errors
    /// Those of the file system; a prefix may have been written.
    fn write_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Makes everything written so far survive a power cut (fdatasync).
    ///
    /// # Errors
    /// Those of the file system; what was not durable before must then be taken for lost.
    fn sync_data(&self) -> io::Result<()>;

    /// Reads into `buffer` from `offset`; short only at the end of the file.
    ///
    /// # Errors
    /// Those of the file system.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Cuts or extends (with zeros) to `len_bytes`.
    ///
    /// # Errors
    /// Those of the file system.
    fn truncate(&self, len_bytes: u64) -> io::Result<()>;
}

/// Holds a lock until dropped.
pub trait DiskLock: fmt::Debug + Send + Sync {}

/// What an opened file may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only; works on read-only media.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// A file in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name, without the directory.
    pub name: String,
    /// Its length.
    pub len_bytes: u64,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error(
        "{} is in use by {}: stop that process or choose another data directory",
        dir.display(),
        holder(*pid)
    )]
    Held {
        /// The locked directory.
        dir: PathBuf,
        /// The holder, when it left its process id.
        pid: Option<u32>,
    },
    /// The lock file could not be opened or locked.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Reads a whole file.
///
/// # Errors
/// `FileTooLarge` when it is longer than `max_bytes` (nothing is allocated then), and those of the
/// file system.
pub fn read_file(disk: &dyn Disk, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Access::Read)?;
    let len_bytes = file.len_bytes()?;
    if len_bytes > max_bytes {
        let message = format!("{} has {len_bytes} bytes, more than the {max_bytes} expected", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let mut content = vec![0; usize::try_from(len_bytes).map_err(io::Error::other)?];
    let read = file.read_at(0, &mut content)?;
    content.truncate(read);
    Ok(content)
}

/// Replaces the file at `path` as a whole: after a crash it holds the old or the new content.
///
/// # Errors
/// Those of the file system; the old content is then still there.
pub fn write_atomic(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    let unfinished = PathBuf::from(unfinished);
    match disk.remove(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&unfinished, 0)?;
    file.write_at(0, &mut [IoSlice::new(content)])?;
    file.sync_data()?;
    drop(file);
    disk.rename(&unfinished, path)
}

/// Writes a new file from front to end; for encoders that want an [`io::Write`].
#[derive(Debug)]
pub struct SequentialWriter {
    file: Box<dyn DiskFile>,
    written_bytes: u64,
}

impl SequentialWriter {
    /// Creates the file at `path`, which must not exist.
    ///
    /// # Errors
    /// Those of [`Disk::create`].
    pub fn create(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        Ok(Self { file: disk.create(path, 0)?, written_bytes: 0 })
    }

    /// Makes the content durable and returns its length. The name becomes durable by
    /// [`Disk::sync_dir`] or by renaming the file to its final place.
    ///
    /// # Errors
    /// Those of [`DiskFile::sync_data`].
    pub fn finish(self) -> io::Result<u64> {
        self.file.sync_data()?;
        Ok(self.written_bytes)
    }
}

impl io::Write for SequentialWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.written_bytes, &mut [IoSlice::new(bytes)])?;
        self.written_bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
