//! What a server asks of a client in the middle of a call, between the modern era and the client's own version.
//!
//! A modern server answers a call with questions, and gets the call again with the answers ([`InputRequired`], [`retry`]). A legacy
//! client gets each as a request of its own ([`client_request`]) and answers it as one ([`client_answer`]).

use bus_schema::{
    ProtocolVersion, RpcError,
    edit::{Edits, Members, Object, is_key},
    mcp::{meta, method},
    rpc::Message,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{form, sampling};

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

/// What a client can be asked, as its modern capabilities say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Askable {
    /// For its folders.
    pub roots: bool,
    /// For a message of its model.
    pub sampling: bool,
    /// The same, with tools for the model.
    pub sampling_tools: bool,
    /// The same, with context that the client has.
    pub sampling_context: bool,
    /// To let the user fill in a form.
    pub forms: bool,
    /// To let the user visit a page.
    pub urls: bool,
}

impl Askable {
    /// Reads capabilities in their modern form.
    #[must_use]
    pub fn of(capabilities: &str) -> Self {
        #[derive(Default, Deserialize)]
        struct Capabilities<'a> {
            #[serde(borrow, default)]
            roots: Option<&'a RawValue>,
            #[serde(borrow, default)]
            sampling: Option<&'a RawValue>,
            #[serde(borrow, default)]
            elicitation: Option<&'a RawValue>,
        }
        let all: Capabilities<'_> = serde_json::from_str(capabilities).unwrap_or_default();
        let sampling = all.sampling.and_then(Members::of);
        let elicitation = all.elicitation.and_then(Members::of);
        let has = |members: &Option<Members<'_>>, name: &str| {
            let member = members.as_ref().and_then(|members| members.get(name));
            member.is_some_and(meta::is_object)
        };
        Self {
            roots: all.roots.is_some_and(meta::is_object),
            sampling: sampling.is_some(),
            sampling_tools: has(&sampling, "tools"),
            sampling_context: has(&sampling, "context"),
            forms: elicitation.is_some() && (has(&elicitation, "form") || !has(&elicitation, "url")),
            urls: has(&elicitation, "url"),
        }
    }
}

/// What becomes of a server's question.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientRequest {
    /// The client is asked, with these parameters as JSON.
    Send(String),
    /// It cannot be asked: this stands for its answer, as JSON, or the call ends with this error.
    Cannot(Result<String, RpcError>),
}

/// Makes of a server's question the request that a client of this version gets.
///
/// `elicitation_id` is a fresh id for the case that the user is sent to a page, which the modern era does not number.
#[must_use]
pub fn client_request(
    version: ProtocolVersion,
    askable: Askable,
    asked: &str,
    params: &str,
    elicitation_id: &str,
) -> ClientRequest {
    let is_declared = match asked {
        method::ELICIT => version >= ProtocolVersion::V2025_06_18 && (askable.forms || askable.urls),
        method::SAMPLE => askable.sampling,
        method::ROOTS_LIST => askable.roots,
        // Only who has declared it gets here with it, see `capabilities`.
        _ if method::is_custom(asked) => return ClientRequest::Send(params.to_owned()),
        _ => return refuse(format!("`{asked}` is nothing that a client is asked")),
    };
    if !is_declared {
        return refuse(format!("the client did not declare that it answers `{asked}`"));
    }
    match asked {
        method::ELICIT => elicit(version, askable, params, elicitation_id),
        method::SAMPLE => match sampling::fit(version, askable, params) {
            Ok(params) => ClientRequest::Send(params),
            Err(error) => ClientRequest::Cannot(Err(error)),
        },
        _ => ClientRequest::Send(params.to_owned()),
    }
}

fn refuse(why: impl std::fmt::Display) -> ClientRequest {
    ClientRequest::Cannot(Err(unusable(why)))
}

fn elicit(version: ProtocolVersion, askable: Askable, params: &str, id: &str) -> ClientRequest {
    let Some(members) = Members::read(params) else {
        return refuse("its params are no object");
    };
    let mut edits = Edits::new(params.as_bytes());
    let mode = members.get("mode").map(meta::as_text);
    match mode.as_ref().map_or(Some("form"), |mode| mode.as_deref()) {
        Some("form") if !askable.forms => {
            return refuse("the client did not declare that it shows forms");
        }
        Some("form") if version < ProtocolVersion::V2025_11_25 => {
            if form::fit(&members, &mut edits).is_none() {
                return ClientRequest::Cannot(Ok(form::cancelled()));
            }
        }
        Some("form") => edits.remove(&members, "task"),
        Some("url") if !askable.urls || version < ProtocolVersion::V2025_11_25 => {
            return refuse("the client did not declare that it opens pages");
        }
        Some("url") => {
            edits.insert_first(
                params,
                &format!(r#""elicitationId":{}"#, bus_schema::rpc::quote(id)),
            );
            edits.remove_where(&members, |key| {
                is_key(key, "task") || is_key(key, "elicitationId")
            });
        }
        _ => return refuse("its `mode` is neither `form` nor `url`"),
    }
    match String::from_utf8(edits.apply()) {
        Ok(params) => ClientRequest::Send(params),
        Err(_) => refuse("its params are no text"),
    }
}

/// Makes of a client's answer what a modern server gets for it, as JSON.
///
/// A user who turns a form down says so in a result. For the other questions of the protocol a client has only errors to say no with,
/// and the modern era has no form for them: the call ends. The answer to a custom request crosses whole, whichever it is.
///
/// # Errors
/// The error that the call ends with.
pub fn client_answer(asked: &str, answer: Result<&RawValue, &RpcError>) -> Result<String, RpcError> {
    match answer {
        Ok(result) if method::is_custom(asked) => Ok(format!(r#"{{"result":{}}}"#, result.get())),
        Err(error) if method::is_custom(asked) => Ok(json!({ "error": error }).to_string()),
        Ok(result) => match wrong_in(asked, result) {
            None => Ok(result.get().to_owned()),
            Some(why) => Err(RpcError::internal(format!(
                "the client's answer to `{asked}` cannot be used: {why}"
            ))),
        },
        Err(_) if asked == method::ELICIT => Ok(form::cancelled()),
        Err(error) => Err(RpcError::internal(format!(
            "the client did not answer `{asked}`: {}",
            error.message
        ))
        .with_data(json!({ "original": error }))),
    }
}

fn wrong_in(asked: &str, result: &RawValue) -> Option<&'static str> {
    let Some(members) = Members::of(result) else {
        return Some("it is no object");
    };
    match asked {
        method::ELICIT => {
            let action = members.get("action").and_then(meta::as_text);
            let is_known = matches!(action.as_deref(), Some("accept" | "decline" | "cancel"));
            (!is_known).then_some("its `action` is not one of accept, decline, cancel")
        }
        method::SAMPLE => {
            let is_whole = ["role", "content", "model"]
                .iter()
                .all(|name| members.get(name).is_some());
            (!is_whole).then_some("it has no `role`, `content` or `model`")
        }
        _ => {
            let is_list = members
                .get("roots")
                .is_some_and(|roots| roots.get().starts_with('['));
            (!is_list).then_some("its `roots` is no array")
        }
    }
}

/// An `inputResponses` object, out of keys and answers that are JSON.
#[must_use]
pub fn input_responses<'a>(answers: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut responses = Object::default();
    for (key, answer) in answers {
        responses.push(key, answer);
    }
    responses.finish()
}

/// The call again, with answers and the server's state, both JSON, in place of those of an earlier round. `None` when the text is no
/// request.
#[must_use]
pub fn retry(request: &Bytes, responses: Option<&str>, state: Option<&str>) -> Option<Bytes> {
    let message = Message::parse(request).ok()?;
    let mut more = Object::default();
    if let Some(responses) = responses {
        more.push("\"inputResponses\"", responses);
    }
    if let Some(state) = state {
        more.push("\"requestState\"", state);
    }
    let mut edits = Edits::new(request);
    match message.params {
        None if more.is_empty() => {}
        None => edits.insert_after(message.id?.get(), format!(r#","params":{}"#, more.finish())),
        Some(params) => {
            let members = Members::of(params)?;
            let is_stale = |key: &RawValue| is_key(key, "inputResponses") || is_key(key, "requestState");
            if members.iter().all(|(key, _)| is_stale(key)) {
                edits.replace(params.get(), more.finish());
            } else {
                edits.remove_where(&members, is_stale);
                if !more.is_empty() {
                    edits.insert_first(params.get(), more.members());
                }
            }
        }
    }
    Some(edits.apply().into())
}

fn unusable(why: impl std::fmt::Display) -> RpcError {
    RpcError::internal(format!("the server's request for input cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtocolVersion as V;
    use bus_schema::mcp::error;

    const ALL: Askable = Askable {
        roots: true,
        sampling: true,
        sampling_tools: true,
        sampling_context: true,
        forms: true,
        urls: true,
    };

    fn asked(version: V, askable: Askable, asked: &str, params: &str) -> ClientRequest {
        client_request(version, askable, asked, params, "e\"1")
    }

    #[test]
    fn capabilities_say_what_a_client_can_be_asked() {
        let none = Askable::default();
        for (capabilities, expected) in [
            ("{}", none),
            ("garbage", none),
            (r#"{"elicitation":{}}"#, Askable { forms: true, ..none }),
            (r#"{"elicitation":{"url":{}}}"#, Askable { urls: true, ..none }),
            (
                r#"{"sampling":{"tools":{}},"x":1e400}"#,
                Askable {
                    sampling: true,
                    sampling_tools: true,
                    ..none
                },
            ),
            (
                r#"{"roots":{},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}}}"#,
                ALL,
            ),
        ] {
            assert_eq!(Askable::of(capabilities), expected, "{capabilities}");
        }
    }

    #[test]
    fn a_question_is_sent_in_the_words_of_the_version() {
        let titled = r#"{"mode":"form","message":"m","requestedSchema":{"type":"object","properties":{"a":{"type":"string","oneOf":[{"const":"x","title":"X"}]}}},"k":1e400}"#;
        let named = r#"{"message":"m","requestedSchema":{"type":"object","properties":{"a":{"type":"string","enum":["x"],"enumNames":["X"]}}},"k":1e400}"#;
        for (version, method, params, expected) in [
            (V::V2025_11_25, method::ELICIT, titled, titled),
            (V::V2025_06_18, method::ELICIT, titled, named),
            (
                V::V2025_11_25,
                method::ELICIT,
                r#"{ "mode":"url","url":"https://a/","elicitationId":"old","message":"m"}"#,
                r#"{"elicitationId":"e\"1", "mode":"url","url":"https://a/","message":"m"}"#,
            ),
            (
                V::V2024_11_05,
                method::ROOTS_LIST,
                r#"{"_meta":{"k":1.0}}"#,
                r#"{"_meta":{"k":1.0}}"#,
            ),
            (
                V::V2024_11_05,
                method::SAMPLE,
                r#"{"messages":[],"maxTokens":1.0}"#,
                r#"{"messages":[],"maxTokens":1.0}"#,
            ),
        ] {
            let sent = asked(version, ALL, method, params);
            assert_eq!(sent, ClientRequest::Send(expected.to_owned()), "{version}");
        }
    }

    #[test]
    fn a_form_that_the_version_cannot_show_counts_as_cancelled() {
        let several = r#"{"requestedSchema":{"properties":{"a":{"type":"array","items":{}}}},"message":"m"}"#;
        assert_eq!(
            asked(V::V2025_06_18, ALL, method::ELICIT, several),
            ClientRequest::Cannot(Ok(r#"{"action":"cancel"}"#.to_owned()))
        );
        assert_eq!(
            asked(V::V2025_11_25, ALL, method::ELICIT, several),
            ClientRequest::Send(several.to_owned())
        );
    }

    #[test]
    fn what_a_client_did_not_declare_is_not_asked() {
        let url = r#"{"mode":"url","url":"https://a/"}"#;
        for (version, askable, method, params, word) in [
            (
                V::V2025_11_25,
                Askable { urls: false, ..ALL },
                method::ELICIT,
                url,
                "pages",
            ),
            (V::V2025_06_18, ALL, method::ELICIT, url, "pages"),
            (V::V2025_03_26, ALL, method::ELICIT, "{}", "declare"),
            (
                V::V2025_11_25,
                Askable { forms: false, ..ALL },
                method::ELICIT,
                "{}",
                "forms",
            ),
            (V::V2025_11_25, ALL, method::ELICIT, r#"{"mode":"voice"}"#, "mode"),
            (V::V2025_11_25, ALL, method::ELICIT, "[]", "object"),
            (
                V::V2025_11_25,
                Askable::default(),
                method::ELICIT,
                "{}",
                method::ELICIT,
            ),
            (
                V::V2025_11_25,
                Askable::default(),
                method::SAMPLE,
                "{}",
                method::SAMPLE,
            ),
            (
                V::V2025_11_25,
                Askable::default(),
                method::ROOTS_LIST,
                "{}",
                method::ROOTS_LIST,
            ),
            (V::V2025_11_25, ALL, method::TOOLS_LIST, "{}", method::TOOLS_LIST),
        ] {
            let ClientRequest::Cannot(Err(error)) = asked(version, askable, method, params) else {
                panic!("{method} {params}");
            };
            assert!(
                error.code == error::INTERNAL && error.message.contains(word),
                "{error}"
            );
        }
    }

    #[test]
    fn an_answer_of_the_client_is_checked_and_kept_to_the_byte() {
        let answered = |method: &str, text: &str| {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            client_answer(method, Ok(raw))
        };
        for (method, answer) in [
            (
                method::ELICIT,
                r#"{ "action":"accept","content":{"a":1.0e400},"x":"\ud800"}"#,
            ),
            (method::ELICIT, r#"{"action":"decline"}"#),
            (
                method::SAMPLE,
                r#"{"role":"assistant","content":{"type":"text"},"model":"m","z":1.0}"#,
            ),
            (
                method::ROOTS_LIST,
                r#"{"roots":[{"uri":"file:///a"}],"_meta":{}}"#,
            ),
        ] {
            assert_eq!(answered(method, answer).as_deref(), Ok(answer));
        }
        for (method, answer) in [
            (method::ELICIT, "{}"),
            (method::ELICIT, r#"{"action":"maybe"}"#),
            (method::ELICIT, "7"),
            (method::SAMPLE, r#"{"role":"assistant","model":"m"}"#),
            (method::SAMPLE, r#"{"task":{"taskId":"t"}}"#),
            (method::ROOTS_LIST, r#"{"roots":{}}"#),
        ] {
            let error = answered(method, answer).expect_err(answer);
            assert!(error.message.contains(method), "{error}");
        }
    }

    #[test]
    fn a_client_that_says_no_ends_the_call_unless_a_form_was_asked_for() {
        let no = RpcError::new(-1, "the user said no");
        assert_eq!(
            client_answer(method::ELICIT, Err(&no)).as_deref(),
            Ok(r#"{"action":"cancel"}"#)
        );
        for method in [method::SAMPLE, method::ROOTS_LIST] {
            let error = client_answer(method, Err(&no)).expect_err(method);
            assert_eq!(error.code, error::INTERNAL);
            assert_eq!(
                error.data,
                Some(json!({ "original": { "code": -1, "message": "the user said no" } }))
            );
        }
    }

    #[test]
    fn a_call_is_made_again_with_the_answers() {
        let answers = input_responses([("\"a\"", "{}"), ("\"b\"", r#"{"x":1e400}"#)]);
        assert_eq!(answers, r#"{"a":{},"b":{"x":1e400}}"#);
        let both = r#""inputResponses":{"a":1.0},"requestState":"s""#;
        for (request, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1.0,"method":"m","params":{"name":"x","arguments":{"n":1e400}}}"#,
                format!(
                    r#"{{"jsonrpc":"2.0","id":1.0,"method":"m","params":{{{both},"name":"x","arguments":{{"n":1e400}}}}}}"#
                ),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"requestState":"old","x":1,"inputResponses":{}}}"#,
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{{both},"x":1}}}}"#),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{ "requestState":"old" }}"#,
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{{both}}}}}"#),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#,
                format!(r#"{{"jsonrpc":"2.0","id":1,"params":{{{both}}},"method":"m"}}"#),
            ),
        ] {
            let again = retry(&Bytes::from(request), Some(r#"{"a":1.0}"#), Some("\"s\"")).unwrap();
            assert_eq!(again, expected);
        }
        let request = Bytes::from(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#);
        assert_eq!(retry(&request, None, None), Some(request));
        let stale =
            Bytes::from(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":1,"requestState":"old"}}"#);
        assert_eq!(
            retry(&stale, None, None).unwrap(),
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":1}}"#
        );
        assert_eq!(retry(&Bytes::from("garbage"), None, None), None);
    }
}
