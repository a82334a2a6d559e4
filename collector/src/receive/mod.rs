//! Spans pushed to us: OTLP/gRPC, OTLP/HTTP and Zipkin.
//!
//! | file | what |
//! |---|---|
//! | `intake.rs` | what is handed on after decoding, and the trait of who takes it |

mod intake;

pub use intake::{Intake, IntakeError, Submission};
