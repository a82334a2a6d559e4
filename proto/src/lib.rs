//! The vocabulary of Windrose.
