//! What comes of a look at a text of a call: flags, a changed text, or a refusal.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Check, META_KEY, Side, Then};
use crate::{
    mcp::{RpcError, error, method},
    rpc,
};

/// Something that a step has found, and that the call goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which step.
    pub step: String,
    /// What it looks at.
    pub check: Check,
    /// In which text.
    pub side: Side,
    /// What was done about it: [`Then::Flag`] or [`Then::Redact`].
    pub done: Then,
    /// What was found, with how often.
    pub found: BTreeMap<String, u64>,
    /// More in words, where there is more.
    pub why: Option<String>,
}

/// A text that may go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// The whole message with changes in it; `None` when it goes as it is.
    pub body: Option<Vec<u8>>,
    /// What was found.
    pub notes: Vec<Note>,
}

/// A call that does not go on, or whose result is kept back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which step.
    pub step: String,
    /// What it looks at.
    pub check: Check,
    /// In which text.
    pub side: Side,
    /// Why, for the caller and its model: never what was found itself.
    pub why: String,
}

impl Note {
    /// As the `_meta` of a result tells it.
    pub(super) fn to_json(&self) -> Value {
        let mut told = json!({
            "step": self.step, "check": self.check, "on": self.side, "done": self.done,
        });
        if !self.found.is_empty() {
            told["found"] = json!(self.found);
        }
        if let Some(why) = &self.why {
            told["why"] = json!(why);
        }
        told
    }
}

impl Refusal {
    /// The response to a request of this method: for tools a result that is an error, which models read and can act on; an error for all
    /// else.
    #[must_use]
    pub fn response(&self, id: Option<&str>, called: &str) -> (Option<i64>, Vec<u8>) {
        let why = match self.side {
            Side::Arguments => self.why.clone(),
            // Whoever made the call must not think that nothing was done.
            Side::Results => format!("The call was made, and its result is kept back: {}", self.why),
            Side::Lists | Side::Completions => format!("This is kept back: {}", self.why),
        };
        let refused = json!({ "refused": { "step": self.step, "check": self.check, "on": self.side } });
        if let (method::TOOLS_CALL, Some(id)) = (called, id) {
            let result = json!({
                "resultType": "complete",
                "content": [{ "type": "text", "text": why }],
                "isError": true,
                "_meta": { META_KEY: refused },
            });
            return (None, rpc::result_response(id, result.to_string().as_bytes()));
        }
        let code = match self.side {
            Side::Arguments => error::INVALID_PARAMS,
            Side::Results | Side::Lists | Side::Completions => error::INTERNAL,
        };
        let mut data = refused;
        data["reason"] = json!("guardrails");
        let error = RpcError::new(code, why).with_data(data);
        (Some(code), rpc::error_response(id, &error))
    }
}
