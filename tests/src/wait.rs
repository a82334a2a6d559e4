//! Waiting for a condition, with a deadline. The only place of the tests that lets time pass.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often a condition is looked at: often enough that a test loses no time, seldom enough that looking costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Lets time pass for a client that was told to come back later, as a real one would; no test waits with it.
pub async fn pause(length: Duration) {
    tokio::time::sleep(length).await;
}

/// Looks at a condition until it holds and returns what it yields.
///
/// # Panics
/// When it does not hold before the deadline, with the last reason it gave.
#[track_caller]
pub fn until<T, E: Display>(
    what: &str,
    deadline: Duration,
    condition: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        match until_or(deadline, condition).await {
            Ok(value) => value,
            Err(reason) => panic!("{caller}: waited {} s for: {what}\n{reason}", deadline.as_secs_f32()),
        }
    }
}

/// Looks at a condition until it holds.
///
/// # Errors
/// The last reason the condition gave, when the deadline passed.
pub async fn until_or<T, E>(deadline: Duration, mut condition: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let started = Instant::now();
    loop {
        match condition().await {
            Ok(value) => return Ok(value),
            Err(reason) if started.elapsed() >= deadline => return Err(reason),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
