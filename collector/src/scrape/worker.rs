//! The worker of one target: waits for its place in the interval, scrapes, hands on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windrose_proto::time::{Clock, UnixNanos};
use windrose_store::metrics::{Append, AppendError, MetricStore};

use super::buffers::PageBuffers;
use super::client::{self, Answer, Client, FetchError, TextPage};
use super::series::{self, Counted, Page, TargetSeries};
use super::status::StatusCell;
use super::target::Target;
use super::{PageCounts, ScrapeEvent, ScrapeReport, Scraped};
use crate::in_force::InForce;
use crate::metrics_map::Options;

/// Pages larger than this are taken apart on a blocking thread: 64 KiB of lines that are new take
/// about half a millisecond.
const INLINE_PAGE_MAX_BYTES: usize = 64 << 10;

/// The same for a target whose lines are known: 1 MiB of them takes about half a millisecond, and
/// handing it to another thread and back takes longer than reading it.
const INLINE_KNOWN_PAGE_MAX_BYTES: usize = 1 << 20;

/// A scrape that is late by no more than a hundredth of its interval, or by this, is stamped with
/// the time it was due, so that the timestamps of a target are evenly spaced and compress well.
const ALIGN_MIN: Duration = Duration::from_millis(2);

/// A batch whose series expired is put together anew so often. Once is enough unless the store
/// lets series go all the time.
const STORE_ATTEMPTS: usize = 3;

/// Everything a worker needs.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) target: Arc<Target>,
    /// Why the target cannot be scraped, when its job's settings are at fault.
    pub(super) client: Result<Client, Arc<str>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: MetricStore,
    pub(super) events: mpsc::Sender<ScrapeEvent>,
    pub(super) status: StatusCell,
    pub(super) overrides: InForce,
    pub(super) buffers: Arc<PageBuffers>,
    /// Pages that may be taken apart on other threads at a time.
    pub(super) cores: Arc<Semaphore>,
    /// Another target has taken over the series of this one.
    pub(super) is_succeeded: Arc<AtomicBool>,
}

/// What became of a fetched page. `series` is `None` if it was lost on the way.
struct Digest {
    series: Option<Box<TargetSeries>>,
    page: Option<TextPage>,
    result: Result<(PageCounts, Counted), String>,
    append: Append,
}

impl Worker {
    /// Scrapes until `removed` (the target left the configuration) or `shutdown` (the process ends).
    pub(super) async fn run(self, removed: CancellationToken, shutdown: CancellationToken) {
        let mut series = Box::<TargetSeries>::default();
        let missed = loop {
            let due = self.next_due();
            tokio::select! {
                biased; // Ending comes before scraping once more.
                () = shutdown.cancelled() => return,
                () = removed.cancelled() => break due,
                () = tokio::time::sleep(Duration::from_nanos(due.since(self.clock.now()))) => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                next = self.scrape(due, series) => series = next,
            }
        };
        // Nobody listens any more when the process ends; then there is nothing to end either.
        let gone = ScrapeEvent::Gone(Arc::clone(&self.target));
        tokio::select! {
            () = shutdown.cancelled() => return,
            _sent = self.events.send(gone) => {}
        }
        // Time for the target to come back elsewhere; then its series go on.
        let patience = self.target.interval * 2 + self.target.interval / 10;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(patience) => self.end(missed, series).await,
        }
    }

    /// The next time that lies at the target's offset within its interval. Scrapes that were
    /// missed are skipped.
    fn next_due(&self) -> UnixNanos {
        let interval = u64::try_from(self.target.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        next_aligned(self.clock.now(), interval, self.target.offset_nanos())
    }

    async fn scrape(&self, due: UnixNanos, series: Box<TargetSeries>) -> Box<TargetSeries> {
        let now = self.clock.now();
        let late = Duration::from_nanos(now.since(due));
        let scraped_at = if late <= ALIGN_MIN.max(self.target.interval / 100) { due } else { now };
        let started = Instant::now();
        let append = self.store.append(&self.target.pool.tenant);
        let digest = match self.fetch().await {
            Ok(answer) => self.digest(answer, scraped_at, series, append).await,
            Err(error) => Digest { series: Some(series), page: None, result: Err(error.to_string()), append },
        };
        let Digest { series, page, result, append } = digest;
        let mut series = series.unwrap_or_default();
        let (counts, counted, error) = match result {
            Ok((counts, counted)) => (counts, counted, None),
            Err(error) => (PageCounts::default(), Counted::default(), Some(error)),
        };
        let body_bytes = page.as_ref().map_or(0, |page| page.body_bytes);
        let report = ScrapeReport { scraped_at, duration: started.elapsed(), error, counts, body_bytes };
        let append = if report.is_up() {
            append
        } else {
            // What was read before the page turned out bad is not stored.
            let mut append = self.store.append(&self.target.pool.tenant);
            series.fail(&self.target, scraped_at, page.is_some(), &mut append);
            append
        };
        self.store(&mut series, append, &report, page.as_ref()).await;
        self.note(&report, counted.series_over_limit, &series);
        let scraped = Scraped { target: Arc::clone(&self.target), report, counters: counted.counters };
        // An error means that the consumer has ended, and with it the process.
        let _closed = self.events.send(ScrapeEvent::Scraped(Box::new(scraped))).await;
        series
    }

    /// Stores the batch of a scrape, if need be with series looked up anew.
    async fn store(&self, series: &mut TargetSeries, append: Append, report: &ScrapeReport, page: Option<&TextPage>) {
        let mut append = append;
        for _attempt in 0..STORE_ATTEMPTS {
            series::report(&self.target, report, &mut append);
            let Err(error) = append.commit_lazily().await else { return self.status.note_stored(None) };
            let AppendError::Expired { series: expired } = &error else {
                if self.status.is_news(&error.to_string()) {
                    let job = &self.target.pool.job_name;
                    tracing::error!(%job, url = %self.target.url, %error, "scraped samples are not stored");
                }
                return self.status.note_stored(Some(error.to_string()));
            };
            series.expire(expired);
            append = self.store.append(&self.target.pool.tenant);
            match page.filter(|_| report.is_up()) {
                Some(TextPage { body, dialect, .. }) => {
                    let page = Page { body, dialect: *dialect, scraped_at: report.scraped_at };
                    if let Err(error) = series.read_again(&self.target, page, &mut append) {
                        tracing::error!(%error, "a page that was read cannot be read again");
                        return;
                    }
                }
                None => series.end_rest(&self.target, report.scraped_at, &mut append),
            }
        }
        self.status.note_stored(Some("series expire faster than they are scraped".to_owned()));
    }

    /// The target is gone for good: its series end where its first scrape is missing.
    async fn end(&self, missed: UnixNanos, mut series: Box<TargetSeries>) {
        if self.is_succeeded.load(Ordering::Acquire) {
            return;
        }
        let mut append = self.store.append(&self.target.pool.tenant);
        series.end(&self.target, missed, &mut append);
        if let Err(error) = append.commit_lazily().await {
            tracing::warn!(url = %self.target.url, %error, "the end of a target's series is not stored");
        }
    }

    async fn fetch(&self) -> Result<Answer, FetchError> {
        let client = self.client.as_ref().map_err(|reason| FetchError::Connect(reason.to_string()))?;
        // When it fires, the target is down with "context deadline exceeded".
        match tokio::time::timeout(self.target.timeout, client.fetch(&self.target, &self.buffers)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(FetchError::Timeout),
        }
    }

    async fn digest(&self, answer: Answer, scraped_at: UnixNanos, series: Box<TargetSeries>, append: Append) -> Digest {
        let (target, buffers) = (Arc::clone(&self.target), Arc::clone(&self.buffers));
        let options = Options { overrides: self.overrides.get(), ..Options::default() };
        let inline_max_bytes = if series.knows_lines() { INLINE_KNOWN_PAGE_MAX_BYTES } else { INLINE_PAGE_MAX_BYTES };
        if !answer.is_gzip && answer.expected_bytes() <= inline_max_bytes {
            return digest(&target, &options, &buffers, answer, scraped_at, series, append);
        }
        // Never closed, so there always is one in the end. At a start every page is new: all at once they would need
        // many times the memory, and be done no sooner.
        let _core = self.cores.acquire().await;
        let work = move || digest(&target, &options, &buffers, answer, scraped_at, series, append);
        match tokio::task::spawn_blocking(work).await {
            Ok(digest) => digest,
            Err(error) => Digest {
                // What was remembered is lost; the next page counts as the first.
                series: None,
                page: None,
                result: Err(format!("page could not be taken apart: {error}")),
                append: self.store.append(&self.target.pool.tenant),
            },
        }
    }

    fn note(&self, report: &ScrapeReport, series_over_limit: usize, series: &TargetSeries) {
        if !self.status.note(report, series_over_limit, series.families()) {
            return;
        }
        let (job, url) = (&self.target.pool.job_name, &self.target.url);
        match &report.error {
            Some(error) => tracing::warn!(%job, %url, error, "target is down"),
            None => tracing::info!(%job, %url, samples = report.counts.samples, "target is up"),
        }
    }
}

fn digest(
    target: &Target,
    options: &Options,
    buffers: &Arc<PageBuffers>,
    answer: Answer,
    scraped_at: UnixNanos,
    mut series: Box<TargetSeries>,
    mut append: Append,
) -> Digest {
    let mut page = None;
    let take_apart = || -> Result<(PageCounts, Counted), String> {
        let text = client::page_of(answer, &target.pool, buffers).map_err(|error| error.to_string())?;
        let TextPage { body, dialect, native_histograms, .. } = page.insert(text);
        append.drop_native_histograms(*native_histograms);
        let page = Page { body, dialect: *dialect, scraped_at };
        series.read(target, page, options, &mut append).map_err(|error| error.to_string())
    };
    let result = take_apart();
    Digest { series: Some(series), page, result, append }
}

/// The first time after `now` that leaves `offset` when divided by `interval`.
fn next_aligned(now: UnixNanos, interval: u64, offset: u64) -> UnixNanos {
    let phase = now.0 % interval;
    let wait = if offset > phase { offset - phase } else { interval - (phase - offset) };
    UnixNanos(now.0.saturating_add(wait))
}

#[cfg(test)]
mod tests {
    use windrose_proto::time::UnixNanos;

    use super::next_aligned;

    #[test]
    fn scrapes_keep_their_place_in_the_interval() {
        for (now, interval, offset, due) in
            [(100, 10, 3, 103), (103, 10, 3, 113), (104, 10, 3, 113), (102, 10, 0, 110), (0, 1, 0, 1)]
        {
            assert_eq!(next_aligned(UnixNanos(now), interval, offset), UnixNanos(due), "{now} {interval} {offset}");
        }
    }
}
