//! What a task asks its client.

use serde::{Deserialize, Serialize};

use crate::envelope::Body;

/// One question of a task, and the answer once it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The request to the client, as JSON: `{"method": …, "params": …}`.
    pub request: Body,
    /// The answer, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Body>,
}
