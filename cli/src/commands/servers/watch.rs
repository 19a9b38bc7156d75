//! `trunkline servers watch`: servers that become healthy, degraded or down.

use bus_schema::registry::StatusEvent;
use runtime::events::Events;

use crate::{
    args::Ask,
    commands::{output, stopping::Stop},
    config::Config,
    node::Node,
};

pub(super) async fn run(node: &Node, config: &Config, ask: Ask) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let mut events = Events::<StatusEvent>::start(node.bus(), &config.tenant).await?;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.requested() => None,
        };
        let Some(event) = event else { return Ok(()) };
        if ask.json {
            output::json(&event)?;
        } else {
            output::line(&shown(&event));
        }
    }
}

fn shown(event: &StatusEvent) -> String {
    let StatusEvent { server, was, now } = event;
    let was = was.map_or("new", |was| was.as_str());
    let reason = now.reason.as_deref().unwrap_or_default();
    let told = format!(
        "{} {server:<24} {was} -> {}  {reason}",
        now.since,
        now.status.as_str()
    );
    told.trim_end().to_owned()
}
