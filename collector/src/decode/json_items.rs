//! Lists of items in JSON of which single ones may be bad: what all decoders of JSON share.

use windrose_proto::limits;
use windrose_proto::reject::RejectReason;

use super::json::{JsonError, Kind, Reader, ShapeError, SyntaxError};
use super::sink::{OverBudget, Refusal};

/// What can be wrong; all but [`Fault::Syntax`] concern one item when met inside one.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    #[error("attribute value nested deeper than {}", limits::VALUE_DEPTH_MAX)]
    TooDeep,
    #[error("bytesValue is not base64")]
    Base64,
    #[error("unreadable {} {spelling:?}", id.as_str())]
    Id { id: IdKind, spelling: String },
}

/// Which id of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdKind {
    Trace,
    Span,
    ParentSpan,
}

impl IdKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace id",
            Self::Span => "span id",
            Self::ParentSpan => "parent span id",
        }
    }
}

impl From<JsonError> for Fault {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Syntax(error) => Self::Syntax(error),
            JsonError::Shape(error) => Self::Shape(error),
        }
    }
}

impl Fault {
    /// As the refusal of a whole document.
    pub(super) const fn reason(&self) -> RejectReason {
        match self {
            Self::OverBudget(_) => RejectReason::TooLarge,
            Self::Syntax(_) | Self::Shape(_) | Self::TooDeep | Self::Base64 | Self::Id { .. } => RejectReason::BadBody,
        }
    }

    /// As the refusal of one item; what spoils the document is passed on.
    fn into_refusal(self) -> Result<Refusal, Self> {
        match self {
            Self::Syntax(_) => Err(self),
            Self::OverBudget(over) => Ok(Refusal::new(RejectReason::TooLarge, over.to_string())),
            Self::Id { id: IdKind::Trace, .. } => Ok(Refusal::new(RejectReason::BadTraceId, self.to_string())),
            Self::Id { .. } => Ok(Refusal::new(RejectReason::BadSpanId, self.to_string())),
            Self::Shape(_) | Self::TooDeep | Self::Base64 => Ok(Refusal::unreadable(self)),
        }
    }
}

/// A decoder that walks over a document.
pub(super) trait Walk<'a>: Sized {
    fn reader(&mut self) -> &mut Reader<'a>;

    /// Reads one item; when it cannot be read, skips it as a whole and says why.
    fn one<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<Result<T, Refusal>, Fault> {
        let (start, depth) = (self.reader().mark(), self.reader().depth());
        match read(self) {
            Ok(item) => Ok(Ok(item)),
            Err(fault) => {
                let refusal = fault.into_refusal()?;
                self.reader().go_back_out(start, depth);
                self.reader().skip()?;
                Ok(Err(refusal))
            }
        }
    }

    /// Reads each item of a list.
    fn each(&mut self, mut read: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut list = self.reader().array()?;
        while self.reader().next_item(&mut list)? {
            read(self)?;
        }
        Ok(())
    }

    /// Reads a whole document: a list of items, or one alone.
    fn list_or_one(&mut self, mut read: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        if self.reader().kind()? == Kind::Object {
            read(self)?
        } else {
            self.each(read)?
        }
        Ok(self.reader().end()?)
    }
}
