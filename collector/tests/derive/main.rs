//! Normalise and derive as a whole: the samples of every proxy, recorded traffic of a real mesh,
//! and properties over generated traces.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, too")]
#![expect(clippy::print_stdout, reason = "what was compared is worth a line")]

mod disturbed;
mod generated;
mod hard_cases;
mod load;
mod losses;
mod mesh;
mod properties;
mod samples;
