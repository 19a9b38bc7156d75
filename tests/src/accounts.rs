//! A server where everybody has an account of their own, and the issuer that lets them in: what OAuth wants of the two, held to the letter.
//!
//! Its lists are open. A tool tells who it is called as. The page where users agree takes who that is from its query, as a browser would from
//! its session there.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bus_schema::mcp::method;
use ring::digest;
use serde_json::{Value, json};

use crate::remote;

/// How a client may come to be known there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knows {
    /// It registers itself.
    Registration,
    /// Its id is the URL of a document about it. The document is not fetched here.
    Documents,
}

/// A running server, and its issuer.
pub struct Accounts {
    /// Where both listen.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    knows: Knows,
    state: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    made: usize,
    /// How long tokens last, in seconds.
    life: u64,
    clients: Vec<String>,
    /// What was agreed to, by code: the query of the page, and who agreed.
    codes: HashMap<String, (HashMap<String, String>, String)>,
    /// Who comes with a token.
    tokens: HashMap<String, String>,
    refreshes: HashMap<String, String>,
    refreshed: usize,
    /// Refresh tokens that came a second time.
    replayed: usize,
    called: Vec<(String, String)>,
}

type Query = HashMap<String, String>;

impl Accounts {
    /// Starts both.
    pub async fn start(knows: Knows) -> Self {
        let state = Inner {
            life: 3_600,
            ..Inner::default()
        };
        let shared = Arc::new(Shared {
            knows,
            state: Mutex::new(state),
        });
        let router = Router::new()
            .route("/.well-known/oauth-protected-resource/mcp", get(resource))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/register", post(register))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/mcp", post(mcp))
            .with_state(Arc::clone(&shared));
        Self {
            addr: remote::serve(router).await,
            shared,
        }
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }

    /// Tokens last so long from now on, in seconds.
    pub fn set_life(&self, secs: u64) {
        self.state().life = secs;
    }

    /// Takes back everything that somebody was given.
    pub fn revoke(&self, user: &str) {
        let mut state = self.state();
        state.tokens.retain(|_, of| of != user);
        state.refreshes.retain(|_, of| of != user);
    }

    /// How often a token was exchanged, and how often with one that had been exchanged before.
    #[must_use]
    pub fn refreshed(&self) -> (usize, usize) {
        let state = self.state();
        (state.refreshed, state.replayed)
    }

    /// The tokens that calls came with, each with whose it was.
    #[must_use]
    pub fn called(&self) -> Vec<(String, String)> {
        self.state().called.clone()
    }

    /// Everything that was given out and must not be seen.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let state = self.state();
        let tokens = state.tokens.keys().chain(state.refreshes.keys());
        tokens.cloned().collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.shared.state()
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn make(&mut self, what: &str) -> String {
        self.made += 1;
        format!("s3cret-{what}-{}", self.made)
    }

    fn grant(&mut self, user: &str) -> Value {
        let (access, refresh) = (self.make("access"), self.make("refresh"));
        self.tokens.insert(access.clone(), user.to_owned());
        self.refreshes.insert(refresh.clone(), user.to_owned());
        json!({ "access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": self.life })
    }
}

fn own(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}", host.unwrap_or_default())
}

async fn resource(headers: HeaderMap) -> Json<Value> {
    let own = own(&headers);
    Json(json!({ "resource": format!("{own}/mcp"), "authorization_servers": [own] }))
}

async fn metadata(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Json<Value> {
    let own = own(&headers);
    let mut metadata = json!({
        "issuer": own, "authorization_endpoint": format!("{own}/authorize"), "token_endpoint": format!("{own}/token"),
        "code_challenge_methods_supported": ["S256"], "authorization_response_iss_parameter_supported": true,
        "token_endpoint_auth_methods_supported": ["none"], "response_types_supported": ["code"],
    });
    match shared.knows {
        Knows::Registration => metadata["registration_endpoint"] = json!(format!("{own}/register")),
        Knows::Documents => metadata["client_id_metadata_document_supported"] = json!(true),
    }
    Json(metadata)
}

async fn register(State(shared): State<Arc<Shared>>, Json(wish): Json<Value>) -> Response {
    if wish["redirect_uris"][0].as_str().is_none() || wish["application_type"] != "web" {
        return refused("invalid_client_metadata");
    }
    let mut state = shared.state();
    let id = state.make("client");
    state.clients.push(id.clone());
    (
        StatusCode::CREATED,
        Json(json!({ "client_id": id, "token_endpoint_auth_method": "none" })),
    )
        .into_response()
}

async fn authorize(State(shared): State<Arc<Shared>>, headers: HeaderMap, uri: Uri) -> Response {
    let asked = form(uri.query().unwrap_or_default());
    let said = |key: &str| asked.get(key).cloned().unwrap_or_default();
    let (own, mut state) = (own(&headers), shared.state());
    let client = said("client_id");
    let known = match shared.knows {
        Knows::Registration => state.clients.contains(&client),
        Knows::Documents => client.starts_with("https://"),
    };
    let right = known
        && said("response_type") == "code"
        && said("code_challenge_method") == "S256"
        && said("resource") == format!("{own}/mcp");
    if !right {
        return (StatusCode::BAD_REQUEST, format!("{asked:?}")).into_response();
    }
    let mut back = reqwest::Url::parse(&said("redirect_uri")).expect("a URL");
    back.query_pairs_mut().append_pair("state", &said("state"));
    let (key, value) = match said("login").as_str() {
        "" => ("error", "access_denied".to_owned()),
        user => {
            let code = state.make("code");
            state.codes.insert(code.clone(), (asked.clone(), user.to_owned()));
            ("code", code)
        }
    };
    back.query_pairs_mut().append_pair(key, &value);
    back.query_pairs_mut().append_pair("iss", &own);
    (StatusCode::SEE_OTHER, [(header::LOCATION, back.to_string())]).into_response()
}

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, text: String) -> Response {
    let asked = form(&text);
    let said = |key: &str| asked.get(key).cloned().unwrap_or_default();
    let (own, mut state) = (own(&headers), shared.state());
    if said("resource") != format!("{own}/mcp") {
        return refused("invalid_target");
    }
    if said("grant_type") == "refresh_token" {
        let Some(user) = state.refreshes.remove(&said("refresh_token")) else {
            state.replayed += 1;
            return refused("invalid_grant");
        };
        state.refreshed += 1;
        return Json(state.grant(&user)).into_response();
    }
    let Some((page, user)) = state.codes.remove(&said("code")) else {
        return refused("invalid_grant");
    };
    let verifier = digest::digest(&digest::SHA256, said("code_verifier").as_bytes());
    let right = page.get("code_challenge") == Some(&URL_SAFE_NO_PAD.encode(verifier))
        && page.get("redirect_uri") == Some(&said("redirect_uri"))
        && page.get("client_id") == Some(&said("client_id"));
    match right {
        true => Json(state.grant(&user)).into_response(),
        false => refused("invalid_grant"),
    }
}

fn refused(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}

fn form(text: &str) -> Query {
    let url = reqwest::Url::parse(&format!("form:?{text}")).expect("a form");
    url.query_pairs().into_owned().collect()
}

async fn mcp(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = |mut result: Value| {
        result["resultType"] = json!("complete");
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
        Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response()
    };
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|shown| shown.to_str().ok());
    let token = shown
        .and_then(|shown| shown.strip_prefix("Bearer "))
        .unwrap_or_default();
    let mut state = shared.state();
    let user = state.tokens.get(token).cloned();
    match message["method"].as_str().unwrap_or_default() {
        // Whoever shows something shows something right.
        _ if shown.is_some() && user.is_none() => StatusCode::UNAUTHORIZED.into_response(),
        method::DISCOVER => {
            answer(json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } }))
        }
        method::TOOLS_LIST => {
            answer(json!({ "tools": [{ "name": "whoami", "inputSchema": { "type": "object" } }] }))
        }
        method::TOOLS_CALL => match user {
            Some(user) => {
                state.called.push((token.to_owned(), user.clone()));
                answer(json!({ "content": [{ "type": "text", "text": user }] }))
            }
            None => StatusCode::UNAUTHORIZED.into_response(),
        },
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
