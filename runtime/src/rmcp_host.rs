//! Hosts a server that is written with rmcp's `#[tool]` macros.
//!
//! The request is decoded once and handed to the handler directly, without a transport or a service task for each request. What
//! rmcp needs all the same, a peer for notifications, is kept in slots that calls take in turn.

use std::{
    borrow::Cow,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    Request, RpcError,
    mcp::{error, method},
    rpc,
};
use futures::{FutureExt as _, future::BoxFuture};
use rmcp::{
    RoleServer, ServerHandler, Service,
    model::{
        ClientJsonRpcMessage, ClientRequest, GetExtensions as _, GetMeta as _, JsonRpcMessage, ProgressToken,
        ServerNotification,
    },
    service::{RequestContext, RunningService, RxJsonRpcMessage, TxJsonRpcMessage, serve_directly},
    transport::Transport,
};
use tokio_util::sync::DropGuard;
use tracing::warn;

use crate::host::{McpServer, Outcome, Parts};

/// An rmcp server as a server of the bus.
pub struct RmcpServer<H: ServerHandler + Clone> {
    handler: H,
    /// Peers that no call uses at the moment. Held only to take or return one.
    idle: Mutex<Vec<Slot<H>>>,
}

/// One rmcp peer, and where its notifications go for the length of a call.
struct Slot<H: ServerHandler> {
    service: RunningService<RoleServer, H>,
    outlet: Arc<Outlet>,
}

/// Where a slot's notifications go at the moment.
#[derive(Default)]
struct Outlet(Mutex<Option<Current>>);

#[derive(Clone)]
struct Current {
    parts: Parts,
    progress_token: Option<ProgressToken>,
    wants_log: bool,
}

impl<H: ServerHandler + Clone> RmcpServer<H> {
    /// Wraps a server. It is cloned for each slot, so its state belongs behind an `Arc`.
    pub fn new(handler: H) -> Self {
        Self {
            handler,
            idle: Mutex::default(),
        }
    }

    fn take_slot(&self) -> Slot<H> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| {
            let outlet = Arc::<Outlet>::default();
            let service = serve_directly(self.handler.clone(), SlotTransport(Arc::clone(&outlet)), None);
            Slot { service, outlet }
        })
    }

    async fn serve(self: Arc<Self>, request: Request, parts: Parts) -> Outcome {
        let body = request.body.0.clone();
        let id = match rpc::Message::parse(&body) {
            Ok(message) => message.id.map(|id| id.get().to_owned()),
            Err(error) => return Outcome::error(None, &error),
        };
        let mut decoded = match decode(&body, &request.method) {
            Ok(decoded) => decoded,
            Err(error) => return Outcome::error(id.as_deref(), &error),
        };
        let slot = self.take_slot();
        let mut context = RequestContext::new(decoded.0, slot.service.peer().clone());
        std::mem::swap(&mut context.meta, decoded.1.get_meta_mut());
        std::mem::swap(&mut context.extensions, decoded.1.extensions_mut());
        context.extensions.insert(request.principal);
        context.extensions.insert(request.trace);
        slot.outlet.open(Current {
            parts,
            progress_token: context.meta.get_progress_token(),
            wants_log: context.meta.log_level().is_some(),
        });
        // Work that the handler has spawned hears of the end of a call that is dropped.
        let guard: DropGuard = context.ct.clone().drop_guard();
        let result = slot.service.service().handle_request(decoded.1, context).await;
        guard.disarm();
        slot.outlet.close();
        // A slot whose call was dropped never comes here: what it still has to say must not reach the next call.
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(slot);
        answer(id.as_deref(), result)
    }
}

impl<H: ServerHandler + Clone> McpServer for RmcpServer<H> {
    fn handle(self: Arc<Self>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome> {
        self.serve(request, parts).boxed()
    }
}

fn decode(body: &[u8], method: &str) -> Result<(rmcp::model::RequestId, ClientRequest), RpcError> {
    let wrong =
        |why: &str| RpcError::invalid_params(format!("the parameters of `{method}` are wrong: {why}"));
    let message: ClientJsonRpcMessage =
        serde_json::from_slice(body).map_err(|error| wrong(&error.to_string()))?;
    match message {
        // rmcp reads a known method with unusable parameters as a custom one, and would call it unknown.
        JsonRpcMessage::Request(request)
            if matches!(request.request, ClientRequest::CustomRequest(_))
                && method::SERVED.contains(&method) =>
        {
            Err(wrong("see the method's schema for what it takes"))
        }
        JsonRpcMessage::Request(request) => Ok((request.id, request.request)),
        _ => Err(RpcError::invalid_request("the message is no request")),
    }
}

fn answer(id: Option<&str>, result: Result<rmcp::model::ServerResult, rmcp::ErrorData>) -> Outcome {
    let written = match result {
        Ok(result) => serde_json::to_vec(&result),
        Err(error) => {
            let error = RpcError {
                code: i64::from(error.code.0),
                message: error.message.into_owned(),
                data: error.data,
            };
            return Outcome::error(id, &error);
        }
    };
    match written {
        Ok(result) => Outcome::result(id.unwrap_or("null"), &result),
        Err(cause) => {
            warn!(%cause, "a result could not be written as JSON");
            Outcome::error(
                id,
                &RpcError::new(
                    error::INTERNAL,
                    "the server's result could not be written as JSON",
                ),
            )
        }
    }
}

impl Outlet {
    fn open(&self, current: Current) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(current);
    }

    fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn current(&self) -> Option<Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Carries a slot's notifications to the call that holds it; nothing ever comes in, as requests are handed over directly.
struct SlotTransport(Arc<Outlet>);

impl Transport<RoleServer> for SlotTransport {
    type Error = Infallible;

    fn name() -> Cow<'static, str> {
        "bus".into()
    }

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        let current = self.0.current().filter(|current| belongs(&item, current));
        async move {
            if let Some(current) = current
                && let Ok(notification) = serde_json::to_vec(&item)
            {
                current.parts.send(notification).await;
            }
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        std::future::pending().await
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A modern server sends notifications only: progress for the request that asked for it, and log lines if it asked for any.
/// Changes of lists belong to no call.
fn belongs(item: &TxJsonRpcMessage<RoleServer>, current: &Current) -> bool {
    let JsonRpcMessage::Notification(notification) = item else {
        return false;
    };
    match &notification.notification {
        ServerNotification::ProgressNotification(progress) => {
            current.progress_token.as_ref() == Some(&progress.params.progress_token)
        }
        ServerNotification::LoggingMessageNotification(_) => current.wants_log,
        ServerNotification::CustomNotification(_) => true,
        _ => false,
    }
}
