//! Listeners of both eras, of one resource.

use std::{collections::BTreeSet, sync::Arc};

use bus_schema::{ProtocolVersion, mcp::method};
use serde_json::json;
use tests::{changing::Changing, dialogue::Dialogue, eventually, platform::Platform};

#[tokio::test]
async fn listeners_of_both_eras_share_one_subscription_and_the_last_one_ends_it() {
    let platform = Platform::start("", &[]).await;
    let server = Arc::<Changing>::default();
    let host = server.serve(platform.node.bus(), "changing").await;
    platform.knows("changing").await;
    let watched = BTreeSet::from(["test://a".to_owned()]);
    let mut listening = Vec::new();
    for version in [
        ProtocolVersion::MODERN,
        ProtocolVersion::V2025_11_25,
        ProtocolVersion::MODERN,
    ] {
        let client = Dialogue::open(platform.client("changing"), version, json!({})).await;
        let stream = client.listen("test://a").await;
        listening.push((client, stream));
    }
    while let Some((client, stream)) = listening.pop() {
        server.touch("test://a");
        for (_, stream) in listening.iter_mut().chain([&mut (client, stream)]) {
            let told = stream.message().await;
            assert_eq!(told["method"], method::UPDATED, "{told}");
            assert_eq!(told["params"]["uri"], "test://a", "{told}");
        }
        let asked = server.watched();
        assert!(asked.iter().all(|uris| *uris == watched), "{asked:?}");
    }
    eventually("the server is left alone", async || {
        server.watched().last().is_some_and(BTreeSet::is_empty)
    })
    .await;
    let ended = server.watched().iter().filter(|uris| uris.is_empty()).count();
    assert_eq!(ended, 1);
    host.stop().await;
    platform.stop().await;
}
