//! Bare axum: the same rmcp handler without a bus, and the same bytes without a handler.

use std::{borrow::Cow, convert::Infallible, path::Path, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
    serve::ListenerExt as _,
};
use bytes::Bytes;
use rmcp::{
    RoleServer, Service as _,
    model::{ClientJsonRpcMessage, GetExtensions as _, GetMeta as _, JsonRpcMessage},
    service::{Peer, RequestContext, RxJsonRpcMessage, TxJsonRpcMessage, serve_directly},
    transport::Transport,
};
use tests::fixture::Fixture;
use tokio::net::TcpListener;

use super::{input_ended, ready};

/// What can be asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    /// The handler.
    Rmcp,
    /// The answer to a call, ready.
    Call,
    /// The answer to a list, ready.
    List,
}

impl Route {
    /// Its path.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Rmcp => "/rmcp",
            Self::Call => "/call",
            Self::List => "/list",
        }
    }
}

#[derive(Clone)]
struct Answers {
    handler: Arc<Fixture>,
    peer: Peer<RoleServer>,
    call: Bytes,
    list: Bytes,
}

pub(super) async fn serve(answer: String, list: &Path) -> anyhow::Result<()> {
    let handler = Fixture::new(Arc::default());
    // The handler wants a peer to notify; nothing that is called here does.
    let service = serve_directly(handler.clone(), Nowhere, None);
    let answers = Answers {
        handler: Arc::new(handler),
        peer: service.peer().clone(),
        call: answer.into(),
        list: std::fs::read(list).context("the list is there")?.into(),
    };
    let router = Router::new()
        .route(Route::Rmcp.path(), post(handled))
        .route(Route::Call.path(), post(ready_call))
        .route(Route::List.path(), post(ready_list))
        .with_state(answers);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready(listener.local_addr()?.to_string(), std::process::id())?;
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    axum::serve(listener, router)
        .with_graceful_shutdown(input_ended())
        .await?;
    Ok(())
}

async fn ready_call(State(answers): State<Answers>, _body: Bytes) -> Response {
    json(answers.call)
}

async fn ready_list(State(answers): State<Answers>, _body: Bytes) -> Response {
    json(answers.list)
}

async fn handled(State(answers): State<Answers>, body: Bytes) -> Response {
    let Ok(JsonRpcMessage::Request(request)) = serde_json::from_slice::<ClientJsonRpcMessage>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut decoded = request.request;
    let mut context = RequestContext::new(request.id.clone(), answers.peer);
    std::mem::swap(&mut context.meta, decoded.get_meta_mut());
    std::mem::swap(&mut context.extensions, decoded.extensions_mut());
    let result = answers.handler.handle_request(decoded, context).await;
    let message = match result {
        Ok(result) => TxJsonRpcMessage::<RoleServer>::response(result, request.id),
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    match serde_json::to_vec(&message) {
        Ok(body) => json(body.into()),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A transport on which nothing comes, and nothing leaves.
struct Nowhere;

impl Transport<RoleServer> for Nowhere {
    type Error = Infallible;

    fn name() -> Cow<'static, str> {
        "nowhere".into()
    }

    fn send(
        &mut self,
        _item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        std::future::ready(Ok(()))
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        std::future::pending().await
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
