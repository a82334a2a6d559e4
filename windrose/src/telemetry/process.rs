//! What the kernel knows of the process. Every reading is absent where there is no `/proc`.

use std::fs;

/// Linux shows times to programs in hundredths of a second, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process may hold anything; the numbers follow its closing parenthesis.
    let (_, numbers) = stat.rsplit_once(')')?;
    let mut ticks = numbers.split_whitespace().skip(11).map(str::parse::<f64>);
    let user = ticks.next()?.ok()?;
    let system = ticks.next()?.ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Resident memory.
pub(super) fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Open file descriptors, the one used for counting included.
pub(super) fn open_fds() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_with_plausible_numbers() {
        assert!(cpu_seconds().is_some_and(|seconds| (0.0..100_000.0).contains(&seconds)));
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000.0));
        assert!(open_fds().is_some_and(|count| count >= 3.0));
    }
}
