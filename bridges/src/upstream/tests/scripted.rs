//! The scripts, and how tests run them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus_schema::{RpcError, mcp::Era, rpc::Message};
use runtime::Outcome;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    outbox::Step,
    upstream::{
        AskingOptions, BreakerKnob, ChildOptions, EraKnob, RetryKnob, UpstreamError,
        call::Call,
        child::Child,
        connection::{Opening, Session},
        handshake::connect,
        options::Limits,
        request::Reading,
    },
};

/// No test waits longer for anything.
const GUARD: Duration = Duration::from_secs(60);

/// What all scripts can use: `next` reads a message into `line` and its id into `id`, and notes it where the test reads. A ping is
/// answered on the way.
const PRELUDE: &str = r#"
next() { read -r line && { id=${line#*\"id\":}; id=${id%%[,\}]*}; case "$line" in
    *'"method":"ping"'*) result '{}'; next;;
    *) printf '%s\n' "$line" >> "${HEARD:-/dev/null}";; esac; }; }
ask() { printf '{"jsonrpc":"2.0","id":"%s","method":"%s","params":%s}\n' "$1" "$2" "$3"; }
result() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
error() { printf '{"jsonrpc":"2.0","id":%s,"error":%s}\n' "$id" "$1"; }
say() { printf '%s\n' "$1"; }
initialized() { result '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}'; next; }
legacy() { next; error '{"code":-32601,"message":"unknown"}'; next; initialized; }
modern() { next; result '{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}'; }
"#;

/// A shell script, after the helpers.
pub(super) fn script(text: &str) -> ChildOptions {
    command(&["sh", "-c", &format!("{PRELUDE}{text}")])
}

pub(super) fn command(command: &[&str]) -> ChildOptions {
    ChildOptions {
        id: "scripted".parse().unwrap(),
        command: command.iter().map(|&part| part.to_owned()).collect(),
        secret_env: std::collections::BTreeMap::new(),
        env: BTreeMap::new(),
        cwd: None,
        era: EraKnob::Auto,
        tags: Vec::new(),
        max_in_flight: 16,
        tool_timeouts: Default::default(),
        call_timeout: None,
        breaker: BreakerKnob::default(),
        retry: RetryKnob::default(),
        tasks: bus_schema::task::TaskKnob::default(),
        asking: AskingOptions::default(),
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        handshake: GUARD,
        probe: GUARD,
        unread: GUARD,
        end: GUARD,
        terminate: GUARD,
    }
}

/// A child that is ready for calls.
pub(super) struct Ready {
    pub(super) child: Child,
    pub(super) session: Session,
}

pub(super) async fn start(options: &ChildOptions) -> Result<Ready, UpstreamError> {
    start_with(options, limits()).await
}

pub(super) async fn start_with(options: &ChildOptions, limits: Limits) -> Result<Ready, UpstreamError> {
    let (child, session) = within(connect(options, &Opening::shared(options.era), limits)).await?;
    Ok(Ready { child, session })
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(GUARD, future).await.expect("it took too long")
}

impl Ready {
    pub(super) fn era(&self) -> Era {
        self.session.version.era()
    }

    pub(super) async fn begin(&self, body: &str) -> Call {
        self.try_begin(body).await.unwrap()
    }

    pub(super) async fn try_begin(&self, body: &str) -> Result<Call, RpcError> {
        let link = Arc::clone(self.child.link());
        let reading = Reading::of(body.as_bytes())?;
        within(link.begin(&reading, reading.asked(), self.era(), None)).await
    }

    /// Makes a call to its end: its notifications, and its answer.
    pub(super) async fn call(&self, body: &str) -> (Vec<String>, Value) {
        finish(self.begin(body).await).await
    }
}

pub(super) async fn finish(call: Call) -> (Vec<String>, Value) {
    let mut parts = Vec::new();
    loop {
        match within(call.message()).await {
            Step::Part(body) => parts.push(String::from_utf8(body.to_vec()).unwrap()),
            Step::Answer(outcome) => return (parts, json(&outcome)),
        }
    }
}

pub(super) fn json(outcome: &Outcome) -> Value {
    let message = Message::parse(&outcome.body).unwrap();
    assert_eq!(message.error.is_some(), outcome.code.is_some());
    serde_json::from_slice(&outcome.body).unwrap()
}

/// A request as it stands on the bus.
pub(super) fn request(method: &str, id: &str, params: &str, meta: &str) -> String {
    let comma = if params.is_empty() { "" } else { "," };
    let meta = format!(
        r#"{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}{meta}}}"#
    );
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}{comma}"_meta":{meta}}}}}"#)
}
