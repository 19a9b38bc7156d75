//! `/credentials`: the accounts that users have connected at servers, over REST. A user sees and forgets their own, an operator those of the
//! tenant. What is secret of them is told to nobody.

use axum::{
    Router,
    extract::{Extension, Path},
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::{delete, get},
};
use bus_schema::{
    Principal, ServerId,
    audit::{Kind, Record},
};
use serde_json::json;
use url::form_urlencoded;

use super::{
    kept::{Refused, read_id},
    viewer::Viewer,
};
use crate::{
    auth::Admitted,
    http::recording::mark,
    upstream::remote::{Accounts, Connections, Own, Which},
};

/// What this process has of them, if it has the key.
#[derive(Clone)]
struct Kept(Option<Accounts>);

/// The routes, behind what says who looks.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(connections: Option<&Connections>) -> Router<S> {
    Router::new()
        .route("/credentials", get(list))
        .route("/credentials/{server}", delete(forget))
        .layer(Extension(Kept(connections.map(Connections::accounts))))
}

impl Kept {
    fn accounts(self) -> Result<Accounts, Refused> {
        let message =
            "this process keeps no credentials of users: [credentials] of its configuration has no key";
        self.0
            .ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, "not_configured", message))
    }
}

/// Whose accounts a request is about.
enum Whose {
    /// Those of who asks.
    Own(Option<ServerId>),
    /// Those of others, for operators.
    Others(Which),
}

/// What a query says.
#[derive(Default)]
struct Asked {
    server: Option<ServerId>,
    user: Option<String>,
    issuer: Option<String>,
    everybody: bool,
}

impl Asked {
    fn read(uri: &Uri, known: &[&str]) -> Result<Self, Refused> {
        let mut asked = Self::default();
        for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*key {
                key if !known.contains(&key) => {
                    let message = format!("there is no parameter `{key}`; use {}", known.join(", "));
                    return Err(Refused::bad_request(message));
                }
                "server" => asked.server = Some(read_id(&value)?),
                "user" => asked.user = Some(value.into_owned()),
                "issuer" => asked.issuer = Some(value.into_owned()),
                _ => asked.everybody = read_flag(&value)?,
            }
        }
        match (&asked.user, &asked.issuer, asked.everybody) {
            (None, Some(_), _) => {
                let message = "issuer says whose user is meant; name the user as well: ?user=…&issuer=…";
                Err(Refused::bad_request(message))
            }
            (Some(_), _, true) => Err(Refused::bad_request(
                "user and everybody are both given; keep one",
            )),
            _ => Ok(asked),
        }
    }

    /// Others are for operators.
    fn of(self, viewer: &Viewer) -> Result<Whose, NotYours> {
        if self.user.is_none() && !self.everybody {
            return Ok(Whose::Own(self.server));
        }
        match viewer {
            Viewer::Operator => Ok(Whose::Others(Which {
                server: self.server,
                subject: self.user,
                issuer: self.issuer,
            })),
            Viewer::Reader(_) => Err(NotYours),
        }
    }
}

/// Somebody asks about the accounts of others who is no operator.
struct NotYours;

impl NotYours {
    const MESSAGE: &str = "the accounts of others are for operators; leave user and everybody out";

    /// The answer, which is put on record.
    fn answer(&self, principal: &Principal) -> Response {
        let refused = Refused::new(StatusCode::FORBIDDEN, "not_yours", Self::MESSAGE);
        let record = Record::refused(Kind::Admin, "not_yours").by(principal);
        mark(refused.into_response(), record.because(Self::MESSAGE))
    }
}

fn read_flag(value: &str) -> Result<bool, Refused> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Refused::bad_request(format!(
            "everybody is `{other}`; write true or false"
        ))),
    }
}

async fn list(
    Extension(kept): Extension<Kept>,
    Extension(viewer): Extension<Viewer>,
    Extension(who): Extension<Admitted>,
    uri: Uri,
) -> Result<Response, Refused> {
    let mut asked = Asked::read(&uri, &["server", "user", "issuer"])?;
    // Operators see what there is.
    asked.everybody = asked.user.is_none() && matches!(viewer, Viewer::Operator);
    let (accounts, tenant) = (kept.accounts()?, &who.principal.tenant);
    let whose = match asked.of(&viewer) {
        Ok(whose) => whose,
        Err(refused) => return Ok(refused.answer(&who.principal)),
    };
    let listed = match whose {
        Whose::Own(server) => accounts.list_own(&Own::of(&who.principal, server)).await?,
        Whose::Others(which) => accounts.list(tenant, &which).await?,
    };
    Ok(axum::Json(json!({ "credentials": listed })).into_response())
}

async fn forget(
    Extension(kept): Extension<Kept>,
    Extension(viewer): Extension<Viewer>,
    Extension(who): Extension<Admitted>,
    Path(server): Path<String>,
    uri: Uri,
) -> Result<Response, Refused> {
    let mut asked = Asked::read(&uri, &["user", "issuer", "everybody"])?;
    asked.server = Some(read_id(&server)?);
    let (accounts, tenant) = (kept.accounts()?, &who.principal.tenant);
    let whose = match asked.of(&viewer) {
        Ok(whose) => whose,
        Err(refused) => return Ok(refused.answer(&who.principal)),
    };
    let forgotten = match whose {
        Whose::Own(server) => accounts.forget_own(&Own::of(&who.principal, server)).await?,
        Whose::Others(which) => accounts.forget(tenant, &which).await?,
    };
    if forgotten.is_empty() {
        let message = format!("no account at server `{server}` is connected, of those that are meant");
        return Err(Refused::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    Ok(axum::Json(json!({ "forgotten": forgotten })).into_response())
}
