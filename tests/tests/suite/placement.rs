//! Who runs a declared server: one process at any moment, and another soon after that has died.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    ServerId,
    principal::DEFAULT_TENANT,
    registry::{Declaration, Entry, Removed},
};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus,
    placement::{Make, Owners, Placement},
    registry::Registry,
    supervise::{Part, PartError, RunningPart},
};
use tests::{eventually, nats::Nats, wire::Cable, within};
use tokio_util::sync::CancellationToken;

const TENANT: &str = "default";

/// What the servers themselves see of their owners.
#[derive(Default)]
struct Seen {
    /// Which instance runs a server now.
    running: BTreeMap<String, String>,
    /// Every owner of a server that there was, with its number.
    owners: BTreeMap<String, Vec<(u64, String)>>,
}

#[derive(Clone, Default)]
struct World(Arc<Mutex<Seen>>);

impl World {
    fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn runs(&self, server: &str) -> Option<String> {
        self.see(|seen| seen.running.get(server).cloned())
    }

    /// What runs servers of this world in one process.
    fn make(&self, bus: &Bus) -> Make {
        let (world, instance) = (self.clone(), bus.instance().to_owned());
        Arc::new(move |_: &str, entry: &Entry, epoch| {
            Ok(Arc::new(Run {
                world: world.clone(),
                instance: instance.clone(),
                server: entry.declaration.id.to_string(),
                epoch,
            }) as Arc<dyn Part>)
        })
    }
}

/// A server at the other end: it fails the test when two own it at once, or an older one comes after a newer.
struct Run {
    world: World,
    instance: String,
    server: String,
    epoch: u64,
}

/// Ends when it is dropped, as a connection does.
struct Connected {
    world: World,
    server: String,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.world.see(|seen| seen.running.remove(&self.server));
    }
}

impl Part for Run {
    fn name(&self) -> &str {
        &self.server
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        let broken = self.world.see(|seen| {
            let owners = seen.owners.entry(self.server.clone()).or_default();
            let is_older = owners.last().is_some_and(|(last, _)| *last >= self.epoch);
            owners.push((self.epoch, self.instance.clone()));
            let other = seen.running.insert(self.server.clone(), self.instance.clone());
            if is_older {
                Some("an older owner came later".to_owned())
            } else {
                other
            }
        });
        assert_eq!(broken, None, "{} at {}", self.server, self.instance);
        let connected = Connected {
            world: self.world.clone(),
            server: self.server.clone(),
        };
        async move {
            let running = async move {
                stop.cancelled().await;
                drop(connected);
                Ok(())
            };
            Ok(running.boxed() as RunningPart)
        }
        .boxed()
    }
}

async fn node(bus: &Bus, world: &World) -> Placement {
    let (registry, owners) = (Registry::open(bus).await, Owners::open(bus).await);
    let (registry, owners) = (registry.expect("opens"), owners.expect("opens"));
    let tenants = [DEFAULT_TENANT.to_owned()];
    Placement::start(bus.clone(), (registry, owners), &tenants, world.make(bus))
        .await
        .expect("starts")
}

fn entry(id: &str) -> Entry {
    let id: ServerId = id.parse().expect("an id");
    Entry {
        declaration: Declaration::new(id, "https://server.example/mcp"),
        registered_at: String::new(),
        updated_at: String::new(),
        registered_by: "a test".to_owned(),
        gone: Vec::new(),
    }
}

#[tokio::test]
async fn servers_are_shared_and_those_of_a_process_that_leaves_go_to_another_at_once() {
    let nats = Nats::start().await;
    let (a, b, world) = (nats.bus().await, nats.bus().await, World::default());
    let (first, second) = tokio::join!(node(&a, &world), node(&b, &world));
    let registry = Registry::open(&a).await.expect("opens");
    let ids: Vec<_> = (0..20).map(|n| format!("s{n}")).collect();
    for id in &ids {
        registry.write(TENANT, &entry(id), None).await.expect("writes");
    }
    let all_run = async || ids.iter().all(|id| world.runs(id).is_some());
    eventually("all run", all_run).await;
    let of = |instance: &str| {
        ids.iter()
            .filter(|id| world.runs(id).as_deref() == Some(instance))
            .count()
    };
    assert!(
        of(a.instance()) > 0 && of(b.instance()) > 0,
        "{} and {}",
        of(a.instance()),
        of(b.instance())
    );
    within("the first leaves", first.stop()).await;
    eventually("all run at the second", async || of(b.instance()) == ids.len()).await;
    // Removed, it runs nowhere; changed, it runs anew.
    let (_, revision) = registry
        .read(TENANT, &"s0".parse().expect("an id"))
        .await
        .expect("reads")
        .expect("is there");
    let left = Removed {
        removed_at: String::new(),
        gone: Vec::new(),
    };
    registry
        .remove(TENANT, &"s0".parse().expect("an id"), &left, revision)
        .await
        .expect("removes");
    eventually("it does not run", async || world.runs("s0").is_none()).await;
    let (record, revision) = registry
        .read(TENANT, &"s1".parse().expect("an id"))
        .await
        .expect("reads")
        .expect("is there");
    let mut changed = record.entry().expect("a server").clone();
    changed.declaration.tags.push("new".to_owned());
    let before = world.see(|seen| seen.owners["s1"].len());
    registry
        .write(TENANT, &changed, Some(revision))
        .await
        .expect("writes");
    eventually("it was made anew", async || {
        world.see(|seen| seen.owners["s1"].len()) == before + 1 && world.runs("s1").is_some()
    })
    .await;
    second.stop().await;
    assert!(world.see(|seen| seen.running.is_empty()));
}

#[tokio::test]
async fn a_process_that_is_cut_off_lets_go_before_another_takes_over() {
    let nats = Nats::start().await;
    let cable = Cable::to(nats.url()).await;
    let (lost, kept) = (nats.bus_at(cable.url(&nats.core_url())).await, nats.bus().await);
    let world = World::default();
    let registry = Registry::open(&kept).await.expect("opens");
    let _first = node(&lost, &world).await;
    for id in ["x", "y"] {
        registry.write(TENANT, &entry(id), None).await.expect("writes");
    }
    let both_at = |bus: &Bus| {
        let (world, instance) = (world.clone(), bus.instance().to_owned());
        async move || {
            ["x", "y"]
                .iter()
                .all(|id| world.runs(id).as_deref() == Some(&instance))
        }
    };
    eventually("the first runs both", both_at(&lost)).await;
    let second = node(&kept, &world).await;
    cable.cut();
    // The fixture fails if they overlap.
    eventually("the second runs both", both_at(&kept)).await;
    for id in ["x", "y"] {
        let owners = world.see(|seen| seen.owners[id].clone());
        assert_eq!(
            owners.first().map(|(_, instance)| instance.as_str()),
            Some(lost.instance())
        );
        assert_eq!(
            owners.last().map(|(_, instance)| instance.as_str()),
            Some(kept.instance())
        );
    }
    second.stop().await;
}

#[tokio::test]
async fn declarations_and_owners_outlive_the_broker() {
    let mut nats = Nats::start().await;
    let (bus, world) = (nats.bus().await, World::default());
    let registry = Registry::open(&bus).await.expect("opens");
    let node = node(&bus, &world).await;
    registry.write(TENANT, &entry("x"), None).await.expect("writes");
    eventually("it runs", async || world.runs("x").is_some()).await;
    nats.restart().await;
    eventually("another one can be declared", async || {
        registry.write(TENANT, &entry("y"), None).await.is_ok()
    })
    .await;
    eventually("both run", async || {
        world.runs("x").is_some() && world.runs("y").is_some()
    })
    .await;
    assert_eq!(registry.all(TENANT).len(), 2);
    node.stop().await;
}
