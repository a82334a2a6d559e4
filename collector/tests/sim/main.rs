//! The store and the pipeline under simulation: log → join → seal → crash → recovery → snapshot.
//!
//! One seed makes everything: what is sent and in which order, the clock, the faults of the disk, and
//! the change of the disk at which the machine stops. After each restart, and at the end, an oracle
//! that knows every span ever sent compares: each acknowledged span is there by its ids and with all
//! it said, none is there twice, none that was never sent or that was refused; and the graph and the
//! rows are those of deriving each trace once from the spans that are there.
//!
//! A few seeds run with the other tests. `SIMULATION_SEEDS=500` runs as many, `SIMULATION_FIRST_SEED`
//! says where they begin; a failure names its seed, and the same seed fails again.
//!
//! | file | what |
//! |---|---|
//! | `random.rs` | the numbers a seed makes |
//! | `load.rs` | requests of made-up proxies |
//! | `world.rs` | the machine, the process on it, and what happens to them |
//! | `oracle.rs` | what must be there |
//! | `runs.rs` | whole simulations by seed |
//! | `faults.rs` | single faults, each with its documented outcome |

#![expect(clippy::unwrap_used, reason = "a simulation fails by panicking")]

mod faults;
mod load;
mod oracle;
mod random;
mod runs;
mod world;
