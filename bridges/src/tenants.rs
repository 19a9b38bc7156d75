//! One of something for each tenant of a process.
//!
//! What stands behind the doors is made once for each tenant, and a door picks it once, by the principal that it has let in. What is behind
//! then knows of one tenant only, so nothing there has to tell them apart.

use std::{collections::BTreeMap, sync::Arc};

/// One of something for each tenant.
#[derive(Clone, Debug)]
pub struct Tenants<T>(Arc<BTreeMap<String, T>>);

impl<T> Tenants<T> {
    /// What a tenant has; `None` for one that is not served here.
    #[must_use]
    pub fn of(&self, tenant: &str) -> Option<&T> {
        self.0.get(tenant)
    }

    /// All of them, in the order of the tenants' names.
    pub fn each(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(tenant, of)| (tenant.as_str(), of))
    }

    /// Takes all of them apart; nothing is left where somebody else still holds them.
    #[must_use]
    pub fn into_each(self) -> BTreeMap<String, T> {
        Arc::into_inner(self.0).unwrap_or_default()
    }

    /// Who is served here.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Whether there is more than one.
    #[must_use]
    pub fn are_several(&self) -> bool {
        self.0.len() > 1
    }
}

impl<T> FromIterator<(String, T)> for Tenants<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(all: I) -> Self {
        Self(Arc::new(all.into_iter().collect()))
    }
}
