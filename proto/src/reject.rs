//! Why a span or a request was not taken. A data error is not a Rust error: it is counted,
//! answered to the sender and never stops the rest of the request.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $wire:literal,)+) => {
        /// The reason one span (or a whole request) was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum RejectReason { $($(#[$doc])* $name,)+ }

        impl RejectReason {
            /// Every reason, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word used in metrics, logs and answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $wire,)+ }
            }
        }
    };
}

reasons! {
    /// The trace id is missing, all zero or of the wrong length.
    BadTraceId => "bad_trace_id",
    /// The span id is missing, all zero or of the wrong length.
    BadSpanId => "bad_span_id",
    /// Start or end is missing, or lies too far in the future.
    BadTime => "bad_time",
    /// The span itself could not be decoded while its neighbours could.
    BadSpan => "bad_span",
    /// A log record that is no entry of a proxy's access log; taken and left out.
    NotAccessLog => "not_access_log",
    /// The request body could not be decoded at all.
    BadBody => "bad_body",
    /// The request body, or what it inflates to, is larger than the limit.
    TooLarge => "too_large",
    /// More spans than one request may carry.
    TooManySpans => "too_many_spans",
    /// The content type or encoding is not one that is understood.
    Unsupported => "unsupported",
    /// The tenant header is missing or malformed.
    BadTenant => "bad_tenant",
    /// The disk budget is used up; the sender was told to come back.
    DiskFull => "disk_full",
    /// Too many requests at once; the sender was told to come back.
    Overloaded => "overloaded",
    /// The process was ending, or could not write; the sender was told to come back.
    Unavailable => "unavailable",
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
