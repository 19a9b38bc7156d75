//! The same way with all that a security team puts in it: a key at the door, a limit, and a policy that the door and the host ask.

use std::{fs, path::Path};

use anyhow::ensure;
use bridges::auth::new_api_key;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    args::{EndpointChoice, Options},
    child::Served,
    load::{Target, post_once},
    messages::{ECHO, Message},
    role::{GUARDED, Role},
};

/// How long the bridge may take to see the server.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// A bridge and a host of their own, on the bus of the others.
pub(crate) struct Guarded {
    host: Served,
    bridge: Served,
    key: String,
    path: String,
    call: Message,
}

impl Guarded {
    /// Starts both, and waits until a call is answered.
    pub(crate) async fn start(nats: &str, options: &Options, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let made = new_api_key();
        let (config, policy) = (folder.join("trunkline.toml"), folder.join("policy.json"));
        fs::write(&config, settings(&made.sha256))?;
        fs::write(&policy, document().to_string())?;
        let host = Role::Host {
            nats: nats.to_owned(),
            threads: options.threads,
            guardrails: None,
            policy: Some(policy),
        };
        let host = Served::start(&host).await?;
        let bridge = Role::Bridge {
            nats: nats.to_owned(),
            threads: options.threads,
            folder: folder.join("data"),
            config: Some(config),
        };
        let bridge = Served::start(&bridge).await?;
        let (path, name) = match options.endpoint {
            EndpointChoice::All => ("/mcp".to_owned(), format!("{GUARDED}__{ECHO}")),
            EndpointChoice::Server => (format!("/servers/{GUARDED}/mcp"), ECHO.to_owned()),
        };
        let guarded = Self {
            host,
            bridge,
            key: made.key,
            path,
            call: Message::call(&name),
        };
        guarded.settle().await?;
        Ok(guarded)
    }

    /// The bridge and the host, by name.
    pub(crate) fn pids(&self) -> [(&'static str, Option<u32>); 2] {
        [
            ("bridge", Some(self.bridge.ready.pid)),
            ("host", Some(self.host.ready.pid)),
        ]
    }

    /// A call that is let through.
    pub(crate) fn target(&self) -> Target {
        Target::Http {
            request: self.request(),
            address: self.bridge.ready.at.clone(),
            in_order: None,
        }
    }

    fn request(&self) -> String {
        let authorization = format!("authorization: Bearer {}\r\n", self.key);
        self.call
            .http_with(&self.bridge.ready.at, &self.path, &authorization)
    }

    async fn settle(&self) -> anyhow::Result<()> {
        let limit = Instant::now() + SETTLE_LIMIT;
        loop {
            let answer = post_once(&self.bridge.ready.at, &self.request()).await;
            let answer: Value = answer
                .and_then(|answer| Ok(serde_json::from_slice(&answer)?))
                .unwrap_or_default();
            if answer["result"].is_object() {
                return Ok(());
            }
            ensure!(Instant::now() < limit, "the guarded bridge answers {answer}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn stop(self) {
        self.bridge.stop().await;
        self.host.stop().await;
    }
}

fn settings(sha256: &str) -> String {
    format!(
        "[auth]\nmode = \"api_keys\"\n[[auth.api_keys]]\nsubject = \"bench\"\nsha256 = \"{sha256}\"\nroles = [\"caller\"]\n\
         [[limits]]\nname = \"many\"\ncalls = 1000000000\n[policy]\n{}",
        policy_section()
    )
}

/// The document under `[policy]`, in the words of the file.
fn policy_section() -> String {
    "default = \"deny\"\n[policy.roles.caller]\nscopes = [\"echo\"]\n[policy.scopes]\n\"echo\" = [\"guarded__echo\"]\n\
     [[policy.rules]]\nname = \"not-mallory\"\neffect = \"deny\"\ntools = [\"guarded__*\"]\nwhen = \"principal.subject == 'mallory'\"\n"
        .to_owned()
}

/// The same for the host.
fn document() -> Value {
    json!({
        "default": "deny",
        "roles": { "caller": { "scopes": ["echo"] } },
        "scopes": { "echo": ["guarded__echo"] },
        "rules": [{
            "name": "not-mallory", "effect": "deny", "tools": ["guarded__*"], "when": "principal.subject == 'mallory'"
        }],
    })
}
