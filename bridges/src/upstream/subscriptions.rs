//! Which resources a server tells of when they change: the union of what anybody wants, asked for once.
//!
//! A legacy server is subscribed to each resource by itself. A modern one is listened to with one call for all; another union is
//! another call, which is open before the old one ends, so that nothing is missed between.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::{
    RpcError,
    mcp::{Era, ProtocolVersion, method},
    rpc::Message,
};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use super::{
    call::{Call, Event},
    connection::Session,
    handshake::own_meta,
    link::Link,
};

/// How many subscriptions of a legacy server are asked for at once.
const AT_ONCE: usize = 16;
/// How long a server may take to answer one; less than the host waits for all.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// What one server is to tell of.
pub(super) struct Subscriptions {
    link: Arc<Link>,
    how: How,
    /// With which errors a legacy server has refused which resources. Held only to look or change.
    refused: Mutex<BTreeMap<String, RpcError>>,
}

enum How {
    /// It tells of nothing.
    No,
    /// Held while the server is asked, so that it hears of one union after the other.
    Legacy(AsyncMutex<BTreeMap<String, Standing>>),
    Modern(Listening),
}

/// How a subscription of a legacy server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The server was asked, and its answer was not waited for to the end.
    Unsure,
    Honoured,
    Refused,
}

struct Listening {
    version: ProtocolVersion,
    /// Held while the server is asked.
    now: AsyncMutex<Listened>,
    changed: Notify,
}

#[derive(Default)]
struct Listened {
    wanted: BTreeSet<String>,
    /// The open call, and what it tells of.
    open: Option<(Arc<Call>, BTreeSet<String>)>,
}

impl Subscriptions {
    pub(super) fn new(link: Arc<Link>, session: &Session) -> Self {
        let how = match session.version.era() {
            _ if !session.offers.subscribe => How::No,
            Era::Legacy => How::Legacy(AsyncMutex::default()),
            Era::Modern => How::Modern(Listening {
                version: session.version,
                now: AsyncMutex::default(),
                changed: Notify::new(),
            }),
        };
        Self {
            link,
            how,
            refused: Mutex::default(),
        }
    }

    /// Asks the server to tell of these resources and of no others; gives those that it will tell of.
    pub(super) async fn watch(&self, uris: BTreeSet<String>) -> BTreeSet<String> {
        match &self.how {
            How::No => BTreeSet::new(),
            How::Legacy(standing) => self.subscribe(&mut *standing.lock().await, uris).await,
            How::Modern(listening) => {
                let honoured = listening.listen_to(&self.link, uris).await;
                listening.changed.notify_one();
                honoured
            }
        }
    }

    /// Why the server does not tell of resources that it was last asked for, where it has said so.
    pub(super) fn refusals(&self) -> BTreeMap<String, RpcError> {
        self.refused().clone()
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<String, RpcError>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens again when the server has ended a listen call, and subscribes again when it has forgotten that, for as long as it
    /// is waited for.
    pub(super) async fn keep(&self) -> Infallible {
        match &self.how {
            How::Modern(listening) => listening.keep(&self.link).await,
            How::Legacy(standing) => self.mend(standing).await,
            How::No => std::future::pending().await,
        }
    }

    async fn mend(&self, standing: &AsyncMutex<BTreeMap<String, Standing>>) -> Infallible {
        let mut gaps = self.link.gaps.subscribe();
        let mut seen = *gaps.borrow_and_update();
        while gaps.changed().await.is_ok() {
            let now = *gaps.borrow_and_update();
            let mut standing = standing.lock().await;
            if now.forgotten != seen.forgotten {
                debug!(server.id = %self.link.server, "the server has forgotten its subscriptions; asking for them again");
                let wanted: BTreeSet<String> = standing.keys().cloned().collect();
                standing.clear();
                self.subscribe(&mut standing, wanted).await;
            }
            seen = now;
            // What has changed in between nobody has told.
            for uri in standing
                .iter()
                .filter(|(_, stands)| **stands == Standing::Honoured)
            {
                let _ = self.link.updates.send(uri.0.as_str().into());
            }
        }
        std::future::pending().await
    }

    async fn subscribe(
        &self,
        standing: &mut BTreeMap<String, Standing>,
        wanted: BTreeSet<String>,
    ) -> BTreeSet<String> {
        let over: Vec<String> = standing
            .keys()
            .filter(|uri| !wanted.contains(*uri))
            .cloned()
            .collect();
        let new: Vec<String> = wanted
            .into_iter()
            .filter(|uri| !matches!(standing.get(uri), Some(Standing::Honoured | Standing::Refused)))
            .collect();
        for uri in &new {
            standing.insert(uri.clone(), Standing::Unsure);
        }
        let over = over
            .into_iter()
            .filter_map(|uri| standing.remove(&uri).map(|stood| (uri, stood)))
            .filter(|(_, stood)| *stood != Standing::Refused)
            .map(|(uri, _)| (method::UNSUBSCRIBE, uri));
        let asked = over
            .chain(new.into_iter().map(|uri| (method::SUBSCRIBE, uri)))
            .map(|(called, uri)| async move { (called, self.ask(called, &uri).await, uri) });
        let mut answers = stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some((called, answer, uri)) = answers.next().await {
            if called == method::UNSUBSCRIBE {
                continue;
            }
            standing.insert(uri, answer);
        }
        let is_refused = |uri: &String| standing.get(uri) == Some(&Standing::Refused);
        self.refused().retain(|uri, _| is_refused(uri));
        standing
            .iter()
            .filter(|(_, stands)| **stands == Standing::Honoured)
            .map(|(uri, _)| uri.clone())
            .collect()
    }

    async fn ask(&self, called: &str, uri: &str) -> Standing {
        let params = json!({ "uri": uri });
        match timeout(ANSWER_LIMIT, self.link.ask(called, &params)).await {
            Ok(Ok(_)) => Standing::Honoured,
            Ok(Err(error)) => {
                debug!(%error, server.id = %self.link.server, uri, called, "the server does not tell of a resource");
                self.refused().insert(uri.to_owned(), error);
                Standing::Refused
            }
            Err(_) => {
                debug!(server.id = %self.link.server, uri, called, "the server has not answered in time");
                Standing::Unsure
            }
        }
    }
}

impl Listening {
    async fn listen_to(&self, link: &Arc<Link>, uris: BTreeSet<String>) -> BTreeSet<String> {
        let mut now = self.now.lock().await;
        if let Some((_, honoured)) = now.open.as_ref().filter(|_| now.wanted == uris) {
            return honoured.clone();
        }
        now.wanted = uris;
        self.open(link, &mut now).await
    }

    /// Opens a call for what is wanted, and ends the one before. Should it not open, the one before stays.
    async fn open(&self, link: &Arc<Link>, now: &mut Listened) -> BTreeSet<String> {
        if now.wanted.is_empty() {
            now.open = None;
            return BTreeSet::new();
        }
        let wanted = json!({ "resourceSubscriptions": now.wanted });
        let params = json!({ "notifications": wanted, "_meta": own_meta(self.version) });
        match timeout(ANSWER_LIMIT, acknowledged(link, &params)).await {
            Ok(Ok((call, honoured))) => {
                now.open = Some((Arc::new(call), honoured));
            }
            Ok(Err(error)) => {
                debug!(%error, server.id = %link.server, "the server cannot be listened to");
            }
            Err(_) => debug!(server.id = %link.server, "the server does not say what it will tell of"),
        }
        let honoured = now.open.as_ref().map(|(_, honoured)| honoured);
        honoured.map_or_else(BTreeSet::new, |honoured| {
            honoured.intersection(&now.wanted).cloned().collect()
        })
    }

    async fn keep(&self, link: &Arc<Link>) -> Infallible {
        let mut delay = FIRST_DELAY;
        loop {
            let changed = self.changed.notified();
            let (open, wanted) = {
                let now = self.now.lock().await;
                let open = now.open.as_ref().map(|(call, _)| Arc::clone(call));
                (open, !now.wanted.is_empty())
            };
            let pause = match open {
                Some(call) => {
                    let opened = Instant::now();
                    tokio::select! {
                        () = changed => delay = FIRST_DELAY,
                        () = ended(&call) => self.forget(&call).await,
                    }
                    if opened.elapsed() > LONGEST_DELAY {
                        delay = FIRST_DELAY;
                    }
                    continue;
                }
                None if wanted => sleep(delay),
                None => {
                    changed.await;
                    continue;
                }
            };
            tokio::select! {
                () = changed => continue,
                () = pause => delay = (delay * 2).min(LONGEST_DELAY),
            }
            self.listen_again(link).await;
        }
    }

    /// The server has ended a call.
    async fn forget(&self, call: &Arc<Call>) {
        let mut now = self.now.lock().await;
        if now.open.as_ref().is_some_and(|(open, _)| Arc::ptr_eq(open, call)) {
            now.open = None;
        }
    }

    async fn listen_again(&self, link: &Arc<Link>) {
        let mut now = self.now.lock().await;
        if now.open.is_some() {
            return;
        }
        debug!(server.id = %link.server, "the server no longer tells of changed resources; asking it again");
        // What has changed in between nobody has told.
        for uri in self.open(link, &mut now).await {
            let _ = link.updates.send(uri.into());
        }
    }
}

/// Begins to listen, and waits until the server has said what it will tell of.
async fn acknowledged(
    link: &Arc<Link>,
    params: &serde_json::Value,
) -> Result<(Call, BTreeSet<String>), RpcError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Honoured {
        resource_subscriptions: BTreeSet<String>,
    }
    let call = link.listen(method::LISTEN, params).await?;
    match call.next().await {
        Event::Part(line) => {
            let notifications = Message::parse(&line)?.peek_params()?.notifications;
            let honoured: Option<Honoured> =
                notifications.and_then(|raw| serde_json::from_str(raw.get()).ok());
            Ok((call, honoured.unwrap_or_default().resource_subscriptions))
        }
        Event::Answer(outcome) => {
            let refusal = Message::parse(&outcome.body)
                .ok()
                .and_then(|message| message.error.map(super::answer::error_of));
            Err(refusal.unwrap_or_else(|| RpcError::internal("it ended the listen call at once")))
        }
        Event::Asked => Err(RpcError::internal("it asks in the course of a listen call")),
    }
}

/// Waits until the server has ended a listen call.
async fn ended(call: &Call) {
    while !matches!(call.next().await, Event::Answer(_)) {}
}
