//! Receive, scrape, decode, normalise, join.

pub mod normalise;
