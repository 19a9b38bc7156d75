//! A child as a server that a host can serve.

use std::sync::Arc;

use bus_schema::{
    ProtocolVersion, Request,
    mcp::{Era, method},
    rpc::Message,
};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{McpServer, Outcome, Parts};
use tokio::sync::watch;

use super::link::Link;
use crate::legacy::request::for_server;

/// How a child wants to be spoken with, as its handshake found out.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) version: ProtocolVersion,
    /// The answer to `server/discover`, for a child that does not know the question.
    pub(super) discovered: Option<String>,
}

pub(super) struct ChildServer {
    pub(super) link: Arc<Link>,
    pub(super) session: Session,
}

impl ChildServer {
    fn era(&self) -> Era {
        self.session.version.era()
    }

    async fn answer(self: Arc<Self>, request: Request, parts: Parts) -> Outcome {
        let body = request.body.0;
        if let (method::DISCOVER, Some(discovered)) = (request.method.as_str(), &self.session.discovered)
            && let Ok(Message { id: Some(id), .. }) = Message::parse(&body)
        {
            return Outcome::result(id.get(), discovered.as_bytes());
        }
        let body = for_server(self.session.version, &request.method, &body);
        match self.link.begin(&body, self.era(), request.trace.as_ref()).await {
            Ok(call) => {
                // The child has its copy; a call may last for long.
                drop(body);
                call.finish(&parts).await
            }
            Err(error) => Outcome::error_for(&body, &error),
        }
    }
}

impl McpServer for ChildServer {
    fn handle(self: Arc<Self>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome> {
        self.answer(request, parts).boxed()
    }

    fn list_changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.link.list_changes.subscribe())
    }

    fn protocol_version(&self) -> String {
        self.session.version.to_string()
    }
}
