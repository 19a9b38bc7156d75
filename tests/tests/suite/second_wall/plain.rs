//! Plain clients without credentials, where the platform asks nobody who they are.

use runtime::nats_server::Clients;
use tests::{forger::Forger, nats::Nats, platform::Platform, whoami::WhoAmI};

use super::{call, tool};

#[tokio::test]
async fn a_plain_client_reaches_public_subjects_and_its_inbox_only() {
    let nats = Nats::start().await;
    let mut client = Forger::enter(nats.url()).await.expect("it comes in");
    for subject in [
        "mcp.rpc.default.x.tools.call",
        "mcp.ver.default.x.1_2E0.tools.call",
        "mcp.inst.default.x.y.cancel",
        "mcp.cancel.default.x",
        "mcp.evt.default.x.replica.down",
        "mcp.gw.default.cancel",
        "mcp.watch.default",
        "mcp.pub.other.x.tools.call.y",
        "_INBOX_node.x.call.1",
        "_INBOX.x",
        "_R_.abc",
        "$SRV.PING",
        "$KV.sessions.x",
        "$JS.API.INFO",
        "$JS.API.STREAM.DELETE.KV_sessions",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.SERVER.PING",
        "$SYS._INBOX.x.y",
    ] {
        assert!(
            !client.publish(subject, None, b"{}").await,
            "it publishes {subject}"
        );
    }
    for tap in [
        ">",
        "mcp.>",
        "mcp.pub.>",
        "mcp.rpc.>",
        "_INBOX_node.>",
        "_INBOX_bridge.>",
        "_R_.>",
        "$SYS.>",
        "$JS.>",
        "$KV.>",
        "$SRV.>",
    ] {
        assert!(!client.subscribe(tap, None).await, "it listens in on {tap}");
        assert!(
            !client.subscribe(tap, Some("mcp")).await,
            "it joins the hosts of {tap}"
        );
    }
}

/// A reply subject that a client writes stays in its own account: the door answers to what the broker has made of it.
#[tokio::test]
async fn a_forged_reply_of_a_plain_client_reaches_nobody_of_ours() {
    let platform = Platform::start("", &[]).await;
    let _host = WhoAmI::serve(platform.node.bus()).await;
    platform.knows("whoami").await;
    let url = platform.node.nats_url().expect("a NATS of its own").to_owned();
    let mut client = Forger::enter(&url).await.expect("it comes in");
    assert!(client.subscribe("_INBOX.honest.>", None).await);
    for reply in [
        "$JS.API.STREAM.DELETE.KV_sessions",
        "$KV.registry.default.evil",
        "mcp.rpc.default.whoami.tools.call",
        "mcp.evt.default.whoami.replica.down",
        "_INBOX_node.x.call.1",
        "_R_.abcdef",
        "$SYS.REQ.USER.AUTH",
    ] {
        // The broker may take it, as a reply is no publish of the client's; what comes of it is what counts.
        client
            .publish(&tool("whoami", "whoami"), Some(reply), &call("whoami"))
            .await;
    }
    assert!(
        client
            .publish(
                &tool("whoami", "whoami"),
                Some("_INBOX.honest.1"),
                &call("whoami")
            )
            .await
    );
    client.heard("MSG _INBOX.honest.1").await;
    assert!(
        platform.node.bus().refused().is_empty(),
        "the door was led astray"
    );
    // The server is there as before, and so are the buckets.
    platform.knows("whoami").await;
    let who = platform
        .client("whoami")
        .call("whoami", serde_json::json!({}))
        .await;
    assert_eq!(who["result"]["structuredContent"]["subject"], "developer");
}

#[tokio::test]
async fn who_writes_the_brokers_words_is_still_who_the_broker_says() {
    let platform = Platform::start("", &[]).await;
    let _host = WhoAmI::serve(platform.node.bus()).await;
    platform.knows("whoami").await;
    let url = platform.node.nats_url().expect("a NATS of its own").to_owned();
    let mut client = Forger::enter(&url).await.expect("it comes in");
    assert!(client.subscribe("_INBOX.me.>", None).await);
    let forged = r#"{"acc":"DEFAULT","user":"{\"subject\":\"admin\",\"tenant\":\"default\"}","name":"x"}"#;
    let headers = [
        ("Nats-Request-Info", forged),
        ("nats-request-info", forged),
        ("Nats-Request-Info", forged),
    ];
    assert!(
        client
            .publish_with(
                &tool("whoami", "whoami"),
                "_INBOX.me.1",
                &headers,
                &call("whoami")
            )
            .await
    );
    let heard = client.heard("\"subject\"").await;
    assert!(
        heard.contains("DEFAULT/developer") && !heard.contains("admin"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_nats_that_is_open_to_the_network_takes_no_plain_client() {
    let nats = Nats::start_for(Clients::Nobody, &[]).await;
    for url in [
        nats.url().to_owned(),
        nats.url().replace("nats://", "nats://developer:@"),
    ] {
        assert!(Forger::enter(&url).await.is_err(), "somebody comes in: {url}");
    }
    nats.bus().await.round_trip().await.expect("ours go on");
}
