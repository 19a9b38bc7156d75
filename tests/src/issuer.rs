//! An issuer of tokens: it tells of itself, shows its keys, signs whatever a test writes, and is asked about what it has not signed.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaKeyPair,
    },
};
use serde_json::{Value, json};

use crate::remote;

/// A key that is nobody's but the tests'. ring makes none of this kind.
const RSA_KEY: &[u8] = include_bytes!("../support/issuer-rsa.der");
/// The id of that key.
pub const RSA: &str = "rsa";
/// Who the platform is when it asks about tokens, and how it shows that.
pub const CLIENT: (&str, &str) = ("trunkline", "a secret: with/signs");
/// How long its tokens last that say nothing else, in seconds.
const USUAL_LIFE: u64 = 600;

/// A running issuer.
pub struct Issuer {
    shared: Arc<Shared>,
    url: String,
}

struct Shared {
    /// Set once it listens.
    url: Mutex<String>,
    /// The keys that it signs with, the newest last.
    keys: Mutex<Vec<(String, EcdsaKeyPair)>>,
    /// What tokens mean that are not signed.
    opaque: Mutex<HashMap<String, Value>>,
    rsa: RsaKeyPair,
    random: SystemRandom,
    down: AtomicBool,
    fetched: AtomicUsize,
    asked: AtomicUsize,
    made: AtomicUsize,
}

impl Issuer {
    /// Starts one with one key.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared {
            url: Mutex::default(),
            keys: Mutex::default(),
            opaque: Mutex::default(),
            rsa: RsaKeyPair::from_pkcs8(RSA_KEY).expect("a key"),
            random: SystemRandom::new(),
            down: AtomicBool::new(false),
            fetched: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration/realm", get(metadata))
            .route("/keys", get(keys))
            .route("/introspect", post(introspect))
            .route("/token", post(token))
            .route("/authorize", get(authorize))
            .with_state(Arc::clone(&shared));
        let url = format!("http://{}/realm", remote::serve(router).await);
        lock(&shared.url).clone_from(&url);
        let issuer = Self { shared, url };
        issuer.rotate();
        issuer
    }

    /// Its name.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of a path beside its name.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        self.url.replace("/realm", path)
    }

    /// The section that makes a platform take its tokens. `more` are further lines about it.
    #[must_use]
    pub fn section(&self, more: &str) -> String {
        format!("[auth]\nmode = \"oauth\"\n{}", self.line(more))
    }

    /// The part of that section that is about this issuer.
    #[must_use]
    pub fn line(&self, more: &str) -> String {
        format!(
            "[[auth.issuers]]\nissuer = {}\nallow_private = true\n{more}\n",
            json!(self.url)
        )
    }

    /// Signs with a new key from now on, and gives its id. The old ones are still shown.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn rotate(&self) -> String {
        let (random, algorithm) = (&self.shared.random, &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), random).expect("a key");
        let id = format!("k{}", self.shared.made.fetch_add(1, Ordering::SeqCst));
        lock(&self.shared.keys).push((id.clone(), key));
        id
    }

    /// Shows the newest key only.
    pub fn forget_old_keys(&self) {
        let mut keys = lock(&self.shared.keys);
        let old = keys.len().saturating_sub(1);
        keys.drain(..old);
    }

    /// Answers nobody from now on, or again.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// How often its keys were fetched.
    #[must_use]
    pub fn fetched(&self) -> usize {
        self.shared.fetched.load(Ordering::SeqCst)
    }

    /// How often it was asked about a token.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// The claims of a usual token.
    #[must_use]
    pub fn claims(&self, subject: &str, audience: &str) -> Value {
        let now = now();
        json!({ "iss": self.url, "sub": subject, "aud": audience, "iat": now, "exp": now + USUAL_LIFE })
    }

    /// A usual token, with more claims.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "JSON is built where it is used")]
    pub fn token(&self, subject: &str, audience: &str, more: Value) -> String {
        let mut claims = self.claims(subject, audience);
        for (key, value) in more.as_object().into_iter().flatten() {
            claims[key] = value.clone();
        }
        self.sign(json!({}), &claims)
    }

    /// Signs claims with the newest key. `header` adds to the usual header, or says something else.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "JSON is built where it is used")]
    pub fn sign(&self, header: Value, claims: &Value) -> String {
        self.shared.sign(&header, claims)
    }

    /// Signs claims with the RSA key: `RS256` or `PS256`.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    pub fn sign_rsa(&self, algorithm: &str, claims: &Value) -> String {
        let message = message(&json!({ "alg": algorithm, "kid": RSA }), claims);
        let rsa = &self.shared.rsa;
        let mut signature = vec![0; rsa.public().modulus_len()];
        let padding: &'static dyn ring::signature::RsaEncoding = match algorithm {
            "RS256" => &RSA_PKCS1_SHA256,
            _ => &RSA_PSS_SHA256,
        };
        rsa.sign(padding, &self.shared.random, message.as_bytes(), &mut signature)
            .expect("a signature");
        with_signature(&message, &signature)
    }

    /// Signs as whoever takes a public key for a secret would.
    #[must_use]
    pub fn sign_with_public_key(&self, claims: &Value) -> String {
        let message = message(&json!({ "alg": "HS256", "kid": RSA }), claims);
        let public = self.shared.rsa.public_key().as_ref();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public);
        with_signature(&message, ring::hmac::sign(&key, message.as_bytes()).as_ref())
    }

    /// Makes a token that says nothing, and gives it.
    #[must_use]
    pub fn opaque(&self, claims: &Value) -> String {
        let token = format!("opaque-{}", self.shared.made.fetch_add(1, Ordering::SeqCst));
        let mut meaning = claims.clone();
        meaning["active"] = json!(true);
        lock(&self.shared.opaque).insert(token.clone(), meaning);
        token
    }

    /// Takes such a token back.
    pub fn revoke(&self, token: &str) {
        lock(&self.shared.opaque).remove(token);
    }
}

impl Shared {
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let keys = lock(&self.keys);
        let (id, key) = keys.last().expect("a key");
        let mut whole = json!({ "alg": "ES256", "typ": "at+jwt", "kid": id });
        for (key, value) in header.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        let message = message(&whole, claims);
        let signature = key.sign(&self.random, message.as_bytes());
        with_signature(&message, signature.expect("a signature").as_ref())
    }
}

/// A token without a signature.
#[must_use]
pub fn unsigned(header: &Value, claims: &Value) -> String {
    with_signature(&message(header, claims), b"")
}

/// The present in seconds since 1970.
///
/// # Panics
/// When the clock stands before that.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs()
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn with_signature(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

async fn metadata(State(shared): State<Arc<Shared>>) -> Response {
    if shared.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let issuer = lock(&shared.url).clone();
    let at = |path: &str| issuer.replace("/realm", path);
    // What OpenID wants beside is there for clients that want it as well.
    Json(json!({
        "issuer": issuer, "jwks_uri": at("/keys"), "introspection_endpoint": at("/introspect"),
        "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"], "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "code_challenge_methods_supported": ["S256"],
    }))
    .into_response()
}

/// The page where users log in. Who does stands in the query, as a browser would know from its session there.
async fn authorize(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let asked = read(uri.query().unwrap_or_default());
    let said = |key: &str| asked.get(key).cloned().unwrap_or_default();
    if said("client_id") != CLIENT.0 || said("scope") != "openid" || said("code_challenge_method") != "S256" {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let code = format!("s3cret-login-code-{}", shared.made.fetch_add(1, Ordering::SeqCst));
    let mut back = reqwest::Url::parse(&said("redirect_uri")).expect("a URL");
    back.query_pairs_mut()
        .append_pair("state", &said("state"))
        .append_pair("code", &code);
    lock(&shared.opaque).insert(code, json!(asked));
    (StatusCode::SEE_OTHER, [("location", back.to_string())]).into_response()
}

/// Tells a client who has logged in.
fn id_token(shared: &Shared, form: &HashMap<String, String>) -> Option<Value> {
    let page = lock(&shared.opaque).remove(form.get("code")?)?;
    let verifier = ring::digest::digest(&ring::digest::SHA256, form.get("code_verifier")?.as_bytes());
    let right = page["code_challenge"] == URL_SAFE_NO_PAD.encode(verifier)
        && page["redirect_uri"] == *form.get("redirect_uri")?;
    let claims = json!({
        "iss": *lock(&shared.url), "sub": page["login"], "aud": CLIENT.0, "nonce": page["nonce"], "exp": now() + USUAL_LIFE
    });
    let token = shared.sign(&json!({ "typ": "JWT" }), &claims);
    right.then(|| json!({ "access_token": "none", "token_type": "Bearer", "id_token": token }))
}

/// Gives a client a token for the resource and with the scopes that it asks for.
async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, form: String) -> Response {
    let (form, is_client) = (read(&form), is_client(&headers));
    let said = |key: &str| form.get(key).cloned().unwrap_or_default();
    if is_client && said("grant_type") == "authorization_code" {
        return match id_token(&shared, &form) {
            Some(answer) => Json(answer).into_response(),
            None => (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response(),
        };
    }
    if !is_client || said("grant_type") != "client_credentials" || said("resource").is_empty() {
        let error = json!({ "error": "invalid_request" });
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    }
    let (url, now) = (lock(&shared.url).clone(), now());
    let claims = json!({
        "iss": url, "sub": CLIENT.0, "client_id": CLIENT.0, "aud": said("resource"), "scope": said("scope"),
        "exp": now + USUAL_LIFE
    });
    let token = shared.sign(&json!({}), &claims);
    Json(json!({ "access_token": token, "token_type": "Bearer", "expires_in": USUAL_LIFE, "scope": said("scope") }))
        .into_response()
}

/// The fields of a form.
fn read(form: &str) -> HashMap<String, String> {
    let form = reqwest::Url::parse(&format!("form:?{form}")).expect("a form");
    form.query_pairs().into_owned().collect()
}

/// Whether a client has shown that it is the one that is known, as RFC 6749 wants it: both parts as in a form.
fn is_client(headers: &HeaderMap) -> bool {
    let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
    let as_in_forms = format!("Basic {}", STANDARD.encode("trunkline:a+secret%3A+with%2Fsigns"));
    // Clients are seen to leave the encoding out.
    let plain = format!("Basic {}", STANDARD.encode(format!("{}:{}", CLIENT.0, CLIENT.1)));
    shown.is_some_and(|shown| shown == as_in_forms || shown == plain)
}

async fn keys(State(shared): State<Arc<Shared>>) -> Response {
    shared.fetched.fetch_add(1, Ordering::SeqCst);
    if shared.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let rsa: PublicKeyComponents<Vec<u8>> = shared.rsa.public().into();
    let mut all = vec![
        json!({ "kty": "RSA", "kid": RSA, "use": "sig", "n": encoded(&rsa.n), "e": encoded(&rsa.e) }),
        json!({ "kty": "RSA", "kid": "for-encryption", "use": "enc", "alg": "RSA-OAEP", "n": encoded(&rsa.n), "e": encoded(&rsa.e) }),
    ];
    for (id, key) in &*lock(&shared.keys) {
        let point = key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        all.push(json!({
            "kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256", "x": encoded(x), "y": encoded(y)
        }));
    }
    let document = json!({ "keys": all }).to_string();
    ([("content-type", "application/jwk-set+json")], document).into_response()
}

async fn introspect(State(shared): State<Arc<Shared>>, headers: HeaderMap, form: String) -> Response {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    if shared.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if !is_client(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let token = read(&form).remove("token").unwrap_or_default();
    let meaning = lock(&shared.opaque).get(&token).cloned();
    Json(meaning.unwrap_or_else(|| json!({ "active": false }))).into_response()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
