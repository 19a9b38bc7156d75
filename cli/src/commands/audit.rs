//! `trunkline audit tail`: what is on record, and what comes.

use std::process::ExitCode;

use bus_schema::{
    audit::{Outcome, Record},
    subject::CallerClass,
};
use runtime::{
    Bus,
    audit::{Filter, Trail},
    moment,
};

use super::{output, stopping::Stop};
use crate::{
    args::{self, Audit, AuditCommand, AuditTail},
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, audit: Audit) -> anyhow::Result<ExitCode> {
    let AuditCommand::Tail(wanted) = audit.command;
    let node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let told = tail(node.bus(), &wanted).await;
    node.stop().await;
    told.map(|()| ExitCode::SUCCESS)
}

async fn tail(bus: &Bus, wanted: &AuditTail) -> anyhow::Result<()> {
    let filter = Filter {
        tenant: wanted.tenant.clone(),
        user: wanted.user.clone(),
        outcome: wanted.outcome.map(|outcome| match outcome {
            args::Outcome::Refused => Outcome::Refused,
            args::Outcome::Ended => Outcome::Ended,
            args::Outcome::Lost => Outcome::Lost,
        }),
    };
    let mut stop = Stop::listen()?;
    let mut trail = Trail::open(bus, filter).await?;
    for record in trail.last(wanted.last).await? {
        show(&record, wanted)?;
    }
    if wanted.no_follow {
        return Ok(());
    }
    loop {
        let record = tokio::select! {
            record = trail.next() => record,
            () = stop.requested() => None,
        };
        let Some(record) = record else { return Ok(()) };
        show(&record, wanted)?;
    }
}

fn show(record: &Record, wanted: &AuditTail) -> anyhow::Result<()> {
    if wanted.ask.json {
        return output::json(record);
    }
    output::line(&shown(record));
    Ok(())
}

fn shown(record: &Record) -> String {
    let who = match (&record.principal, &record.source) {
        (Some(who), _) => who.subject.as_str(),
        (None, Some(source)) => source.as_str(),
        (None, None) => "-",
    };
    let what = [&record.server, &record.method, &record.name]
        .into_iter()
        .filter_map(|piece| piece.as_deref())
        .collect::<Vec<_>>()
        .join(" ");
    let times = match record.count {
        1 => String::new(),
        count => format!(" ({count} times)"),
    };
    format!(
        "{} {:<8} {:<10} {:<20} {:<24} {}{times} via {}",
        moment::of_ms(record.at_ms),
        record.outcome.as_str(),
        record.kind.as_str(),
        output::short(&record.rule, 20),
        output::short(who, 24),
        output::short(&what, 60),
        record.door,
    )
}
