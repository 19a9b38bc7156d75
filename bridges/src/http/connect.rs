//! The pages by which users connect their accounts at other servers. Browsers come here without a token: what they have is a link.
//!
//! A link is followed by a button and not by being opened, as programs open links to look at them. The pages load nothing, stand
//! in no frame, and tell nobody where they were opened from.

use std::fmt::Write as _;

use axum::{
    Extension, Json, Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware,
    response::{Html, IntoResponse as _, Response},
    routing::get,
};

use super::{Listener, admission};
use crate::{
    admin,
    upstream::remote::{Answered, Connections, NotConnected, Whose},
};

/// How long a browser keeps its cookie, in seconds.
const COOKIE_SECS: u64 = 600;
/// The cookie, for browsers that come by TLS and hold such names to their host, and for those on the same machine.
const COOKIES: [&str; 2] = ["__Host-trunkline-connect", "trunkline-connect"];
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
);
const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}\
dt{font-weight:600}button{font:inherit;padding:.5rem 1.5rem}";

/// The pages.
pub(super) fn routes(connections: Connections) -> Router<Listener> {
    Router::new()
        .route("/connect/client.json", get(document))
        .route("/connect/callback", get(come_back))
        .route("/connect/login", get(logged_in))
        .route("/connect/{link}", get(look).post(follow))
        .layer(Extension(connections))
}

/// What is told of connected accounts to those who have come in, and to operators of the tenant.
pub(super) fn accounts(listener: &Listener, connections: Option<&Connections>) -> Router<Listener> {
    let looking = middleware::from_fn_with_state(listener.clone(), admission::look);
    admin::account_routes(connections).route_layer(looking)
}

/// What issuers read of the platform as their client.
async fn document(Extension(connections): Extension<Connections>) -> Response {
    Json(connections.client_document()).into_response()
}

async fn look(Extension(connections): Extension<Connections>, Path(link): Path<String>) -> Response {
    match connections.look(&link).await {
        Ok(whose) => page(StatusCode::OK, &consent(&whose)),
        Err(why) => refused(&why),
    }
}

async fn follow(Extension(connections): Extension<Connections>, Path(link): Path<String>) -> Response {
    let followed = match connections.follow(&link).await {
        Ok(followed) => followed,
        Err(why) => return refused(&why),
    };
    let [of_tls, plain] = COOKIES;
    let (name, secure) = match connections.is_https() {
        true => (of_tls, "; Secure"),
        false => (plain, ""),
    };
    // Lax, as the issuer sends the browser back from another site.
    let cookie = format!(
        "{name}={}; Path=/; Max-Age={COOKIE_SECS}; HttpOnly; SameSite=Lax{secure}",
        followed.cookie
    );
    let (Some(mut response), Ok(mut cookie)) = (send_on(&followed.location), HeaderValue::try_from(cookie))
    else {
        return refused(&NotConnected::Failed);
    };
    cookie.set_sensitive(true);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

/// Somebody has shown who they are, and goes on to the other server's issuer.
async fn logged_in(Extension(connections): Extension<Connections>, uri: Uri, headers: HeaderMap) -> Response {
    let answered = Answered::read(uri.query().unwrap_or_default());
    let name = COOKIES[usize::from(!connections.is_https())];
    match connections.logged_in(answered, cookie(&headers, name)).await {
        Ok(location) => send_on(&location).unwrap_or_else(|| refused(&NotConnected::Failed)),
        Err(why) => refused(&why),
    }
}

/// Sends a browser on; `None` where no header can say to.
fn send_on(location: &str) -> Option<Response> {
    let location = HeaderValue::try_from(location).ok()?;
    let mut response = page(StatusCode::SEE_OTHER, "<p>Go on to the other server.</p>");
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

async fn come_back(Extension(connections): Extension<Connections>, uri: Uri, headers: HeaderMap) -> Response {
    let answered = Answered::read(uri.query().unwrap_or_default());
    let name = COOKIES[usize::from(!connections.is_https())];
    match connections.finish(answered, cookie(&headers, name)).await {
        Ok(whose) => page(
            StatusCode::OK,
            &format!(
                "<h1>Connected</h1><p>Your account at <b>{}</b> is connected. You can close this page and go back to your client.</p>",
                escaped(whose.server.as_str())
            ),
        ),
        Err(why) => refused(&why),
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter();
    all.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// What a user agrees to.
fn consent(whose: &Whose) -> String {
    let mut text = String::from("<h1>Connect your account</h1><dl>");
    let vouched = match whose.issuer.as_str() {
        "" => String::new(),
        issuer => format!(" ({issuer})"),
    };
    for (term, what) in [
        ("Server", whose.server.as_str()),
        (
            "For the user of this platform",
            &format!("{}{vouched}", whose.subject),
        ),
    ] {
        // Writing to a text cannot fail.
        let _ = write!(text, "<dt>{term}</dt><dd>{}</dd>", escaped(what));
    }
    text.push_str(
        "</dl><p>Go on only if this is you, and you have just asked for it in your own client. Whoever is named here will work with the \
         account that you choose on the next page. If somebody has sent you this link, close the page.</p>\
         <form method=\"post\"><button>Yes, this is me: go on</button></form>",
    );
    text
}

fn refused(why: &NotConnected) -> Response {
    let status = match why {
        NotConnected::Gone => StatusCode::GONE,
        NotConnected::Elsewhere | NotConnected::SomebodyElse | NotConnected::Refused => StatusCode::FORBIDDEN,
        NotConnected::Failed => StatusCode::BAD_GATEWAY,
        NotConnected::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    page(
        status,
        &format!("<h1>Not connected</h1><p>{}</p>", escaped(&why.to_string())),
    )
}

fn page(status: StatusCode, body: &str) -> Response {
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Trunkline</title><style>{STYLE}</style>{body}</html>"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        // With none at all a browser would not say from where a form is sent.
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    ];
    (status, headers, Html(text)).into_response()
}

/// A text as it may stand in a page.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_writes_nothing_into_a_page() {
        let whose = Whose::of(
            &bus_schema::Principal::new("<script>alert('&')</script>", "t"),
            &"a".parse().expect("an id"),
        );
        let page = consent(&whose);
        assert!(
            page.contains("&lt;script&gt;alert(&#39;&amp;&#39;)") && !page.contains("<script"),
            "{page}"
        );
    }

    #[test]
    fn a_cookie_is_found_among_others_and_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("a=1; xtrunkline-connect=no"),
        );
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("trunkline-connect=yes; b=2"),
        );
        assert_eq!(cookie(&headers, "trunkline-connect"), Some("yes"));
        assert_eq!(cookie(&headers, "connect"), None);
    }
}
