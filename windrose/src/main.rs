//! The `windrose` binary: an allocator and the command line.

use std::process::ExitCode;

/// Decoding protobuf is twice as fast with it as with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    windrose::cli::run(std::env::args_os()).into()
}
