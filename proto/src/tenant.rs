//! Tenants: whose data it is. Carried through every layer from the first byte.

use std::fmt;
use std::sync::Arc;

/// Longest accepted tenant name; it becomes a directory name and a metric-free label.
pub const TENANT_MAX_BYTES: usize = 64;

/// A validated tenant name: 1–64 bytes of `[A-Za-z0-9_.-]`, not starting with a dot, so that it is
/// safe as a directory name on every file system and object store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// Why a tenant name was refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid X-Scope-OrgID {name:?}: use 1-{TENANT_MAX_BYTES} characters of A-Z a-z 0-9 _ . - and do not start with a dot"
)]
pub struct InvalidTenant {
    name: String,
}

impl TenantId {
    /// The tenant of requests that name none.
    pub const DEFAULT_NAME: &'static str = "default";

    /// Validates a name.
    ///
    /// # Errors
    /// When a character or the length is outside what is allowed.
    pub fn new(name: &str) -> Result<Self, InvalidTenant> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let valid =
            !name.is_empty() && name.len() <= TENANT_MAX_BYTES && !name.starts_with('.') && name.bytes().all(allowed);
        if !valid {
            return Err(InvalidTenant { name: name.chars().take(TENANT_MAX_BYTES).collect() });
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self(Arc::from(Self::DEFAULT_NAME))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
