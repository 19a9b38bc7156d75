//! The names that the Model Context Protocol fixes: methods, versions, error codes, `_meta` keys.

pub mod error;
pub mod meta;
pub mod method;
pub mod mirrored;
pub mod resource;
pub mod task;
pub mod version;

pub use error::RpcError;
pub use version::{Era, ProtocolVersion};
