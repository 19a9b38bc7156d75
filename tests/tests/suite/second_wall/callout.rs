//! The auth callout: a plain client shows what it would show at another door, and the broker holds it to what its policy allows.

use std::path::Path;

use bridges::auth::new_api_key;
use bus_schema::{audit::Kind, policy::Scope, subject, subject::CallerClass};
use runtime::nats_server::Clients;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::{
    eventually,
    forger::Forger,
    issuer::{self, Issuer},
    nats::Nats,
    parts::{printed, python},
    platform::Platform,
    program::{self, Program},
    recorded::Recorded,
    root,
    whoami::WhoAmI,
    within,
};
use tokio::process::Command;
use trunkline::{
    args::Common,
    config::Config,
    node::{NatsChoice, Node},
};

use super::{call, tool};

const POLICY: &str = "[policy.scopes]\n\"who:read\" = [\"whoami__whoami\"]\n\"who:all\" = [\"whoami__*\"]\n";

/// A platform whose plain clients are asked who they are, with a server whose tools need scopes.
pub(super) struct Stage {
    pub(super) issuer: Issuer,
    pub(super) platform: Platform,
    _host: runtime::Host,
}

impl Stage {
    pub(super) async fn start(more: &str) -> Self {
        Self::start_with(more, &[]).await
    }

    /// The same with servers of the platform's own.
    pub(super) async fn start_with(more: &str, servers: &[&str]) -> Self {
        let issuer = Issuer::start().await;
        let platform = Platform::start(&(issuer.section("") + more + POLICY), servers).await;
        let host = WhoAmI::serve(platform.node.bus()).await;
        platform.knows("whoami").await;
        Self {
            issuer,
            platform,
            _host: host,
        }
    }

    pub(super) fn nats(&self) -> &str {
        self.platform.node.nats_url().expect("a NATS of its own")
    }

    pub(super) fn token(&self, more: Value) -> String {
        self.issuer.token("ann", &self.platform.url(""), more)
    }

    pub(super) async fn enter(&self, token: &str) -> Result<Forger, String> {
        Forger::enter_by(self.nats(), token).await
    }
}

/// Where the answers of somebody come who shows this.
fn inbox(shown: &str) -> String {
    let digest = Sha256::digest(shown.as_bytes());
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("_INBOX_{hex}")
}

/// Calls a tool, and gives what the server saw of the caller.
async fn whoami(client: &mut Forger, shown: &str) -> String {
    let own = inbox(shown);
    assert!(client.subscribe(&format!("{own}.>"), None).await);
    let reply = format!("{own}.1");
    assert!(
        client
            .publish(&tool("whoami", "whoami"), Some(&reply), &call("whoami"))
            .await
    );
    client.heard("structuredContent").await
}

#[tokio::test]
async fn a_client_with_a_token_gets_just_the_tools_that_its_scopes_open() {
    let stage = Stage::start("").await;
    let token = stage.token(json!({ "scope": "who:read", "roles": ["buyer"] }));
    let mut client = stage.enter(&token).await.expect("it comes in");
    let seen = whoami(&mut client, &token).await;
    for word in [
        "\"subject\":\"ann\"",
        "\"buyer\"",
        "\"who:read\"",
        stage.issuer.url(),
    ] {
        assert!(seen.contains(word), "no {word} in {seen}");
    }
    for (name, is_open) in [("whoami", true), ("other", false), ("unheard-of", false)] {
        let taken = client.publish(&tool("whoami", name), None, &call(name)).await;
        assert_eq!(taken, is_open, "{name}");
    }
    for subject in [
        "mcp.pub.default.whoami.tools.call",
        "mcp.pub.default.whoami.tools.call.whoami.x",
        "mcp.pub.default.x.tools.list",
    ] {
        assert!(
            !client.publish(subject, None, b"{}").await,
            "it publishes {subject}"
        );
    }
    assert!(
        client
            .publish("mcp.pub.default.whoami.tools.list", None, b"{}")
            .await
    );
    // Another with more scopes has more, and one without has none of them.
    let all = stage.token(json!({ "scope": "who:all" }));
    let mut all = stage.enter(&all).await.expect("it comes in");
    let none = stage.token(json!({}));
    let mut none = stage.enter(&none).await.expect("it comes in");
    for name in ["whoami", "other"] {
        assert!(
            all.publish(&tool("whoami", name), None, &call(name)).await,
            "{name}"
        );
        assert!(
            !none.publish(&tool("whoami", name), None, &call(name)).await,
            "{name}"
        );
    }
}

/// A way around: the same tools by the names of an endpoint that shows them.
#[tokio::test]
async fn a_virtual_servers_tools_are_open_to_those_to_whom_their_owners_are() {
    let desk = "[[virtual]]\nid = \"desk\"\n\
        items = [{ server = \"whoami\", tools = [\"*\"], rename = { whoami = \"me\", other = \"whoami\" } }]\n";
    let stage = Stage::start(desk).await;
    let token = stage.token(json!({ "scope": "who:read" }));
    let mut client = stage.enter(&token).await.expect("it comes in");
    for (name, is_open) in [("me", true), ("whoami", false), ("other", false)] {
        let taken = client.publish(&tool("desk", name), None, &call(name)).await;
        assert_eq!(taken, is_open, "{name}");
    }
}

#[tokio::test]
async fn a_tool_that_policy_forbids_is_refused_by_the_broker_with_no_door_behind_it() {
    let nats = Nats::start_for(Clients::Callout, &[]).await;
    let issuer = Issuer::start().await;
    let mut node = joined(&nats, &issuer, "").await;
    let _host = WhoAmI::serve(&nats.bus().await).await;
    node.knows("whoami").await;
    // Somebody of ours who takes every public call, and would let everybody do everything.
    let mut door = Forger::enter(&nats.url_of(CallerClass::Bridge))
        .await
        .expect("it comes in");
    assert!(
        door.subscribe(&subject::all_public_calls(), Some(subject::QUEUE_GROUP))
            .await
    );
    let token = issuer.token(
        "ann",
        "trunkline",
        json!({ "scope": "who:read", "tenant": "default" }),
    );
    let mut client = Forger::enter_by(nats.url(), &token).await.expect("it comes in");
    assert!(!client.publish(&tool("whoami", "other"), None, b"forbidden").await);
    assert!(client.publish(&tool("whoami", "whoami"), None, b"allowed").await);
    let heard = door.heard("allowed").await;
    assert!(!heard.contains("forbidden"), "{heard}");
    // The door is told who it is by the broker, which is told by the callout; the token itself goes nowhere.
    assert!(
        heard.contains(r#"\"subject\":\"ann\""#) && !heard.contains(&token),
        "{heard}"
    );
}

#[tokio::test]
async fn what_opens_no_other_door_opens_nats_neither() {
    let stage = Stage::start("").await;
    let now = issuer::now();
    let here = stage.platform.url("");
    let foreign = Issuer::start().await;
    let revoked = stage.issuer.opaque(&stage.issuer.claims("ann", &here));
    stage.issuer.revoke(&revoked);
    let claims = stage.issuer.claims("ann", &here);
    for (what, shown) in [
        ("no token", String::new()),
        ("no token at all", "secret".to_owned()),
        ("an expired one", stage.token(json!({ "exp": now - 3_600 }))),
        // Other doors allow for clocks that differ; the broker would end the connection at once.
        (
            "one that has just expired",
            stage.token(json!({ "exp": now - 1 })),
        ),
        ("one of the future", stage.token(json!({ "nbf": now + 3_600 }))),
        ("one without an end", stage.token(json!({ "exp": null }))),
        (
            "one for somebody else",
            stage.issuer.token("ann", "https://elsewhere.example", json!({})),
        ),
        (
            "one for one endpoint",
            stage.issuer.token("ann", &stage.platform.url("/mcp"), json!({})),
        ),
        ("one of another issuer", foreign.token("ann", &here, json!({}))),
        (
            "one that nobody signed",
            issuer::unsigned(&json!({ "alg": "none" }), &claims),
        ),
        (
            "one signed with a public key",
            stage.issuer.sign_with_public_key(&claims),
        ),
        (
            "one of another tenant",
            stage.token(json!({ "tenant": "other", "cnf": { "jkt": "x" } })),
        ),
        ("one that was taken back", revoked),
        ("a key that nobody gave out", new_api_key().key),
        ("what is no word", "a b\"c".to_owned()),
    ] {
        for shown_as in [
            json!({ "auth_token": shown }),
            json!({ "user": "ann", "pass": shown }),
        ] {
            let refused = Forger::enter_with(stage.nats(), shown_as).await.err();
            let refused = refused.unwrap_or_else(|| panic!("{what} lets somebody in"));
            assert!(
                refused.to_lowercase().contains("authorization violation"),
                "{what}: {refused}"
            );
        }
    }
    // Nor do the names of our roles, or of whoever may come in elsewhere.
    for user in [
        "node",
        "bridge",
        "callout",
        "developer",
        "{\"subject\":\"ann\",\"tenant\":\"default\"}",
    ] {
        for pass in ["", "wrong"] {
            let entered = Forger::enter_with(stage.nats(), json!({ "user": user, "pass": pass })).await;
            assert!(entered.is_err(), "{user} comes in");
        }
    }
    assert!(
        Forger::enter(stage.nats()).await.is_err(),
        "nobody in particular comes in"
    );
}

#[tokio::test]
async fn an_api_key_opens_what_its_scopes_do_as_token_and_as_password() {
    let key = new_api_key();
    let scope: Scope = "who:read".parse().expect("a scope");
    let line = format!(
        "[[auth.api_keys]]\nsubject = \"ci\"\nsha256 = \"{}\"\nscopes = [\"{}\"]\n",
        key.sha256,
        scope.as_str()
    );
    let stage = Stage::start(&line).await;
    for shown in [
        json!({ "auth_token": key.key }),
        json!({ "user": "{\"subject\":\"admin\",\"tenant\":\"default\"}", "pass": key.key }),
    ] {
        let mut client = Forger::enter_with(stage.nats(), shown)
            .await
            .expect("it comes in");
        let seen = whoami(&mut client, &key.key).await;
        assert!(
            seen.contains("\"subject\":\"ci\"") && !seen.contains("admin"),
            "{seen}"
        );
        assert!(
            !client
                .publish(&tool("whoami", "other"), None, &call("other"))
                .await
        );
    }
}

#[tokio::test]
async fn answers_are_read_by_who_asked_only() {
    let stage = Stage::start("").await;
    let (ann, bob) = (
        stage.token(json!({})),
        stage.issuer.token("bob", &stage.platform.url(""), json!({})),
    );
    let mut client = stage.enter(&ann).await.expect("it comes in");
    for tap in [
        format!("{}.>", inbox(&bob)),
        "_INBOX.>".to_owned(),
        "_INBOX.x.1".to_owned(),
        "_INBOX_*.>".to_owned(),
        ">".to_owned(),
        "mcp.pub.>".to_owned(),
        "_R_.>".to_owned(),
    ] {
        assert!(!client.subscribe(&tap, None).await, "it reads {tap}");
    }
    assert!(client.subscribe(&format!("{}.x", inbox(&ann)), None).await);
    let internal = [
        "mcp.rpc.default.whoami.tools.call",
        "mcp.ver.default.whoami.1.tools.call",
        "mcp.inst.default.whoami.x.call",
        "_R_.x",
        "$JS.API.STREAM.DELETE.KV_sessions",
        "$KV.sessions.x",
        "$SYS.REQ.USER.AUTH",
        "_INBOX_node.x.call.1",
    ];
    for subject in internal {
        assert!(
            !client.publish(subject, None, b"{}").await,
            "it publishes {subject}"
        );
    }
}

#[tokio::test]
async fn a_connection_ends_with_the_token_that_opened_it() {
    let stage = Stage::start("").await;
    let token = stage.token(json!({ "exp": issuer::now() + 2 }));
    let mut client = stage.enter(&token).await.expect("it comes in");
    client.heard("User Authentication Expired").await;
    assert!(stage.enter(&token).await.is_err(), "and opens no other");
}

#[tokio::test]
async fn without_the_callout_nobody_new_comes_in_and_ours_go_on() {
    let nats = Nats::start_for(Clients::Callout, &[]).await;
    let issuer = Issuer::start().await;
    let node = joined(&nats, &issuer, "").await;
    let token = issuer.token("ann", "trunkline", json!({ "tenant": "default" }));
    let mut inside = Forger::enter_by(nats.url(), &token).await.expect("it comes in");
    node.0.stop().await;
    assert!(
        Forger::enter_by(nats.url(), &token).await.is_err(),
        "somebody comes in unseen"
    );
    inside.everything().await;
    let bus = nats.bus().await;
    bus.round_trip().await.expect("ours go on");
    let again = joined(&nats, &issuer, "").await;
    Forger::enter_by(nats.url(), &token)
        .await
        .expect("it comes in again");
    again.0.stop().await;
}

#[tokio::test]
async fn what_is_shown_at_http_and_nats_is_one_caller() {
    let stage = Stage::start("").await;
    let token = stage.token(json!({ "scope": "who:read" }));
    let mut client = stage.enter(&token).await.expect("it comes in");
    let over_nats = whoami(&mut client, &token).await;
    let http = stage.platform.client("whoami").with_token(&token);
    let over_http = within("an answer", http.call("whoami", json!({}))).await;
    let who = &over_http["result"]["structuredContent"];
    assert_eq!(who["subject"], "ann");
    for key in ["subject", "issuer", "tenant", "scopes"] {
        let told = format!("\"{key}\":{}", who[key]);
        assert!(over_nats.contains(&told), "no {told} in {over_nats}");
    }
}

#[tokio::test]
async fn the_example_in_the_documentation_runs() {
    let key = new_api_key();
    let file = format!(
        "[auth]\nmode = \"api_keys\"\n[[auth.api_keys]]\nsubject = \"ci\"\nsha256 = \"{}\"\n",
        key.sha256
    );
    let platform = Platform::start(&file, &["products"]).await;
    platform.knows("products").await;
    let text = std::fs::read_to_string(root().join("docs/security.md")).expect("the documentation");
    let (_, after) = text
        .split_once("<!-- test: nats-py -->\n```python\n")
        .expect("an example");
    let (example, _) = after.split_once("\n```").expect("its end");
    let url = platform.node.nats_url().expect("a NATS of its own");
    let filled = example
        .replace("tlk_…", &key.key)
        .replace("nats://127.0.0.1:4222", url);
    assert!(filled.contains(url) && filled.contains(&key.key), "{example}");
    let program = platform.folder().join("example.py");
    std::fs::write(&program, filled).expect("the file is written");
    let out = printed(python(&program)).await;
    assert!(out.contains("\"total\""), "{out}");
}

#[tokio::test]
async fn the_callout_is_a_process_of_its_own_where_an_operator_wants_it() {
    let nats = Nats::start_for(Clients::Callout, &[]).await;
    let key = new_api_key();
    let (data, file) = (nats.data_dir(), nats.data_dir().join("callout.toml"));
    let [data, file] = [data, file].map(|path| path.display().to_string());
    let words = [
        "bridge",
        "callout",
        "--nats",
        nats.url(),
        "--data-dir",
        &data,
        "--config",
        &file,
    ];
    std::fs::write(&file, "").expect("the file is written");
    let (code, _, err) = program::run(&words).await;
    assert!(code != 0 && err.contains("[auth]"), "{err}");
    let keys = format!(
        "[auth]\nmode = \"api_keys\"\n[[auth.api_keys]]\nsubject = \"ci\"\nsha256 = \"{}\"\n",
        key.sha256
    );
    std::fs::write(&file, keys).expect("the file is written");
    let mut callout = Program::start(&words);
    callout.logged("the auth callout is ready").await;
    Forger::enter_by(nats.url(), &key.key).await.expect("it comes in");
    assert!(Forger::enter_by(nats.url(), &new_api_key().key).await.is_err());
    let log = callout.logged("kept a plain NATS client out").await;
    assert!(log.contains("API key") && !log.contains(&key.key), "{log}");
    // Without its secrets it cannot even begin.
    let nowhere = tempfile::tempdir().expect("a folder");
    let nowhere = nowhere.path().display().to_string();
    let url = nats.url_of(CallerClass::Bridge);
    let words = [
        "bridge",
        "callout",
        "--nats",
        &url,
        "--data-dir",
        &nowhere,
        "--config",
        &file,
    ];
    let (code, _, err) = program::run(&words).await;
    assert!(
        code != 0 && err.contains("TRUNKLINE_NATS_CALLOUT_SIGNING_SEED"),
        "{err}"
    );
}

#[tokio::test]
async fn a_process_elsewhere_takes_its_roles_password_from_the_environment() {
    let nats = Nats::start().await;
    let nowhere = tempfile::tempdir().expect("a folder");
    let servers = async |role: CallerClass| {
        let run = Command::new(program::path())
            .args(["servers", "--json", "--nats", nats.url(), "--data-dir"])
            .arg(nowhere.path())
            .env("TRUNKLINE_NATS_CLI_PASSWORD", nats.password_of(role))
            .output();
        within("the end of a command", run).await.expect("it runs")
    };
    let right = servers(CallerClass::Cli).await;
    assert!(
        right.status.success(),
        "{}",
        String::from_utf8_lossy(&right.stderr)
    );
    let wrong = servers(CallerClass::Host).await;
    let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        !wrong.status.success() && words.contains("refuses the credentials"),
        "{words}"
    );
}

/// A process of ours on somebody else's NATS that runs nothing but the callout.
pub(super) struct Joined(pub(super) Node, Config);

pub(super) async fn joined(nats: &Nats, issuer: &Issuer, more: &str) -> Joined {
    let file = format!(
        "{more}{}{POLICY}",
        issuer.section("audience = \"trunkline\"\ntenant_claim = \"tenant\"\n")
    );
    joined_with(nats, &nats.data_dir(), &file).await
}

async fn joined_with(nats: &Nats, folder: &Path, file: &str) -> Joined {
    let path = folder.join("callout.toml");
    std::fs::write(&path, file).expect("the file is written");
    let common = Common {
        config: Some(path),
        data_dir: Some(folder.to_owned()),
        ..Common::default()
    };
    let config = Config::load(&common).expect("the configuration is right");
    let choice = NatsChoice::Join(Some(nats.url().to_owned()));
    let mut node = Node::connect(&config, CallerClass::Bridge, choice)
        .await
        .expect("connects");
    node.open_callout(&config).await.expect("the callout opens");
    Joined(node, config)
}

impl Joined {
    /// Waits until the callout knows a server.
    pub(super) async fn knows(&mut self, server: &str) {
        let id = server.parse().expect("an id");
        let front = self.0.front(&self.1).await.expect("a front");
        eventually("the callout knows the server", async || {
            front.directory().snapshot().server(&id).is_some()
        })
        .await;
    }
}

#[tokio::test]
async fn who_is_kept_out_is_on_record_at_the_tenant_that_it_concerns() {
    let issuer = Issuer::start().await;
    let file = format!(
        "tenants = [\"acme\"]\n[auth]\nmode = \"oauth\"\nrequired_scopes = [\"mcp\"]\n{}",
        issuer.line("tenant_claim = \"org\"")
    );
    let platform = Platform::start(&file, &[]).await;
    let recorded = Recorded::start(&platform).await;
    let nats = platform.node.nats_url().expect("a NATS of its own");
    let token = |subject: &str, more: Value| issuer.token(subject, &platform.url(""), more);
    // What is shown is genuine, and so it is known whose it is.
    let known = token("ann", json!({ "org": "acme" }));
    assert!(Forger::enter_by(nats, &known).await.is_err());
    // A tenant that is not here has no records, and of a forged token nothing is believed.
    let elsewhere = token("bob", json!({ "org": "elsewhere", "scope": "mcp" }));
    assert!(Forger::enter_by(nats, &elsewhere).await.is_err());
    assert!(Forger::enter_by(nats, &format!("{known}x")).await.is_err());
    let count = || {
        let all = recorded.all();
        all.iter().filter(|record| record.kind == Kind::Callout).count()
    };
    eventually("three records", async || count() == 3).await;
    let mut told: Vec<_> = recorded
        .all()
        .iter()
        .filter(|record| record.kind == Kind::Callout)
        .map(|record| {
            let who = record.principal.as_ref().map(|who| who.subject.clone());
            (record.tenant.clone(), who)
        })
        .collect();
    told.sort();
    let nobody = ("default".to_owned(), None);
    let ann = ("acme".to_owned(), Some("ann".to_owned()));
    assert_eq!(told, [ann, nobody.clone(), nobody]);
    recorded.stop().await;
    platform.stop().await;
}
