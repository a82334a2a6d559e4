//! Fetching a page: HTTP, TLS, credentials, and bodies that stay within their limit.

use std::io::Read;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper_rustls::{ConfigBuilderExt, FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use thiserror::Error;
use windrose_proto::limits;

use super::buffers::{PageBuffer, PageBuffers};
use super::config::{Authorization, Credential, PoolConfig, TlsConfig, TlsVersion};
use super::discovery;
use super::protocol::{PageFormat, accept_header};
use super::target::Target;
use crate::exposition::{Dialect, protobuf};

mod verifier;

/// Who asks.
pub(super) const USER_AGENT_HEADER: &str = concat!("windrose/", env!("CARGO_PKG_VERSION"));

/// Connections kept per address; they stay open between scrapes of up to a minute's interval. One does
/// for a target, but targets may share an address and be scraped at the same time.
const IDLE_CONNECTIONS_PER_ADDRESS: usize = 8;

/// What a connection reads at a time. hyper lets it grow to 400 KB by itself, and every target keeps
/// a connection: 40 MB for 100 Istio targets.
const READ_BUFFER_BYTES: usize = 32 << 10;

/// Room made for a page before it comes. Nobody's word is believed further than this.
const EXPECTED_BYTES_MAX: u64 = 4 << 20;

/// The client of one job.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: HyperClient<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// A page as it was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Bytes,
    pub(super) is_gzip: bool,
    pub(super) format: Option<PageFormat>,
    pub(super) content_type: String,
}

/// A page as text.
#[derive(Clone, Debug)]
pub(super) struct TextPage {
    pub(super) body: Bytes,
    pub(super) dialect: Dialect,
    /// Of the page as it was answered, unpacked.
    pub(super) body_bytes: usize,
    /// Native histograms that are not in the text.
    pub(super) native_histograms: u64,
}

/// Why there is no page. The text is what an operator sees as the target's last error.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("TLS configuration: {0}")]
    Tls(String),
    #[error("credentials file {path}: {source}")]
    Credentials { path: String, source: std::io::Error },
    #[error("credentials cannot stand in a header")]
    CredentialText,
    #[error("request: {0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Connect(String),
    #[error("context deadline exceeded")]
    Timeout,
    #[error("server returned HTTP status {0}")]
    Status(StatusCode),
    #[error("body of the answer: {0}")]
    Body(#[from] hyper::Error),
    #[error("body size limit exceeded: more than {0} bytes")]
    TooLarge(usize),
    #[error("gzip: {0}")]
    Gzip(std::io::Error),
    #[error(transparent)]
    Protobuf(#[from] protobuf::ProtobufError),
    #[error("content encoding `{0}` was not asked for")]
    Encoding(String),
    #[error("received unsupported Content-Type \"{0}\" and no fallback_scrape_protocol specified for target")]
    ContentType(String),
}

impl Client {
    /// A client with these TLS settings.
    ///
    /// # Errors
    /// When a certificate or key cannot be read.
    pub(super) fn new(settings: &TlsConfig) -> Result<Self, FetchError> {
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls_config(settings)?).https_or_http();
        let builder = match &settings.server_name {
            Some(name) => {
                let name = ServerName::try_from(name.clone()).map_err(|error| FetchError::Tls(error.to_string()))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        let http = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_ADDRESS)
            .http1_read_buf_exact_size(READ_BUFFER_BYTES)
            .build(builder.enable_http1().build());
        Ok(Self { http })
    }

    /// Begins to ask for something that is no page. The caller sets the deadline.
    pub(super) async fn open(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        authorization: Option<&Authorization>,
    ) -> Result<Response<Incoming>, FetchError> {
        let mut request = Request::get(uri.clone()).header(USER_AGENT, USER_AGENT_HEADER).body(Empty::new())?;
        request.headers_mut().extend(headers);
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization_header(authorization)?);
        }
        let response = self.http.request(request).await.map_err(|error| FetchError::Connect(describe(&error)))?;
        if response.status() == StatusCode::OK { Ok(response) } else { Err(FetchError::Status(response.status())) }
    }

    /// Asks for something that is no page. The caller sets the deadline.
    pub(super) async fn get(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        authorization: Option<&Authorization>,
        max_bytes: usize,
    ) -> Result<(HeaderMap, Bytes), FetchError> {
        let response = self.open(uri, headers, authorization).await?;
        let headers = response.headers().clone();
        let buffer = Arc::<PageBuffers>::default().take(0);
        Ok((headers, collect(response, buffer, max_bytes).await?))
    }

    /// Asks a target for its page. The caller sets the deadline.
    pub(super) async fn fetch(&self, target: &Target, buffers: &Arc<PageBuffers>) -> Result<Answer, FetchError> {
        let request = request(target)?;
        let response = self.http.request(request).await.map_err(|error| FetchError::Connect(describe(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let is_gzip = match header(&response, &CONTENT_ENCODING) {
            None | Some("identity") => false,
            Some("gzip") => true,
            Some(other) => return Err(FetchError::Encoding(other.to_owned())),
        };
        let content_type = header(&response, &CONTENT_TYPE).unwrap_or_default().to_owned();
        let format = PageFormat::from_content_type(&content_type);
        let expected = response.body().size_hint().lower().min(EXPECTED_BYTES_MAX) as usize;
        let body = collect(response, buffers.take(expected), target.pool.limits.body_bytes).await?;
        Ok(Answer { body, is_gzip, format, content_type })
    }
}

/// An answer that comes line by line, as long as it comes.
#[derive(Debug)]
pub(super) struct Lines {
    body: Incoming,
    waiting: BytesMut,
    max_bytes: usize,
}

impl Lines {
    /// The lines of an answer, each of at most `max_bytes`.
    pub(super) fn new(response: Response<Incoming>, max_bytes: usize) -> Self {
        Self { body: response.into_body(), waiting: BytesMut::new(), max_bytes }
    }

    /// The next line without its end; `None` at the end of the answer.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.waiting[searched..]) {
                let mut line = self.waiting.split_to(searched + end + 1);
                line.truncate(searched + end);
                return Ok(Some(line.freeze()));
            }
            searched = self.waiting.len();
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let Ok(data) = frame?.into_data() else { continue };
            if searched > self.max_bytes {
                return Err(FetchError::TooLarge(self.max_bytes));
            }
            self.waiting.extend_from_slice(&data);
        }
    }
}

/// How much longer protobuf becomes as text: names and labels are repeated for every bucket.
const TEXT_EXPANSION: usize = 8;

impl Answer {
    /// About how much text there is to read once it is unpacked.
    pub(super) fn expected_bytes(&self) -> usize {
        let is_protobuf = self.format == Some(PageFormat::Protobuf);
        self.body.len().saturating_mul(if is_protobuf { TEXT_EXPANSION } else { 1 })
    }
}

/// The page of an answer. Work for a blocking thread when the page is large.
pub(super) fn page_of(answer: Answer, pool: &PoolConfig, buffers: &Arc<PageBuffers>) -> Result<TextPage, FetchError> {
    let format = format_of(&answer, pool)?;
    let body = unpack(answer, buffers, pool.limits.body_bytes)?;
    let body_bytes = body.len();
    match format {
        PageFormat::Text(dialect) => Ok(TextPage { body, dialect, body_bytes, native_histograms: 0 }),
        PageFormat::Protobuf => {
            let protobuf::TextPage { text, native_histograms } =
                protobuf::to_text(&body, limits::DECOMPRESSED_MAX_BYTES)?;
            Ok(TextPage { body: Bytes::from(text), dialect: Dialect::Text, body_bytes, native_histograms })
        }
    }
}

/// The content of a page, within `max_bytes`.
fn unpack(answer: Answer, buffers: &Arc<PageBuffers>, max_bytes: usize) -> Result<Bytes, FetchError> {
    if !answer.is_gzip {
        return Ok(answer.body);
    }
    let mut page = buffers.take(0);
    let allowed = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    let decoder = flate2::read::MultiGzDecoder::new(&answer.body[..]);
    decoder.take(allowed).read_to_end(page.bytes_mut()).map_err(FetchError::Gzip)?;
    if page.as_ref().len() > max_bytes {
        return Err(FetchError::TooLarge(max_bytes));
    }
    Ok(page.freeze())
}

/// The format of an answer, or why its page cannot be read.
fn format_of(answer: &Answer, pool: &PoolConfig) -> Result<PageFormat, FetchError> {
    match answer.format.or(pool.fallback_format) {
        Some(format) => Ok(format),
        // An empty page is fine whatever it is called.
        None if answer.body.is_empty() => Ok(PageFormat::Text(Dialect::Text)),
        None => Err(FetchError::ContentType(answer.content_type.clone())),
    }
}

fn request(target: &Target) -> Result<Request<Empty<Bytes>>, FetchError> {
    let encoding = if target.pool.enable_compression { "gzip" } else { "identity" };
    let mut request = Request::get(target.url.clone())
        .header(ACCEPT, accept_header(&target.pool.scrape_protocols))
        .header(ACCEPT_ENCODING, encoding)
        .header(USER_AGENT, USER_AGENT_HEADER)
        .header("X-Prometheus-Scrape-Timeout-Seconds", target.timeout.as_secs_f64().to_string())
        .body(Empty::new())?;
    if let Some(authorization) = &target.pool.authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization_header(authorization)?);
    }
    Ok(request)
}

fn authorization_header(authorization: &Authorization) -> Result<HeaderValue, FetchError> {
    let text = match authorization {
        Authorization::Basic { username, password } => {
            use base64::Engine as _;
            let pair = format!("{username}:{}", secret(password)?);
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Authorization::Scheme { scheme, credential } => format!("{scheme} {}", secret(credential)?),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| FetchError::CredentialText)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Files are read at every scrape, so that rotated secrets are used at once.
fn secret(credential: &Credential) -> Result<String, FetchError> {
    match credential {
        Credential::Given(secret) => Ok(secret.0.clone()),
        Credential::File(path) => {
            discovery::read_secret(path).map_err(|source| FetchError::Credentials { path: path.clone(), source })
        }
    }
}

fn header<'a>(response: &'a Response<Incoming>, name: &http::HeaderName) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

async fn collect(response: Response<Incoming>, mut buffer: PageBuffer, max_bytes: usize) -> Result<Bytes, FetchError> {
    let mut incoming = response.into_body();
    let body = buffer.bytes_mut();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if body.len() + data.len() > max_bytes {
            return Err(FetchError::TooLarge(max_bytes));
        }
        body.extend_from_slice(&data);
    }
    Ok(buffer.freeze())
}

/// A connection error with its causes: the outermost text says only that it failed.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn tls_config(tls: &TlsConfig) -> Result<ClientConfig, FetchError> {
    let failed = |error: rustls::Error| FetchError::Tls(error.to_string());
    let versions: Vec<&rustls::SupportedProtocolVersion> =
        [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)]
            .into_iter()
            .filter(|(version, _)| {
                tls.min_version.is_none_or(|min| *version >= min) && tls.max_version.is_none_or(|max| *version <= max)
            })
            .map(|(_, supported)| supported)
            .collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions).map_err(failed)?;
    let builder = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(verifier::AcceptAny::new(&provider))
    } else if let Some(pem) = pem(tls.ca.as_deref(), tls.ca_file.as_deref())? {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| FetchError::Tls(error.to_string()))?;
            roots.add(certificate).map_err(failed)?;
        }
        builder.with_root_certificates(roots)
    } else {
        builder.with_webpki_roots()
    };
    let certificates = pem(tls.cert.as_deref(), tls.cert_file.as_deref())?;
    let key = pem(tls.key.as_ref().map(|key| key.0.as_str()), tls.key_file.as_deref())?;
    match (certificates, key) {
        (Some(certificates), Some(key)) => {
            let bad = |error: rustls::pki_types::pem::Error| FetchError::Tls(error.to_string());
            let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificates).collect::<Result<_, _>>().map_err(bad)?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(bad)?;
            builder.with_client_auth_cert(chain, key).map_err(failed)
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(FetchError::Tls("a client certificate needs cert and key".to_owned())),
    }
}

fn pem(given: Option<&str>, file: Option<&str>) -> Result<Option<Vec<u8>>, FetchError> {
    match (given, file) {
        (Some(text), _) => Ok(Some(text.as_bytes().to_vec())),
        (None, Some(path)) => {
            let read = discovery::read_secret(path);
            read.map(|text| Some(text.into_bytes())).map_err(|error| FetchError::Tls(format!("{path}: {error}")))
        }
        (None, None) => Ok(None),
    }
}
