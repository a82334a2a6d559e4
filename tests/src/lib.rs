//! The product as a black box: what a test needs to run it, feed it and judge what it answers.
//!
//! Nothing here links the product. [`server`] runs the real binary on ports of its own and a data directory of its own,
//! [`client`] speaks HTTP to it, [`capture`], [`replay`], [`recorded`] and [`pages`] feed it what real Envoys once sent and served,
//! [`synthetic`] makes spans where a capture would be too much, [`load`] millions of them, [`senders`] remembers what was
//! acknowledged of them, [`remote_write`] does both for metrics, [`truth`] and [`oracle`] say what must come out,
//! [`topology`] reads what did, and [`wait`] holds the only place that lets time pass.
//!
//! Invariants: no test sleeps, it waits on a condition with a deadline; every port is picked by the system; every
//! process started here ends with the test that started it; what cannot run says so through [`places::skip`].

pub mod capture;
pub mod client;
pub mod judge;
pub mod load;
pub mod oracle;
pub mod pages;
pub mod places;
pub mod raw_codec;
pub mod recorded;
pub mod remote_write;
pub mod replay;
pub mod senders;
pub mod server;
pub mod synthetic;
pub mod topology;
pub mod truth;
pub mod wait;
