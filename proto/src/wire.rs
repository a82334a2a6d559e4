//! Messages Windrose writes into its own log, generated from `proto/windrose.proto`.

#![expect(missing_docs, reason = "documented in the .proto file")]

include!(concat!(env!("OUT_DIR"), "/windrose.v1.rs"));
