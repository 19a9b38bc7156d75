//! The registry of the usual tenant, as a part of a test.

use actors::registry::{Books, RegistryServer, RunningRegistry};
use bus_schema::integrity::Policies;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus, Directory, blocks::Blocks, placement::Owners, policies::Configured, registry::Registry,
    virtuals::Virtuals,
};
use tokio::sync::watch;

/// The role of operators in these tests.
pub const OPERATOR: &str = "operator";

/// Starts a registry, with what it is to do about changed tools.
///
/// # Panics
/// When the bus does not let it.
pub fn registry(bus: &Bus, integrity: Option<Policies>) -> BoxFuture<'_, RunningRegistry> {
    start(bus, integrity).boxed()
}

async fn start(bus: &Bus, integrity: Option<Policies>) -> RunningRegistry {
    let configured = Configured {
        document: None,
        operator: Some(OPERATOR.to_owned()),
    };
    let policies = bus.policies();
    policies.configure(configured).await.expect("a policy");
    let (kept, owners) = tokio::join!(Registry::open(bus), Owners::open(bus));
    let books = Books {
        registry: kept.expect("opens"),
        owners: owners.expect("opens"),
        directory: Directory::start(bus, "default").await.expect("starts"),
        virtuals: Virtuals::open(bus, "default", Vec::new()).await,
        blocks: Blocks::open(bus).await,
    };
    let settings = watch::Sender::new(integrity).subscribe();
    let server = RegistryServer::new(bus.clone(), books, settings);
    server.start(bus.clone()).await.expect("starts")
}
