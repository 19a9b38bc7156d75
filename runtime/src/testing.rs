//! Connects an rmcp client to a server written with rmcp in one process, for the tests of that server: no NATS, no door, no port.
//!
//! The client speaks the modern era with the server as a host would serve it, with `server://version`, marks of deprecated tools and
//! all, and answers what tools ask of its user by its own `ClientHandler`. What belongs to the bus is not there: limits on calls,
//! deadlines, other replicas, and listening for changes.
//!
//! What it saves is the platform. The first call on a small server is answered 1.5 ms after [`connect`], and 270 ms after the start of a
//! NATS, the doors and a host; on the products server it is 200 ms, which is its database, against 490 ms (medians of seven runs of a
//! debug build on two shared cores).
//!
//! ```
//! use rmcp::{
//!     ServerHandler, model::CallToolRequestParams, tool, tool_handler, tool_router,
//! };
//!
//! #[derive(Clone)]
//! struct Shop;
//!
//! #[tool_router]
//! impl Shop {
//!     /// Tells whether the shop is open.
//!     #[tool]
//!     async fn is_open(&self) -> String {
//!         "it is".to_owned()
//!     }
//! }
//!
//! #[tool_handler]
//! impl ServerHandler for Shop {}
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = runtime::testing::connect(Shop, ()).await?;
//! let answer = client.call_tool(CallToolRequestParams::new("is_open")).await?;
//! assert_eq!(answer.content[0].as_text().map(|text| text.text.as_str()), Some("it is"));
//! # Ok(())
//! # }
//! ```

use std::{borrow::Cow, collections::HashMap, convert::Infallible, sync::Arc};

use bus_schema::{
    Principal, ProtocolVersion, Request,
    mcp::method,
    rpc::{Kind, Message},
};
use rmcp::{
    RoleClient, ServerHandler, Service,
    service::{
        ClientInitializeError, ClientLifecycleMode, RunningService, RxJsonRpcMessage, TxJsonRpcMessage,
        serve_client_with_lifecycle,
    },
    transport::Transport,
};
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use crate::{
    host::{McpServer as _, Outcome, Parts, edit_tool_list},
    rmcp_host::RmcpServer,
};

/// How many messages may wait for the client.
const MESSAGES_AHEAD: usize = 64;

/// Connects a client to a server. `()` is a client that can be asked nothing.
///
/// # Errors
/// When the server does not describe itself.
pub async fn connect<H, C>(
    server: H,
    client: C,
) -> Result<RunningService<RoleClient, C>, ClientInitializeError>
where
    H: ServerHandler + Clone,
    C: Service<RoleClient>,
{
    let (to_client, messages) = mpsc::channel(MESSAGES_AHEAD);
    let transport = InProcess {
        server: Arc::new(RmcpServer::new(server)),
        to_client,
        messages,
        calls: JoinSet::new(),
        running: HashMap::new(),
    };
    let modern = ClientLifecycleMode::Discover {
        preferred_versions: vec![rmcp::model::ProtocolVersion::V_2026_07_28],
    };
    serve_client_with_lifecycle(client, transport, modern).await
}

/// Hands what the client sends to the server, and what the server says to the client.
struct InProcess<H: ServerHandler + Clone> {
    server: Arc<RmcpServer<H>>,
    to_client: mpsc::Sender<Vec<u8>>,
    messages: mpsc::Receiver<Vec<u8>>,
    /// Dropped with the client.
    calls: JoinSet<()>,
    /// The calls by their ids as spelled, to cancel them.
    running: HashMap<String, AbortHandle>,
}

impl<H: ServerHandler + Clone> InProcess<H> {
    fn take(&mut self, body: Vec<u8>) {
        while self.calls.try_join_next().is_some() {}
        self.running.retain(|_, call| !call.is_finished());
        let Ok(message) = Message::parse(&body) else {
            return;
        };
        let called = message.method.as_deref().unwrap_or_default().to_owned();
        let params = message.peek_params().unwrap_or_default();
        match (message.kind(), message.id) {
            (Ok(Kind::Request), Some(id)) => {
                let id = id.get().to_owned();
                let name = text(method::name_key(&called).and_then(|key| match key {
                    "uri" => params.uri,
                    _ => params.name,
                }));
                let request = request(called, name, body);
                let call = answer(Arc::clone(&self.server), request, self.to_client.clone());
                self.running.insert(id, self.calls.spawn(call));
            }
            (Ok(Kind::Notification), _) if called == method::CANCELLED => {
                if let Some(call) = params.request_id.and_then(|id| self.running.remove(id.get())) {
                    call.abort();
                }
            }
            _ => {}
        }
    }
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    raw.and_then(bus_schema::mcp::meta::as_text).map(Cow::into_owned)
}

/// A request as it would come over the bus.
fn request(method: String, name: Option<String>, body: Vec<u8>) -> Request {
    Request {
        caller: String::new(),
        call: 0,
        server: String::new(),
        method,
        name,
        principal: Principal::developer(),
        protocol_version: ProtocolVersion::MODERN.to_string(),
        door: "test".to_owned(),
        timeout_ms: 0,
        trace: None,
        chunked_bytes: 0,
        body: body.into(),
    }
}

/// Makes one call, with its notifications before its answer.
async fn answer<H: ServerHandler + Clone>(
    server: Arc<RmcpServer<H>>,
    request: Request,
    to_client: mpsc::Sender<Vec<u8>>,
) {
    let lists_tools = request.method == method::TOOLS_LIST;
    let (parts_in, mut parts) = mpsc::channel(1);
    let call = server.handle(request, Parts::new(parts_in));
    let told = async {
        while let Some(part) = parts.recv().await {
            // A client that has gone hears nothing.
            let _ = to_client.send(part.into()).await;
        }
    };
    // Whoever notifies keeps a sender until the answer, so both end.
    let (outcome, ()) = tokio::join!(call, told);
    let outcome = match outcome {
        outcome if lists_tools => edit_tool_list(outcome, |_, _| {}),
        outcome => outcome,
    };
    let Outcome { body, .. } = outcome;
    let _ = to_client.send(body.into()).await;
}

impl<H: ServerHandler + Clone> Transport<RoleClient> for InProcess<H> {
    type Error = Infallible;

    fn name() -> Cow<'static, str> {
        "in process".into()
    }

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        self.take(serde_json::to_vec(&item).expect("a message is JSON"));
        std::future::ready(Ok(()))
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let message = self.messages.recv().await?;
        Some(serde_json::from_slice(&message).expect("what the server says is a message"))
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        self.calls.shutdown().await;
        Ok(())
    }
}
