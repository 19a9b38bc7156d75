//! Copies of calls for a version on trial: their answers are compared with those that callers get, and go to nobody.
//!
//! Only what reads is copied, as everything else would be done twice. A copy costs its caller nothing: it is made beside the call, and
//! when too many are on their way it is left out.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::{
    Request,
    canonical::{Node, Numbers},
    rpc::Message,
    traffic::MIRROR_DOOR,
};
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tracing::debug;

use super::Rule;
use crate::{
    bus::Bus,
    call::{Call, CallError, Retry, To, Way},
    telemetry::Metered,
};

/// How many copies one process has on their way.
pub(crate) const MAX_COPIES: usize = 64;
/// Answers that are longer are not compared.
const MAX_COMPARED_BYTES: usize = 1024 * 1024;

/// Makes a copy of a call, if it is the call's turn.
pub(super) fn begin(bus: &Bus, rule: &Rule, mut request: Request, call: &mut Call) {
    let Some(mirror) = &rule.kept.rule.mirror else {
        return;
    };
    if !mirror.copies(rule.copies.fetch_add(1, Ordering::Relaxed)) {
        return;
    }
    let version: Arc<str> = mirror.version.as_str().into();
    let Ok(permit) = Arc::clone(bus.copies()).try_acquire_owned() else {
        let (tenant, server) = (&request.principal.tenant, &request.server);
        bus.metrics()
            .mirrored(Metered { tenant, server }, &version, "left_out");
        return;
    };
    MIRROR_DOOR.clone_into(&mut request.door);
    let answered = call.witnessed();
    let task = copy(bus.clone(), request, version, answered);
    bus.spawn(async move {
        task.await;
        drop(permit);
    });
}

async fn copy(bus: Bus, request: Request, version: Arc<str>, answered: oneshot::Receiver<Bytes>) {
    let (tenant, server) = (request.principal.tenant.clone(), request.server.clone());
    let way = Way::only(To::Version(Arc::clone(&version)));
    let copied = bus.call_along(way, request, Retry::Never).last().await;
    let went = match (copied, answered.await) {
        (Ok((_, copied)), Ok(answered)) => compare(&answered, &copied),
        // The caller has gone, or has got no answer.
        (Ok(_), Err(_)) => "alone",
        (Err(CallError::NoResponders { .. }), _) => "absent",
        (Err(error), _) => {
            debug!(%error, server.id = %server, version = %version, "a copy of a call got no answer");
            "unanswered"
        }
    };
    let of = Metered {
        tenant: &tenant,
        server: &server,
    };
    bus.metrics().mirrored(of, &version, went);
}

/// Whether two responses say the same, apart from their metadata.
fn compare(one: &[u8], other: &[u8]) -> &'static str {
    if one.len().max(other.len()) > MAX_COMPARED_BYTES {
        return "too_long";
    }
    let said = |response: &[u8]| {
        let message = Message::parse(response).ok()?;
        message.result.or(message.error).map(without_meta)
    };
    if said(one) == said(other) {
        "same"
    } else {
        "different"
    }
}

fn without_meta(said: &RawValue) -> Node {
    match Node::read(said, Numbers::ByValue) {
        Node::Object(members) => Node::Object(
            members
                .into_iter()
                .filter(|(key, _)| key != "\"_meta\"")
                .collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_same_whatever_their_spelling_and_metadata() {
        let one = br#"{"jsonrpc":"2.0","id":1,"result":{"a":1.0,"b":"x","_meta":{"t":1}}}"#;
        for (other, expected) in [
            (
                br#"{"id":7,"jsonrpc":"2.0","result":{ "b":"\u0078", "a":1 }}"#.as_slice(),
                "same",
            ),
            (
                br#"{"jsonrpc":"2.0","id":1,"result":{"a":2,"b":"x"}}"#,
                "different",
            ),
            (
                br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}"#,
                "different",
            ),
            (b"no", "different"),
        ] {
            assert_eq!(compare(one, other), expected);
        }
        let long = vec![b' '; MAX_COMPARED_BYTES + 1];
        assert_eq!(compare(one, &long), "too_long");
    }
}
