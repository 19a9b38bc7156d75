//! What is put on record stays there, comes once, and is told at the command line.

use bus_schema::{
    Principal,
    audit::{Kind, Outcome, Record},
    subject::CallerClass,
};
use runtime::{
    Bus,
    audit::{AuditOptions, Filter, Trail},
};
use serde_json::{Value, json};
use tests::{
    eventually,
    issuer::Issuer,
    nats::{self, Nats},
    platform::Platform,
    program::Program,
    whoami::WhoAmI,
    within,
};

fn refused(subject: &str) -> Record {
    let who = Principal::new(subject, "acme");
    Record::refused(Kind::Policy, "r").by(&who).through("test")
}

/// What is on record, as the command line reads it.
async fn on_record(nats: &Nats, filter: Filter, most: usize) -> Vec<Record> {
    let bus = nats.bus_as(CallerClass::Cli).await;
    let mut trail = Trail::open(&bus, filter).await.expect("it may listen");
    within("the records", trail.last(most))
        .await
        .expect("they can be read")
}

#[tokio::test]
async fn a_process_that_ends_leaves_all_its_records_and_a_flood_is_a_few() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    bus.audit().configure(AuditOptions {
        singles_per_minute: 5,
        ..AuditOptions::default()
    });
    for _ in 0..200 {
        bus.audit().put(refused("mallory"));
    }
    bus.audit().put(refused("ann"));
    bus.close().await;
    let all = on_record(&nats, Filter::default(), 100).await;
    let of = |subject: &str| {
        let of_it = all.iter().filter(|record| {
            record
                .principal
                .as_ref()
                .is_some_and(|who| who.subject == subject)
        });
        of_it.map(|record| record.count).collect::<Vec<_>>()
    };
    assert_eq!(of("mallory"), [1, 1, 1, 1, 1, 195]);
    assert_eq!(of("ann"), [1]);
    let filter = Filter {
        tenant: Some("acme".to_owned()),
        user: Some("ann".to_owned()),
        outcome: Some(Outcome::Refused),
    };
    assert_eq!(on_record(&nats, filter, 100).await.len(), 1);
    let elsewhere = Filter {
        tenant: Some("other".to_owned()),
        ..Filter::default()
    };
    assert_eq!(on_record(&nats, elsewhere, 100).await, []);
    assert_eq!(on_record(&nats, Filter::default(), 3).await.len(), 3);
}

#[tokio::test]
async fn records_wait_while_the_broker_is_away_and_come_once() {
    let mut nats = Nats::start().await;
    let bus = nats.bus().await;
    let put = |bus: &Bus, from: usize| {
        for number in from..from + 50 {
            bus.audit().put(refused(&format!("caller-{number}")));
        }
    };
    put(&bus, 0);
    nats.restart_while(async { put(&bus, 50) }).await;
    put(&bus, 100);
    let mut found = Vec::new();
    eventually("all are there", async || {
        found = on_record(&nats, Filter::default(), 1000).await;
        found.len() >= 150
    })
    .await;
    let mut ids: Vec<_> = found.iter().map(|record| record.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), found.len()), (150, 150));
    bus.close().await;
}

#[tokio::test]
async fn a_nats_that_keeps_nothing_holds_nobody_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, url) = nats::plain(folder.path()).await;
    let bus = nats::bus_of(&url).await;
    bus.audit().put(refused("ann"));
    bus.round_trip().await.expect("it goes on");
    within("the end", bus.close()).await;
}

#[tokio::test]
async fn the_command_line_tells_of_refusals_as_they_come_and_of_those_before() {
    let issuer = Issuer::start().await;
    let platform = Platform::start(&issuer.section(""), &[]).await;
    let _host = WhoAmI::serve(platform.node.bus()).await;
    platform.knows("whoami").await;
    let data = platform.config.data_dir.display().to_string();
    let url = platform.node.nats_url().expect("a NATS of its own").to_owned();
    let tail = |more: &[&str]| {
        let words = ["audit", "tail", "--nats", &url, "--data-dir", &data];
        Program::start(&[&words, more].concat())
    };
    let refuse = async || {
        let client = platform.client("whoami").with_token("tlk_nobodys");
        let answer = client.modern("tools/call", json!({ "name": "whoami", "arguments": {} }));
        let answer = within("an answer", answer.send()).await.expect("an answer");
        assert_eq!(answer.status(), 401);
    };
    let mut live = tail(&["--json"]);
    let mut again = tokio::time::interval(std::time::Duration::from_millis(100));
    // It has to connect first, and nothing tells when it has.
    let line = within("a line", async {
        loop {
            tokio::select! {
                line = live.output.next_line() => break line.expect("output").expect("a line"),
                _ = again.tick() => refuse().await,
            }
        }
    })
    .await;
    let record: Value = serde_json::from_str(&line).expect("JSON");
    let told = ["kind", "outcome", "rule", "door", "source", "method"].map(|key| record[key].as_str());
    let expected = [
        "auth",
        "refused",
        "invalid_token",
        "http",
        "127.0.0.1",
        "POST /servers/whoami/mcp",
    ];
    assert_eq!(told, expected.map(Some), "{record}");
    assert!(!line.contains("tlk_"), "{line}");
    let mut before = tail(&["--last", "1", "--no-follow", "--outcome", "refused"]);
    let line = within("a line", before.output.next_line())
        .await
        .expect("output")
        .expect("a line");
    for word in ["refused", "auth", "invalid_token", "127.0.0.1", "via http"] {
        assert!(line.contains(word), "no {word} in {line}");
    }
    assert_eq!(
        within("the end", before.output.next_line())
            .await
            .expect("output"),
        None
    );
    let mut nobody = tail(&["--last", "9", "--no-follow", "--user", "somebody"]);
    assert_eq!(
        within("the end", nobody.output.next_line())
            .await
            .expect("output"),
        None
    );
    platform.stop().await;
}
