//! Asks the user behind a tool call for a yes, and says what to do when the client cannot ask.
//!
//! A tool takes a [`User`] beside its parameters and calls [`User::confirm`]. The first time that gives [`Confirmation::Ask`], which the
//! tool returns as it is: the client asks its user and calls again with the answer, and then `confirm` gives that (MCP 2026-07-28, multi
//! round-trip requests). Clients of older versions are asked by their door in the middle of the call. A client that declared no
//! elicitation cannot be asked at all: then the tool answers with `isError` and a sentence that says what to pass instead, such as
//! `confirm: true`, so that programs can use it too.
//!
//! Nothing is kept between the two calls, so any replica may take the second. What binds the answer to the question is its key, a
//! digest of the tool and of every word that the user was shown: an answer counts for that question only. So the message has to say
//! all that is agreed to, with the present state of what it is about; when that has changed meanwhile, the user is asked anew. That a
//! client may answer without asking is its user's business: it could call the tool on its own as well.
//!
//! ```
//! use rmcp::{
//!     ErrorData,
//!     handler::server::wrapper::Parameters,
//!     model::{CallToolResponse, CallToolResult, ContentBlock},
//!     schemars, tool, tool_router,
//! };
//! use runtime::elicit::{Confirmation, User, yes_or_no};
//!
//! struct Shop;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Close {
//!     /// Clients that cannot ask their user send `true` once the user has agreed.
//!     #[serde(default)]
//!     confirm: bool,
//! }
//!
//! #[tool_router]
//! impl Shop {
//!     /// Closes the shop for good. The user is asked first.
//!     #[tool]
//!     async fn close(
//!         &self,
//!         Parameters(wanted): Parameters<Close>,
//!         user: User,
//!     ) -> Result<CallToolResponse, ErrorData> {
//!         let said = |text: &str| vec![ContentBlock::text(text)];
//!         Ok(match user.confirm("Close the shop for good?", yes_or_no("Close it")) {
//!             Confirmation::Ask(question) => question.into(),
//!             Confirmation::Declined => CallToolResult::error(said("the user declined")).into(),
//!             Confirmation::CannotAsk if !wanted.confirm => {
//!                 CallToolResult::error(said("this client cannot ask its user: pass confirm: true instead")).into()
//!             }
//!             Confirmation::CannotAsk | Confirmation::Confirmed(_) => {
//!                 CallToolResult::success(said("closed")).into()
//!             }
//!         })
//!     }
//! }
//! # fn main() { let _ = Shop::tool_router(); }
//! ```

use rmcp::{
    ErrorData,
    handler::server::{common::FromContextPart, tool::ToolCallContext},
    model::{
        BooleanSchema, ElicitRequest, ElicitRequestParams, ElicitationSchema, InputRequest,
        InputRequiredResult, InputResponses, PrimitiveSchemaDefinition,
    },
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// What the keys of all questions for a confirmation begin with.
const KEY_PREFIX: &str = "confirm-";
/// The property of [`yes_or_no`].
const YES: &str = "yes";

/// The user behind a tool call; an argument of a tool beside its parameters.
#[derive(Clone, Debug)]
pub struct User {
    tool: String,
    /// Whether the client shows forms.
    can_be_asked: bool,
    responses: InputResponses,
}

/// What became of a question.
#[derive(Debug)]
#[must_use]
pub enum Confirmation {
    /// The user agreed; with what else the form asked for.
    Confirmed(Map<String, Value>),
    /// The user did not.
    Declined,
    /// The user is still to be asked: the tool returns this, and is called again.
    Ask(InputRequiredResult),
    /// The client shows its user no forms. The tool says what to pass instead, with `isError`.
    CannotAsk,
}

impl<S> FromContextPart<ToolCallContext<'_, S>> for User {
    fn from_context_part(context: &mut ToolCallContext<'_, S>) -> Result<Self, ErrorData> {
        let capability = context
            .request_context
            .client_capabilities()
            .and_then(|declared| declared.elicitation);
        let responses = context.input_responses.clone().unwrap_or_default();
        responses.iter().try_for_each(check)?;
        Ok(Self {
            tool: context.name.to_string(),
            // Forms are what a capability without modes means.
            can_be_asked: capability.is_some_and(|modes| modes.form.is_some() || modes.url.is_none()),
            responses,
        })
    }
}

/// Answers that no client may give are wrong parameters, and not a reason to ask again.
fn check((key, response): (&String, &Value)) -> Result<(), ErrorData> {
    let action = response.get("action").and_then(Value::as_str);
    let content = response.get("content");
    let right = matches!(action, Some("accept" | "decline" | "cancel"))
        && content.is_none_or(|content| content.is_object() || content.is_null());
    if right || !key.starts_with(KEY_PREFIX) {
        return Ok(());
    }
    Err(ErrorData::invalid_params(
        format!(
            "inputResponses[\"{key}\"] must be {{\"action\":\"accept\"|\"decline\"|\"cancel\",\"content\":{{…}}}}"
        ),
        None,
    ))
}

impl User {
    /// Asks for a yes. The user agrees by accepting the form, with every yes-or-no that it requires answered yes.
    ///
    /// `message` says all that is agreed to: an answer counts for the same words only.
    pub fn confirm(&self, message: &str, schema: ElicitationSchema) -> Confirmation {
        if !self.can_be_asked {
            return Confirmation::CannotAsk;
        }
        let key = self.key(message, &schema);
        let Some(response) = self.responses.get(&key) else {
            return Confirmation::Ask(question(key, message, schema));
        };
        if response.get("action").and_then(Value::as_str) != Some("accept") {
            return Confirmation::Declined;
        }
        let content = response
            .get("content")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        for property in schema.required.as_deref().unwrap_or_default() {
            let asks_yes = matches!(
                schema.properties.get(property),
                Some(PrimitiveSchemaDefinition::Boolean(_))
            );
            match content.get(property) {
                None => return Confirmation::Ask(question(key, message, schema)),
                Some(answer) if asks_yes && *answer != Value::Bool(true) => return Confirmation::Declined,
                Some(_) => {}
            }
        }
        Confirmation::Confirmed(content)
    }

    fn key(&self, message: &str, schema: &ElicitationSchema) -> String {
        let asked = json!([self.tool, message, schema]).to_string();
        let digest = Sha256::digest(asked);
        let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{KEY_PREFIX}{hex}")
    }
}

/// The simplest form: one box to tick, with a label.
///
/// # Panics
/// Never: the form is right as it stands.
#[must_use]
pub fn yes_or_no(label: &'static str) -> ElicitationSchema {
    ElicitationSchema::builder()
        .required_property(
            YES,
            PrimitiveSchemaDefinition::Boolean(BooleanSchema::new().title(label)),
        )
        .build()
        .expect("a form with one box")
}

fn question(key: String, message: &str, requested_schema: ElicitationSchema) -> InputRequiredResult {
    let form = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.to_owned(),
        requested_schema,
    };
    let request = InputRequest::Elicitation(ElicitRequest::new(form));
    InputRequiredResult::from_input_requests([(key, request)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(tool: &str, responses: &[(&str, Value)]) -> User {
        User {
            tool: tool.to_owned(),
            can_be_asked: true,
            responses: responses
                .iter()
                .map(|(key, response)| ((*key).to_owned(), response.clone()))
                .collect(),
        }
    }

    /// The key under which a question is asked.
    fn asked(confirmation: Confirmation) -> String {
        let Confirmation::Ask(required) = confirmation else {
            panic!("{confirmation:?}");
        };
        let requests = serde_json::to_value(required).unwrap()["inputRequests"].take();
        let (key, request) = requests.as_object().unwrap().iter().next().unwrap();
        assert_eq!(request["method"], "elicitation/create");
        assert_eq!(request["params"]["mode"], "form");
        assert_eq!(
            request["params"]["requestedSchema"]["properties"]["yes"]["type"],
            "boolean"
        );
        key.clone()
    }

    fn ask(user: &User, message: &str) -> Confirmation {
        user.confirm(message, yes_or_no("Do it"))
    }

    #[test]
    fn an_answer_counts_for_the_very_question_only() {
        let key = asked(ask(&user("a", &[]), "Delete X?"));
        let yes = json!({ "action": "accept", "content": { "yes": true } });
        let answered = user("a", &[(&key, yes.clone())]);
        assert!(matches!(ask(&answered, "Delete X?"), Confirmation::Confirmed(_)));
        assert_ne!(asked(ask(&answered, "Delete Y?")), key);
        assert_ne!(asked(ask(&user("b", &[(&key, yes)]), "Delete X?")), key);
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        let key = asked(ask(&user("a", &[]), "Delete X?"));
        for (response, declined) in [
            (json!({ "action": "accept", "content": { "yes": false } }), true),
            (json!({ "action": "accept", "content": { "yes": "true" } }), true),
            (json!({ "action": "decline" }), true),
            (json!({ "action": "cancel", "content": { "yes": true } }), true),
            (json!({ "action": "accept", "content": {} }), false),
            (json!({ "action": "accept", "content": null }), false),
        ] {
            match ask(&user("a", &[(&key, response.clone())]), "Delete X?") {
                Confirmation::Declined => assert!(declined, "{response}"),
                Confirmation::Ask(_) => assert!(!declined, "{response}"),
                other => panic!("{response}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_wrong_and_what_is_for_others_is_ignored() {
        for (key, response, right) in [
            ("confirm-1", json!({ "action": "accept" }), true),
            ("confirm-1", json!({ "action": "maybe" }), false),
            ("confirm-1", json!("yes"), false),
            ("confirm-1", json!({ "action": "accept", "content": [] }), false),
            ("other", json!("yes"), true),
        ] {
            assert_eq!(
                check((&key.to_owned(), &response)).is_ok(),
                right,
                "{key} {response}"
            );
        }
    }
}
