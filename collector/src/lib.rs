//! Receive, scrape, decode, normalise, join.

pub mod decode;
pub mod join {
    //! The join of spans to hops.

    pub mod derive;
}
pub mod normalise;
pub mod receive;
