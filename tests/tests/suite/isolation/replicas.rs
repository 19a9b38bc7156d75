//! A replica whose calls fail takes none while another is well.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bus_schema::mcp::method;
use serde_json::json;
use tests::{
    eventually,
    fault::one_tool,
    http::{Client, text},
    remote::local,
    scripted::{Asked, Scripted, status},
    within,
};

use crate::processes::Cluster;

/// More than come by chance to one of two.
const CALLS: usize = 40;

#[tokio::test]
async fn a_replica_whose_calls_fail_costs_no_more_calls_while_another_is_well() {
    let ill = Arc::new(AtomicBool::new(true));
    let is_ill = Arc::clone(&ill);
    let bad = Scripted::start(move |asked: Asked| {
        let is_ill = is_ill.load(Ordering::SeqCst);
        async move {
            match asked.called() {
                method::TOOLS_CALL if is_ill => status(500),
                _ => asked.modern(&one_tool()),
            }
        }
    })
    .await;
    let good = Scripted::start(|asked: Asked| async move { asked.modern(&one_tool()) }).await;
    let cluster = Cluster::start().await;
    let more = "breaker = { failures = 2, within_secs = 60, open_secs = 3 }";
    let serve = async |name: &str, url: String| {
        let file = cluster.file(name, &local("twin", &url, more));
        cluster
            .serve(&["twin", "--config", &file.to_string_lossy()])
            .await
    };
    let (_one, _other, bridge) = tokio::join!(
        serve("bad.toml", bad.url()),
        serve("good.toml", good.url()),
        cluster.bridge()
    );
    let client = Client::new(format!("{}/servers/twin/mcp", bridge.base));
    let call = async || text(&client.call("work", json!({ "x": 1 })).await) == r#"{"x":1}"#;
    eventually("the calls of one fail", async || !call().await).await;
    let mut failed = 1;
    // Each time that it is tried anew costs one call; in between none fails.
    let mut in_a_row = 0;
    within("no call fails", async {
        while in_a_row < CALLS {
            if call().await {
                in_a_row += 1;
            } else {
                failed += 1;
                in_a_row = 0;
            }
        }
    })
    .await;
    assert!(failed <= 8, "{failed} calls have failed");
    // It has its share again when it is well.
    ill.store(false, Ordering::SeqCst);
    let before = bad.asked(method::TOOLS_CALL).len();
    eventually("both take calls", async || {
        assert!(call().await, "no call fails any more");
        bad.asked(method::TOOLS_CALL).len() > before + 3
    })
    .await;
}
