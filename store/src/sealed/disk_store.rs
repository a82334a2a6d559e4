//! A local directory as an object store that survives power cuts.
//!
//! The library's own local store never syncs, so what it has stored may be gone after a power cut
//! while the write-ahead log has already been cut. Here an object is there, whole and durable, when
//! `put` returns, and not there at all before: it is written under another name, synced, and moved.
//!
//! Invariants: names ending in [`UNFINISHED`] are never listed; they are left by crashes and
//! removed when the store is opened. All work on the disk is done on the blocking pool.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::disk::{Access, Disk};

/// Ends the names of objects that are not complete.
const UNFINISHED: &str = ".unfinished";

const STORE: &str = "disk";

/// A directory as an object store.
#[derive(Clone, Debug)]
pub struct DiskStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Tells apart unfinished objects that are written at the same time.
    next_unfinished: AtomicU64,
}

impl DiskStore {
    /// Opens the directory, creating it and removing what crashes left unfinished.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(disk: Arc<dyn Disk>, root: &FilePath) -> io::Result<Self> {
        disk.create_dir_all(root)?;
        let inner = Inner { disk, root: root.to_owned(), next_unfinished: AtomicU64::new(0) };
        inner.remove_unfinished(root)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The directory as it is, for looking only: nothing is created or tidied up.
    #[must_use]
    pub fn look_at(disk: Arc<dyn Disk>, root: &FilePath) -> Self {
        let inner = Inner { disk, root: root.to_owned(), next_unfinished: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await?
    }
}

impl fmt::Display for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.inner.root.display())
    }
}

#[async_trait]
impl ObjectStore for DiskStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let new = match opts.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => return Err(not_implemented("put with an expected version")),
        };
        let location = location.clone();
        self.blocking(move |inner| inner.put(&location, &payload, new)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_implemented("multipart upload"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let location = location.clone();
        self.blocking(move |inner| inner.get(&location, &options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (location, ranges) = (location.clone(), ranges.to_vec());
        self.blocking(move |inner| inner.get_ranges(&location, &ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .and_then(move |location| {
                let store = store.clone();
                async move { store.blocking(move |inner| inner.delete(&location).map(|()| location)).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        async move { store.blocking(move |inner| inner.list(prefix.as_ref())).await }
            .map(|listed| match listed {
                Ok(objects) => stream::iter(objects).map(Ok).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            })
            .flatten_stream()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned();
        self.blocking(move |inner| inner.list_with_delimiter(prefix.as_ref())).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let content = self.get(from).await?.bytes().await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.put_opts(to, content.into(), PutOptions { mode, ..PutOptions::default() }).await.map(drop)
    }
}

impl Inner {
    fn file(&self, location: &Path) -> PathBuf {
        self.root.join(location.as_ref())
    }

    fn put(&self, location: &Path, payload: &PutPayload, new: bool) -> Result<()> {
        let path = self.file(location);
        let failed = |error| error_of(location, error);
        if let Some(dir) = path.parent() {
            self.disk.create_dir_all(dir).map_err(failed)?;
        }
        let number = self.next_unfinished.fetch_add(1, Ordering::Relaxed);
        let unfinished = PathBuf::from(format!("{}.{number}{UNFINISHED}", path.display()));
        let stored = self.write(&unfinished, payload).and_then(|()| {
            if new { self.disk.rename_new(&unfinished, &path) } else { self.disk.rename(&unfinished, &path) }
        });
        if stored.is_err()
            && let Err(error) = self.disk.remove(&unfinished)
        {
            tracing::debug!(path = %unfinished.display(), error = %error, "unfinished object stays until the next start");
        }
        stored.map_err(failed)
    }

    fn write(&self, path: &FilePath, payload: &PutPayload) -> io::Result<()> {
        // Reserving first makes a full disk known before anything is written.
        let file = self.disk.create(path, payload.content_length() as u64)?;
        let mut slices: Vec<IoSlice<'_>> = payload.iter().map(|part| IoSlice::new(part)).collect();
        file.write_at(0, &mut slices)?;
        file.sync_data()
    }

    fn get(&self, location: &Path, options: &GetOptions) -> Result<GetResult> {
        let file = self.disk.open(&self.file(location), Access::Read).map_err(|error| error_of(location, error))?;
        let size = file.len_bytes().map_err(|error| error_of(location, error))?;
        let meta = meta_of(location.clone(), size);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range.as_range(size).map_err(|error| generic(error.into()))?,
            None => 0..size,
        };
        let payload = if options.head {
            stream::empty().boxed()
        } else {
            let bytes = read_range(&*file, &range).map_err(|error| error_of(location, error))?;
            stream::iter([Ok(bytes)]).boxed()
        };
        Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes: Attributes::default() })
    }

    fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let failed = |error| error_of(location, error);
        let file = self.disk.open(&self.file(location), Access::Read).map_err(failed)?;
        ranges.iter().map(|range| read_range(&*file, range).map_err(failed)).collect()
    }

    fn delete(&self, location: &Path) -> Result<()> {
        let path = self.file(location);
        let removed =
            self.disk.remove(&path).and_then(|()| path.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir)));
        removed.map_err(|error| error_of(location, error))
    }

    fn list(&self, prefix: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let mut objects = Vec::new();
        let mut dirs = vec![prefix.cloned().unwrap_or_default()];
        while let Some(dir) = dirs.pop() {
            let ListResult { common_prefixes, objects: found } = self.list_with_delimiter(Some(&dir))?;
            objects.extend(found);
            dirs.extend(common_prefixes);
        }
        Ok(objects)
    }

    fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let dir = self.file(&prefix);
        let read = self.disk.list(&dir).and_then(|files| Ok((files, self.disk.list_dirs(&dir)?)));
        let (files, dirs) = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), Vec::new()),
            read => read.map_err(|error| error_of(&prefix, error))?,
        };
        let finished = files.into_iter().filter(|entry| !entry.name.ends_with(UNFINISHED));
        let objects = finished.map(|entry| meta_of(prefix.clone().join(entry.name), entry.len_bytes));
        let common_prefixes = dirs.into_iter().map(|name| prefix.clone().join(name));
        Ok(ListResult { common_prefixes: common_prefixes.collect(), objects: objects.collect() })
    }

    fn remove_unfinished(&self, dir: &FilePath) -> io::Result<()> {
        for entry in self.disk.list(dir)? {
            if entry.name.ends_with(UNFINISHED) {
                self.disk.remove(&dir.join(entry.name))?;
            }
        }
        self.disk.list_dirs(dir)?.into_iter().try_for_each(|name| self.remove_unfinished(&dir.join(name)))
    }
}

fn read_range(file: &dyn crate::disk::DiskFile, range: &Range<u64>) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?];
    let read = file.read_at(range.start, &mut buffer)?;
    if read < buffer.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from(buffer))
}

/// Objects never change, so when one was written is not worth a system call.
fn meta_of(location: Path, size: u64) -> ObjectMeta {
    ObjectMeta { location, last_modified: Default::default(), size, e_tag: None, version: None }
}

fn error_of(location: &Path, error: io::Error) -> Error {
    let path = location.to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        _ => generic(error.into()),
    }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic { store: STORE, source }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: STORE.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Path as FilePath;
    use std::sync::Arc;

    use futures::TryStreamExt;
    use object_store::path::Path;
    use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

    use super::DiskStore;
    use crate::disk::{Disk, OsDisk, PowerCut, SimDisk};

    async fn names(store: &DiskStore, prefix: Option<&str>) -> Vec<String> {
        let prefix = prefix.map(Path::from);
        let mut names: Vec<String> =
            store.list(prefix.as_ref()).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        names.sort();
        names
    }

    async fn create(store: &DiskStore, path: &str, content: &'static str) -> object_store::Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&Path::from(path), PutPayload::from_static(content.as_bytes()), options).await.map(drop)
    }

    async fn check_contract(disk: Arc<dyn Disk>, root: &FilePath) {
        let store = DiskStore::open(Arc::clone(&disk), root).unwrap();
        create(&store, "t/_delta_log/0.json", "zero").await.unwrap();
        create(&store, "t/_delta_log/1.json", "one").await.unwrap();
        create(&store, "t/tenant=a/date=2026-11-21/x.parquet", "0123456789").await.unwrap();
        let taken = create(&store, "t/_delta_log/1.json", "other").await;
        assert!(matches!(taken, Err(Error::AlreadyExists { .. })), "{taken:?}");
        let one = Path::from("t/_delta_log/1.json");
        assert_eq!(store.get(&one).await.unwrap().bytes().await.unwrap(), "one");
        store.put(&one, PutPayload::from_static(b"more")).await.unwrap();
        assert_eq!(store.get(&one).await.unwrap().bytes().await.unwrap(), "more");

        assert_eq!(names(&store, Some("t/_delta_log")).await, ["t/_delta_log/0.json", "t/_delta_log/1.json"]);
        assert_eq!(names(&store, None).await.len(), 3);
        assert!(names(&store, Some("absent")).await.is_empty());
        let offset = Path::from("t/_delta_log/0.json");
        let after: Vec<_> =
            store.list_with_offset(Some(&Path::from("t/_delta_log")), &offset).try_collect().await.unwrap();
        assert_eq!(after.len(), 1);
        let top = store.list_with_delimiter(Some(&Path::from("t"))).await.unwrap();
        assert_eq!((top.objects.len(), top.common_prefixes.len()), (0, 2));

        let data = Path::from("t/tenant=a/date=2026-11-21/x.parquet");
        assert_eq!(store.get_range(&data, 2..5).await.unwrap(), "234");
        assert_eq!(store.get_ranges(&data, &[0..1, 9..10]).await.unwrap(), ["0", "9"]);
        let beyond = 5..11;
        assert!(store.get_ranges(&data, std::slice::from_ref(&beyond)).await.is_err());
        assert_eq!(store.head(&data).await.unwrap().size, 10);
        store.copy(&data, &Path::from("copy")).await.unwrap();
        store.delete(&data).await.unwrap();
        assert!(matches!(store.get(&data).await, Err(Error::NotFound { .. })));
        assert!(matches!(store.delete(&data).await, Err(Error::NotFound { .. })));

        disk.create(&root.join("t/y.parquet.3.unfinished"), 5).unwrap();
        assert_eq!(names(&store, Some("t")).await.len(), 2, "unfinished objects are not there");
        DiskStore::open(Arc::clone(&disk), root).unwrap();
        assert!(disk.list(&root.join("t")).unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_contract_holds_on_both_disks() {
        let dir = tempfile::tempdir().unwrap();
        check_contract(Arc::new(OsDisk), dir.path()).await;
        check_contract(Arc::new(SimDisk::new(7)), FilePath::new("/sim")).await;
    }

    #[tokio::test]
    async fn an_object_that_was_stored_survives_a_power_cut() {
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            let root = FilePath::new("/sim");
            let store = DiskStore::open(Arc::new(disk.clone()), root).unwrap();
            create(&store, "log/0.json", "zero").await.unwrap();
            store.put(&Path::from("data"), PutPayload::from_static(b"data")).await.unwrap();
            disk.cut_power(if seed % 2 == 0 { PowerCut::DropUnsynced } else { PowerCut::Tear });
            let store = DiskStore::open(Arc::new(disk), root).unwrap();
            for (path, content) in [("log/0.json", "zero"), ("data", "data")] {
                assert_eq!(store.get(&Path::from(path)).await.unwrap().bytes().await.unwrap(), content);
            }
        }
    }
}
