//! Answers `subscriptions/listen` inside the platform: tells doors of resources that have changed.
//!
//! The server behind the host is told the union of what everybody wants, so it is asked once however many listen. A resource that
//! changes several times while a listener is slow is told of once: what counts is that it has changed. Changes of lists are not told
//! here, as every process sees them in the cards.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{
    Request, RpcError,
    mcp::{meta, method, resource},
    rpc::{self, Message},
};
use futures::{FutureExt as _, future::BoxFuture};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{
        Mutex as AsyncMutex,
        broadcast::{self, error::RecvError},
    },
    time::timeout,
};
use tracing::debug;

use super::{Outcome, Parts, run::Shared};

/// How many resources one listener may name.
const MAX_URIS: usize = 10_000;
/// How long a server may take to say of which resources it can tell.
const WATCH_LIMIT: Duration = Duration::from_secs(10);

/// Who wants to hear of changed resources.
#[derive(Default)]
pub(super) struct Listeners {
    /// Held only to add, remove or unite.
    wanted: Mutex<Wanted>,
    /// Held while the server is told, so that it hears of one union after the other.
    telling: AsyncMutex<()>,
}

#[derive(Default)]
struct Wanted {
    last: u64,
    by_listener: HashMap<u64, BTreeSet<String>>,
}

impl Listeners {
    fn add(&self, uris: BTreeSet<String>) -> u64 {
        let mut wanted = self.lock();
        wanted.last += 1;
        let number = wanted.last;
        wanted.by_listener.insert(number, uris);
        number
    }

    fn union(&self) -> BTreeSet<String> {
        self.lock().by_listener.values().flatten().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the server what is wanted at this moment, and gives what it can tell of.
async fn tell(shared: &Shared) -> BTreeSet<String> {
    let _telling = shared.listeners.telling.lock().await;
    let asked = Arc::clone(&shared.server).watch(shared.listeners.union());
    timeout(WATCH_LIMIT, asked).await.unwrap_or_else(|_| {
        debug!(server.id = %shared.options.id, "the server did not say in time which resources it can tell of");
        BTreeSet::new()
    })
}

/// One listener; gone from the union when this is dropped.
struct Listener {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.listeners.lock().by_listener.remove(&self.number);
        let shared = Arc::clone(&self.shared);
        self.shared.bus.spawn(async move {
            tell(&shared).await;
        });
    }
}

/// Serves one listen call until its caller ends it, or the host stops.
pub(super) fn serve(shared: Arc<Shared>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome> {
    async move {
        let body = request.body.0;
        match begin(&shared, &body) {
            Ok((id, uris)) => listen(shared, &id, uris, &parts).await,
            Err(error) => Outcome::error_for(&body, &error),
        }
    }
    .boxed()
}

/// Reads the id as spelled and the resources of a listen request.
fn begin(shared: &Shared, body: &[u8]) -> Result<(String, BTreeSet<String>), RpcError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Filter {
        #[serde(default)]
        resource_subscriptions: BTreeSet<String>,
    }
    let message = Message::parse(body)?;
    let id = message
        .id
        .ok_or_else(|| RpcError::invalid_request("a listen request has an id"))?;
    let filter = message.peek_params()?.notifications;
    let filter: Filter = filter
        .map_or(Ok(Filter::default()), |raw| serde_json::from_str(raw.get()))
        .map_err(|error| RpcError::invalid_params(format!("`params.notifications`: {error}")))?;
    let uris = filter.resource_subscriptions;
    if uris.len() > MAX_URIS {
        return Err(RpcError::invalid_params(format!(
            "`resourceSubscriptions` names {} resources; server `{}` tells one listener of at most {MAX_URIS}",
            uris.len(),
            shared.options.id
        )));
    }
    Ok((id.get().to_owned(), uris))
}

async fn listen(shared: Arc<Shared>, id: &str, uris: BTreeSet<String>, parts: &Parts) -> Outcome {
    let mut updates = shared.server.updates();
    let listener = Listener {
        number: shared.listeners.add(uris.clone()),
        shared: Arc::clone(&shared),
    };
    let honoured: BTreeSet<String> = tell(&shared).await.intersection(&uris).cloned().collect();
    let subscription = format!(r#""_meta":{{"{}":{id}}}"#, meta::SUBSCRIPTION_ID);
    parts
        .send(notification(
            method::ACKNOWLEDGED,
            &format!(
                r#""_meta":{{"{}":{id}{}}},"notifications":{}"#,
                meta::SUBSCRIPTION_ID,
                refusals(&shared, &uris),
                json!({ "resourceSubscriptions": honoured })
            ),
        ))
        .await;
    loop {
        let changed = tokio::select! {
            changed = next(&mut updates, &honoured) => changed,
            () = shared.draining.cancelled() => break,
        };
        for uri in changed {
            let params = format!(r#""uri":{},{subscription}"#, rpc::quote(&uri));
            parts.send(notification(method::UPDATED, &params)).await;
        }
    }
    drop(listener);
    Outcome::result(
        id,
        format!(r#"{{"resultType":"complete",{subscription}}}"#).as_bytes(),
    )
}

/// The errors by which the server has refused some of these resources, as a further member of `_meta`; empty when there are none.
fn refusals(shared: &Shared, uris: &BTreeSet<String>) -> String {
    let mut refused: BTreeMap<String, RpcError> = shared.server.refusals();
    refused.retain(|uri, _| uris.contains(uri));
    if refused.is_empty() {
        return String::new();
    }
    format!(r#","{}":{}"#, meta::REFUSED, json!(refused))
}

/// Waits for changes among the honoured resources, and takes all that have come.
async fn next(
    updates: &mut Option<broadcast::Receiver<Arc<str>>>,
    honoured: &BTreeSet<String>,
) -> BTreeSet<String> {
    let Some(updates) = updates else {
        return std::future::pending().await;
    };
    let mut changed = BTreeSet::new();
    loop {
        match updates.recv().await {
            Ok(uri) => {
                if honoured.iter().any(|wanted| resource::covers(wanted, &uri)) {
                    changed.insert(uri.to_string());
                }
            }
            // Too many have come to remember which: each may have changed.
            Err(RecvError::Lagged(_)) => changed.extend(honoured.iter().cloned()),
            Err(RecvError::Closed) => return std::future::pending().await,
        }
        if !changed.is_empty() && updates.is_empty() {
            return changed;
        }
    }
}

fn notification(method: &str, params: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{params}}}}}"#).into_bytes()
}
