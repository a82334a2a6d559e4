//! Receive, scrape, decode, normalise, join.

pub mod decode;
pub mod normalise;
pub mod receive;
