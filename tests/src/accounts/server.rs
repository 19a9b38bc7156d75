//! What the server speaks: one tool tells who it is called as, another one never ends.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bus_schema::{header::SESSION_ID, mcp::method};
use serde_json::{Value, json};

use super::{Shared, Speaks};

/// Counts a call for as long as it is waited for.
struct Held(Arc<Shared>);

impl Held {
    fn new(shared: Arc<Shared>) -> Self {
        shared.state().held += 1;
        Self(shared)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().held -= 1;
    }
}

pub(super) async fn mcp(
    State(shared): State<Arc<Shared>>,
    asked: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = token(&headers);
    let user = shared.state().tokens.get(&token).cloned();
    if !token.is_empty() && user.is_none() {
        // Whoever shows something shows something right.
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Speaks::Legacy(version) = shared.speaks {
        if let Err(refused) = in_session(&shared, &asked, &headers, &message, user.as_deref()) {
            return *refused;
        }
        if message["method"] == method::INITIALIZE {
            return opened(&shared, version, &message, user);
        }
    } else if asked != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let tools = json!([
        { "name": "whoami", "inputSchema": { "type": "object" } },
        { "name": "hold", "inputSchema": { "type": "object" } },
    ]);
    match message["method"].as_str().unwrap_or_default() {
        method::DISCOVER => answer(
            &shared,
            &message,
            json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } }),
        ),
        method::PING => answer(&shared, &message, json!({})),
        method::TOOLS_LIST => answer(&shared, &message, json!({ "tools": tools })),
        method::TOOLS_CALL => match user {
            Some(user) => called(&shared, &message, &token, user).await,
            None => StatusCode::UNAUTHORIZED.into_response(),
        },
        told if told.starts_with("notifications/") => StatusCode::ACCEPTED.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn called(shared: &Arc<Shared>, message: &Value, token: &str, user: String) -> Response {
    shared.state().called.push((token.to_owned(), user.clone()));
    if message["params"]["name"] == "hold" {
        let _held = Held::new(Arc::clone(shared));
        std::future::pending::<()>().await;
    }
    let content = json!([{ "type": "text", "text": user }]);
    answer(shared, message, json!({ "content": content }))
}

fn token(headers: &HeaderMap) -> String {
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|shown| shown.to_str().ok());
    shown
        .and_then(|shown| shown.strip_prefix("Bearer "))
        .unwrap_or_default()
        .to_owned()
}

fn answer(shared: &Shared, message: &Value, mut result: Value) -> Response {
    if shared.speaks == Speaks::Modern {
        result["resultType"] = json!("complete");
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
    }
    Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response()
}

/// Refuses what a legacy server refuses: what is in no session, or in somebody else's.
fn in_session(
    shared: &Shared,
    asked: &Method,
    headers: &HeaderMap,
    message: &Value,
    user: Option<&str>,
) -> Result<(), Box<Response>> {
    let named = headers.get(SESSION_ID).and_then(|id| id.to_str().ok());
    let mut state = shared.state();
    let Some(id) = named else {
        return match message["method"] == method::INITIALIZE {
            true => Ok(()),
            false => {
                let error = json!({ "code": -32000, "message": "Bad Request: Server not initialized" });
                let error = Json(json!({ "jsonrpc": "2.0", "id": null, "error": error }));
                Err(Box::new((StatusCode::BAD_REQUEST, error).into_response()))
            }
        };
    };
    let Some(owner) = state.sessions.get(id).cloned() else {
        return Err(Box::new(StatusCode::NOT_FOUND.into_response()));
    };
    if owner.as_deref() != user {
        state.crossed += 1;
        return Err(Box::new(StatusCode::FORBIDDEN.into_response()));
    }
    match *asked {
        Method::POST => Ok(()),
        Method::DELETE => {
            state.sessions.remove(id);
            Err(Box::new(StatusCode::OK.into_response()))
        }
        _ => Err(Box::new(StatusCode::METHOD_NOT_ALLOWED.into_response())),
    }
}

fn opened(shared: &Shared, version: &str, message: &Value, user: Option<String>) -> Response {
    let id = {
        let mut state = shared.state();
        let id = state.make("session");
        state.sessions.insert(id.clone(), user);
        id
    };
    let result = json!({
        "protocolVersion": version, "capabilities": { "tools": {} },
        "serverInfo": { "name": "accounts", "version": "1" },
    });
    let mut response = answer(shared, message, result);
    let id = id.parse().expect("visible ASCII");
    response.headers_mut().insert(SESSION_ID, id);
    response
}
