//! `trunkline tail`: calls as they end.

use std::process::ExitCode;

use bus_schema::subject::CallerClass;
use runtime::{
    telemetry::Ended,
    watch::{CallEvent, CallWatch},
};

use super::{output, stopping::Stop};
use crate::{
    args,
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, tail: &args::Tail) -> anyhow::Result<ExitCode> {
    let node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let mut watch = match tail.arguments {
        true => CallWatch::with_arguments(node.bus(), &config.tenant).await?,
        false => CallWatch::start(node.bus(), &config.tenant).await?,
    };
    let mut stop = Stop::listen()?;
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            () = stop.requested() => None,
        };
        let Some(event) = event else { break };
        if tail.ask.json {
            output::json(&event)?;
        } else {
            output::line(&shown(&event));
        }
    }
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn shown(event: &CallEvent) -> String {
    let outcome = match (event.ended, event.code) {
        (Ended::Cancelled, _) => "cancelled".to_owned(),
        (Ended::Answered, Some(code)) => format!("error {code}"),
        (Ended::Answered, None) => "ok".to_owned(),
    };
    let milliseconds = event.duration_us / 1_000;
    let rest = event.duration_us % 1_000;
    format!(
        "{:<14} {:<26} {:<28} {:<12} {:>7}.{rest:03} ms {:>8} B  {} via {}",
        event.server,
        event.method,
        output::short(event.name.as_deref().unwrap_or("-"), 28),
        outcome,
        milliseconds,
        event.answer_bytes,
        event.subject,
        event.door,
    )
}
