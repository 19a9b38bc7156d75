//! Consumers and inboxes: whoever makes a consumer of a stream reads all of it, and whoever writes into an inbox answers for somebody else. So
//! each is granted to the roles that need it, and this says which.

use std::collections::BTreeSet;

use bus_schema::subject::CallerClass::{self, Bridge, Cli, Host, Node, Registry, Worker};
use tests::{forger::Forger, nats::Nats, root};

/// Every process holds a picture of these.
const EVERYBODY: [CallerClass; 6] = CallerClass::ALL;

/// How a stream's consumers are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// All of it, by a watch.
    Watched,
    /// The names of its records only, to count or to find them.
    Counted,
    /// Those of one key's beginning, by a consumer that is asked for them.
    Pulled,
    /// One by one, by a consumer that many share and that stays.
    Taken,
}

/// Who may make consumers of each stream. Of one that is not here, nobody may.
const READERS: [(&str, Reads, &[CallerClass]); 16] = [
    ("KV_blocks", Reads::Watched, &EVERYBODY),
    ("KV_guardrails", Reads::Watched, &EVERYBODY),
    ("KV_nodes", Reads::Watched, &[Node, Host]),
    ("KV_owners", Reads::Watched, &EVERYBODY),
    ("KV_pins", Reads::Watched, &EVERYBODY),
    ("KV_policy", Reads::Watched, &EVERYBODY),
    ("KV_registry", Reads::Watched, &EVERYBODY),
    ("KV_results", Reads::Counted, &[Node, Host, Worker]),
    ("KV_sessions", Reads::Counted, &[Node, Bridge]),
    ("KV_statuses", Reads::Watched, &[Node, Registry]),
    ("KV_traffic", Reads::Watched, &EVERYBODY),
    ("KV_virtual", Reads::Watched, &EVERYBODY),
    // A worker takes by the platform's own consumers only, which are named otherwise than those here.
    ("TASKS", Reads::Taken, &[Node, Host]),
    // What nobody reads as a whole: the rest is in the log, or asked for by name.
    ("AUDIT", Reads::Watched, &[]),
    // Who runs servers follows what is forgotten; who shows accounts reads a list of them.
    ("KV_credentials", Reads::Watched, &[Node, Host]),
    ("KV_credentials", Reads::Pulled, &[Node, Bridge, Cli]),
];

/// Who may write into the inboxes of a role.
fn answers(whose: CallerClass) -> &'static [CallerClass] {
    match whose {
        Node | Bridge => &[Node, Bridge, Host, Registry],
        Host => &[Node, Host],
        Registry => &[Node, Host, Registry],
        Worker => &[Node, Host, Worker],
        Cli => &[Node, Host, Registry, Cli],
    }
}

/// Every stream that the broker's configuration knows.
fn streams() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("nats.conf")).expect("the configuration");
    let made = text.split("STREAM.CREATE.").skip(1);
    made.filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

/// Everybody who comes in to the account of the platform's processes, and who that is.
async fn everybody(nats: &Nats) -> Vec<(String, Option<CallerClass>, Forger)> {
    let mut all = Vec::new();
    for role in CallerClass::ALL {
        all.push((role.as_str().to_owned(), Some(role), nats.url_of(role)));
    }
    for (name, url) in [
        ("observer", nats.observer_url()),
        ("callout", nats.callout_url()),
        ("a plain client", nats.url().to_owned()),
    ] {
        all.push((name.to_owned(), None, url));
    }
    let mut inside = Vec::new();
    for (name, role, url) in all {
        inside.push((name, role, Forger::enter(&url).await.expect("it comes in")));
    }
    inside
}

#[tokio::test]
async fn of_each_stream_only_those_make_consumers_who_read_it() {
    let nats = Nats::start().await.expecting_refusals();
    let known = streams();
    for (stream, ..) in READERS {
        assert!(known.contains(stream), "{stream} is no stream any more");
    }
    for (name, role, mut forger) in everybody(&nats).await {
        for stream in &known {
            let reads = |way: Reads| {
                let mut readers = READERS
                    .iter()
                    .filter(|(of, reads, _)| of == stream && *reads == way);
                readers.any(|(.., who)| role.is_some_and(|role| who.contains(&role)))
            };
            let (watches, pulls, takes) = (reads(Reads::Watched), reads(Reads::Pulled), reads(Reads::Taken));
            let makes = watches || pulls || reads(Reads::Counted);
            let bucket = stream.strip_prefix("KV_").unwrap_or(stream);
            for (request, expected) in [
                (format!("CREATE.{stream}"), makes),
                (format!("CREATE.{stream}.x.$KV.{bucket}.y"), takes || watches),
                (format!("DELETE.{stream}.x"), makes),
                // By a filter of another bucket, by a name alone, and in the ways of consumers that stay.
                (format!("CREATE.{stream}.x.$KV.other.y"), takes),
                (format!("MSG.NEXT.{stream}.x"), takes || pulls),
                (format!("INFO.{stream}.x"), takes),
                (format!("CREATE.{stream}.x"), false),
                (format!("DURABLE.CREATE.{stream}.x"), false),
                (format!("NAMES.{stream}"), false),
                (format!("LIST.{stream}"), false),
                (format!("PAUSE.{stream}.x"), false),
            ] {
                let subject = format!("$JS.API.CONSUMER.{request}");
                // No consumer comes of it, as there is nothing in it that the broker could read.
                let taken = forger.publish(&subject, None, b"?").await;
                assert_eq!(taken, expected, "{name} asks for {subject}");
            }
        }
    }
}

#[tokio::test]
async fn into_the_inboxes_of_a_role_only_those_write_who_answer_it() {
    let nats = Nats::start().await.expecting_refusals();
    for (name, role, mut forger) in everybody(&nats).await {
        for whose in CallerClass::ALL {
            let may = role.is_some_and(|role| answers(whose).contains(&role));
            let inbox = format!("_INBOX_{}.x", whose.as_str());
            for (subject, expected) in [
                (format!("{inbox}.call.1"), may),
                // Of their own inboxes, these write into those of calls only.
                (
                    format!("{inbox}.lib.1"),
                    may && !matches!(role, Some(Cli | Worker)),
                ),
            ] {
                let taken = forger.publish(&subject, None, b"").await;
                assert_eq!(taken, expected, "{name} writes to {subject}");
            }
            let listens = forger.subscribe(&format!("{inbox}.>"), None).await;
            assert_eq!(listens, role == Some(whose), "{name} listens to {inbox}");
        }
    }
}
