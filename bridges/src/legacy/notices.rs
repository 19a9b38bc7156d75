//! What a legacy client hears without having asked in a call: that lists have changed, and resources it has subscribed to.
//!
//! A notice says that something is not what it was. So one that is told twice does no harm, one that is not told does; wherever the two
//! cannot be had apart, it is told twice.

use std::collections::BTreeSet;

use bus_schema::{Principal, mcp::method, rpc};
use bytes::Bytes;
use futures::FutureExt as _;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::front::{Endpoint, Front, Lists, Notice, Wanted, Watching};

/// How many changes of what a client wants may wait.
const CHANGES_AHEAD: usize = 16;
/// How many notices are told at once.
const MAX_AT_ONCE: usize = 64;

/// The notices for one client.
pub(crate) struct Notices {
    front: Front,
    principal: Principal,
    endpoint: Endpoint,
    lists: Lists,
    watching: Watching,
    changes: mpsc::Receiver<Change>,
}

/// What the client wants to hear of from now on.
pub(crate) struct Change {
    uris: BTreeSet<String>,
    /// Told once that is in effect.
    done: oneshot::Sender<()>,
}

/// The way to tell the notices of one client that it wants something else.
#[derive(Clone)]
pub(crate) struct Changing(mpsc::Sender<Change>);

/// Changes that are still to be taken.
pub(crate) struct Changed(mpsc::Receiver<Change>);

/// Some notices, and what the client knows once it has all of them.
#[derive(Debug)]
pub(crate) struct Batch {
    /// JSON-RPC notifications.
    pub(crate) messages: Vec<Bytes>,
    /// What it knows of the lists then.
    pub(crate) digests: String,
}

/// A way to change what a client wants, before anything is told to it.
pub(crate) fn changing() -> (Changing, Changed) {
    let (sender, receiver) = mpsc::channel(CHANGES_AHEAD);
    (Changing(sender), Changed(receiver))
}

impl Changing {
    /// Tells what the client wants from now on, and waits until that is in effect.
    pub(crate) async fn change(&self, uris: BTreeSet<String>) {
        self.tell(uris).await.wait().await;
    }

    /// Tells what the client wants from now on.
    pub(crate) async fn tell(&self, uris: BTreeSet<String>) -> Effect {
        let (done, effect) = oneshot::channel();
        // A stream that has ended wants nothing any more.
        let _ = self.0.send(Change { uris, done }).await;
        Effect(effect)
    }
}

/// A change that is still to take effect.
pub(crate) struct Effect(oneshot::Receiver<()>);

impl Effect {
    /// Waits until it is in effect, or there is nothing to wait for.
    pub(crate) async fn wait(self) {
        let _ = self.0.await;
    }
}

impl Notices {
    /// Begins to watch for somebody, who hears what it may at the time. `since` is what the client knew of the lists when it was last told, if it was; then it is told all that may
    /// have changed meanwhile.
    pub(crate) async fn begin(
        front: Front,
        (principal, endpoint): (Principal, Endpoint),
        lists: Lists,
        uris: BTreeSet<String>,
        (since, Changed(changes)): (Option<&str>, Changed),
    ) -> Self {
        let wanted = Wanted { lists, uris };
        let watching = match since {
            Some(digests) => front.watch_since(&principal, &endpoint, wanted, digests).await,
            None => front.watch(&principal, &endpoint, wanted).await,
        };
        // Told before the servers tell of changes, a client could read too early.
        watching.honoured().await;
        Self {
            front,
            principal,
            endpoint,
            lists,
            watching,
            changes,
        }
    }

    /// What the client knows of the lists before it is told anything.
    pub(crate) fn digests(&self) -> String {
        self.watching.digests()
    }

    /// Waits for the next notices. Dropping this loses none.
    pub(crate) async fn next(&mut self) -> Batch {
        loop {
            tokio::select! {
                first = self.watching.next() => return self.batch(&first),
                Some(change) = self.changes.recv() => if let Some(batch) = self.change(change).await {
                    return batch;
                },
            }
        }
    }

    /// Watches something else, and gives what the old watch had not told yet. The new one is in effect before the old one ends.
    async fn change(&mut self, change: Change) -> Option<Batch> {
        let wanted = Wanted {
            lists: self.lists,
            uris: change.uris,
        };
        let watching = self.front.watch(&self.principal, &self.endpoint, wanted).await;
        watching.honoured().await;
        let first = self.watching.next().now_or_never();
        let batch = first.map(|first| self.batch(&first));
        self.watching = watching;
        let _ = change.done.send(());
        batch
    }

    fn batch(&mut self, first: &Notice) -> Batch {
        // Read before the others are taken: what changes meanwhile is told again after a resumption, and not missed.
        let digests = self.watching.digests();
        let mut messages = vec![write(first)];
        while messages.len() < MAX_AT_ONCE
            && let Some(notice) = self.watching.next().now_or_never()
        {
            messages.push(write(&notice));
        }
        Batch { messages, digests }
    }
}

/// Which lists an endpoint has promised to tell of, as its capabilities say.
pub(crate) fn promised(capabilities: &Value) -> Lists {
    let promises = |key: &str| capabilities[key]["listChanged"] == true;
    Lists {
        tools: promises("tools"),
        prompts: promises("prompts"),
        resources: promises("resources"),
    }
}

fn write(notice: &Notice) -> Bytes {
    let (method, params) = match notice {
        Notice::Tools => (method::TOOLS_CHANGED, String::new()),
        Notice::Prompts => (method::PROMPTS_CHANGED, String::new()),
        Notice::Resources => (method::RESOURCES_CHANGED, String::new()),
        Notice::Updated(uri) => (
            method::UPDATED,
            format!(r#","params":{{"uri":{}}}"#, rpc::quote(uri)),
        ),
    };
    format!(r#"{{"jsonrpc":"2.0","method":"{method}"{params}}}"#).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn notices_are_the_notifications_of_the_old_days() {
        for (notice, expected) in [
            (
                Notice::Tools,
                r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
            ),
            (
                Notice::Updated("a:\"b".to_owned()),
                r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:\"b"}}"#,
            ),
        ] {
            assert_eq!(write(&notice), expected);
        }
    }

    #[test]
    fn only_what_was_promised_is_told() {
        let capabilities =
            json!({ "tools": { "listChanged": true }, "prompts": {}, "resources": { "listChanged": false } });
        let expected = Lists {
            tools: true,
            ..Lists::default()
        };
        assert_eq!(promised(&capabilities), expected);
    }
}
