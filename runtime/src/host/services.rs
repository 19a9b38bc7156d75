//! Answers the NATS services protocol (ADR-32), so that `nats micro` and our own directory see every instance.
//!
//! The host's loop answers, and not a task of its own: an instance whose loop hangs is not there.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{Message, Subscriber};
use bus_schema::{
    ServerCard,
    subject::{self, ServiceVerb},
};
use futures::stream::{SelectAll, select_all};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use tracing::debug;

use super::{Breaker, HostError, HostOptions, run::Shared};
use crate::{bus::Bus, load::Limits};

/// The metadata key that holds the whole card as JSON.
pub(crate) const CARD_KEY: &str = "trunkline.card";

/// The questions to one instance, by all, by name and by id.
pub(super) type Questions = SelectAll<Subscriber>;

pub(super) async fn subscribe(bus: &Bus, options: &HostOptions) -> Result<Questions, HostError> {
    let mut subscriptions = Vec::with_capacity(3);
    for question in subject::service_questions(options.id.as_str(), bus.instance()) {
        subscriptions.push(bus.subscribe(question).await?);
    }
    Ok(select_all(subscriptions))
}

pub(super) async fn answer(shared: &Shared, message: &Message) {
    let (Some(verb), Some(reply)) = (ServiceVerb::of(&message.subject), &message.reply) else {
        return;
    };
    let payload = describe(shared, verb);
    if let Err(error) = shared.bus.publish(reply.to_string(), payload).await {
        debug!(%error, "could not answer a question of the services protocol");
    }
}

/// What every answer of the protocol says.
#[derive(Serialize)]
struct Service<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    id: &'a str,
    version: String,
    metadata: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    more: serde_json::Value,
}

fn describe(shared: &Shared, verb: ServiceVerb) -> Vec<u8> {
    let card = shared.card();
    let mut metadata = BTreeMap::from([
        ("tenant", card.tenant.clone()),
        ("protocolVersion", card.protocol_version.clone()),
        ("revision", card.revision.clone()),
    ]);
    let endpoint = subject::all_calls(
        &bus_schema::Token::encode(&card.tenant),
        &bus_schema::Token::encode(card.id.as_str()),
    );
    let totals = shared.bus.metrics().totals(shared.options.metered());
    let (kind, more) = match verb {
        ServiceVerb::Ping => ("io.nats.micro.v1.ping_response", serde_json::json!({})),
        ServiceVerb::Info => {
            metadata.insert(
                CARD_KEY,
                serde_json::to_string(&card).expect("a card is always JSON"),
            );
            let endpoint = serde_json::json!({ "name": "mcp", "subject": endpoint, "queue_group": subject::QUEUE_GROUP });
            (
                "io.nats.micro.v1.info_response",
                serde_json::json!({ "description": card.title, "endpoints": [endpoint] }),
            )
        }
        ServiceVerb::Stats => {
            let average = totals.busy_time_ns.checked_div(totals.calls).unwrap_or_default();
            let endpoint = serde_json::json!({
                "name": "mcp", "subject": endpoint, "queue_group": subject::QUEUE_GROUP,
                "num_requests": totals.calls, "num_errors": totals.errors, "last_error": "",
                "processing_time": totals.busy_time_ns, "average_processing_time": average,
                "data": {
                    "inFlight": shared.calls().len(), "maxInFlight": card.max_in_flight, "busy": totals.busy,
                    "breaker": shared.options.breaker.as_ref().map(Breaker::word), "limits": limits(&shared.options),
                },
            });
            let started = shared.started.format(&Rfc3339).expect("the present has a date");
            (
                "io.nats.micro.v1.stats_response",
                serde_json::json!({ "started": started, "endpoints": [endpoint] }),
            )
        }
    };
    let service = Service {
        kind,
        name: card.id.as_str(),
        id: &card.instance,
        version: semver(&card),
        metadata,
        more,
    };
    serde_json::to_vec(&service).expect("an answer is always JSON")
}

/// What bounds the harm that the server can do here.
fn limits(options: &HostOptions) -> Limits {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let timeouts = options.tool_timeouts.iter();
    Limits {
        max_in_flight: options.max_in_flight,
        call_timeout_ms: options.call_timeout.map(millis),
        tool_timeouts_ms: timeouts
            .map(|(tool, time)| (tool.clone(), millis(*time)))
            .collect(),
        breaker: options.breaker.as_ref().map(Breaker::knob),
        retry: options.retry,
    }
}

/// The protocol takes semantic versions only; servers spell theirs as they like, and the card keeps that spelling.
fn semver(card: &ServerCard) -> String {
    let parts: Vec<&str> = card.version.split('.').collect();
    let numeric = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if parts.len() == 3 && parts.iter().all(numeric) {
        card.version.clone()
    } else {
        "0.0.0".to_owned()
    }
}
