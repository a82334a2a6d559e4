//! The product as a black box: harness and real components.
