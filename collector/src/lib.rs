//! Receive, scrape, decode, normalise, join.

pub mod decode;
pub mod join;
pub mod normalise;
pub mod receive;
