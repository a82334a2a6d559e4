//! The terminal: the one place of the process that prints for people and scripts.
//!
//! A reader that goes away (`windrose topology | head`) is no error: what is written to a closed
//! pipe is dropped.

use std::io::{self, IsTerminal, Write};

/// Writes a line to standard output.
pub fn line(text: &str) {
    write_to(io::stdout().lock(), text);
}

/// Writes a line to standard error.
pub fn error_line(text: &str) {
    write_to(io::stderr().lock(), text);
}

/// Whether standard output is a terminal rather than a file or a pipe.
#[must_use]
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Replaces what the terminal shows: cursor home, each line cleared to its end, the rest cleared.
/// Unlike clearing first, this does not flicker.
pub fn redraw(text: &str) {
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    write_to(io::stdout().lock(), &format!("\x1b[H{lines}\x1b[J"));
}

fn write_to(mut out: impl Write, text: &str) {
    // Nothing can be reported when the place for reports is gone.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()));
}
