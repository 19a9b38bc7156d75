//! Requests on the bus that no process of ours would make, by whoever has the password of the doors.

use bus_schema::{ContentType, audit::Kind, mcp::method, subject};
use tests::vault::forged;

use super::{Attempt, Case, Refused, tool};

const REPLY: (Kind, &str) = (Kind::Forgery, "reply_subject");

pub(super) fn cases() -> Vec<Case> {
    let to = subject::call("default", "vault", method::TOOLS_CALL);
    let request = forged(method::TOOLS_CALL, method::TOOLS_CALL, &tool("open"));
    let payload = ContentType::MessagePack.encode(&request).expect("MessagePack");
    let mut cases: Vec<Case> = [
        ("deletes what is on record", Some("$JS.API.STREAM.DELETE.AUDIT")),
        ("deletes sessions", Some("$JS.API.STREAM.DELETE.KV_sessions")),
        ("writes a declaration", Some("$KV.registry.default.evil")),
        ("calls another server", Some("mcp.rpc.default.whoami.tools.call")),
        (
            "says that a server is gone",
            Some("mcp.evt.default.vault.replica.down"),
        ),
        ("puts something on record", Some("mcp.audit.default.gap")),
        ("answers a plain client's inbox", Some("_INBOX.honest.1")),
        ("reaches a library's inbox", Some("_INBOX_bridge.x.lib.1")),
        (
            "reaches the inbox of a class that is none",
            Some("_INBOX_root.x.call.1"),
        ),
        ("spells a call number otherwise", Some("_INBOX_node.x.call.01")),
        ("goes nowhere", None),
    ]
    .into_iter()
    .map(|(what, reply)| {
        let attempt = Attempt::Publish(to.clone(), reply.map(str::to_owned), payload.clone());
        Case::new(format!("a reply that {what}"), attempt, Refused::Shut, REPLY).untraced()
    })
    .collect();
    for (what, reply) in [
        ("another process", "_INBOX_node.0192f0c1a2b3.call.1"),
        ("the command line", "_INBOX_cli.cli-1.call.1"),
    ] {
        let attempt = Attempt::Publish(to.clone(), Some(reply.to_owned()), payload.clone());
        let case = Case::new(
            format!("a reply in the inbox of {what}"),
            attempt,
            Refused::Shut,
            (Kind::Forgery, "reply_of_another"),
        );
        cases.push(case.untraced());
    }
    for (what, payload) in [
        ("no envelope", b"no envelope".to_vec()),
        (
            "JSON in place of an envelope",
            br#"{"principal":{"subject":"root"}}"#.to_vec(),
        ),
    ] {
        let attempt = Attempt::Publish(to.clone(), Some("_INBOX_bridge.x.call.1".to_owned()), payload);
        let case = Case::new(
            format!("on the bus: {what}"),
            attempt,
            Refused::Shut,
            (Kind::Forgery, "envelope"),
        );
        cases.push(case.untraced());
    }
    cases
}
