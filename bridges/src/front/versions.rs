//! Which version of a server a request is for, where versions have shares: who has begun something on one stays with it.
//!
//! Legacy sessions note the version of each server at its first use. A task is noted with its version where it is noted whose it is. And
//! the `requestState` of a server's own goes to the client with the version before it, and comes back so.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    Principal, RoutedState, ServerId, Token, VersionedState,
    edit::{Edits, Members},
    mcp::meta,
    rpc,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use memchr::memmem;
use runtime::{
    Call,
    directory::Snapshot,
    moment,
    traffic::{Begun, choose_to_stay},
};

use super::{Caller, Endpoint, Front};
use crate::request::Incoming;

/// The member of requests and results that a state stands in.
const STATE: &str = "requestState";
const RESULT_TYPE: &str = "resultType";
const META: &str = "_meta";

/// Notes in which version each server serves a legacy session.
pub(crate) trait Stay: Send + Sync {
    /// Since when the session is there, in milliseconds since 1970.
    fn since_ms(&self) -> u64;
    /// The version that was noted for a server.
    fn version(&self, server: &ServerId) -> Option<String>;
    /// Notes one, and gives the one that counts: somebody else may have been quicker.
    fn note<'a>(&'a self, server: &'a ServerId, version: &'a str) -> BoxFuture<'a, String>;
}

/// A client that stays with the versions that it has begun on.
#[derive(Clone)]
pub struct Staying(Arc<dyn Stay>);

impl Staying {
    pub(crate) fn new(stay: impl Stay + 'static) -> Self {
        Self(Arc::new(stay))
    }

    /// One whose session is a connection to this process.
    pub(crate) fn here(since_ms: u64, versions: BTreeMap<ServerId, String>) -> Self {
        Self::new(Here {
            since_ms,
            versions: Mutex::new(versions),
        })
    }
}

impl fmt::Debug for Staying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staying").finish_non_exhaustive()
    }
}

struct Here {
    since_ms: u64,
    versions: Mutex<BTreeMap<ServerId, String>>,
}

impl Here {
    fn versions(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServerId, String>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stay for Here {
    fn since_ms(&self) -> u64 {
        self.since_ms
    }

    fn version(&self, server: &ServerId) -> Option<String> {
        self.versions().get(server).cloned()
    }

    fn note<'a>(&'a self, server: &'a ServerId, version: &'a str) -> BoxFuture<'a, String> {
        let kept = self
            .versions()
            .entry(server.clone())
            .or_insert_with(|| version.to_owned())
            .clone();
        Box::pin(async { kept })
    }
}

/// What a request has to do with a version of its server.
pub(super) enum Version {
    /// Nothing.
    Any,
    /// Its client is served by that one.
    Stays(String),
    /// It is about what only that one knows.
    Bound(String),
}

impl Version {
    pub(super) fn begun(&self) -> Begun<'_> {
        match self {
            Self::Any => Begun::Nowhere,
            Self::Stays(version) => Begun::On(version),
            Self::Bound(version) => Begun::Bound(version),
        }
    }
}

impl Front {
    /// The version that a request has to do with. `state` is the version that it brings back, and `task` the one that has made the task
    /// that it is about.
    pub(super) async fn version_begun(
        &self,
        caller: &Caller,
        server: &ServerId,
        snapshot: &Snapshot,
        state: Option<&str>,
        task: Option<String>,
    ) -> Version {
        let bound = state.and_then(|token| spelled(token, server, snapshot)).or(task);
        if let Some(version) = bound {
            return Version::Bound(version);
        }
        let Some(Staying(staying)) = &caller.staying else {
            return Version::Any;
        };
        if !snapshot.tells_apart(server) {
            return Version::Any;
        }
        if let Some(version) = staying.version(server) {
            return Version::Stays(version);
        }
        match choose_to_stay(snapshot, server, &caller.principal, staying.since_ms()) {
            Some(version) => Version::Stays(staying.note(server, &version).await),
            None => Version::Any,
        }
    }

    /// The versions that a legacy session begins on: at the endpoint of one server that one's, as what its client is told first is of it.
    pub(crate) fn versions_at_first(
        &self,
        endpoint: &Endpoint,
        principal: &Principal,
    ) -> BTreeMap<ServerId, String> {
        let Endpoint::Server(server) = endpoint else {
            return BTreeMap::new();
        };
        let snapshot = self.directory().snapshot();
        let chosen = choose_to_stay(&snapshot, server, principal, moment::now_ms());
        let present = || snapshot.server(server).map(|card| card.version.clone());
        let version = chosen.or_else(present);
        version
            .map(|version| (server.clone(), version))
            .into_iter()
            .collect()
    }

    /// The version that has given an answer; `None` when it does not matter which one has.
    pub(super) fn version_answered(&self, server: &str, call: &Call) -> Option<String> {
        let server = server.parse().ok()?;
        let snapshot = self.directory().snapshot();
        if !snapshot.tells_apart(&server) {
            return None;
        }
        let instance = call.answered_by()?;
        let card = snapshot
            .replicas(&server)
            .iter()
            .find(|card| card.instance == instance);
        card.map(|card| card.version.clone())
            .or_else(|| call.version().map(str::to_owned))
    }
}

/// A request for a version on trial: one that can be asked nothing and knows no tasks, so that nothing of it stays there. `None` when it
/// belongs to something that has begun elsewhere.
pub(super) fn for_trial(incoming: &Incoming, body: &Bytes) -> Option<Bytes> {
    if incoming.request_state.is_some() {
        return None;
    }
    let params = rpc::Message::parse(body).ok()?.params?;
    let meta = Members::of(Members::of(params)?.get(META)?)?;
    let Some(capabilities) = meta.get(meta::CLIENT_CAPABILITIES) else {
        return Some(body.clone());
    };
    let mut edits = Edits::new(body);
    edits.replace(capabilities.get(), "{}");
    Some(edits.apply().into())
}

/// The version whose token a state has.
fn spelled(token: &str, server: &ServerId, snapshot: &Snapshot) -> Option<String> {
    let present = snapshot.replicas(server).iter().map(|card| &card.version);
    let rule = snapshot.rule(server).map(|rule| rule.kept.rule.versions.keys());
    let mut known = rule.into_iter().flatten().chain(present);
    known
        .find(|version| Token::encode(version).as_str() == token)
        .cloned()
}

/// A request with its server's own state, and the version that stood before it.
pub(super) fn unversioned(incoming: &Incoming, body: &Bytes) -> Option<(String, Bytes)> {
    let state = VersionedState::parse(incoming.request_state.as_deref()?)?;
    let params = rpc::Message::parse(body).ok()?.params?;
    let spelled = Members::of(params)?.get(STATE)?;
    let mut edits = Edits::new(body);
    edits.replace(spelled.get(), rpc::quote(state.state));
    Some((state.version.to_owned(), edits.apply().into()))
}

/// An answer whose state, if it has one of its server's own, names the version that has made it; `None` when it stays as it is. Without a
/// version only a state is changed that looks as if it named one already: it comes back as it was then.
pub(super) fn versioned(answer: &Bytes, version: Option<&str>) -> Option<Bytes> {
    if version.is_none() && memmem::find(answer, VersionedState::PREFIX.as_bytes()).is_none() {
        return None;
    }
    let result = Members::of(rpc::Message::parse(answer).ok()?.result?)?;
    let says = |name: &str| serde_json::from_str::<String>(result.get(name)?.get()).ok();
    let state = says(STATE).filter(|_| says(RESULT_TYPE).as_deref() == Some("input_required"))?;
    // One of ours says already which process holds it.
    if RoutedState::parse(&state).is_some() {
        return None;
    }
    if version.is_none() && VersionedState::parse(&state).is_none() {
        return None;
    }
    let version = version.map(|version| Token::encode(version).to_string());
    let versioned = VersionedState {
        version: version.as_deref().unwrap_or_default(),
        state: &state,
    };
    let mut edits = Edits::new(answer);
    edits.replace(result.get(STATE)?.get(), rpc::quote(&versioned.to_string()));
    Some(edits.apply().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_goes_out_with_its_version_and_comes_back_without() {
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"requestState":"a\"b","resultType":"input_required","x":1e400}}"#;
        let out = versioned(&Bytes::from(answer), Some("2.0")).unwrap();
        let text = std::str::from_utf8(&out).unwrap();
        assert!(text.contains(r#""requestState":"tlv1.2_2E0.a\"b""#), "{text}");
        assert!(text.contains("1e400"));

        let request = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"n","requestState":"tlv1.2_2E0.a\"b","arguments":{"y":1e400}}}"#;
        let incoming = Incoming::read(request.into()).unwrap();
        let (version, body) = unversioned(&incoming, &incoming.body).unwrap();
        assert_eq!(version, "2_2E0");
        let expected = request.replace("tlv1.2_2E0.", "");
        assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
    }

    #[test]
    fn other_answers_and_requests_pass_untouched() {
        for answer in [
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","requestState":"a"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"tl1.00ff.abc"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}"#,
        ] {
            assert!(versioned(&Bytes::from(answer), Some("2")).is_none(), "{answer}");
        }
        for state in ["a", "tl1.00ff.abc", "tlv1.2"] {
            let request = format!(
                r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"name":"n","requestState":"{state}"}}}}"#
            );
            let incoming = Incoming::read(request.into()).unwrap();
            assert!(unversioned(&incoming, &incoming.body).is_none());
        }
    }

    #[test]
    fn a_state_that_looks_like_one_with_a_version_comes_back_as_it_was() {
        let answer =
            r#"{"jsonrpc":"2.0","id":1,"result":{"requestState":"tlv1.2.x","resultType":"input_required"}}"#;
        let out = versioned(&Bytes::from(answer), None).unwrap();
        let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let state = &out["result"]["requestState"];
        assert_eq!(state, "tlv1..tlv1.2.x");
        let request = format!(
            r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"name":"n","requestState":{state}}}}}"#
        );
        let incoming = Incoming::read(request.into()).unwrap();
        let (version, body) = unversioned(&incoming, &incoming.body).unwrap();
        assert!(version.is_empty());
        assert!(std::str::from_utf8(&body).unwrap().contains(r#""tlv1.2.x""#));
        let plain = r#"{"jsonrpc":"2.0","id":1,"result":{"requestState":"x","resultType":"input_required"}}"#;
        assert!(versioned(&Bytes::from(plain), None).is_none());
    }

    #[test]
    fn a_version_on_trial_is_asked_by_somebody_who_can_do_nothing() {
        let request = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"n","arguments":{"y":1e400},"_meta":{"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},"k":1}}}"#;
        let incoming = Incoming::read(request.into()).unwrap();
        let body = for_trial(&incoming, &incoming.body).unwrap();
        let expected = request.replace(r#"{"elicitation":{}}"#, "{}");
        assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
        let again = request.replace(r#""name":"n""#, r#""name":"n","requestState":"s""#);
        let incoming = Incoming::read(again.into()).unwrap();
        assert!(for_trial(&incoming, &incoming.body).is_none());
    }

    #[tokio::test]
    async fn whoever_notes_first_decides() {
        let server: ServerId = "a".parse().unwrap();
        let Staying(here) = Staying::here(7, BTreeMap::new());
        assert_eq!((here.since_ms(), here.version(&server)), (7, None));
        assert_eq!(here.note(&server, "1").await, "1");
        assert_eq!(here.note(&server, "2").await, "1");
        assert_eq!(here.version(&server).as_deref(), Some("1"));
    }
}
