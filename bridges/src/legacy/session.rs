//! A legacy session: what a client said in its handshake, and what it has asked for since.
//!
//! It is plain data. A door that holds one connection for each client keeps it in memory; the HTTP door keeps it in the store, where
//! every bridge reads it anew for each request.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bus_schema::{
    Principal, ProtocolVersion, RpcError, ServerId,
    mcp::{Era, error},
};
use bytes::Bytes;
use runtime::moment::now_ms;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Dialect, Tasks,
    capabilities::{self, Asks},
    notices::promised,
};
use crate::{
    front::{Endpoint, Front, Lists},
    request::Incoming,
};

/// How much a client may say of itself, as it is kept for the session and repeated with every call.
const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;
/// How long a session may be, as it is kept.
pub(super) const MAX_RECORD_BYTES: usize = 192 * 1024;
/// After how long a use of a session is written down.
const RENEW_AFTER: Duration = Duration::from_secs(5 * 60);

const TOOLS: &str = "tools";
const PROMPTS: &str = "prompts";
const RESOURCES: &str = "resources";

/// A legacy session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// What it is kept under. It tells whose it is: nobody finds it who is not its principal and does not know its id.
    pub(crate) key: String,
    /// Whose session it is.
    pub(crate) principal: Principal,
    /// The negotiated version.
    pub(crate) version: ProtocolVersion,
    /// What the client was offered of tasks.
    pub(crate) tasks: Tasks,
    /// Which endpoint it is on.
    pub(crate) endpoint: Endpoint,
    /// The client's capabilities in modern form, as JSON.
    pub(crate) capabilities: String,
    /// The client's name and version, as JSON.
    pub(crate) client_info: Option<String>,
    /// From which level on the client wants log lines.
    pub(crate) log_level: Option<String>,
    /// The lists of whose changes the client was promised to hear.
    pub(crate) promised: Lists,
    /// The resources whose changes the client wants to hear of.
    pub(crate) subscribed: BTreeSet<String>,
    /// The door that holds the client's stream of notices, or held it last.
    pub(crate) listener: Option<String>,
    /// The version that serves it, of each server whose versions have shares and that it has used.
    pub(crate) versions: BTreeMap<ServerId, String>,
    /// When it was opened, in milliseconds since 1970.
    pub(crate) opened_ms: u64,
    /// When its use was last written down, in milliseconds since 1970.
    pub(super) used_ms: u64,
}

/// Whether a client wants to hear of a resource from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    /// It does.
    Begin,
    /// It does no more.
    End,
}

/// A session as it is stored.
#[derive(Deserialize, Serialize)]
struct Record {
    version: String,
    /// Absent when the client was offered no tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tasks: Option<OfferedTasks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<ServerId>,
    /// Present where the tools of all servers are searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tools: Option<ShownTools>,
    capabilities: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_info: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log_level: Option<String>,
    #[serde(default)]
    promised: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    subscribed: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listener: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    versions: BTreeMap<ServerId, String>,
    #[serde(default)]
    opened_ms: u64,
    used_ms: u64,
}

/// That tasks were offered.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum OfferedTasks {
    Calls,
}

/// How the tools of all servers are shown.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ShownTools {
    Search,
}

impl Session {
    /// Makes a session from an `initialize` request, and the result that answers it.
    pub(crate) fn open(
        front: &Front,
        endpoint: Endpoint,
        principal: Principal,
        incoming: &Incoming,
    ) -> Result<(Self, Value), RpcError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Initialize<'a> {
            protocol_version: String,
            #[serde(borrow, default)]
            capabilities: Option<&'a RawValue>,
            #[serde(borrow, default)]
            client_info: Option<&'a RawValue>,
        }
        if let Endpoint::Server(id) = &endpoint
            && front.card(&endpoint).is_none()
        {
            return Err(RpcError::new(
                error::INVALID_PARAMS,
                format!("no server `{id}` is on the bus"),
            ));
        }
        if incoming.body.len() > MAX_HANDSHAKE_BYTES {
            return Err(RpcError::invalid_params(format!(
                "`initialize` is longer than {MAX_HANDSHAKE_BYTES} bytes"
            )));
        }
        let params = incoming
            .params
            .clone()
            .map(|place| &incoming.body[place])
            .unwrap_or(b"{}");
        let asked: Initialize<'_> = serde_json::from_slice(params).map_err(|error| {
            RpcError::invalid_params(format!("the parameters of `initialize` are wrong: {error}"))
        })?;
        let version = negotiate(&asked.protocol_version);
        let (offered, tasks) = offered(version, front.capabilities(&endpoint));
        let mut result = json!({
            "protocolVersion": version.as_str(),
            "capabilities": offered,
            "serverInfo": capabilities::server_info(version, front.server_info(&endpoint)),
        });
        if let Some(instructions) = front.instructions(&endpoint) {
            result["instructions"] = instructions.into();
        }
        let versions = front.versions_at_first(&endpoint, &principal);
        let session = Self {
            key: String::new(),
            principal,
            version,
            tasks,
            endpoint,
            capabilities: capabilities::of_client(version, asked.capabilities, Asks::Declared),
            client_info: asked.client_info.map(|raw| raw.get().to_owned()),
            log_level: None,
            promised: promised(&result["capabilities"]),
            subscribed: BTreeSet::new(),
            listener: None,
            versions,
            opened_ms: now_ms(),
            used_ms: now_ms(),
        };
        Ok((session, result))
    }

    /// How to speak with the client.
    pub(crate) fn dialect(&self) -> Dialect {
        Dialect {
            version: self.version,
            tasks: self.tasks,
        }
    }

    /// Notes that the client wants to hear of a resource, or no more.
    pub(crate) fn subscribe(&mut self, uri: &str, subscription: Subscription) {
        match subscription {
            Subscription::Begin => {
                self.subscribed.insert(uri.to_owned());
            }
            Subscription::End => {
                self.subscribed.remove(uri);
            }
        }
    }

    /// Checks that the session is not larger than one may be.
    ///
    /// # Errors
    /// An invalid-params error when it is.
    pub(crate) fn check_size(&self) -> Result<(), RpcError> {
        self.write().map(drop)
    }

    /// The session as it is stored.
    ///
    /// # Errors
    /// An invalid-params error when it is larger than a session may be.
    pub(super) fn write(&self) -> Result<Bytes, RpcError> {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("it was read from JSON");
        let record = Record {
            version: self.version.to_string(),
            tasks: (self.tasks != Tasks::Hidden).then_some(OfferedTasks::Calls),
            server: match &self.endpoint {
                Endpoint::All | Endpoint::Search => None,
                Endpoint::Server(id) => Some(id.clone()),
            },
            tools: (self.endpoint == Endpoint::Search).then_some(ShownTools::Search),
            capabilities: raw(&self.capabilities),
            client_info: self.client_info.as_deref().map(raw),
            log_level: self.log_level.clone(),
            promised: names(self.promised),
            subscribed: self.subscribed.clone(),
            listener: self.listener.clone(),
            versions: self.versions.clone(),
            opened_ms: self.opened_ms,
            used_ms: self.used_ms,
        };
        let text = serde_json::to_vec(&record).expect("a record is always JSON");
        if text.len() > MAX_RECORD_BYTES {
            return Err(RpcError::invalid_params(format!(
                "the session holds {} bytes with this, and {MAX_RECORD_BYTES} are the most; unsubscribe from some resources",
                text.len()
            )));
        }
        Ok(text.into())
    }

    /// Reads a session as it was stored; `None` when a newer version has written what is not understood here.
    pub(super) fn read(key: &str, principal: &Principal, stored: &[u8]) -> Option<Self> {
        let record: Record = serde_json::from_slice(stored).ok()?;
        Some(Self {
            key: key.to_owned(),
            principal: principal.clone(),
            version: record.version.parse().ok()?,
            tasks: record.tasks.map_or(Tasks::Hidden, |_| Tasks::Offered),
            endpoint: match (record.server, record.tools) {
                (Some(id), _) => Endpoint::Server(id),
                (None, Some(ShownTools::Search)) => Endpoint::Search,
                (None, None) => Endpoint::All,
            },
            capabilities: record.capabilities.get().to_owned(),
            client_info: record.client_info.map(|raw| raw.get().to_owned()),
            log_level: record.log_level,
            promised: Lists {
                tools: record.promised.contains(TOOLS),
                prompts: record.promised.contains(PROMPTS),
                resources: record.promised.contains(RESOURCES),
            },
            subscribed: record.subscribed,
            listener: record.listener,
            versions: record.versions,
            opened_ms: record.opened_ms,
            used_ms: record.used_ms,
        })
    }

    /// Notes that it is used now; whether that is worth writing down.
    pub(super) fn is_to_be_renewed(&self) -> bool {
        // Clocks differ: one that was ahead must not keep a session from being renewed.
        u128::from(now_ms().abs_diff(self.used_ms)) >= RENEW_AFTER.as_millis()
    }
}

/// What a client of this version is offered of an endpoint, and of its tasks.
fn offered(version: ProtocolVersion, modern: Map<String, Value>) -> (Map<String, Value>, Tasks) {
    let dialect = Dialect {
        version,
        tasks: Tasks::Offered,
    };
    let offered = capabilities::of_server(dialect, modern);
    // Only a server by itself has the extension that tasks are made of, and not each has.
    let tasks = if offered.contains_key("tasks") {
        Tasks::Offered
    } else {
        Tasks::Hidden
    };
    (offered, tasks)
}

fn names(lists: Lists) -> BTreeSet<String> {
    [
        (lists.tools, TOOLS),
        (lists.prompts, PROMPTS),
        (lists.resources, RESOURCES),
    ]
    .into_iter()
    .filter(|(there, _)| *there)
    .map(|(_, name)| name.to_owned())
    .collect()
}

/// Settles on a version: the client's if it is a legacy one that is spoken here, else the newest legacy one.
fn negotiate(asked: &str) -> ProtocolVersion {
    match asked.parse::<ProtocolVersion>() {
        Ok(version) if version.era() == Era::Legacy => version,
        _ => ProtocolVersion::NEWEST_LEGACY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            key: "default.00".to_owned(),
            principal: Principal::developer(),
            version: ProtocolVersion::V2025_11_25,
            tasks: Tasks::Offered,
            endpoint: Endpoint::Server("products".parse().expect("an id")),
            capabilities: r#"{"roots":{},"x":1e400}"#.to_owned(),
            client_info: Some(r#"{ "name":"n","version":"1" }"#.to_owned()),
            log_level: Some("info".to_owned()),
            promised: Lists {
                tools: true,
                prompts: false,
                resources: true,
            },
            subscribed: ["a://b".to_owned()].into(),
            listener: Some("00ff".to_owned()),
            versions: [("products".parse().expect("an id"), "1.0".to_owned())].into(),
            opened_ms: 1,
            used_ms: now_ms(),
        }
    }

    #[test]
    fn a_handshake_settles_on_a_legacy_version() {
        for (asked, settled) in [
            ("2024-11-05", "2024-11-05"),
            ("2025-03-26", "2025-03-26"),
            ("2025-06-18", "2025-06-18"),
            ("2025-11-25", "2025-11-25"),
            ("2026-07-28", "2025-11-25"),
            ("1999-01-01", "2025-11-25"),
        ] {
            assert_eq!(negotiate(asked).as_str(), settled);
        }
    }

    #[test]
    fn a_session_comes_back_from_its_record() {
        let stored = session().write().expect("small");
        let read = Session::read("default.00", &Principal::developer(), &stored).expect("reads");
        assert_eq!(format!("{read:?}"), format!("{:?}", session_at(read.used_ms)));
    }

    fn session_at(used_ms: u64) -> Session {
        Session { used_ms, ..session() }
    }

    #[test]
    fn a_session_that_grows_too_large_is_refused_by_name() {
        let mut session = session();
        session.subscribed = (0..10_000).map(|n| format!("a://long-enough/{n}")).collect();
        let error = session.write().expect_err("too large");
        assert!(error.message.contains("unsubscribe"), "{error}");
    }

    #[test]
    fn a_use_is_written_down_now_and_then_whatever_the_clocks_say() {
        let minute = 60 * 1000;
        for (used_ms, expected) in [
            (now_ms(), false),
            (now_ms() - 4 * minute, false),
            (now_ms() - 6 * minute, true),
            (now_ms() + 120 * minute, true),
        ] {
            assert_eq!(session_at(used_ms).is_to_be_renewed(), expected);
        }
    }
}
