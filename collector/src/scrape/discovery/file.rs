//! Files of targets: which files a pattern names, what they hold, and when they changed. A file that cannot be read or understood keeps
//! the targets it had: a half-written file must not stop the scraping of a mesh.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use windrose_proto::time::UnixNanos;

use crate::scrape::config::{FileDiscovery, TargetGroup};

/// How often files are looked at for changes. Prometheus is told by the kernel; a look every two
/// seconds costs one system call per file and works on every file system.
pub(in crate::scrape) const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Largest file of targets: ten thousand targets with many labels are about 5 MB.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// Most files of one job.
const FILES_MAX: usize = 1_000;

/// The files of one job and what was last read from them.
#[derive(Debug)]
pub(in crate::scrape) struct Files {
    discovery: FileDiscovery,
    known: BTreeMap<PathBuf, File>,
    refreshed_at: Option<UnixNanos>,
}

#[derive(Debug)]
struct File {
    stamp: Option<Stamp>,
    groups: Vec<TargetGroup>,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
}

impl Files {
    pub(in crate::scrape) const fn new(discovery: FileDiscovery) -> Self {
        Self { discovery, known: BTreeMap::new(), refreshed_at: None }
    }

    pub(in crate::scrape) fn groups(&self) -> impl Iterator<Item = &TargetGroup> {
        self.known.values().flat_map(|file| &file.groups)
    }

    /// Reads what is new or changed. Returns whether any target group may have changed. Blocking.
    pub(in crate::scrape) fn refresh(&mut self, now: UnixNanos) -> bool {
        let interval_nanos = u64::try_from(self.discovery.refresh_interval.as_nanos()).unwrap_or(u64::MAX);
        let is_due = self.refreshed_at.is_none_or(|at| now.since(at) >= interval_nanos);
        if is_due {
            self.refreshed_at = Some(now);
        }
        let paths: Vec<PathBuf> =
            self.discovery.files.iter().flat_map(|pattern| matching(pattern)).take(FILES_MAX).collect();
        let before = self.known.len();
        self.known.retain(|path, _| paths.contains(path));
        let mut is_changed = self.known.len() != before;
        for path in paths {
            is_changed |= self.refresh_file(path, is_due);
        }
        is_changed
    }

    fn refresh_file(&mut self, path: PathBuf, is_due: bool) -> bool {
        let stamp = stamp_of(&path);
        let known = self.known.get(&path);
        if known.is_some_and(|file| file.stamp == stamp) && !is_due {
            return false;
        }
        let groups = match read(&path) {
            Ok(groups) => groups,
            Err(reason) => {
                tracing::warn!(path = %path.display(), error = reason, "file of targets kept as it was");
                // Told once per change, not once per look.
                let groups = self.known.remove(&path).map(|file| file.groups).unwrap_or_default();
                self.known.insert(path, File { stamp, groups });
                return false;
            }
        };
        let is_changed = known.is_none_or(|file| file.groups != groups);
        self.known.insert(path, File { stamp, groups });
        is_changed
    }
}

/// The target groups of a file's text; JSON is YAML.
pub(super) fn parse(text: &str) -> Result<Vec<TargetGroup>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<Vec<TargetGroup>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_MAX_BYTES {
        return Err(format!("{length} bytes are more than the {FILE_MAX_BYTES} a file of targets may have"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut groups = parse(&text)?;
    for group in &mut groups {
        group.labels.insert("__meta_filepath".to_owned(), path.display().to_string());
    }
    Ok(groups)
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok()?, length: metadata.len() })
}

/// The files a pattern names. Only the last part may hold `*`.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(pattern);
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    if !name.contains('*') {
        return vec![path.to_owned()];
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|file| matches_name(name, file)))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// `*` stands for any text.
fn matches_name(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use windrose_proto::time::UnixNanos;

    use super::{Files, matches_name, parse};
    use crate::scrape::config::FileDiscovery;

    #[test]
    fn patterns_match_names() {
        for (pattern, name, expect) in [
            ("*.json", "a.json", true),
            ("*.json", "a.yml", false),
            ("t*-*.yml", "t1-2.yml", true),
            ("t*-*.yml", "t1.yml", false),
            ("a*a", "a", false),
            ("*", "anything", true),
        ] {
            assert_eq!(matches_name(pattern, name), expect, "{pattern} {name}");
        }
    }

    #[test]
    fn json_and_yaml_are_read() {
        let json = r#"[{"targets": ["10.0.0.1:80"], "labels": {"app": "orders"}}]"#;
        let yaml = "- targets: ['10.0.0.1:80']\n  labels:\n    app: orders\n";
        assert_eq!(parse(json).unwrap(), parse(yaml).unwrap());
        assert!(parse("[{\"target\": []}]").is_err());
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn files_are_read_again_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let pattern = file("*.json").to_str().unwrap().to_owned();
        let mut files = Files::new(FileDiscovery { files: vec![pattern], refresh_interval: Duration::from_secs(300) });
        let addresses =
            |files: &Files| -> Vec<String> { files.groups().flat_map(|group| group.targets.clone()).collect() };

        assert!(!files.refresh(UnixNanos::from_secs(1)));
        std::fs::write(file("a.json"), r#"[{"targets": ["a"]}]"#).unwrap();
        assert!(files.refresh(UnixNanos::from_secs(2)));
        assert!(!files.refresh(UnixNanos::from_secs(3)), "nothing changed");
        std::fs::write(file("a.json"), r#"[{"targets": ["a", "b"]}]"#).unwrap();
        assert!(files.refresh(UnixNanos::from_secs(4)));
        assert_eq!(addresses(&files), ["a", "b"]);
        // Half a file changes nothing.
        std::fs::write(file("a.json"), r#"[{"targets": ["a""#).unwrap();
        assert!(!files.refresh(UnixNanos::from_secs(5)));
        assert_eq!(addresses(&files), ["a", "b"]);
        std::fs::remove_file(file("a.json")).unwrap();
        assert!(files.refresh(UnixNanos::from_secs(6)));
        assert!(addresses(&files).is_empty());
    }
}
