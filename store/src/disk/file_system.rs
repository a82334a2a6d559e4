//! What concerns directories and whole file systems rather than the log's files.

use std::fs::File;
use std::io;
use std::path::Path;

/// Forces everything written on the file system of `dir` to the disk, whoever wrote it. One call
/// covers all files of a seal, their names and the logs that list them: what the log is cut for
/// must survive a power cut, and object stores on local disks do not sync by themselves.
///
/// # Errors
/// When `dir` cannot be opened, or a write of the file system failed since the last call.
pub fn sync_file_system(dir: &Path) -> io::Result<()> {
    let dir = File::open(dir)?;
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(&dir)?;
    #[cfg(not(target_os = "linux"))]
    {
        dir.sync_all()?;
        rustix::fs::sync();
    }
    Ok(())
}

/// Makes a directory and those above it.
///
/// # Errors
/// When the system refuses.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        super::sync_file_system(dir.path()).unwrap();
        assert!(super::sync_file_system(&dir.path().join("missing")).is_err());
    }
}
