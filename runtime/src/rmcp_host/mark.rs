//! What a server written with rmcp's macros says about one of its tools in `_meta`, for the host to act on.

use rmcp::model::MetaObject;
use serde_json::json;

use super::version::VERSION_KEY;
use crate::host::DEPRECATED_KEY;

/// Declares the version of a tool, which `server://version` shows: `#[tool(meta = version("2.0"))]`.
#[must_use]
pub fn version(declared: &str) -> MetaObject {
    let mut meta = MetaObject::new();
    meta.0.insert(VERSION_KEY.to_owned(), declared.into());
    meta
}

/// Marks an older form of a tool that stands beside its successor for a while: `#[tool(meta = deprecated("1.4", "search", "2.0"))]`.
///
/// `since` is the version from which on it is deprecated, `instead` the tool to call, and `removed` the version or date by which it
/// goes. The host makes a sentence of that at the beginning of the tool's description, and counts and logs its calls.
#[must_use]
pub fn deprecated(since: &str, instead: &str, removed: &str) -> MetaObject {
    let mark = json!({ "since": since, "use": instead, "removed": removed });
    let mut meta = MetaObject::new();
    meta.0.insert(DEPRECATED_KEY.to_owned(), mark);
    meta
}
