//! The vocabulary of Windrose: what every other crate speaks.
//!
//! Identifiers, time, the enums of the normalised model, the received [`span::Span`], the
//! normalised [`normal::NormalSpan`], what the join derives ([`hop`]), what it rolls up
//! ([`edge`], [`sketch`]), limits and reject reasons.
//!
//! Invariant: no I/O, no async runtime, no arrow. Only [`time::SystemClock`] reads a clock.

pub mod attributes;
pub mod edge;
pub mod hop;
pub mod id;
pub mod limits;
pub mod metric;
pub mod model;
pub mod normal;
pub mod otlp;
pub mod reject;
pub mod sketch;
pub mod span;
pub mod tenant;
pub mod time;
pub mod wire;

/// Immutable UTF-8 text that shares the buffer it was decoded from: cloning never copies bytes.
pub type Text = bytestring::ByteString;
