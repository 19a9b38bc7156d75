//! A call that was lost on its way to a server is made again as often as the server's settings say, if it may be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bus_schema::{Principal, mcp::method, principal::DEFAULT_TENANT, upstream::RetryKnob};
use runtime::Discovery;
use serde_json::{Map, Value, json};
use tests::{
    eventually,
    fixture::{self, Probe},
    http::text,
    nats::Nats,
    platform::Platform,
    remote::local,
    scripted::{Asked, Scripted, status},
    wire::Cable,
    within,
};

/// Counts against what is asked of it as often as it is told, and is well otherwise.
struct Shaky {
    server: Scripted,
    failures: Arc<AtomicUsize>,
}

impl Shaky {
    async fn start(era: &'static str) -> Self {
        let failures = Arc::<AtomicUsize>::default();
        let left = Arc::clone(&failures);
        let server = Scripted::start(move |asked: Asked| {
            let take = |left: usize| left.checked_sub(1);
            let fails = asked.called() == method::TOOLS_CALL
                && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
            async move {
                let tools = json!([
                    { "name": "reads", "inputSchema": { "type": "object" }, "annotations": { "readOnlyHint": true } },
                    { "name": "sets", "inputSchema": { "type": "object" }, "annotations": { "idempotentHint": true } },
                    { "name": "writes", "inputSchema": { "type": "object" } },
                ]);
                match era {
                    _ if fails => status(503),
                    "modern" => asked.modern(&tools),
                    _ => asked.legacy("s", &tools),
                }
            }
        })
        .await;
        Self { server, failures }
    }

    /// The answer to a call that fails so often, and how often the server was asked.
    async fn call(&self, platform: &Platform, tool: &str, failures: usize) -> (Value, usize) {
        self.failures.store(failures, Ordering::SeqCst);
        let before = self.server.asked(method::TOOLS_CALL).len();
        let answer = platform.client("shaky").call(tool, json!({ "x": 1 })).await;
        (answer, self.server.asked(method::TOOLS_CALL).len() - before)
    }
}

#[tokio::test]
async fn a_remote_server_that_is_away_is_asked_again_as_often_as_its_line_says_and_only_what_may_be() {
    for era in ["modern", "legacy"] {
        let shaky = Shaky::start(era).await;
        for (retry, tool, failures, asked, works) in [
            ("", "reads", 1, 2, true),
            ("", "reads", 2, 2, false),
            ("", "writes", 1, 1, false),
            ("retry = { attempts = 4, backoff_ms = 1 }", "reads", 3, 4, true),
            ("retry = { attempts = 4, backoff_ms = 1 }", "sets", 3, 4, true),
            ("retry = { attempts = 4, backoff_ms = 1 }", "sets", 4, 4, false),
            ("retry = { attempts = 4, backoff_ms = 1 }", "writes", 3, 1, false),
            ("retry = { attempts = 1 }", "reads", 1, 1, false),
        ] {
            let more = format!("breaker = {{ failures = 0 }}\n{retry}");
            let platform = Platform::start(&local("shaky", &shaky.server.url(), &more), &["shaky"]).await;
            platform.knows("shaky").await;
            // What may be made again is known from its list.
            assert_eq!(platform.client("shaky").tool_names().await.len(), 3);
            let (answer, times) = shaky.call(&platform, tool, failures).await;
            let context = format!("{era}, {retry}, {tool}, {failures}: {answer}");
            assert_eq!(times, asked, "{context}");
            assert_eq!(answer["result"].is_object(), works, "{context}");
            if works {
                assert_eq!(text(&answer), r#"{"x":1}"#, "{context}");
            }
            platform.stop().await;
        }
    }
}

#[tokio::test]
async fn calls_of_a_server_that_says_once_are_not_made_again_at_another_replica() {
    for (attempts, works) in [(2, true), (1, false)] {
        let nats = Nats::start().await;
        let cable = Cable::to(nats.url()).await;
        let (lost, calling) = (nats.bus_at(cable.url(&nats.core_url())).await, nats.bus().await);
        let there = nats.bus().await;
        let probe = Arc::<Probe>::default();
        let retry = Some(RetryKnob {
            attempts,
            ..RetryKnob::default()
        });
        let _gone = fixture::serve(&lost, Arc::clone(&probe), |options| options.retry = retry).await;
        let discovery = Discovery::connect(&calling, DEFAULT_TENANT)
            .await
            .expect("starts");
        eventually("it is found", async || !discovery.servers().is_empty()).await;
        let call = discovery.call("fixture.hold_safe", Map::new(), Principal::developer());
        let lose = async {
            probe.held.begun.next("the call").await;
            let other = fixture::serve(&there, Arc::clone(&probe), |options| options.retry = retry).await;
            cable.cut();
            if works {
                probe.held.begun.next("the call at the other replica").await;
                probe.release.notify_waiters();
            }
            other
        };
        let both = async { tokio::join!(call, lose) };
        let (answer, _other) = within("its end", Box::pin(both)).await;
        assert_eq!(answer.is_ok(), works, "{attempts}");
        if let Err(error) = answer {
            assert!(format!("{error:?}").contains("HostLost"), "{error:?}");
        }
    }
}
