//! The worker of one target: waits for its place in the interval, scrapes, hands on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windrose_proto::time::{Clock, UnixNanos};
use windrose_proto::wire::CounterBatch;

use super::client::{self, Answer, Client, FetchError};
use super::page::{self, ScrapedPage};
use super::status::StatusCell;
use super::target::Target;
use super::{PageCounts, ScrapeEvent, ScrapeReport, Scraped};
use crate::metrics_map::{self, Options, TargetState};

/// Pages larger than this are taken apart on a blocking thread: 64 KiB take about half a millisecond.
const INLINE_PAGE_MAX_BYTES: usize = 64 << 10;

/// A scrape that is late by no more than a hundredth of its interval, or by this, is stamped with
/// the time it was due, so that the timestamps of a target are evenly spaced and compress well.
const ALIGN_MIN: Duration = Duration::from_millis(2);

/// Everything a worker needs.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) target: Arc<Target>,
    /// Why the target cannot be scraped, when its job's settings are at fault.
    pub(super) client: Result<Client, Arc<str>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: mpsc::Sender<ScrapeEvent>,
    pub(super) status: StatusCell,
    pub(super) options: Arc<Options>,
}

/// What became of a fetched page.
struct Digest {
    result: Result<(ScrapedPage, Option<CounterBatch>), String>,
    state: TargetState,
    series_over_limit: usize,
    body_bytes: usize,
}

impl Worker {
    /// Scrapes until `removed` (the target left the configuration) or `shutdown` (the process ends).
    pub(super) async fn run(self, removed: CancellationToken, shutdown: CancellationToken) {
        let mut state = TargetState::default();
        loop {
            let due = self.next_due();
            tokio::select! {
                biased; // Ending comes before scraping once more.
                () = shutdown.cancelled() => return,
                () = removed.cancelled() => break,
                () = tokio::time::sleep(Duration::from_nanos(due.since(self.clock.now()))) => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = removed.cancelled() => break,
                next = self.scrape(due, state) => state = next,
            }
        }
        // Nobody listens any more when the process ends; then there is nothing to end either.
        let gone = ScrapeEvent::Gone(Arc::clone(&self.target));
        tokio::select! {
            () = shutdown.cancelled() => {}
            _sent = self.events.send(gone) => {}
        }
    }

    /// The next time that lies at the target's offset within its interval. Scrapes that were
    /// missed are skipped.
    fn next_due(&self) -> UnixNanos {
        let interval = u64::try_from(self.target.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        next_aligned(self.clock.now(), interval, self.target.offset_nanos())
    }

    async fn scrape(&self, due: UnixNanos, state: TargetState) -> TargetState {
        let now = self.clock.now();
        let late = Duration::from_nanos(now.since(due));
        let scraped_at = if late <= ALIGN_MIN.max(self.target.interval / 100) { due } else { now };
        let started = Instant::now();
        let digest = match self.fetch().await {
            Ok(answer) => self.digest(answer, scraped_at, state).await,
            Err(error) => Digest { result: Err(error.to_string()), state, series_over_limit: 0, body_bytes: 0 },
        };
        let (page, counters, error) = match digest.result {
            Ok((page, counters)) => (Some(page), counters, None),
            Err(error) => (None, None, Some(error)),
        };
        let counts = page.as_ref().map_or(PageCounts::default(), |page| page.counts);
        let duration = started.elapsed();
        let report = ScrapeReport { scraped_at, duration, error, counts, body_bytes: digest.body_bytes };
        self.note(&report, digest.series_over_limit);
        let scraped = Scraped { target: Arc::clone(&self.target), report, page, counters };
        // An error means that the consumer has ended, and with it the process.
        let _closed = self.events.send(ScrapeEvent::Scraped(Box::new(scraped))).await;
        digest.state
    }

    async fn fetch(&self) -> Result<Answer, FetchError> {
        let client = self.client.as_ref().map_err(|reason| FetchError::Connect(reason.to_string()))?;
        // When it fires, the target is down with "context deadline exceeded".
        match tokio::time::timeout(self.target.timeout, client.fetch(&self.target)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(FetchError::Timeout),
        }
    }

    async fn digest(&self, answer: Answer, scraped_at: UnixNanos, state: TargetState) -> Digest {
        let target = Arc::clone(&self.target);
        let options = Arc::clone(&self.options);
        if !answer.is_gzip && answer.body.len() <= INLINE_PAGE_MAX_BYTES {
            return digest(&target, &options, answer, scraped_at, state);
        }
        let work = move || digest(&target, &options, answer, scraped_at, state);
        match tokio::task::spawn_blocking(work).await {
            Ok(digest) => digest,
            Err(error) => Digest {
                result: Err(format!("page could not be taken apart: {error}")),
                // What was remembered is lost; the next page counts as the first.
                state: TargetState::default(),
                series_over_limit: 0,
                body_bytes: 0,
            },
        }
    }

    fn note(&self, report: &ScrapeReport, series_over_limit: usize) {
        if !self.status.note(report, series_over_limit) {
            return;
        }
        let (job, url) = (&self.target.pool.job_name, &self.target.url);
        match &report.error {
            Some(error) => tracing::warn!(%job, %url, error, "target is down"),
            None => tracing::info!(%job, %url, samples = report.counts.samples, "target is up"),
        }
    }
}

fn digest(target: &Target, options: &Options, answer: Answer, scraped_at: UnixNanos, mut state: TargetState) -> Digest {
    let mut body_bytes = 0;
    let mut series_over_limit = 0;
    let take_apart = || -> Result<(ScrapedPage, Option<CounterBatch>), String> {
        let dialect = client::dialect_of(&answer, &target.pool).map_err(|error| error.to_string())?;
        let body = client::unpack(answer, target.pool.limits.body_bytes).map_err(|error| error.to_string())?;
        body_bytes = body.len();
        let page = page::check(target, body, dialect).map_err(|error| error.to_string())?;
        let read = metrics_map::Page { body: &page.body, dialect, scraped_at };
        let observation = metrics_map::observe(&target.identity, &mut state, read, options);
        series_over_limit = observation.stats.over_limit;
        let counters = metrics_map::batch::batch(&target.identity, &observation, &options.overrides);
        Ok((page, counters))
    };
    let result = take_apart();
    Digest { result, state, series_over_limit, body_bytes }
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
