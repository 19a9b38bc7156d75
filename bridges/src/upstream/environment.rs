//! The part of the platform's environment that children must not inherit: its own settings, some of which are secret.
//!
//! Nothing is configured from here; only names are read, to take them away again.

use std::{env, ffi::OsString};

/// What the names of all of the platform's own variables begin with.
const OWN_PREFIX: &[u8] = b"TRUNKLINE_";

/// The names of the variables that stay here.
pub(crate) fn own_names() -> impl Iterator<Item = OsString> {
    env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(OWN_PREFIX))
}
