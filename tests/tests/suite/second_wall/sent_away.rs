//! Plain clients that are in when something changes: who may do less has to come again, and then may do less; everybody else stays.

use bridges::callout::LONGEST_STAY_SECS;
use bus_schema::{Principal, block::Blocked, policy::Set};
use runtime::policies::Rules;
use serde_json::json;
use tests::{
    eventually,
    parts::{printed, python},
    within,
};

use super::{call, callout::Stage, tool};

/// A client by the official library, which comes back by itself. It says that it is in by writing a file.
const CLIENT: &str = r#"
import asyncio, hashlib, json, nats, pathlib, sys

URL, TOKEN, IN = sys.argv[1:]

def call(name):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}}}).encode()

async def main():
    back, refused = asyncio.Event(), asyncio.Event()
    async def came_back(): back.set()
    async def failed(error):
        if "permissions violation" in str(error).lower(): refused.set()
    inbox = "_INBOX_" + hashlib.sha256(TOKEN.encode()).hexdigest()[:32]
    bus = await nats.connect(URL, token=TOKEN, inbox_prefix=inbox, reconnect_time_wait=0.1,
                             reconnected_cb=came_back, error_cb=failed)
    async def ask(name):
        answer = await bus.request("mcp.pub.default.whoami.tools.call." + name, call(name), timeout=20)
        return json.loads(answer.data)
    assert "result" in await ask("other")
    pathlib.Path(IN).write_text("in")
    await asyncio.wait_for(back.wait(), 60)
    assert "result" in await ask("whoami"), "what stays open is open"
    assert not refused.is_set()
    await bus.publish("mcp.pub.default.whoami.tools.call.other", call("other"))
    await asyncio.wait_for(refused.wait(), 60)
    print("came back with less")
    await bus.close()

asyncio.run(main())
"#;

/// The policy that opens to `who:all` what it did, or no more than `who:read` has.
fn policy(all: &str) -> Set {
    let document = json!({
        "default": "allow",
        "scopes": { "who:read": ["whoami__whoami"], "who:all": [all], "who:nobody": ["whoami__*"] },
    });
    Set {
        document: serde_json::from_value(document).expect("a document"),
        over: None,
        comment: String::new(),
    }
}

async fn keep(stage: &Stage, set: &Set) {
    let bus = stage.platform.node.bus();
    let (me, policies) = (Principal::developer(), bus.policies());
    let mut changes = policies.changes();
    let kept = within("the policy is taken", bus.set_document::<Rules>(&me, set)).await;
    let version = kept.expect("taken").version;
    within("the policy is in force", async {
        while policies.of("default").version != Some(version) {
            changes.changed().await.expect("the policies live");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_whose_policy_tightens_comes_back_by_itself_with_less() {
    let stage = Stage::start_with("", &["registry"]).await;
    let token = stage.token(json!({ "scope": "who:all" }));
    let folder = stage.platform.folder();
    let (program, is_in) = (folder.join("client.py"), folder.join("in"));
    std::fs::write(&program, CLIENT).expect("the file is written");
    let mut command = python(&program);
    command.args([stage.nats(), &token]).arg(&is_in);
    let tightening = async {
        eventually("the client is in", async || is_in.exists()).await;
        keep(&stage, &policy("whoami__whoami")).await;
    };
    let (said, ()) = tokio::join!(printed(command), tightening);
    assert!(said.contains("came back with less"), "{said}");
}

#[tokio::test]
async fn a_change_sends_away_only_who_may_do_less_by_it() {
    let stage = Stage::start_with("", &["registry"]).await;
    let shown = |scope: &str| stage.token(json!({ "scope": scope }));
    let (all, read) = (shown("who:all"), shown("who:read"));
    let mut loses = stage.enter(&all).await.expect("it comes in");
    let mut keeps = stage.enter(&read).await.expect("it comes in");
    // Another version of the same, and one that takes something from one of them.
    keep(&stage, &policy("whoami__*")).await;
    assert_eq!(loses.everything().await, "");
    keep(&stage, &policy("whoami__whoami")).await;
    loses.ended().await;
    assert_eq!(keeps.everything().await, "", "who loses nothing stays");
    let mut again = stage.enter(&all).await.expect("it comes in again");
    for (name, is_open) in [("whoami", true), ("other", false)] {
        let taken = again.publish(&tool("whoami", name), None, &call(name)).await;
        assert_eq!(taken, is_open, "{name}");
    }
    // Who gains stays as well, and has more when it comes the next time.
    keep(&stage, &policy("whoami__*")).await;
    assert_eq!(again.everything().await, "");
    let mut next = stage.enter(&all).await.expect("it comes in");
    assert!(next.publish(&tool("whoami", "other"), None, &call("other")).await);
}

#[tokio::test]
async fn a_blocked_client_is_sent_away_and_kept_out_until_it_is_let_go() {
    let mut stage = Stage::start_with("", &["registry"]).await;
    let config = stage.platform.config.clone();
    let front = stage.platform.node.front(&config).await.expect("a front");
    let blocks = front.blocks().clone();
    let (ann, bob) = (
        stage.token(json!({ "scope": "who:read" })),
        stage.issuer.token("bob", &stage.platform.url(""), json!({})),
    );
    let mut client = stage.enter(&ann).await.expect("it comes in");
    let mut other = stage.enter(&bob).await.expect("it comes in");
    let (by, who) = (
        Principal::developer(),
        Blocked {
            tenant: "default".to_owned(),
            issuer: None,
            subject: "ann".to_owned(),
        },
    );
    blocks
        .block(&by, who.clone(), Some(LONGEST_STAY_SECS), None)
        .await
        .expect("blocked");
    client.ended().await;
    assert_eq!(other.everything().await, "");
    assert!(stage.enter(&ann).await.is_err(), "a blocked caller comes in");
    blocks.unblock(&by, &who).await.expect("let go");
    eventually("it comes in again", async || stage.enter(&ann).await.is_ok()).await;
}
