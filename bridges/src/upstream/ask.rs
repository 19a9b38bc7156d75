//! What a legacy server asks of the client in the middle of a call, and what answers it.
//!
//! Towards the caller each becomes an entry of `inputRequests`; towards the server the caller's answer is the result of its request.

use bus_schema::{
    RpcError,
    mcp::{error, meta, method, task},
    rpc::{self, Message},
};
use serde_json::value::RawValue;

use super::{
    capabilities::Declared,
    edit::{Members, Object, is_key},
};

/// One request of a server that waits for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    kind: Kind,
    /// The ids of the request as spelled; more than one when it has asked the same twice.
    pub(super) ids: Vec<String>,
    /// The bare request for `inputRequests`, as JSON.
    pub(super) request: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Elicit,
    Sample,
    Roots,
    /// What the protocol does not know, between a server and clients that declare [`meta::REQUESTS_EXTENSION`].
    Custom,
}

/// What only one of the eras has in the parameters of such a request.
const LEGACY_ONLY: [&str; 2] = ["elicitationId", "task"];

impl Kind {
    fn of(called: &str) -> Option<Self> {
        Some(match called {
            method::ELICIT => Self::Elicit,
            method::SAMPLE => Self::Sample,
            method::ROOTS_LIST => Self::Roots,
            _ if method::is_custom(called) => Self::Custom,
            _ => return None,
        })
    }

    fn is_declared(self, declared: &Declared) -> bool {
        match self {
            Self::Elicit => declared.asks.elicitation.is_some(),
            Self::Sample => declared.asks.sampling.is_some(),
            Self::Roots => declared.asks.roots,
            Self::Custom => declared.takes_requests(),
        }
    }
}

/// Why a server's request goes no further when it belongs to no call.
pub(super) fn unassociated(called: &str, declared: &Declared) -> RpcError {
    match Kind::of(called) {
        Some(kind) if kind.is_declared(declared) => RpcError::invalid_params(format!(
            "`{called}` belongs to no running call, and nobody can be asked outside of one"
        )),
        _ => RpcError::method_not_found(called),
    }
}

impl Ask {
    /// Judges a request of the server by what the caller of its call has declared.
    ///
    /// # Errors
    /// The error that the server is answered with.
    pub(super) fn judge(message: &Message<'_>, declared: &Declared) -> Result<Self, RpcError> {
        let called = message.method.as_deref().unwrap_or_default();
        let kind = Kind::of(called)
            .filter(|kind| kind.is_declared(declared))
            .ok_or_else(|| RpcError::method_not_found(called))?;
        let params = match message.params {
            None if matches!(kind, Kind::Roots | Kind::Custom) => None,
            None => return Err(RpcError::invalid_params(format!("`{called}` needs `params`"))),
            Some(raw) => {
                Some(Members::of(raw).ok_or_else(|| RpcError::invalid_params("`params` must be an object"))?)
            }
        };
        if let Some(params) = &params {
            check(kind, params, declared)?;
        }
        Ok(Self {
            kind,
            ids: message.id.iter().map(|id| id.get().to_owned()).collect(),
            request: bare_request(called, params.as_ref(), declared),
        })
    }

    /// The bare request that shows a URL, made of an entry of the legacy era's error for that.
    pub(super) fn bare_url_request(elicitation: &RawValue) -> Option<String> {
        let params = Members::of(elicitation)?;
        let text = |name: &str| params.get(name).and_then(meta::as_text);
        text("url")?;
        (text("mode")? == "url").then(|| bare_request(method::ELICIT, Some(&params), &Declared::default()))
    }

    /// Whether one answer serves both: a list of roots is the same for whoever asks.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.kind == Kind::Roots && other.kind == Kind::Roots
    }

    /// Checks an answer of the caller.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check_answer(&self, answer: &RawValue) -> Result<(), &'static str> {
        let members = Members::of(answer).ok_or("it is no object")?;
        let has = |name: &str| members.get(name).is_some();
        let fits = match self.kind {
            Kind::Custom => match (members.get("result"), members.get("error")) {
                (Some(_), None) => true,
                (None, Some(error)) => serde_json::from_str::<RpcError>(error.get()).is_ok(),
                _ => false,
            },
            Kind::Elicit => action_of(answer).is_some(),
            Kind::Sample => has("role") && has("content") && has("model"),
            Kind::Roots => members.get("roots").is_some_and(|raw| raw.get().starts_with('[')),
        };
        let wanted = match self.kind {
            Kind::Elicit => "its `action` must be \"accept\", \"decline\" or \"cancel\"",
            Kind::Sample => "it must have `role`, `content` and `model`",
            Kind::Roots => "its `roots` must be an array",
            Kind::Custom => "it must have a `result`, or an `error` with `code` and `message`",
        };
        if fits { Ok(()) } else { Err(wanted) }
    }

    /// What the server gets for an answer that was checked, once for each id of the request.
    pub(super) fn responses(&self, answer: &str) -> impl Iterator<Item = Vec<u8>> {
        let members = Members::read(answer).filter(|_| self.kind == Kind::Custom);
        let part = |name| members.as_ref().and_then(|members| members.get(name));
        let error = part("error").and_then(|raw| serde_json::from_str::<RpcError>(raw.get()).ok());
        let result = part("result").map_or(answer, RawValue::get);
        self.ids.iter().map(move |id| match &error {
            Some(error) => rpc::error_response(Some(id), error),
            None => rpc::result_response(id, result.as_bytes()),
        })
    }

    /// The server's answers when the caller gives none.
    pub(super) fn refusals(&self) -> impl Iterator<Item = Vec<u8>> {
        self.ids.iter().map(|id| match self.kind {
            Kind::Elicit => rpc::result_response(id, br#"{"action":"cancel"}"#),
            Kind::Sample => rpc::error_response(
                Some(id),
                &RpcError::new(error::USER_REJECTED, "nobody has answered the sampling request"),
            ),
            Kind::Roots => rpc::error_response(
                Some(id),
                &RpcError::internal("nobody has answered with a list of roots"),
            ),
            Kind::Custom => {
                rpc::error_response(Some(id), &RpcError::internal("nobody has answered the request"))
            }
        })
    }
}

/// What an answer to an elicitation says, when it is one.
pub(super) fn action_of(answer: &RawValue) -> Option<&'static str> {
    let action = Members::of(answer)?.get("action").and_then(meta::as_text)?;
    ["accept", "decline", "cancel"]
        .into_iter()
        .find(|known| *known == action)
}

/// A server may use only what was declared, down to modes and tools.
fn check(kind: Kind, params: &Members<'_>, declared: &Declared) -> Result<(), RpcError> {
    match kind {
        Kind::Elicit => {
            let mode = params.get("mode").map(meta::as_text);
            let modes = declared.asks.elicitation;
            let (name, takes) = match mode.as_ref().map(|mode| mode.as_deref()) {
                None | Some(Some("form")) => ("form", modes.is_some_and(|modes| modes.form)),
                Some(Some("url")) => ("url", modes.is_some_and(|modes| modes.url)),
                Some(_) => {
                    return Err(RpcError::invalid_params("`mode` must be \"form\" or \"url\""));
                }
            };
            if !takes {
                return Err(RpcError::invalid_params(format!(
                    "the client takes no elicitation of mode \"{name}\""
                )));
            }
        }
        Kind::Sample => {
            let uses_tools = params.get("tools").is_some() || params.get("toolChoice").is_some();
            if uses_tools && !declared.asks.sampling.is_some_and(|sampling| sampling.tools) {
                return Err(RpcError::invalid_params("the client samples without tools"));
            }
        }
        Kind::Roots | Kind::Custom => {}
    }
    Ok(())
}

/// Writes the request as the modern era has it: without id, and without what only the legacy era or this connection knows.
fn bare_request(called: &str, params: Option<&Members<'_>>, declared: &Declared) -> String {
    let mut request = Object::default();
    request.push("\"method\"", &rpc::quote(called));
    let Some(params) = params else {
        return request.finish();
    };
    let takes_context = declared.asks.sampling.is_some_and(|sampling| sampling.context);
    let mut kept = Object::default();
    for (key, value) in params.iter() {
        let dropped = LEGACY_ONLY.iter().any(|name| is_key(key, name))
            // Left out it means "none", which every client can do.
            || is_key(key, "includeContext") && !takes_context;
        if dropped {
            continue;
        }
        if is_key(key, "_meta") {
            let meta = without_legacy_meta(value);
            if meta != "{}" {
                kept.push(key.get(), &meta);
            }
        } else {
            kept.push(key.get(), value.get());
        }
    }
    request.push("\"params\"", &kept.finish());
    request.finish()
}

/// Nobody can report progress on a request that crosses as data, and the modern era does not say which task it belongs to.
fn without_legacy_meta(raw: &RawValue) -> String {
    let Some(members) = Members::of(raw) else {
        return raw.get().to_owned();
    };
    let mut kept = Object::default();
    for (key, value) in members.iter() {
        if !is_key(key, meta::PROGRESS_TOKEN) && !is_key(key, task::RELATED) {
            kept.push(key.get(), value.get());
        }
    }
    kept.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str =
        r#"{"roots":{},"sampling":{"tools":{},"context":{}},"elicitation":{"form":{},"url":{}}}"#;

    fn judged(called: &str, params: &str, declared: &str) -> Result<Ask, i64> {
        let comma = if params.is_empty() { "" } else { "," };
        let body = format!(r#"{{"jsonrpc":"2.0","id":"a","method":"{called}"{comma}{params}}}"#);
        let declared = Declared::of(Some(serde_json::from_str(declared).unwrap()));
        Ask::judge(&Message::parse(body.as_bytes()).unwrap(), &declared).map_err(|error| error.code)
    }

    #[test]
    fn a_request_crosses_bare_and_without_what_is_legacy() {
        for (called, params, expected) in [
            (method::ROOTS_LIST, "", r#"{"method":"roots/list"}"#),
            (
                method::ELICIT,
                r#""params":{"n":1.0,"elicitationId":"x","mode":"url","url":"https://a","message":"m","_meta":{"progressToken":1}}"#,
                r#"{"method":"elicitation/create","params":{"n":1.0,"mode":"url","url":"https://a","message":"m"}}"#,
            ),
            (
                method::SAMPLE,
                r#""params":{"messages":[],"task":{},"includeContext":"thisServer","tools":[],"_meta":{"k":1,"progressToken":1,"io.modelcontextprotocol/related-task":{"taskId":"t"}}}"#,
                r#"{"method":"sampling/createMessage","params":{"messages":[],"includeContext":"thisServer","tools":[],"_meta":{"k":1}}}"#,
            ),
        ] {
            assert_eq!(judged(called, params, ALL).unwrap().request, expected);
        }
        let plain = r#"{"sampling":{}}"#;
        let asked = judged(
            method::SAMPLE,
            r#""params":{"includeContext":"thisServer"}"#,
            plain,
        );
        assert_eq!(
            asked.unwrap().request,
            r#"{"method":"sampling/createMessage","params":{}}"#
        );
    }

    #[test]
    fn a_server_may_ask_only_for_what_the_caller_has_declared() {
        let form = r#""params":{"message":"m","requestedSchema":{}}"#;
        let url = r#""params":{"mode":"url","url":"https://a","message":"m"}"#;
        for (called, params, declared, code) in [
            (method::ELICIT, form, "{}", -32601),
            (method::SAMPLE, r#""params":{}"#, r#"{"roots":{}}"#, -32601),
            (method::ROOTS_LIST, "", r#"{"sampling":{}}"#, -32601),
            ("custom/ask", "", ALL, -32601),
            (method::ELICIT, form, r#"{"elicitation":{"url":{}}}"#, -32602),
            (method::ELICIT, url, r#"{"elicitation":{}}"#, -32602),
            (method::ELICIT, r#""params":{"mode":7}"#, ALL, -32602),
            (method::ELICIT, "", ALL, -32602),
            (method::SAMPLE, r#""params":[]"#, ALL, -32602),
            (
                method::SAMPLE,
                r#""params":{"tools":[]}"#,
                r#"{"sampling":{}}"#,
                -32602,
            ),
        ] {
            assert_eq!(
                judged(called, params, declared),
                Err(code),
                "{called} {params} {declared}"
            );
        }
        for (called, params, declared) in [
            (method::ELICIT, form, r#"{"elicitation":{}}"#),
            (method::ELICIT, url, r#"{"elicitation":{"url":{}}}"#),
            (method::ROOTS_LIST, r#""params":{}"#, r#"{"roots":{}}"#),
        ] {
            assert!(judged(called, params, declared).is_ok(), "{called} {params}");
        }
    }

    #[test]
    fn answers_are_checked_by_what_was_asked() {
        let ask = |called: &str| judged(called, r#""params":{}"#, ALL).unwrap();
        for (called, answer, fits) in [
            (method::ELICIT, r#"{"action":"accept","content":{}}"#, true),
            (method::ELICIT, r#"{"action":"decline"}"#, true),
            (method::ELICIT, r#"{"action":"maybe"}"#, false),
            (method::ELICIT, "{}", false),
            (method::ELICIT, "[]", false),
            (
                method::SAMPLE,
                r#"{"role":"assistant","content":{},"model":"m"}"#,
                true,
            ),
            (method::SAMPLE, r#"{"action":"accept"}"#, false),
            (method::ROOTS_LIST, r#"{"roots":[]}"#, true),
            (method::ROOTS_LIST, r#"{"roots":7}"#, false),
        ] {
            let raw: &RawValue = serde_json::from_str(answer).unwrap();
            assert_eq!(ask(called).check_answer(raw).is_ok(), fits, "{called} {answer}");
        }
    }

    #[test]
    fn who_gets_no_answer_hears_so_in_the_form_it_waits_for() {
        for (called, expected) in [
            (
                method::ELICIT,
                r#"{"jsonrpc":"2.0","id":"a","result":{"action":"cancel"}}"#,
            ),
            (method::SAMPLE, r#""code":-1,"#),
            (method::ROOTS_LIST, r#""code":-32603,"#),
        ] {
            let ask = judged(called, r#""params":{}"#, ALL).unwrap();
            let refusals: Vec<_> = ask
                .refusals()
                .map(|body| String::from_utf8(body).unwrap())
                .collect();
            assert_eq!(refusals.len(), 1);
            assert!(refusals[0].contains(expected), "{refusals:?}");
        }
    }
}
