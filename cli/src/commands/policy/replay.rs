//! `trunkline policy replay`: decides anew about calls that were recorded, and tells which would end otherwise.
//!
//! A recorded call tells who asked for what and when, and what came of it. What it was given is recorded only where somebody has asked for
//! that; rules over arguments are said to depend on them otherwise.

use std::{collections::BTreeMap, process::ExitCode, time::SystemTime};

use anyhow::Context as _;
use bus_schema::policy::{Action, Decision, Policy, What, explain};
use runtime::watch::CallEvent;
use serde_json::json;

use super::{decided, output, question::time, read_text};
use crate::args::PolicyReplay;

/// The error codes of calls that a policy has refused, among others.
const REFUSED: [i64; 2] = [
    bus_schema::mcp::error::INVALID_REQUEST,
    bus_schema::mcp::error::METHOD_NOT_FOUND,
];

/// Calls that come to the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    subject: String,
    server: String,
    method: String,
    name: String,
    decision: String,
}

pub(super) fn run(policy: &Policy, asked: &PolicyReplay) -> anyhow::Result<ExitCode> {
    let text = read_text(&asked.calls)?;
    let mut otherwise: BTreeMap<Kind, (usize, Vec<String>)> = BTreeMap::new();
    let mut all = 0;
    for (at, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let event: CallEvent = serde_json::from_str(line)
            .with_context(|| format!("line {} of {} is no call", at + 1, asked.calls.display()))?;
        all += 1;
        let told = judge(policy, &event)?;
        // A call that has failed may have been refused then as well; it is told when it would be let through.
        let was_let_through = !event.code.is_some_and(|code| REFUSED.contains(&code));
        if was_let_through == (told.decision == Decision::Allow) {
            continue;
        }
        let kind = Kind {
            subject: event.subject,
            server: event.server,
            method: event.method,
            name: event.name.unwrap_or_default(),
            decision: decided(&told.decision).to_string(),
        };
        let known = otherwise.entry(kind).or_insert((0, told.found));
        known.0 += 1;
    }
    let changed: usize = otherwise.values().map(|(count, _)| count).sum();
    for (kind, (count, found)) in &otherwise {
        if asked.ask.json {
            output::json(&json!({
                "calls": count, "subject": kind.subject, "server": kind.server, "method": kind.method, "name": kind.name,
                "decision": serde_json::from_str::<serde_json::Value>(&kind.decision)?, "found": found,
            }))?;
            continue;
        }
        let Kind {
            subject,
            server,
            method,
            name,
            decision,
        } = kind;
        output::line(&format!(
            "{count} × {subject}: {method} {server}.{name}: {decision}"
        ));
        for found in found {
            output::line(&format!("    {found}"));
        }
    }
    if !asked.ask.json {
        output::line(&format!("{changed} of {all} calls would end otherwise"));
    }
    Ok(ExitCode::SUCCESS)
}

fn judge(policy: &Policy, event: &CallEvent) -> anyhow::Result<bus_schema::policy::Explanation> {
    let principal = event.principal();
    // What a completion was for is not recorded; whoever completes may not have been given it either.
    let name = event.name.as_deref();
    let action = Action::of(&event.server, &event.method, name, None);
    let action = match (&event.arguments, action.what) {
        (Some(arguments), What::Tool(_) | What::Prompt(_)) => action.with_arguments(arguments.get()),
        _ => action,
    };
    let now = match &event.at {
        Some(at) => time(at)?,
        None => SystemTime::now(),
    };
    Ok(explain(policy, &principal, &action, now))
}
