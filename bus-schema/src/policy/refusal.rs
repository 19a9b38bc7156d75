//! What callers hear of a decision: the same at every door and every host.

use serde_json::json;

use super::{
    Decision,
    action::{Action, What},
};
use crate::mcp::RpcError;

impl Decision {
    /// The error that answers a request; `None` when it may go on.
    #[must_use]
    pub fn refusal(&self, action: &Action<'_>) -> Option<RpcError> {
        match self {
            Self::Allow => None,
            Self::NeedsScopes(scopes) => Some(RpcError::insufficient_scope(scopes)),
            Self::Denied { rule } => Some(
                RpcError::invalid_request(format!("the policy denies this: rule `{rule}`"))
                    .with_data(json!({ "reason": "denied", "rule": rule })),
            ),
            Self::Hidden => Some(action.unknown()),
        }
    }
}

impl Action<'_> {
    /// The error for what does not exist. It names nothing that the caller has not, as the same tool has other names at other doors.
    #[must_use]
    pub fn unknown(&self) -> RpcError {
        match self.what {
            What::Tool(_) => RpcError::invalid_params("unknown tool; `tools/list` says which there are"),
            What::Prompt(_) => {
                RpcError::invalid_params("unknown prompt; `prompts/list` says which there are")
            }
            What::Resource(uri) => RpcError::invalid_params(format!("resource `{uri}` does not exist"))
                .with_data(json!({ "uri": uri })),
            What::Method => RpcError::method_not_found(self.method),
            What::Admin(_) => {
                RpcError::invalid_request("this is for operators, whose role the caller does not have")
            }
        }
    }
}
