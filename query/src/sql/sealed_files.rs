//! The sealed files of one snapshot as DataFusion sees them: a store that knows its objects.
//!
//! DataFusion asks for the size of every file before it reads one. The catalog knows sizes, so no
//! request is made for that (a bucket answers each in tens of milliseconds), and a path is answered
//! as it was asked for, whatever prefix the tables have in their bucket. Nothing can be written.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use windrose_store::segment::Segment;

/// What errors call this store.
const STORE: &str = "sealed files";

/// Files of one snapshot, by path.
#[derive(Debug)]
pub(super) struct SealedFiles {
    store: Arc<dyn ObjectStore>,
    bytes: BTreeMap<Path, u64>,
}

impl SealedFiles {
    /// These segments, which lie in `store`.
    pub(super) fn new<'a>(store: &Arc<dyn ObjectStore>, segments: impl IntoIterator<Item = &'a Segment>) -> Self {
        let bytes = segments.into_iter().map(|segment| (segment.path().clone(), segment.bytes())).collect();
        Self { store: Arc::clone(store), bytes }
    }

    fn meta(&self, location: &Path) -> Result<ObjectMeta> {
        let size = self.bytes.get(location).copied().ok_or_else(|| Error::NotFound {
            path: location.to_string(),
            source: "not a file of this snapshot".into(),
        })?;
        Ok(meta_of(location.clone(), size))
    }
}

impl fmt::Display for SealedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.store)
    }
}

fn meta_of(location: Path, size: u64) -> ObjectMeta {
    // A sealed file never changes, so its age and tag are of no interest.
    ObjectMeta { location, last_modified: Default::default(), size, e_tag: None, version: None }
}

fn read_only(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: STORE.to_owned() }
}

#[async_trait]
impl ObjectStore for SealedFiles {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only("put"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only("multipart upload"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let meta = self.meta(location)?;
        if options.head {
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            return Ok(GetResult { payload, range: 0..meta.size, meta, attributes: Attributes::default() });
        }
        let answer = self.store.get_opts(location, options).await?;
        Ok(GetResult { meta, ..answer })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([Err(read_only("delete"))]).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let is_below = |path: &Path| prefix.is_none_or(|prefix| path.prefix_matches(prefix));
        let listed = self.bytes.iter().filter(|(path, _)| is_below(path));
        let objects: Vec<_> = listed.map(|(path, size)| Ok(meta_of(path.clone(), *size))).collect();
        stream::iter(objects).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(read_only("list with delimiter"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only("copy"))
    }
}
