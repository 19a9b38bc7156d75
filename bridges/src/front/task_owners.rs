//! Whose a task is, and which version of its server has made it: a server tells its tasks to whoever knows their ids, and so the doors note for whom each was made.
//!
//! Only callers that somebody vouches for are told apart; without authentication all of them are the one developer. A task that is
//! somebody else's is as unknown as one that is not there, and no server is asked about it.

use std::time::Duration;

use bus_schema::{Principal, RpcError, ServerId, mcp::method};
use runtime::{
    Bus,
    store::{Bucket, BucketOptions, StoreError},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, time::timeout};
use tracing::{debug, warn};

use super::{Front, route::Route};
use crate::{legacy::key, request::Incoming};

/// How long it is remembered whose a task is.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many bytes all notes may take; one takes about two hundred.
const MAX_BYTES: i64 = 256 * 1024 * 1024;
const MAX_RECORD_BYTES: i32 = 4 * 1024;
/// How long a read or write may take, with the opening of the bucket.
const STORE_LIMIT: Duration = Duration::from_secs(10);
/// No id that is longer is noted.
const MAX_ID_BYTES: usize = 1024;

/// The notes of all doors.
pub(super) struct TaskOwners {
    bus: Bus,
    /// Opened at first use, and anew after the broker has failed. Held only to look, and while it is opened.
    bucket: Mutex<Option<Bucket>>,
}

/// Somebody for whom a server may make a task.
pub(super) struct Owner {
    principal: Principal,
    server: String,
}

impl Owner {
    /// The owner that a task would have.
    pub(super) fn of(principal: &Principal, server: &str) -> Self {
        Self {
            principal: principal.clone(),
            server: server.to_owned(),
        }
    }

    /// Whether it is another than other callers.
    pub(super) fn is_told_apart(&self) -> bool {
        self.principal.issuer.is_some()
    }

    fn key(&self, task: &str) -> String {
        // No id of a server has a space.
        key(&self.principal, &format!("task {} {task}", self.server))
    }
}

impl Front {
    /// Checks that a task that a request is about is its caller's, and gives the version of the server that has made it, if that matters.
    pub(super) async fn task(
        &self,
        principal: &Principal,
        incoming: &Incoming,
        route: &Route,
    ) -> Result<Option<String>, RpcError> {
        let Some(task) = route.name.as_ref().filter(|_| is_about_task(incoming)) else {
            return Ok(None);
        };
        let owner = Owner::of(principal, route.server.as_str());
        if owner.is_told_apart() {
            return self.0.task_owners.check(&owner, task).await;
        }
        if !self.directory().snapshot().tells_apart(&route.server) {
            return Ok(None);
        }
        Ok(self.0.task_owners.version(&owner, task).await)
    }

    /// For whom it is noted whose the task is that a request may be answered with, if for anybody.
    pub(super) fn owner(
        &self,
        principal: &Principal,
        incoming: &Incoming,
        server: &ServerId,
    ) -> Option<Owner> {
        let may_own = incoming.method == method::TOOLS_CALL && incoming.meta.declares_tasks;
        let matters = || principal.issuer.is_some() || self.directory().snapshot().tells_apart(server);
        (may_own && matters()).then(|| Owner::of(principal, server.as_str()))
    }
}

fn is_about_task(incoming: &Incoming) -> bool {
    method::TASKS.contains(&incoming.method.as_str())
}

/// What is noted of a task under its owner.
#[derive(Deserialize, Serialize)]
struct Note {
    /// The version of the server that has made it, where versions have shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

#[derive(Deserialize)]
struct Response {
    result: Option<Created>,
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "resultType")]
    result_type: Option<String>,
    #[serde(rename = "taskId")]
    task_id: Option<String>,
}

/// The id of the task that an answer tells of.
fn created(answer: &[u8]) -> Option<String> {
    let created = serde_json::from_slice::<Response>(answer).ok()?.result?;
    created
        .task_id
        .filter(|_| created.result_type.as_deref() == Some("task"))
}

impl TaskOwners {
    pub(super) fn new(bus: Bus) -> Self {
        Self {
            bus,
            bucket: Mutex::default(),
        }
    }

    /// Notes whose the task is that an answer tells of, if it does.
    ///
    /// # Errors
    /// What the client hears in place of the task, which it could not ask about.
    pub(super) async fn note(
        &self,
        owner: &Owner,
        version: Option<String>,
        answer: &[u8],
    ) -> Result<(), RpcError> {
        let Some(task) = created(answer) else {
            return Ok(());
        };
        let not_kept = |why: &str| {
            RpcError::internal(format!(
                "the server made a task of this call, but it cannot be noted whose it is: {why}"
            ))
        };
        if task.len() > MAX_ID_BYTES {
            return Err(not_kept("its id is too long"));
        }
        let key = owner.key(&task);
        let note = Note { version };
        let written = self.within(async |bucket| bucket.write(&key, &note, None).await);
        match written.await {
            // The task is told of again.
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            // Nobody else's could be taken for it; it may not be found again among versions.
            Err(error) if !owner.is_told_apart() => {
                warn!(%error, "cannot note which version of a server has made a task");
                Ok(())
            }
            Err(error) => Err(not_kept(&error.to_string())),
        }
    }

    /// Checks that a task is this caller's, and gives the version of the server that has made it, if it was noted.
    ///
    /// # Errors
    /// Whatever the reason is that it is not, the same.
    pub(super) async fn check(&self, owner: &Owner, task: &str) -> Result<Option<String>, RpcError> {
        match self.read(owner, task).await {
            Ok(Some(note)) => Ok(note.version),
            Ok(None) => Err(unknown()),
            Err(error) => Err(RpcError::internal(format!(
                "tasks cannot be looked up: {error}; try again"
            ))),
        }
    }

    /// The version of the server that has made a task, if it was noted.
    pub(super) async fn version(&self, owner: &Owner, task: &str) -> Option<String> {
        match self.read(owner, task).await {
            Ok(note) => note?.version,
            Err(error) => {
                debug!(%error, "cannot look up which version a task belongs to");
                None
            }
        }
    }

    async fn read(&self, owner: &Owner, task: &str) -> Result<Option<Note>, StoreError> {
        if task.len() > MAX_ID_BYTES {
            return Ok(None);
        }
        let key = owner.key(task);
        let found = self.within(async |bucket| bucket.read(&key).await).await;
        Ok(found?.map(|(note, _)| note))
    }

    async fn within<T>(
        &self,
        work: impl AsyncFnOnce(Bucket) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let silent = || StoreError::Broker("the bus does not answer".into());
        if !self.bus.is_connected() {
            return Err(silent());
        }
        let working = async { work(self.bucket().await?).await };
        let done = timeout(STORE_LIMIT, working)
            .await
            .unwrap_or_else(|_| Err(silent()));
        if let Err(StoreError::Broker(error)) = &done {
            warn!(%error, "the store of task owners has failed");
            // The broker may have lost it.
            *self.bucket.lock().await = None;
        }
        done
    }

    async fn bucket(&self) -> Result<Bucket, StoreError> {
        let mut bucket = self.bucket.lock().await;
        if let Some(bucket) = &*bucket {
            return Ok(bucket.clone());
        }
        let options = BucketOptions {
            name: "task_owners",
            max_age: MAX_AGE,
            max_bytes: MAX_BYTES,
            max_record_bytes: MAX_RECORD_BYTES,
        };
        let opened = Bucket::open(&self.bus, options).await?;
        *bucket = Some(opened.clone());
        Ok(opened)
    }
}

fn unknown() -> RpcError {
    RpcError::invalid_params("there is no such task")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_told_by_its_result_type() {
        for (answer, expected) in [
            (
                r#"{"id":1,"result":{"resultType":"task","taskId":"a\u0062"}}"#,
                Some("ab"),
            ),
            (
                r#"{"id":1,"result":{"resultType":"complete","taskId":"a"}}"#,
                None,
            ),
            (r#"{"id":1,"result":{"resultType":"task"}}"#, None),
            (r#"{"id":1,"error":{}}"#, None),
            ("no", None),
        ] {
            assert_eq!(created(answer.as_bytes()).as_deref(), expected, "{answer}");
        }
    }

    #[test]
    fn a_task_belongs_to_its_caller_at_its_server() {
        let ann = Principal {
            issuer: Some("https://id.example".to_owned()),
            ..Principal::new("ann", "t")
        };
        let bob = Principal {
            subject: "bob".to_owned(),
            ..ann.clone()
        };
        let key = |principal, server| Owner::of(principal, server).key("1");
        assert_eq!(key(&ann, "a"), key(&ann, "a"));
        assert_ne!(key(&ann, "a"), key(&bob, "a"));
        assert_ne!(key(&ann, "a"), key(&ann, "b"));
        assert!(Owner::of(&ann, "a").is_told_apart());
        assert!(!Owner::of(&Principal::developer(), "a").is_told_apart());
    }
}
