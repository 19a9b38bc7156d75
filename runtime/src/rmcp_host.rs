//! Hosts a server that is written with rmcp's `#[tool]` macros.
//!
//! The request is decoded once and handed to the handler directly, without a transport or a service task for each request. What
//! rmcp needs all the same, a peer for notifications, is kept in slots that calls take in turn.

mod mark;
mod version;

use std::{
    borrow::Cow,
    collections::BTreeSet,
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
    RoleServer, ServerHandler,
    model::{
        ClientJsonRpcMessage, ClientRequest, GetExtensions as _, GetMeta as _, JsonRpcMessage, ProgressToken,
        ServerNotification,
    },
    service::{RequestContext, RunningService, RxJsonRpcMessage, TxJsonRpcMessage, serve_directly},
    transport::Transport,
};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::DropGuard;
use tracing::{debug, warn};

use crate::host::{McpServer, Outcome, Parts};

pub use mark::{deprecated, version as tool_version};
pub use version::VERSION_URI;

/// How many changes of resources may wait for a listener; one that misses some is told of all that it listens for.
const UPDATES_AHEAD: usize = 1_024;

/// An rmcp server as a server of the bus.
pub struct RmcpServer<H: ServerHandler + Clone> {
    handler: H,
    /// Peers that no call uses at the moment. Held only to take or return one.
    idle: Mutex<Vec<Slot<H>>>,
    changes: Arc<Changes>,
}

/// What the handler says has changed, in whichever call it says so.
struct Changes {
    lists: watch::Sender<u64>,
    resources: broadcast::Sender<Arc<str>>,
}

/// One rmcp peer, and where its notifications go for the length of a call.
struct Slot<H: ServerHandler> {
    service: RunningService<RoleServer, H>,
    outlet: Arc<Outlet>,
    /// Takes notifications of clients; requests are handed over directly.
    incoming: mpsc::Sender<RxJsonRpcMessage<RoleServer>>,
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
            changes: Arc::new(Changes {
                lists: watch::Sender::new(0),
                resources: broadcast::Sender::new(UPDATES_AHEAD),
            }),
        }
    }

    fn take_slot(&self) -> Slot<H> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| {
            let outlet = Arc::<Outlet>::default();
            let (incoming, notifications) = mpsc::channel(1);
            let transport = SlotTransport {
                notifications,
                outlet: Arc::clone(&outlet),
                changes: Arc::clone(&self.changes),
            };
            let service = serve_directly(self.handler.clone(), transport, None);
            Slot {
                service,
                outlet,
                incoming,
            }
        })
    }

    async fn serve(self: Arc<Self>, request: Request, parts: Parts) -> Outcome {
        let body = request.body.0.clone();
        let id = match rpc::Message::parse(&body) {
            Ok(message) => message.id.map(|id| id.get().to_owned()),
            Err(error) => return Outcome::error(None, &error),
        };
        let mut decoded = match decode(&body, &request.method) {
            Ok(Decoded::Request(id, request)) => (id, *request),
            Ok(Decoded::Notification(notification)) => return self.notify(*notification).await,
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
        let result = version::handle(slot.service.service(), decoded.1, context).await;
        guard.disarm();
        slot.outlet.close();
        // A slot whose call was dropped never comes here: what it still has to say must not reach the next call.
        self.return_slot(slot);
        answer(id.as_deref(), result)
    }

    async fn notify(&self, notification: RxJsonRpcMessage<RoleServer>) -> Outcome {
        let slot = self.take_slot();
        if slot.incoming.send(notification).await.is_err() {
            debug!("a server took no notification, as its peer has ended");
        }
        self.return_slot(slot);
        Outcome::taken()
    }

    fn return_slot(&self, slot: Slot<H>) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(slot);
    }
}

impl<H: ServerHandler + Clone> McpServer for RmcpServer<H> {
    fn handle(self: Arc<Self>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome> {
        self.serve(request, parts).boxed()
    }

    fn list_changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.lists.subscribe())
    }

    fn updates(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        Some(self.changes.resources.subscribe())
    }

    fn watch(self: Arc<Self>, uris: BTreeSet<String>) -> BoxFuture<'static, BTreeSet<String>> {
        // The handler tells of every change, whoever listens.
        let resources = self.handler.get_info().capabilities.resources;
        let tells = resources.and_then(|resources| resources.subscribe) == Some(true);
        std::future::ready(if tells { uris } else { BTreeSet::new() }).boxed()
    }
}

/// What a message to a server is.
enum Decoded {
    Request(rmcp::model::RequestId, Box<ClientRequest>),
    Notification(Box<RxJsonRpcMessage<RoleServer>>),
}

fn decode(body: &[u8], method: &str) -> Result<Decoded, RpcError> {
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
        JsonRpcMessage::Request(request) => Ok(Decoded::Request(request.id, Box::new(request.request))),
        notification @ JsonRpcMessage::Notification(_) => Ok(Decoded::Notification(Box::new(notification))),
        _ => Err(RpcError::invalid_request(
            "the message is no request or notification",
        )),
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

impl Changes {
    fn take(&self, item: &TxJsonRpcMessage<RoleServer>) {
        let JsonRpcMessage::Notification(notification) = item else {
            return;
        };
        match &notification.notification {
            ServerNotification::ToolListChangedNotification(_)
            | ServerNotification::PromptListChangedNotification(_)
            | ServerNotification::ResourceListChangedNotification(_) => {
                self.lists.send_modify(|count| *count += 1);
            }
            ServerNotification::ResourceUpdatedNotification(updated) => {
                // Without a listener there is nobody to tell.
                let _ = self.resources.send(updated.params.uri.as_str().into());
            }
            _ => {}
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

/// Carries a slot's notifications to the call that holds it, and what it says of changes to whoever listens. Only notifications of
/// clients come in, as requests are handed over directly.
struct SlotTransport {
    notifications: mpsc::Receiver<RxJsonRpcMessage<RoleServer>>,
    outlet: Arc<Outlet>,
    changes: Arc<Changes>,
}

impl Transport<RoleServer> for SlotTransport {
    type Error = Infallible;

    fn name() -> Cow<'static, str> {
        "bus".into()
    }

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        self.changes.take(&item);
        let current = self.outlet.current().filter(|current| belongs(&item, current));
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
        self.notifications.recv().await
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
