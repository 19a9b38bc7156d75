//! Nothing gets through: one platform, and every way to have what one may not have. Each attempt is refused, and each refusal is on record.
//!
//! A case is a name, an attempt, how it is refused, and the record that it leaves. What is tried is in the rooms: tokens, what belongs to
//! somebody else, requests that can be read in two ways, ways around the policy, and the bus.

mod bus;
mod bypass;
mod owners;
mod smuggling;
mod tokens;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bridges::front::Endpoint;
use bus_schema::{Principal, Request, TraceContext, audit::Kind, block::Blocked, subject::CallerClass};
use reqwest::RequestBuilder;
use runtime::{Host, Retry, nats_server::LocalNats};
use serde_json::{Value, json};
use tests::{
    channel::Channel, children::asking, conformance::fixture::serve, eventually, forger::Forger,
    http::Client, issuer::Issuer, platform::Platform, raw::Raw, recorded::Recorded, vault::Vault,
    whoami::WhoAmI, within,
};

/// What is open, what is denied by a rule, what needs a scope, and what may be done once.
const SETTINGS: &str = r#"
[audit]
singles_per_minute = 100000
[[limits]]
name = "once"
by = ["principal"]
for = ["whoami__other"]
calls = 1
window_secs = 3600
[policy]
default = "deny"
[policy.scopes]
"vault:pay" = ["vault__pay"]
[[policy.rules]]
name = "open"
effect = "allow"
tools = ["vault__open", "whoami__*", "fixture__*", "asking__*"]
prompts = ["vault__open"]
resources = ["vault__vault://open/*", "vault__vault://{drawer}/{item}", "whoami__*"]
methods = ["vault__acme/open"]
[[policy.rules]]
name = "no-secrets"
effect = "deny"
tools = ["vault__open"]
when = "has(arguments.word) && arguments.word == 'secret'"
"#;

/// How an attempt is refused.
#[derive(Clone, Copy, Debug)]
enum Refused {
    /// By a status of HTTP.
    Status(u16),
    /// By the code of a JSON-RPC error.
    Code(i64),
    /// By a tool's result that says so.
    Result,
    /// By an end of the connection, or by silence of the bus.
    Shut,
    /// What is asked for comes without what is not to be had.
    Without(&'static str),
}

/// What is tried.
enum Attempt {
    /// A request of HTTP.
    Http(RequestBuilder),
    /// A request of HTTP as bytes, as no client would write it.
    Raw(String),
    /// A message on a channel that is open.
    Message(Via, Value),
    /// A request on the bus, as a door that was broken into would send it.
    Bus(Box<Request>),
    /// A message on the bus by hand, as the user of the doors: its subject, reply and payload.
    Publish(String, Option<String>, Vec<u8>),
    /// A call of a plain NATS client that has come in: its subject, and the message.
    Plain(String, Value),
    /// A plain NATS client that shows this.
    Enter(String),
}

/// The channels that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Via {
    Stdio,
    StdioAll,
    StdioSearch,
    Socket,
    SocketAll,
}

struct Case {
    name: String,
    attempt: Attempt,
    refused: Refused,
    record: (Kind, &'static str),
    /// Whether the record can be found by the trace of the attempt.
    traced: bool,
}

impl Case {
    fn new(
        name: impl Into<String>,
        attempt: Attempt,
        refused: Refused,
        record: (Kind, &'static str),
    ) -> Self {
        Self {
            name: name.into(),
            attempt,
            refused,
            record,
            traced: true,
        }
    }

    fn http(
        name: impl Into<String>,
        request: RequestBuilder,
        refused: Refused,
        record: (Kind, &'static str),
    ) -> Self {
        Self::new(name, Attempt::Http(request), refused, record)
    }

    /// The same where nothing of the attempt is known to whoever refuses it.
    fn untraced(self) -> Self {
        Self {
            traced: false,
            ..self
        }
    }
}

struct World {
    platform: Platform,
    issuer: Issuer,
    elsewhere: Issuer,
    /// Whose subjects are of a tenant that is not here.
    foreign: Issuer,
    vault: Arc<Vault>,
    channels: HashMap<Via, Channel>,
    recorded: Recorded,
    plain: Forger,
    forger: Forger,
    folder: tempfile::TempDir,
    _hosts: Vec<Host>,
}

impl World {
    async fn start() -> Self {
        let (issuer, elsewhere) = (Issuer::start().await, Issuer::start().await);
        let foreign = Issuer::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = issuer.section("clock_skew_secs = 10")
            + &foreign.line("tenant_claim = \"org\"")
            + SETTINGS
            + &asking("asking", &folder.path().join("heard"), "");
        let mut platform = Platform::start(&file, &["registry", "asking"]).await;
        let bus = platform.node.bus().clone();
        let vault = Arc::<Vault>::default();
        let hosts = vec![
            vault.serve(&bus, "vault").await,
            WhoAmI::serve(&bus).await,
            serve::on_bus(&bus, "fixture").await,
        ];
        for id in ["vault", "whoami", "fixture", "asking"] {
            platform.knows(id).await;
        }
        let recorded = Recorded::start(&platform).await;
        let url = platform.node.nats_url().expect("a NATS of its own").to_owned();
        let token = issuer.token("ann", &platform.url(""), json!({}));
        let plain = Forger::enter_by(&url, &token).await.expect("ann comes in");
        let forger = Forger::enter(&as_bridge(&platform, &url)).await;
        let mut channels = HashMap::new();
        let own = Endpoint::Server("vault".parse().expect("an id"));
        for (via, endpoint) in [
            (Via::Stdio, own),
            (Via::StdioAll, Endpoint::All),
            (Via::StdioSearch, Endpoint::Search),
        ] {
            channels.insert(via, Channel::pipe(&mut platform, endpoint).await);
        }
        for (via, path) in [(Via::Socket, "/servers/vault/ws"), (Via::SocketAll, "/ws")] {
            channels.insert(via, Channel::socket_with(&platform, path, &token).await);
        }
        let world = Self {
            issuer,
            elsewhere,
            foreign,
            vault,
            channels,
            recorded,
            plain,
            forger: forger.expect("the user of the doors comes in"),
            folder,
            _hosts: hosts,
            platform,
        };
        world.virtual_server().await;
        world
    }

    /// An endpoint of chosen things, under other names.
    async fn virtual_server(&self) {
        let chosen = json!({ "id": "v", "items": [{
            "server": "vault", "tools": ["*"], "prompts": ["*"], "resources": ["*"], "rename": { "shut": "first", "open": "second" },
        }] });
        let token = self.token("root", json!({ "roles": ["operator"] }));
        let request = self
            .client("/virtual-servers")
            .with_token(&token)
            .raw(chosen.to_string());
        let made = within("an answer", request.send()).await.expect("an answer");
        assert_eq!(made.status(), 201);
        eventually("it is there", async || {
            self.of("/servers/v/mcp", "ann").list_tools().await["result"].is_object()
        })
        .await;
    }

    /// Stops one caller.
    async fn block(&mut self, subject: &str) {
        let front = self
            .platform
            .node
            .front(&self.platform.config)
            .await
            .expect("a front");
        let who = Blocked {
            tenant: "default".to_owned(),
            issuer: None,
            subject: subject.to_owned(),
        };
        let by = Principal::developer();
        front.blocks().block(&by, who, None, None).await.expect("blocked");
    }

    fn token(&self, subject: &str, more: Value) -> String {
        self.issuer.token(subject, &self.platform.url(""), more)
    }

    /// A client of a path that shows nothing.
    fn client(&self, path: &str) -> Client {
        Client::new(self.platform.url(path))
    }

    /// A client of a path, as somebody.
    fn of(&self, path: &str, subject: &str) -> Client {
        self.client(path).with_token(&self.token(subject, json!({})))
    }

    /// Makes an attempt, and gives its status and all that came.
    async fn attempt(&mut self, attempt: Attempt, trace: &str) -> (u16, String) {
        match attempt {
            Attempt::Http(request) => {
                let request = request.header("traceparent", trace);
                let answer = within("an answer", request.send()).await.expect("an answer");
                let status = answer.status().as_u16();
                (
                    status,
                    within("its body", answer.text()).await.unwrap_or_default(),
                )
            }
            Attempt::Raw(request) => {
                let at = self.platform.node.http().expect("HTTP is open");
                let mut raw = Raw::connect(at).await;
                raw.send(request.replace("{trace}", trace)).await;
                raw.finish_sending().await;
                let told = raw.read_to_end().await;
                let status = told.split(' ').nth(1).and_then(|status| status.parse().ok());
                (status.unwrap_or(0), told)
            }
            Attempt::Message(via, mut message) => {
                message["params"]["_meta"]["traceparent"] = json!(trace);
                let channel = self.channels.get_mut(&via).expect("an open channel");
                (0, channel.ask(&message).await.to_string())
            }
            Attempt::Bus(mut request) => {
                request.trace = TraceContext::parse(trace, None);
                let asked = self.platform.node.bus().ask(*request, Retry::Never);
                let (code, body) = within("an answer", asked).await.expect("an answer");
                assert!(code.is_some(), "it was answered");
                (0, String::from_utf8_lossy(&body).into_owned())
            }
            Attempt::Publish(subject, reply, payload) => {
                let taken = self.forger.publish(&subject, reply.as_deref(), &payload).await;
                assert!(taken, "the broker takes {subject} with the reply {reply:?}");
                (0, self.forger.everything().await)
            }
            Attempt::Plain(subject, mut message) => {
                message["params"]["_meta"]["traceparent"] = json!(trace);
                let token = "_INBOX.plain";
                let payload = message.to_string();
                let taken = self
                    .plain
                    .publish(&subject, Some(token), payload.as_bytes())
                    .await;
                assert!(taken, "ann may publish on {subject}");
                (0, String::new())
            }
            Attempt::Enter(token) => {
                let url = self.platform.node.nats_url().expect("a NATS of its own");
                match Forger::enter_by(url, &token).await {
                    Ok(_) => (200, String::new()),
                    Err(said) => (0, said),
                }
            }
        }
    }

    /// How many refusals of a kind by a rule are on record.
    fn count(&self, kind: &str, rule: &str) -> usize {
        let records = self.recorded.all();
        let of_it = records
            .iter()
            .filter(|record| (record.kind.as_str(), record.rule.as_str()) == (kind, rule));
        of_it
            .map(|record| usize::try_from(record.count).unwrap_or(usize::MAX))
            .sum()
    }

    fn record(&self, trace: &str, (kind, rule): (Kind, &str)) -> bool {
        let trace = trace.split('-').nth(1).expect("a trace id");
        let records = self.recorded.all();
        records.iter().any(|record| {
            record.trace.as_deref() == Some(trace) && (record.kind, record.rule.as_str()) == (kind, rule)
        })
    }
}

/// Where NATS is, as the user of the doors.
fn as_bridge(platform: &Platform, url: &str) -> String {
    let local = LocalNats::find(&platform.config.data_dir).expect("it has written down its secrets");
    let login = format!("nats://bridge:{}@", local.secrets.password(CallerClass::Bridge));
    url.replacen("nats://", &login, 1)
}

fn tool(name: &str) -> Value {
    json!({ "name": name, "arguments": {} })
}

fn is_refused(refused: Refused, (status, told): &(u16, String)) -> bool {
    let is_code = |code: i64| told.contains(&format!("\"code\":{code}"));
    match refused {
        Refused::Status(expected) => *status == expected,
        Refused::Code(code) => is_code(code),
        Refused::Result => told.contains("\"isError\":true"),
        Refused::Shut => *status != 200 && !told.contains("\"result\""),
        Refused::Without(word) => !told.contains(word),
    }
}

#[tokio::test]
async fn nothing_gets_through_and_each_refusal_is_on_record() {
    let mut world = World::start().await;
    let mut cases = tokens::cases(&world);
    cases.extend(owners::cases(&mut world).await);
    cases.extend(smuggling::cases(&world));
    cases.extend(bypass::cases(&mut world).await);
    cases.extend(bus::cases());
    assert!(cases.len() >= 100, "there are {} cases", cases.len());
    let mut names: Vec<_> = cases.iter().map(|case| case.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "each has a name of its own");
    let _ = world.vault.take();
    let mut wrong = Vec::new();
    let mut due = Vec::new();
    let mut untraced: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (number, case) in cases.into_iter().enumerate() {
        let trace = format!("00-{:032x}-{:016x}-01", 0xa0d1_7000 + number, 1);
        let seen = world.attempt(case.attempt, &trace).await;
        if !is_refused(case.refused, &seen) {
            wrong.push(format!(
                "{}: {:?} was expected, and came {seen:?}",
                case.name, case.refused
            ));
        }
        let heard = world.vault.take();
        if heard
            .iter()
            .any(|(_, name)| name.contains("shut") || name == "pay")
        {
            wrong.push(format!("{}: the server heard {heard:?}", case.name));
        }
        if case.traced {
            due.push((case.name, trace, case.record));
        } else {
            *untraced
                .entry((case.record.0.as_str(), case.record.1))
                .or_default() += 1;
        }
    }
    let missing = |world: &World| -> Vec<String> {
        let traced = due
            .iter()
            .filter(|(_, trace, record)| !world.record(trace, *record));
        let traced = traced.map(|(name, _, record)| format!("{name}: no record of {record:?}"));
        let mut all: Vec<String> = traced.collect();
        all.extend(
            untraced
                .iter()
                .filter(|((kind, rule), expected)| world.count(kind, rule) < **expected)
                .map(|((kind, rule), expected)| {
                    format!(
                        "{} of {expected} records of {kind} {rule}",
                        world.count(kind, rule)
                    )
                }),
        );
        all
    };
    let all_there = async {
        let mut again = tokio::time::interval(std::time::Duration::from_millis(50));
        while !missing(&world).is_empty() {
            again.tick().await;
        }
    };
    if tokio::time::timeout(tests::LIMIT, all_there).await.is_err() {
        wrong.extend(missing(&world));
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    holds_no_secret(&world);
    world.recorded.stop().await;
    world.platform.stop().await;
    drop(world.folder);
}

/// No record holds what somebody has shown or given.
fn holds_no_secret(world: &World) {
    let records = world.recorded.all();
    for record in &*records {
        let text = serde_json::to_string(record).expect("JSON");
        for secret in ["eyJ", "tlk_", "secret\"", "Bearer ", "access_token"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(
            !record.id.is_empty() && record.at_ms > 0 && !record.instance.is_empty(),
            "{text}"
        );
    }
}
