//! A server whose tools ask the client for something before they can answer, and that tells of resources that have changed.

#![allow(deprecated, reason = "logging is deprecated and still served")]

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::{
        router::tool::ToolRouter,
        tool::{InputResponses, RequestState},
        wrapper::Parameters,
    },
    model::{
        CallToolResponse, CallToolResult, ContentBlock, Implementation, InputRequest, InputRequests,
        InputRequiredResult, ListResourcesResult, LoggingLevel, LoggingMessageNotificationParam,
        PaginatedRequestParams, ProgressNotificationParam, Resource, ResourceUpdatedNotificationParam,
        ServerCapabilities, ServerConfig,
    },
    schemars,
    service::RequestContext,
    tool, tool_handler, tool_router,
};
use runtime::{Bus, Host, HostOptions, rmcp_host::RmcpServer};
use serde::Deserialize;
use serde_json::{Value, json};

type Answer = Result<CallToolResponse, ErrorData>;
type Responses = Option<rmcp::model::InputResponses>;

/// The server.
#[derive(Clone)]
pub struct Asking {
    tool_router: ToolRouter<Self>,
}

/// `touch`
#[derive(Deserialize, schemars::JsonSchema)]
pub struct Touch {
    /// Which resource.
    pub uri: String,
}

#[tool_router]
impl Asking {
    /// Asks the user for a name, and tells its progress before and after.
    #[tool]
    async fn elicit(
        &self,
        RequestState(state): RequestState,
        InputResponses(responses): InputResponses,
        context: RequestContext<RoleServer>,
    ) -> Answer {
        progress(&context, if state.is_none() { 1.0 } else { 2.0 }).await;
        match state.as_deref() {
            None => ask([("name", form("Who are you?"))], Some("elicited")),
            Some("elicited") => {
                let answer = &responses.unwrap_or_default()["name"];
                let name = answer["content"]["name"].as_str().unwrap_or("nobody");
                text(format!(
                    "{} {name}",
                    answer["action"].as_str().unwrap_or_default()
                ))
            }
            Some(other) => Err(ErrorData::invalid_params(format!("state {other}"), None)),
        }
    }

    /// Asks the client's model.
    #[tool]
    async fn sample(&self, InputResponses(responses): InputResponses) -> Answer {
        match responses {
            None => ask([("model", sampling())], None),
            Some(responses) => text(said(&responses["model"]["content"]["text"])),
        }
    }

    /// Asks for the client's folders.
    #[tool]
    async fn roots(&self, InputResponses(responses): InputResponses) -> Answer {
        match responses {
            None => ask([("folders", roots())], None),
            Some(responses) => text(said(&responses["folders"]["roots"][0]["uri"])),
        }
    }

    /// Asks user, model and client at once.
    #[tool]
    async fn all_at_once(&self, InputResponses(responses): InputResponses) -> Answer {
        match responses {
            None => ask([("a", form("a")), ("b", sampling()), ("c", roots())], Some("s")),
            Some(responses) => text(format!(
                "{} {} {}",
                said(&responses["a"]["action"]),
                said(&responses["b"]["model"]),
                said(&responses["c"]["roots"][0]["uri"])
            )),
        }
    }

    /// Asks twice, one after the other.
    #[tool]
    async fn two_rounds(
        &self,
        RequestState(state): RequestState,
        InputResponses(responses): InputResponses,
    ) -> Answer {
        let name = |responses: Responses| {
            let responses = responses.unwrap_or_default();
            said(&responses["name"]["content"]["name"])
        };
        match state.as_deref() {
            None => ask([("name", form("First?"))], Some("")),
            Some("") => ask([("name", form("Second?"))], Some(&name(responses))),
            Some(first) => text(format!("{first} {}", name(responses))),
        }
    }

    /// Puts the call off twice without asking anything.
    #[tool]
    async fn put_off(&self, RequestState(state): RequestState) -> Answer {
        match state.as_deref() {
            None => ask([], Some("1")),
            Some("1") => ask([], Some("2")),
            Some(state) => text(format!("done after {state}")),
        }
    }

    /// Asks again and again.
    #[tool]
    async fn endless(&self) -> Answer {
        ask([("name", form("Again?"))], Some("again"))
    }

    /// Says a log line.
    #[tool]
    async fn log(&self, context: RequestContext<RoleServer>) -> Answer {
        let line = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!("a line"));
        let _ = context.peer.notify_logging_message(line).await;
        text("logged")
    }

    /// Tells that a resource has changed.
    #[tool]
    async fn touch(
        &self,
        Parameters(touch): Parameters<Touch>,
        context: RequestContext<RoleServer>,
    ) -> Answer {
        let changed = ResourceUpdatedNotificationParam::new(touch.uri);
        let _ = context.peer.notify_resource_updated(changed).await;
        text("touched")
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Asking {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_logging()
            .enable_resources()
            .enable_resources_subscribe()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("asking", "1.0.0"))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(vec![Resource::new(
            "test://a", "a",
        )]))
    }
}

/// Puts one on the bus under the id `asking`.
///
/// # Panics
/// When it does not start.
pub async fn serve(bus: &Bus) -> Host {
    let server = RmcpServer::new(Asking {
        tool_router: Asking::tool_router(),
    });
    let options = HostOptions::new("asking".parse().expect("an id"));
    Host::start(bus.clone(), std::sync::Arc::new(server), options)
        .await
        .expect("the server starts")
}

async fn progress(context: &RequestContext<RoleServer>, at: f64) {
    if let Some(token) = context.meta.get_progress_token() {
        let _ = context
            .peer
            .notify_progress(ProgressNotificationParam::new(token, at))
            .await;
    }
}

fn ask<const N: usize>(requests: [(&str, InputRequest); N], state: Option<&str>) -> Answer {
    let requests: InputRequests = requests
        .into_iter()
        .map(|(key, request)| (key.to_owned(), request))
        .collect();
    let requests = (!requests.is_empty()).then_some(requests);
    Ok(InputRequiredResult::new(requests, state.map(str::to_owned)).into())
}

fn text(text: impl Into<String>) -> Answer {
    Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
}

fn said(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn form(message: &str) -> InputRequest {
    request(json!({
        "method": "elicitation/create",
        "params": {
            "mode": "form", "message": message,
            "requestedSchema": { "type": "object", "properties": { "name": { "type": "string" } } },
        },
    }))
}

fn sampling() -> InputRequest {
    let question = json!({ "role": "user", "content": { "type": "text", "text": "The capital of France?" } });
    request(
        json!({ "method": "sampling/createMessage", "params": { "messages": [question], "maxTokens": 10 } }),
    )
}

fn roots() -> InputRequest {
    request(json!({ "method": "roots/list" }))
}

fn request(request: Value) -> InputRequest {
    serde_json::from_value(request).expect("a request")
}
