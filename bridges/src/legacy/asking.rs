//! What a server asks of a client.

use bus_schema::{RpcError, mcp::meta};
use serde_json::value::RawValue;

use crate::edit::Members;

/// How many questions one result may hold.
const MAX_REQUESTS: usize = 64;

/// What a server wants to know before it can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRequired {
    /// The questions, in the server's order; none when the call is only to be made again.
    pub requests: Vec<InputRequest>,
    /// What the server wants back with the answers, as JSON.
    pub state: Option<String>,
}

/// One question of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRequest {
    /// What the answer is filed under, as JSON.
    pub key: String,
    /// What is asked, such as `elicitation/create`.
    pub method: String,
    /// The parameters, as JSON; `{}` when there are none.
    pub params: String,
}

impl InputRequired {
    /// Reads `inputRequests` and `requestState`.
    ///
    /// # Errors
    /// An internal error that says what the server did wrong.
    pub(crate) fn read(requests: Option<&RawValue>, state: Option<&RawValue>) -> Result<Self, RpcError> {
        if requests.is_none() && state.is_none() {
            return Err(unusable("it has neither `inputRequests` nor `requestState`"));
        }
        if state.is_some_and(|state| meta::as_text(state).is_none()) {
            return Err(unusable("its `requestState` is no string"));
        }
        Ok(Self {
            requests: requests.map_or(Ok(Vec::new()), InputRequest::read_all)?,
            state: state.map(|state| state.get().to_owned()),
        })
    }
}

impl InputRequest {
    /// Reads an `inputRequests` object.
    ///
    /// # Errors
    /// An internal error that says what the server did wrong.
    pub(crate) fn read_all(raw: &RawValue) -> Result<Vec<Self>, RpcError> {
        let members = Members::of(raw).ok_or_else(|| unusable("its `inputRequests` is no object"))?;
        if members.iter().count() > MAX_REQUESTS {
            return Err(unusable(format!(
                "it asks more than {MAX_REQUESTS} things at once"
            )));
        }
        members
            .iter()
            .map(|(key, request)| Self::read(key, request))
            .collect()
    }

    fn read(key: &RawValue, request: &RawValue) -> Result<Self, RpcError> {
        let members = Members::of(request);
        let member = |name| members.as_ref().and_then(|members| members.get(name));
        let method = member("method")
            .and_then(meta::as_text)
            .ok_or_else(|| unusable(format!("its input request {key} has no method")))?;
        let params = member("params");
        if params.is_some_and(|params| !meta::is_object(params)) {
            return Err(unusable(format!(
                "the params of its input request {key} are no object"
            )));
        }
        Ok(Self {
            key: key.get().to_owned(),
            method: method.into_owned(),
            params: params.map_or("{}", RawValue::get).to_owned(),
        })
    }
}

fn unusable(why: impl std::fmt::Display) -> RpcError {
    RpcError::internal(format!("the server's request for input cannot be used: {why}"))
}
