//! What the operator knows better than the rules.

use std::collections::BTreeMap;

use regex::Regex;
use thiserror::Error;
use windrose_proto::model::NodeRole;
use windrose_proto::normal::Identity;

use super::host::HostRules;

/// Operator overrides; empty by default. They come before every rule but never change what was
/// received.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Name as read from telemetry, `service` or `namespace/service`, to the name to use.
    pub aliases: BTreeMap<String, Alias>,
    /// First match on the service name wins (rule R1).
    pub roles: Vec<RoleOverride>,
    /// Which hosts are inside and which outside (rule X).
    pub hosts: HostRules,
}

/// The name a node is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    pub service: String,
    /// `None` leaves the namespace as it was read.
    pub namespace: Option<String>,
}

/// A role for all services whose name matches.
#[derive(Clone, Debug)]
pub struct RoleOverride {
    pub service: Regex,
    pub role: NodeRole,
}

/// Why a role override cannot be used.
#[derive(Clone, Debug, Error)]
#[error("`{pattern}` is not a regular expression")]
pub struct RolePatternError {
    pub pattern: String,
    #[source]
    pub source: regex::Error,
}

// === impl Alias ===

impl Alias {
    /// Reads `service` or `namespace/service`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, service)) => Self { service: service.to_owned(), namespace: Some(namespace.to_owned()) },
            None => Self { service: text.to_owned(), namespace: None },
        }
    }
}

// === impl RoleOverride ===

impl RoleOverride {
    /// A role for the services that match `pattern` anywhere in their name.
    ///
    /// # Errors
    /// When `pattern` is not a regular expression.
    pub fn new(pattern: &str, role: NodeRole) -> Result<Self, RolePatternError> {
        let service = Regex::new(pattern).map_err(|source| RolePatternError { pattern: pattern.to_owned(), source })?;
        Ok(Self { service, role })
    }
}

// === impl Overrides ===

impl Overrides {
    /// The identity under the name the operator gave it.
    #[must_use]
    pub fn rename(&self, mut identity: Identity) -> Identity {
        if self.aliases.is_empty() {
            return identity;
        }
        let qualified = identity.namespace.as_ref().map(|namespace| format!("{namespace}/{}", identity.service));
        let alias = qualified.and_then(|name| self.aliases.get(&name)).or_else(|| self.aliases.get(&*identity.service));
        if let Some(alias) = alias {
            identity.service = alias.service.as_str().into();
            if let Some(namespace) = &alias.namespace {
                identity.namespace = Some(namespace.as_str().into());
            }
        }
        identity
    }

    /// The role the operator gave to a service.
    #[must_use]
    pub fn role_of(&self, service: &str) -> Option<NodeRole> {
        self.roles.iter().find(|entry| entry.service.is_match(service)).map(|entry| entry.role)
    }
}
