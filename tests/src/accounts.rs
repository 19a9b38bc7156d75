//! A server where everybody has an account of their own, and the issuer that lets them in: what OAuth wants of the two, held to the letter.
//!
//! Its lists are open. A tool tells who it is called as. The page where users agree takes who that is from its query, as a browser would from
//! its session there. What it speaks as a server is in `server`.

mod server;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;
use serde_json::{Value, json};

use crate::remote::{self, Tls};

/// How a client may come to be known there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knows {
    /// It registers itself.
    Registration,
    /// Its id is the URL of a document about it. The document is not fetched here.
    Documents,
}

/// What the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// The modern era.
    Modern,
    /// This version of the legacy era, in sessions that are each for whom they were opened.
    Legacy(&'static str),
}

/// A running server, and its issuer.
pub struct Accounts {
    /// Where both listen.
    pub addr: SocketAddr,
    /// The authority that vouches for both, in PEM form, if they speak TLS.
    pub ca: Option<String>,
    shared: Arc<Shared>,
}

struct Shared {
    knows: Knows,
    speaks: Speaks,
    scheme: &'static str,
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
    /// Codes that were given out.
    given: Vec<String>,
    /// Tokens that the platform has had taken back.
    revoked: Vec<String>,
    /// Whether it takes tokens back, and says so.
    takes_none_back: bool,
    /// How many calls wait for their end.
    held: usize,
    /// Sessions, each with whom it was opened for.
    sessions: HashMap<String, Option<String>>,
    /// How many sessions were used by another than whom they were opened for.
    crossed: usize,
}

type Query = HashMap<String, String>;

impl Accounts {
    /// Starts both.
    pub async fn start(knows: Knows) -> Self {
        Self::speaking(knows, Speaks::Modern).await
    }

    /// The same, of a server that speaks so.
    pub async fn speaking(knows: Knows, speaks: Speaks) -> Self {
        let (shared, router) = stage(knows, speaks, "http");
        Self {
            addr: remote::serve(router).await,
            ca: None,
            shared,
        }
    }

    /// The same with TLS, by an authority of their own.
    pub async fn over_tls(knows: Knows) -> Self {
        let (shared, router) = stage(knows, Speaks::Modern, "https");
        let tls = Tls::serve(router).await;
        Self {
            addr: tls.addr,
            ca: Some(tls.ca),
            shared,
        }
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        match self.shared.scheme {
            "http" => format!("http://{}/mcp", self.addr),
            scheme => format!("{scheme}://localhost:{}/mcp", self.addr.port()),
        }
    }

    /// Agrees as somebody on a page of the issuer, without a browser: where that would be sent.
    ///
    /// # Panics
    /// When the page refuses.
    pub async fn agree(&self, page: &str, login: &str) -> String {
        let page: Uri = format!("{page}&login={login}").parse().expect("a URL");
        let mut headers = HeaderMap::new();
        let host = page.authority().expect("a host").as_str();
        headers.insert(header::HOST, host.parse().expect("a header"));
        let agreed = authorize(State(Arc::clone(&self.shared)), headers, page).await;
        let location = agreed.headers().get(header::LOCATION).expect("it sends on");
        location.to_str().expect("visible").to_owned()
    }

    /// How many clients have registered themselves.
    #[must_use]
    pub fn registered(&self) -> usize {
        self.state().clients.len()
    }

    /// Knows no client any more that has registered itself.
    pub fn forget_clients(&self) {
        let mut state = self.state();
        state.clients.iter_mut().for_each(String::clear);
    }

    /// Takes no tokens back any more, and says nowhere that it does. Whoever has read what it says may still ask.
    pub fn take_none_back(&self) {
        self.state().takes_none_back = true;
    }

    /// The tokens that the platform has had taken back.
    #[must_use]
    pub fn revoked(&self) -> Vec<String> {
        self.state().revoked.clone()
    }

    /// How many calls wait at this moment.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held
    }

    /// How often a session was used by another than whom it was opened for.
    #[must_use]
    pub fn crossed(&self) -> usize {
        self.state().crossed
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

    /// Takes no access token any more that was given out so far.
    pub fn expire(&self) {
        self.state().tokens.clear();
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
        tokens.chain(&state.given).cloned().collect()
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

impl Shared {
    fn is_known(&self, state: &Inner, client: &str) -> bool {
        match self.knows {
            Knows::Registration => !client.is_empty() && state.clients.iter().any(|known| known == client),
            Knows::Documents => client.starts_with("https://"),
        }
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

fn stage(knows: Knows, speaks: Speaks, scheme: &'static str) -> (Arc<Shared>, Router) {
    let state = Inner {
        life: 3_600,
        ..Inner::default()
    };
    let shared = Arc::new(Shared {
        knows,
        speaks,
        scheme,
        state: Mutex::new(state),
    });
    let router = Router::new()
        .route("/.well-known/oauth-protected-resource/mcp", get(resource))
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/register", post(register))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .route("/revoke", post(revoke))
        .route("/mcp", any(server::mcp))
        .with_state(Arc::clone(&shared));
    (shared, router)
}

impl Shared {
    fn own(&self, headers: &HeaderMap) -> String {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        format!("{}://{}", self.scheme, host.unwrap_or_default())
    }
}

async fn resource(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Json<Value> {
    let own = shared.own(&headers);
    Json(json!({ "resource": format!("{own}/mcp"), "authorization_servers": [own] }))
}

async fn metadata(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Json<Value> {
    let own = shared.own(&headers);
    let mut metadata = json!({
        "issuer": own, "authorization_endpoint": format!("{own}/authorize"), "token_endpoint": format!("{own}/token"),
        "code_challenge_methods_supported": ["S256"], "authorization_response_iss_parameter_supported": true,
        "token_endpoint_auth_methods_supported": ["none"], "response_types_supported": ["code"],
    });
    if !shared.state().takes_none_back {
        metadata["revocation_endpoint"] = json!(format!("{own}/revoke"));
    }
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
    let (own, mut state) = (shared.own(&headers), shared.state());
    let client = said("client_id");
    let right = shared.is_known(&state, &client)
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
            state.given.push(code.clone());
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
    let (own, mut state) = (shared.own(&headers), shared.state());
    if !shared.is_known(&state, &said("client_id")) {
        return refused("invalid_client");
    }
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

async fn revoke(State(shared): State<Arc<Shared>>, text: String) -> Response {
    let asked = form(&text);
    let said = |key: &str| asked.get(key).cloned().unwrap_or_default();
    let mut state = shared.state();
    if !shared.is_known(&state, &said("client_id")) {
        return refused("invalid_client");
    }
    if state.takes_none_back {
        return refused("unsupported_token_type");
    }
    let token = said("token");
    state.tokens.remove(&token);
    state.refreshes.remove(&token);
    state.revoked.push(token);
    StatusCode::OK.into_response()
}

fn refused(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}

fn form(text: &str) -> Query {
    let url = reqwest::Url::parse(&format!("form:?{text}")).expect("a form");
    url.query_pairs().into_owned().collect()
}
