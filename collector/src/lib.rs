//! Receive, scrape, decode, normalise, join.

pub mod decode;
pub mod exposition;
pub mod in_force;
pub mod join;
pub mod metrics_map;
pub mod normalise;
pub mod pipeline;
pub mod receive;
pub mod scrape;
#[cfg(test)]
mod tests;
