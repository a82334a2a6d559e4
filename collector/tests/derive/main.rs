//! Normalise and derive as a whole: the samples of every proxy, recorded traffic of a real mesh,
//! and properties over generated traces.

mod load;
mod mesh;
mod properties;
mod samples;
