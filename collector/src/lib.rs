//! Receive, scrape, decode, normalise, join.
