//! Everything that serves in a run: the platform in processes of its own, and what it is held against.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, ensure};
use bus_schema::ServerId;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    args::{EndpointChoice, Options, What},
    child::Served,
    guarded::Guarded,
    load::{Deaf, Extent, Order, Target, post_once},
    messages::{self, CALLED, ECHO, Message},
    role::{Role, Route, TOOLS},
};

/// How long the bridge may take to see the servers.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// Where all servers are.
const ALL: &str = "/mcp";

/// The processes, and the requests that are made of them.
pub(crate) struct Platform {
    nats: Served,
    host: Served,
    bridge: Served,
    axum: Served,
    responder: Served,
    guarded: Option<Guarded>,
    calls: Calls,
    folder: TempDir,
}

/// Processes by their names; those without a number are the load itself.
fn named(processes: &[(&str, Option<u32>)]) -> BTreeMap<String, Option<u32>> {
    let each = processes.iter();
    each.map(|(name, pid)| ((*name).to_owned(), *pid)).collect()
}

impl Platform {
    /// Starts everything, and asks the bridge for the bytes that bare axum is to answer.
    pub(crate) async fn start(options: &Options) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let threads = options.threads;
        let nats = Served::start(&Role::Nats { folder: at("nats") }).await?;
        let url = nats.ready.at.clone();
        let host = Served::start(&Role::Host {
            nats: url.clone(),
            threads,
            guardrails: options.guardrails.clone(),
            policy: None,
        })
        .await?;
        let bridge = Role::Bridge {
            nats: url.clone(),
            threads,
            folder: at("bridge"),
            config: None,
        };
        let bridge = Served::start(&bridge).await?;
        let calls = Calls::at(options.endpoint)?;
        let call = calls.echo.http(&bridge.ready.at, &calls.path);
        let (answer, list) = answers(&bridge.ready.at, &call).await?;
        let list_file: PathBuf = at("list.json");
        std::fs::write(&list_file, list)?;
        let axum = Role::Axum {
            threads,
            answer: answer.clone(),
            list: list_file,
        };
        let axum = Served::start(&axum).await?;
        let guarded = match options.wants(What::Guarded) {
            true => Some(Guarded::start(&url, options, &at("guarded")).await?),
            false => None,
        };
        let responder = Served::start(&Role::RawResponder { nats: url, answer }).await?;
        Ok(Self {
            nats,
            host,
            bridge,
            axum,
            responder,
            guarded,
            calls,
            folder,
        })
    }

    /// How to measure something. `Memory` is a call through the bridge.
    pub(crate) fn order(&self, what: What, callers: usize, extent: Extent) -> Order {
        let nats = ("nats-server", Some(self.nats.ready.pid));
        let through_bridge = || {
            named(&[
                nats,
                ("bridge", Some(self.bridge.ready.pid)),
                ("host", Some(self.host.ready.pid)),
            ])
        };
        let bare = || named(&[("axum", Some(self.axum.ready.pid))]);
        let (target, processes) = match what {
            What::Raw => {
                let target = Target::Raw {
                    nats: self.nats.ready.at.clone(),
                    request: self.calls.echo.body.clone(),
                };
                let responder = ("responder", Some(self.responder.ready.pid));
                (target, named(&[nats, responder, ("requester", None)]))
            }
            What::Bus => {
                let target = Target::Bus {
                    nats: self.nats.ready.at.clone(),
                };
                let host = ("host", Some(self.host.ready.pid));
                (target, named(&[nats, host, ("caller", None)]))
            }
            What::Http | What::Crowd | What::BesideDeaf | What::Memory => {
                let target = self.bridged(&self.calls.echo, &self.calls.path, None);
                (target, through_bridge())
            }
            What::Guarded => {
                let guarded = self.guarded.as_ref().expect("what is wanted was started");
                let [bridge, host] = guarded.pids();
                (guarded.target(), named(&[nats, bridge, host]))
            }
            What::List => (self.bridged(&Message::list(), ALL, None), through_bridge()),
            What::Progress => {
                let (progress, path) = (&self.calls.progress, &self.calls.path);
                (
                    self.bridged(progress, path, Some(messages::NOTIFICATIONS)),
                    through_bridge(),
                )
            }
            What::Rmcp => (self.bare(&Message::call(ECHO), Route::Rmcp), bare()),
            What::Bytes => (self.bare(&self.calls.echo, Route::Call), bare()),
            What::ListBytes => (self.bare(&Message::list(), Route::List), bare()),
        };
        Order {
            target,
            callers,
            beside: self.beside(what),
            extent,
            processes,
        }
    }

    /// Who is connected beside those that are measured.
    fn beside(&self, what: What) -> Vec<Deaf> {
        if what != What::BesideDeaf {
            return Vec::new();
        }
        let address = &self.bridge.ready.at;
        let deaf = |(clients, call): &(usize, Message)| Deaf {
            clients: *clients,
            request: call.http(address, &self.calls.path),
            address: address.clone(),
        };
        self.calls.deaf.iter().map(deaf).collect()
    }

    /// The processes of the platform itself.
    pub(crate) fn pids(&self) -> [(&'static str, u32); 3] {
        [
            ("bridge", self.bridge.ready.pid),
            ("host", self.host.ready.pid),
            ("nats-server", self.nats.ready.pid),
        ]
    }

    /// Stops everything, those first that need the others.
    pub(crate) async fn stop(self) {
        if let Some(guarded) = self.guarded {
            guarded.stop().await;
        }
        for served in [self.responder, self.axum, self.bridge, self.host, self.nats] {
            served.stop().await;
        }
        drop(self.folder);
    }

    fn bridged(&self, message: &Message, path: &str, in_order: Option<u32>) -> Target {
        let address = self.bridge.ready.at.clone();
        Target::Http {
            request: message.http(&address, path),
            address,
            in_order,
        }
    }

    fn bare(&self, message: &Message, route: Route) -> Target {
        let address = self.axum.ready.at.clone();
        Target::Http {
            request: message.http(&address, route.path()),
            address,
            in_order: None,
        }
    }
}

/// The calls that are made of the bridge.
struct Calls {
    path: String,
    echo: Message,
    progress: Message,
    /// So many clients make this one, and do not read what comes.
    deaf: [(usize, Message); 2],
}

impl Calls {
    /// As they are written at an endpoint.
    fn at(endpoint: EndpointChoice) -> anyhow::Result<Self> {
        let server: ServerId = CALLED.parse()?;
        let (path, name): (_, &dyn Fn(&str) -> String) = match endpoint {
            EndpointChoice::All => (ALL.to_owned(), &|tool| server.prefixed(tool)),
            EndpointChoice::Server => (format!("/servers/{server}/mcp"), &|tool| tool.to_owned()),
        };
        let chatter = name(messages::CHATTER);
        Ok(Self {
            path,
            echo: Message::call(&name(ECHO)),
            progress: Message::progress(&name(messages::PROGRESS)),
            deaf: [
                (450, Message::chatter(&chatter, 100, 256)),
                // These are told 6 MiB each, of which the system's own buffers take some 3.
                (50, Message::chatter(&chatter, 100, 64 * 1024)),
            ],
        })
    }
}

/// The bridge's answers to a call and to a list, as soon as it sees all servers.
async fn answers(bridge: &str, call: &str) -> anyhow::Result<(String, Vec<u8>)> {
    let limit = Instant::now() + SETTLE_LIMIT;
    let list = Message::list().http(bridge, ALL);
    let list = loop {
        let list = post_once(bridge, &list).await?;
        let parsed: Value = serde_json::from_slice(&list).context("the list is JSON")?;
        if parsed["result"]["tools"]
            .as_array()
            .is_some_and(|tools| tools.len() > TOOLS)
        {
            break list;
        }
        ensure!(Instant::now() < limit, "the bridge does not list the servers");
        sleep(Duration::from_millis(50)).await;
    };
    let answer = String::from_utf8(post_once(bridge, call).await?)?;
    ensure!(
        answer.contains("\"result\""),
        "the bridge answers a call with {answer}"
    );
    Ok((answer, list))
}
