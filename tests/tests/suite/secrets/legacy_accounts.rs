//! Users' own accounts, with servers and clients of the legacy era: sessions of one user each, and links that clients are asked to open.

use bus_schema::mcp::method;
use serde_json::{Value, json};
use tests::{
    accounts::{Accounts, Knows, Speaks},
    http::text,
    remote::local,
    session::{Session, messages},
    stream::Stream,
    within,
};

use super::stage::{PUBLIC, Stage, UNPROVEN};

/// The code of the error, for clients that know it and for others.
const MODERN: i32 = -32042;
const LEGACY: i32 = -32603;
const WHOAMI: &str = r#"{ "name": "whoami", "arguments": {} }"#;

async fn stage(speaks: Speaks) -> Stage {
    let accounts = Accounts::speaking(Knows::Registration, speaks).await;
    let line = local("there", &accounts.url(), "credentials = \"user\"");
    Stage::with(accounts, PUBLIC, |_, _| UNPROVEN.to_owned(), (&line, &["there"])).await
}

fn whoami() -> Value {
    serde_json::from_str(WHOAMI).expect("JSON")
}

/// The link in an error, which stands in its words as well. A legacy client that opens no pages does not know the error for it, and gets it
/// as one that it knows.
fn link_in(answer: &Value, knows: i32) -> String {
    assert_eq!(answer["error"]["code"], knows, "{answer}");
    let error = match knows {
        MODERN => &answer["error"],
        _ => &answer["error"]["data"]["original"],
    };
    assert_eq!(error["code"], -32042, "{answer}");
    let page = &error["data"]["elicitations"][0];
    let link = page["url"].as_str().expect("a link").to_owned();
    assert_eq!(page["mode"], "url", "{answer}");
    assert!(
        page["elicitationId"].is_string() && page["message"].is_string(),
        "{answer}"
    );
    let words = answer["error"]["message"].as_str().expect("words");
    assert!(words.contains(&link), "{words}");
    link
}

#[tokio::test]
async fn each_user_has_sessions_of_their_own_at_a_legacy_server() {
    for version in ["2025-06-18", "2025-11-25"] {
        let stage = stage(Speaks::Legacy(version)).await;
        // Modern clients, one that opens pages and one that does not.
        stage.connect(&stage.link_for("ann").await, "ann-at-work").await;
        let refused = stage.client_of("bob").call("whoami", json!({})).await;
        stage.connect(&link_in(&refused, MODERN), "bob-at-work").await;
        let users = [("ann", "ann-at-work"), ("bob", "bob-at-work")];
        let calls = (0..10).map(|n| {
            let (stage, (user, account)) = (&stage, users[n % 2]);
            async move {
                let answer = match n % 3 {
                    // Those that can be asked have other conversations than those that cannot.
                    0 => stage.call(user, &json!({})).await,
                    _ => stage.client_of(user).call("whoami", json!({})).await,
                };
                assert_eq!(text(&answer), account, "{version}: {answer}");
            }
        });
        futures::future::join_all(calls).await;
        assert_eq!(stage.accounts.crossed(), 0, "{version}");
        // A token that ends is exchanged within a session.
        stage.accounts.expire();
        let answer = stage.client_of("ann").call("whoami", json!({})).await;
        assert_eq!(text(&answer), "ann-at-work", "{version}: {answer}");
        assert_eq!(stage.client_of("bob").tool_names().await, ["whoami", "hold"]);
        stage.platform.stop().await;
    }
}

#[tokio::test]
async fn legacy_clients_are_asked_to_open_the_page_or_told_where_it_is() {
    for speaks in [Speaks::Modern, Speaks::Legacy("2025-11-25")] {
        let stage = stage(speaks).await;
        // One that opens pages is asked to, on its call's own stream, and the call goes on.
        let opens = json!({ "elicitation": { "url": {}, "form": {} } });
        let ann = Session::open_as(&stage.client_of("ann"), "2025-11-25", &opens).await;
        let asked = within("an answer", ann.request(method::TOOLS_CALL, &whoami()).send());
        let mut stream = Stream::of(asked.await.expect("an answer"));
        let question = stream.message().await;
        assert_eq!(question["method"], method::ELICIT, "{question}");
        assert_eq!(question["params"]["mode"], "url", "{question}");
        assert!(question["params"]["elicitationId"].is_string(), "{question}");
        let link = question["params"]["url"].as_str().expect("a link");
        // The client says that its user was sent there, and the user takes a while.
        let accepted = ann.answer(&question["id"], &json!({ "action": "accept" }));
        let accepted = within("it is taken", accepted.send()).await.expect("an answer");
        assert_eq!(accepted.status(), 202);
        stage.connect(link, "ann-at-work").await;
        let answer = loop {
            let message = stream.message().await;
            if message["id"] == 5 {
                break message;
            }
            assert_ne!(message["method"], method::ELICIT, "{message}");
        };
        assert_eq!(text(&answer), "ann-at-work", "{answer}");
        let answer = ann.ask(method::TOOLS_CALL, &whoami()).await;
        assert_eq!(text(&answer), "ann-at-work", "{answer}");
        // Those that open none, or know nothing of it, get the link.
        for (version, capabilities) in [
            ("2025-11-25", json!({ "elicitation": { "form": {} } })),
            ("2025-11-25", json!({})),
            ("2025-06-18", json!({ "elicitation": {} })),
            ("2025-03-26", json!({})),
            ("2024-11-05", json!({})),
        ] {
            let user = format!("user-{version}-{}", capabilities.to_string().len());
            let session = Session::open_as(&stage.client_of(&user), version, &capabilities).await;
            let refused = session.ask(method::TOOLS_CALL, &whoami()).await;
            stage.connect(&link_in(&refused, LEGACY), &user).await;
            let answer = session.ask(method::TOOLS_CALL, &whoami()).await;
            assert_eq!(text(&answer), user, "{version}: {answer}");
        }
        // One who says no is not asked again by the same call.
        let eve = Session::open_as(&stage.client_of("eve"), "2025-11-25", &opens).await;
        let asked = within("an answer", eve.request(method::TOOLS_CALL, &whoami()).send());
        let mut stream = Stream::of(asked.await.expect("an answer"));
        let question = stream.message().await;
        let declined = eve.answer(&question["id"], &json!({ "action": "decline" }));
        within("it is taken", declined.send()).await.expect("an answer");
        let answer = stream.message().await;
        assert!(answer["error"].is_object() && answer["id"] == 5, "{answer}");
        assert_eq!(stage.accounts.crossed(), 0);
        stage.platform.stop().await;
    }
}

#[tokio::test]
async fn legacy_clients_are_asked_at_the_endpoint_of_all_servers_as_well() {
    let stage = stage(Speaks::Legacy("2025-06-18")).await;
    let client = stage
        .platform
        .client_of_all()
        .with_token_of(&stage.client_of("ann"));
    let session = Session::open(&client, "2025-06-18").await;
    let params = json!({ "name": "there__whoami", "arguments": {} });
    let refused = messages(session.request(method::TOOLS_CALL, &params)).await.pop();
    stage
        .connect(&link_in(&refused.expect("an answer"), LEGACY), "ann-at-work")
        .await;
    let answer = session.ask(method::TOOLS_CALL, &params).await;
    assert_eq!(text(&answer), "ann-at-work", "{answer}");
    stage.platform.stop().await;
}
