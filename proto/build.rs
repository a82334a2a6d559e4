//! Nothing to compile yet.
fn main() {}
