//! Where the tables lie: a directory, or a bucket that several collectors may share.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use super::DiskStore;
use crate::disk::Disk;

/// Where the tables of a process lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Directory(PathBuf),
    Bucket(Bucket),
}

/// A place in an S3-compatible object store.
#[derive(Clone, PartialEq, Eq)]
pub struct Bucket {
    name: String,
    prefix: Path,
    /// Settings of the client, under the names of the AWS variables in small letters.
    options: Vec<(String, String)>,
}

impl std::fmt::Debug for Bucket {
    /// The options hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket(s3://{}/{})", self.name, self.prefix)
    }
}

/// A URL that is not one of a bucket.
#[derive(Debug, thiserror::Error)]
#[error("{url:?} is not a place for tables: write s3://BUCKET or s3://BUCKET/PREFIX")]
pub struct InvalidUrl {
    url: String,
}

/// The place could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    #[error("using the table directory {}", dir.display())]
    Directory {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("setting up the client of bucket {bucket}")]
    Bucket {
        bucket: String,
        #[source]
        source: object_store::Error,
    },
}

impl Bucket {
    /// From `s3://bucket/prefix`.
    ///
    /// # Errors
    /// When it is not such a URL.
    pub fn parse(url: &str, options: Vec<(String, String)>) -> Result<Self, InvalidUrl> {
        let invalid = || InvalidUrl { url: url.to_owned() };
        let place = url.strip_prefix("s3://").or_else(|| url.strip_prefix("s3a://")).ok_or_else(invalid)?;
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(invalid());
        }
        let prefix = Path::parse(prefix).map_err(|_| invalid())?;
        Ok(Self { name: name.to_owned(), prefix, options })
    }

    fn open(&self) -> object_store::Result<Arc<dyn ObjectStore>> {
        // Commits and seal records rely on "put if absent".
        let mut builder =
            AmazonS3Builder::new().with_bucket_name(&self.name).with_conditional_put(S3ConditionalPut::ETagMatch);
        for (key, value) in &self.options {
            // Variables for other tools are none of the client's.
            if let Ok(key) = AmazonS3ConfigKey::from_str(key) {
                builder = builder.with_config(key, value);
            }
        }
        Ok(Arc::new(PrefixStore::new(builder.build()?, self.prefix.clone())))
    }
}

impl Location {
    /// Whether other collectors may write there too.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Bucket(_))
    }

    /// Opens it; no request is made yet to a bucket.
    ///
    /// # Errors
    /// When the directory cannot be used, or the client's settings do not hold together.
    pub fn open(&self, disk: Arc<dyn Disk>) -> Result<Arc<dyn ObjectStore>, LocationError> {
        match self {
            Self::Directory(dir) => match DiskStore::open(disk, dir) {
                Ok(store) => Ok(Arc::new(store)),
                Err(source) => Err(LocationError::Directory { dir: dir.clone(), source }),
            },
            Self::Bucket(bucket) => {
                bucket.open().map_err(|source| LocationError::Bucket { bucket: bucket.name.clone(), source })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bucket;

    #[track_caller]
    fn check(url: &str, expect: Option<(&str, &str)>) {
        let bucket = Bucket::parse(url, Vec::new()).ok();
        let found = bucket.as_ref().map(|bucket| (bucket.name.as_str(), bucket.prefix.as_ref()));
        assert_eq!(found, expect, "{url}");
    }

    #[test]
    fn urls_of_buckets() {
        check("s3://tables", Some(("tables", "")));
        check("s3://tables/", Some(("tables", "")));
        check("s3://my-tables/mesh/eu", Some(("my-tables", "mesh/eu")));
        check("s3a://tables/x/", Some(("tables", "x")));
        for wrong in ["", "tables", "/data", "file:///data", "s3://", "s3:///x", "s3://a b/x", "s3://a/x//y", "gs://a"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = vec![("aws_secret_access_key".to_owned(), "hunter2".to_owned())];
        let shown = format!("{:?}", Bucket::parse("s3://tables/x", options).unwrap());
        assert_eq!(shown, "Bucket(s3://tables/x)");
    }

    #[test]
    fn a_client_needs_no_network_to_be_set_up() {
        let options = [("aws_region", "eu-1"), ("aws_profile", "x"), ("aws_endpoint", "http://127.0.0.1:9")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Bucket::parse("s3://tables/x", options.to_vec()).unwrap().open().unwrap();
    }
}
