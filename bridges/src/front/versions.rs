//! Which version of a server a request is for, where versions have shares: who has begun something on one stays with it.
//!
//! Legacy sessions note the version of each server at its first use. A task is noted with its version where it is noted whose it is. And
//! the `requestState` of a server's own goes to the client with the version before it, and comes back so.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{RoutedState, ServerId, Token, VersionedState, mcp::method, rpc, traffic::Traffic};
use bytes::Bytes;
use futures::future::BoxFuture;
use runtime::directory::Snapshot;

use super::{Caller, Front, route::Route, task_owners::Owner};
use crate::{
    edit::{Edits, Members},
    request::Incoming,
};

/// The member of requests and results that a state stands in.
const STATE: &str = "requestState";
const RESULT_TYPE: &str = "resultType";

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
    pub(crate) fn here(since_ms: u64) -> Self {
        Self::new(Here {
            since_ms,
            versions: Mutex::default(),
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

impl Front {
    /// The version that a request has to do with; `None` when any will do. `state` is the version that the request brings back.
    pub(super) async fn version_begun(
        &self,
        caller: &Caller,
        route: &Route,
        snapshot: &Snapshot,
        state: Option<&str>,
    ) -> Option<String> {
        let rule = snapshot
            .rule(&route.server)
            .filter(|rule| rule.kept.rule.splits())?;
        if let Some(state) = state
            && let Some(version) = spelled(state, &rule.kept.rule, snapshot)
        {
            return Some(version);
        }
        if method::TASKS.contains(&route.method.as_str())
            && let Some(task) = &route.name
        {
            let owner = Owner::of(&caller.principal, route.server.as_str());
            return self.0.task_owners.version(&owner, task).await;
        }
        let staying = &caller.staying.as_ref()?.0;
        if let Some(version) = staying.version(&route.server) {
            return Some(version);
        }
        let version = rule.choose_to_stay(&caller.principal, staying.since_ms())?;
        Some(staying.note(&route.server, version).await)
    }
}

/// The version whose token a state has.
fn spelled(token: &str, rule: &Traffic, snapshot: &Snapshot) -> Option<String> {
    let present = snapshot.replicas(&rule.id).iter().map(|card| &card.version);
    let mut known = rule.versions.keys().chain(present);
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

/// An answer whose state, if it has one of its server's own, names the version that has made it; `None` when it stays as it is.
pub(super) fn versioned(answer: &Bytes, version: &str) -> Option<Bytes> {
    let result = Members::of(rpc::Message::parse(answer).ok()?.result?)?;
    let says = |name: &str| serde_json::from_str::<String>(result.get(name)?.get()).ok();
    let state = says(STATE).filter(|_| says(RESULT_TYPE).as_deref() == Some("input_required"))?;
    // One of ours says already which process holds it.
    if RoutedState::parse(&state).is_some() {
        return None;
    }
    let version = Token::encode(version);
    let versioned = VersionedState {
        version: version.as_str(),
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
        let out = versioned(&Bytes::from(answer), "2.0").unwrap();
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
            r#"{"id":1,"result":{"resultType":"complete","requestState":"a"}}"#,
            r#"{"id":1,"result":{"resultType":"input_required","requestState":"tl1.00ff.abc"}}"#,
            r#"{"id":1,"result":{"resultType":"input_required"}}"#,
            r#"{"id":1,"error":{"code":1,"message":"m"}}"#,
        ] {
            assert!(versioned(&Bytes::from(answer), "2").is_none(), "{answer}");
        }
        for state in ["a", "tl1.00ff.abc", "tlv1.2"] {
            let request = format!(
                r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"name":"n","requestState":"{state}"}}}}"#
            );
            let incoming = Incoming::read(request.into()).unwrap();
            assert!(unversioned(&incoming, &incoming.body).is_none());
        }
    }

    #[tokio::test]
    async fn whoever_notes_first_decides() {
        let server: ServerId = "a".parse().unwrap();
        let Staying(here) = Staying::here(7);
        assert_eq!((here.since_ms(), here.version(&server)), (7, None));
        assert_eq!(here.note(&server, "1").await, "1");
        assert_eq!(here.note(&server, "2").await, "1");
        assert_eq!(here.version(&server).as_deref(), Some("1"));
    }
}
