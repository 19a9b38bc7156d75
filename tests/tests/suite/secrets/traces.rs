//! Everything that our own programs log at its most talkative, while a user connects an account, works with it and has it forgotten: nothing of
//! it opens anything.

use std::{fs, path::Path};

use bus_schema::mcp::{meta, method};
use reqwest::{Method, StatusCode, Url};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{
    accounts::{Accounts, Knows, Speaks},
    http::{Client, text},
    issuer::{self, Issuer},
    program::{self, Program},
    remote::local,
    session::Session,
    within,
};

use super::stage::{Browser, OPERATOR, PUBLIC, link_in, said};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A platform in a process of its own, and all that must not be in its log.
struct World {
    accounts: Accounts,
    issuer: Issuer,
    base: String,
    secrets: Vec<String>,
}

impl World {
    fn keep(&mut self, secret: impl Into<String>) {
        self.secrets.push(secret.into());
    }

    /// What a URL carries that is nobody else's: `state` and the like.
    fn keep_query(&mut self, url: &str) {
        let url = Url::parse(url).expect("a URL");
        for (key, value) in url.query_pairs() {
            if ["state", "code", "nonce"].contains(&&*key) {
                self.keep(value.into_owned());
            }
        }
    }

    fn token(&mut self, user: &str) -> String {
        let roles = if user == OPERATOR {
            json!(["operator"])
        } else {
            json!([])
        };
        let token = self.issuer.token(user, &self.base, json!({ "roles": roles }));
        self.keep(token.clone());
        token
    }

    fn client(&mut self, user: &str) -> Client {
        let token = self.token(user);
        Client::new(format!("{}/servers/there/mcp", self.base)).with_token(&token)
    }

    /// From the call that asks for the page to the page that says that it is done.
    async fn connect(&mut self, user: &str, account: &str) {
        let client = self.client(user);
        let params = json!({
            "name": "whoami", "arguments": {},
            "_meta": { meta::CLIENT_CAPABILITIES: { "elicitation": { "url": {} } } }
        });
        let asked = within("an answer", client.modern(method::TOOLS_CALL, params).send()).await;
        let asked: Value = asked.expect("an answer").json().await.expect("JSON");
        let link = link_in(&asked);
        self.keep(link.rsplit('/').next().unwrap_or_default());
        self.keep(asked["result"]["requestState"].as_str().expect("a state"));
        let follow = async |base: &str, accounts: &Accounts| {
            let browser = Browser {
                base: base.to_owned(),
                accounts,
            };
            let looked = browser.browse(Method::GET, &link, None).await;
            assert_eq!(looked.status(), StatusCode::OK);
            browser.follow(&link).await
        };
        let (login, cookie) = follow(&self.base, &self.accounts).await;
        self.keep(cookie.split('=').nth(1).unwrap_or_default());
        self.keep_query(&login);
        let browser = |world: &Self| world.base.clone();
        let base = browser(self);
        let visit = async |accounts: &Accounts, page: &str, who: &str| {
            let browser = Browser {
                base: base.clone(),
                accounts,
            };
            let back = browser.agree(page, who).await;
            let answer = browser.browse(Method::GET, &back, Some(&cookie)).await;
            (back, answer)
        };
        let (back, logged_in) = visit(&self.accounts, &login, user).await;
        self.keep_query(&back);
        let page = said(&logged_in, reqwest::header::LOCATION);
        self.keep_query(&page);
        let (back, done) = visit(&self.accounts, &page, account).await;
        self.keep_query(&back);
        assert_eq!(done.status(), StatusCode::OK);
    }
}

fn config(issuer: &Issuer, accounts: &Accounts, folder: &Path) -> String {
    let path = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).expect("written");
        json!(path)
    };
    format!(
        "limits = []\nallowed_hosts = [\"mcp.example.com\"]\n{}\n[credentials]\nkey = {{ file = {} }}\npublic_url = {}\n\
         [credentials.login]\nissuer = {}\nclient_id = {}\nclient_secret = {{ file = {} }}\nallow_private = true\n{}",
        issuer.section(""),
        path("key", KEY),
        json!(PUBLIC),
        json!(issuer.url()),
        json!(issuer::CLIENT.0),
        path("client", issuer::CLIENT.1),
        local("there", &accounts.url(), "credentials = \"user\"")
    )
}

/// Everything that is done with accounts. Gives what the command line has logged meanwhile.
async fn use_all(world: &mut World, common: &[&str]) -> String {
    world.connect("ann", "ann-at-work").await;
    // Tokens of a second are exchanged before each use.
    world.accounts.set_life(1);
    world.connect("bob", "bob-at-work").await;
    for (user, account) in [
        ("ann", "ann-at-work"),
        ("bob", "bob-at-work"),
        ("bob", "bob-at-work"),
    ] {
        let client = world.client(user);
        let answer = client.call("whoami", json!({})).await;
        assert_eq!(text(&answer), account, "{answer}");
        let session = Session::open(&client, "2025-11-25").await;
        world.keep(session.id());
        let params = json!({ "name": "whoami", "arguments": {} });
        let answer = session.ask(method::TOOLS_CALL, &params).await;
        assert_eq!(text(&answer), account, "{answer}");
    }
    world.accounts.expire();
    let answer = world.client("ann").call("whoami", json!({})).await;
    assert_eq!(text(&answer), "ann-at-work", "{answer}");
    world.secrets.extend(world.accounts.secrets());
    let token = world.token("ann");
    let forgotten = reqwest::Client::new()
        .delete(format!("{}/credentials/there", world.base))
        .bearer_auth(token)
        .send();
    let forgotten = within("an answer", forgotten).await.expect("an answer");
    assert_eq!(forgotten.status(), StatusCode::OK);
    let mut logged = String::new();
    for words in [
        ["credentials", "list"].as_slice(),
        &["credentials", "forget", "there"],
    ] {
        let (code, _, log) = program::run(&[words, common].concat()).await;
        assert_eq!(code, 0, "{log}");
        logged.push_str(&log);
    }
    world.secrets.extend(world.accounts.revoked());
    logged
}

#[tokio::test]
async fn nothing_that_opens_an_account_is_in_the_most_talkative_log() {
    for speaks in [Speaks::Modern, Speaks::Legacy("2025-11-25")] {
        let accounts = Accounts::speaking(Knows::Registration, speaks).await;
        let issuer = Issuer::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (file, data) = (path("trunkline.toml"), path("data"));
        fs::write(&file, config(&issuer, &accounts, folder.path())).expect("written");
        let mut up = Program::start(&[
            "up",
            "--json",
            "--log",
            "trace",
            "--listen",
            "127.0.0.1:0",
            "--nats-listen",
            "127.0.0.1:0",
            "--config",
            &file,
            "--data-dir",
            &data,
        ]);
        let (pid, mut log) = (up.pid(), Vec::new());
        let mut world = World {
            accounts,
            issuer,
            base: String::new(),
            secrets: vec![KEY.to_owned(), issuer::CLIENT.1.to_owned()],
        };
        let using = async {
            let ready = within("the ready banner", up.output.next_line()).await;
            let ready: Value = serde_json::from_str(&ready.expect("output").expect("a line")).expect("JSON");
            ready["http"]
                .as_str()
                .expect("an address")
                .clone_into(&mut world.base);
            let nats = ready["nats"].as_str().expect("an address");
            let common = [
                "--log",
                "trace",
                "--config",
                &file,
                "--data-dir",
                &data,
                "--nats",
                nats,
            ];
            let logged = use_all(&mut world, &common).await;
            rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
            logged
        };
        let reading = async {
            while let Some(line) = up.log.next_line().await.expect("the log can be read") {
                log.push(line);
            }
        };
        let (logged, ()) = tokio::join!(using, reading);
        log.extend(logged.lines().map(str::to_owned));
        let talks = |word: &str| log.iter().any(|line| line.contains(word));
        assert!(talks("TRACE") && talks("DEBUG"), "{} lines", log.len());
        assert!(world.secrets.len() > 30, "{:?}", world.secrets);
        for secret in &world.secrets {
            assert!(secret.len() >= 8, "{secret:?} is too short to be looked for");
            let found = log.iter().find(|line| line.contains(secret.as_str()));
            assert_eq!(found, None, "{secret}");
        }
    }
}
