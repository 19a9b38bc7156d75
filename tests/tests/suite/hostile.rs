//! What a client can do wrong on purpose: each gets a clear error or is cut off, the door lives, and the others are served.

mod crowd;

use std::{net::SocketAddr, sync::Arc};

use bus_schema::mcp::error;
use futures::future::join_all;
use serde_json::{Value, json};
use tests::{
    eventually,
    fixture::{self, Probe},
    http::{modern_body, text},
    raw::{self, Raw, Reply, resident},
    within,
};

use crate::processes::{Cluster, HttpBridge, terminate};

const MCP: &str = "/servers/fixture/mcp";
const MIB: usize = 1024 * 1024;

/// A door that is a process of its own, and a server behind it that is not, so that the door's memory is the door's.
struct Target {
    cluster: Cluster,
    bridge: HttpBridge,
    probe: Arc<Probe>,
    _host: runtime::Host,
}

impl Target {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let probe = Arc::<Probe>::default();
        let bus = cluster.nats.bus().await;
        let host = fixture::serve(&bus, Arc::clone(&probe), |options| options.max_in_flight = 4096).await;
        let bridge = cluster.bridge().await;
        let target = Self {
            cluster,
            bridge,
            probe,
            _host: host,
        };
        eventually("the door knows the server", async || target.serves().await).await;
        target
    }

    fn door(&self) -> SocketAddr {
        self.bridge
            .base
            .trim_start_matches("http://")
            .parse()
            .expect("an address")
    }

    fn resident(&self) -> usize {
        resident(self.bridge.program.pid())
    }

    /// Whether an ordinary client is served.
    async fn serves(&self) -> bool {
        let call = self.bridge.client("fixture");
        let answer = within("an answer", call.call("echo", json!({ "text": "hi" }))).await;
        text(&answer) == "hi"
    }

    /// Ends the door, which has to have gone through everything in order.
    async fn end(self) {
        let Self {
            mut bridge, cluster, ..
        } = self;
        bridge.program.signal(rustix::process::Signal::TERM);
        let mut said = String::new();
        while let Ok(Some(line)) = within("the end of the log", bridge.program.log.next_line()).await {
            said = format!("{said}{line}\n");
        }
        assert!(!said.contains("panicked"), "{said}");
        terminate_ended(bridge.program).await;
        drop(cluster);
    }
}

/// The door was asked to end already; it has to do so with success.
async fn terminate_ended(mut program: tests::program::Program) {
    let ended = within("the end of the door", program.child.wait())
        .await
        .expect("it ends");
    assert!(ended.success(), "{ended}");
}

/// What has to come of something hostile.
enum Expected {
    /// An answer with this status, and this code if it is a JSON-RPC error.
    Answer(u16, Option<i64>),
    /// An answer with this status, unless the connection was cut while the client was still sending.
    AnswerOrCut(u16),
    /// No answer: the connection is closed.
    Closed,
}
use Expected::{Answer, AnswerOrCut, Closed};

struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    expected: Expected,
}

fn case(what: &'static str, bytes: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case {
        what,
        bytes: bytes.into(),
        expected,
    }
}

/// An `echo` call with something in the body exchanged.
fn echo_with(from: &str, to: &str) -> String {
    let params = json!({ "name": "echo", "arguments": { "text": "hi" } });
    let body = modern_body("tools/call", params).to_string();
    assert!(body.contains(from), "no {from} in {body}");
    call(&body.replacen(from, to, 1))
}

fn call(body: &str) -> String {
    raw::post(MCP, &call_headers(), body)
}

fn call_headers() -> [(&'static str, &'static str); 3] {
    [
        (bus_schema::header::PROTOCOL_VERSION, "2026-07-28"),
        (bus_schema::header::METHOD, "tools/call"),
        (bus_schema::header::NAME, "echo"),
    ]
}

/// Bodies that are no message, or one that means two things at once.
fn bodies() -> Vec<Case> {
    let deep = |open: &str, close: &str| open.repeat(200_000) + "1" + &close.repeat(200_000);
    let mut not_utf8 = echo_with("hi", "h@").into_bytes();
    let at = not_utf8.iter().rposition(|byte| *byte == b'@').expect("the mark");
    not_utf8[at] = 0xff;
    vec![
        case("no UTF-8", not_utf8, Answer(400, Some(error::PARSE))),
        case("no JSON", call("{\"jsonrpc\":"), Answer(400, Some(error::PARSE))),
        case("an empty body", call(""), Answer(400, Some(error::PARSE))),
        case(
            "deep arrays alone",
            call(&deep("[", "]")),
            Answer(400, Some(error::INVALID_REQUEST)),
        ),
        case(
            "deep objects alone",
            call(&deep("{\"a\":", "}")),
            Answer(400, Some(error::INVALID_REQUEST)),
        ),
        case(
            "deep arguments",
            echo_with("\"hi\"", &deep("[", "]")),
            Answer(200, Some(error::INVALID_PARAMS)),
        ),
        case(
            "deep metadata",
            echo_with(
                "\"_meta\":{",
                &format!("\"_meta\":{{\"x\":{},", deep("{\"a\":", "}")),
            ),
            Answer(200, Some(error::INVALID_PARAMS)),
        ),
        case(
            "two methods",
            echo_with("\"id\":1,", "\"id\":1,\"method\":\"tools/list\","),
            Answer(400, Some(error::INVALID_REQUEST)),
        ),
        case(
            "two ids",
            echo_with("\"id\":1,", "\"id\":1,\"id\":2,"),
            Answer(400, Some(error::INVALID_REQUEST)),
        ),
        case(
            "two methods, one in disguise",
            echo_with("\"id\":1,", "\"id\":1,\"m\\u0065thod\":\"tools/list\","),
            Answer(400, Some(error::INVALID_REQUEST)),
        ),
        case(
            "two names",
            echo_with("\"name\":\"echo\"", "\"name\":\"echo\",\"name\":\"count\""),
            Answer(400, Some(error::INVALID_PARAMS)),
        ),
        case(
            "two metadata objects",
            echo_with("\"_meta\":{", "\"_meta\":{},\"_meta\":{"),
            Answer(400, Some(error::INVALID_PARAMS)),
        ),
        case(
            "two versions",
            echo_with(
                "\"_meta\":{",
                "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2025-11-25\",",
            ),
            Answer(400, Some(error::INVALID_PARAMS)),
        ),
    ]
}

/// Heads and framings that are no HTTP, or that two readers could read in two ways.
fn framings() -> Vec<Case> {
    let head = || raw::head(MCP);
    let with = |header: &str| format!("{}{header}\r\ncontent-length: 2\r\n\r\n{{}}", head());
    let large = format!("x-large: {}", "y".repeat(100 * 1024));
    let declared = 64 * MIB + 1;
    let chunked = |chunks: &str| format!("{}transfer-encoding: chunked\r\n\r\n{chunks}", head());
    vec![
        case("a large header", with(&large), AnswerOrCut(431)),
        case(
            "many headers",
            with("x-a: b\r\n".repeat(200).trim_end()),
            AnswerOrCut(431),
        ),
        case(
            "a large address",
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)),
            AnswerOrCut(431),
        ),
        case(
            "a body declared too large",
            format!("{}content-length: {declared}\r\n\r\n", head()),
            Answer(413, Some(error::INVALID_REQUEST)),
        ),
        case("two lengths", with("content-length: 3"), Answer(400, None)),
        case(
            "a negative length",
            format!("{}content-length: -1\r\n\r\n", head()),
            Answer(400, None),
        ),
        case(
            "chunks without size",
            chunked("zz\r\n{}\r\n"),
            Answer(400, Some(error::INVALID_REQUEST)),
        ),
        case(
            "a chunk larger than numbers go",
            chunked("ffffffffffffffff0\r\n{}\r\n"),
            Answer(400, Some(error::INVALID_REQUEST)),
        ),
        case(
            "chunks and an unknown coding",
            format!(
                "{}transfer-encoding: chunked, nonsense\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
                head()
            ),
            Answer(400, None),
        ),
        case(
            "a line end in a header",
            with("x-a: b\rx-c: d"),
            Answer(400, None),
        ),
        case("a zero in a header", with("x-a: b\0c"), Answer(400, None)),
        case("a folded header", with("x-a: b\r\n c"), Answer(400, None)),
        case("a header without name", with(": b"), Answer(400, None)),
        case("a blank before a colon", with("x-a : b"), Answer(400, None)),
        case(
            "garbage",
            "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\r\n\r\n",
            Answer(400, None),
        ),
        case(
            "the next protocol",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            AnswerOrCut(400),
        ),
        case(
            "an unknown version",
            "GET /mcp HTTP/3.7\r\n\r\n",
            AnswerOrCut(400),
        ),
        case("nothing at all", "", Closed),
        case("half a head", "POST /mcp HTTP/1.1\r\nhost: loc", Closed),
    ]
}

async fn check(door: SocketAddr, case: &Case) {
    let what = case.what;
    let mut client = Raw::connect(door).await;
    let sent = client.send(&case.bytes).await;
    if matches!(case.expected, Closed) {
        client.finish_sending().await;
    }
    let reply = client.reply().await;
    match (&case.expected, reply) {
        (Answer(status, code), Some(reply)) => {
            assert_eq!(reply.status, *status, "{what}: {reply:?}");
            assert_eq!(code_of(&reply), *code, "{what}: {reply:?}");
        }
        (AnswerOrCut(status), Some(reply)) => assert_eq!(reply.status, *status, "{what}: {reply:?}"),
        (AnswerOrCut(_) | Closed, None) => {}
        (Answer(..), None) => panic!("{what}: no answer (everything sent: {sent})"),
        (Closed, Some(reply)) => panic!("{what}: {reply:?}"),
    }
}

fn code_of(reply: &Reply) -> Option<i64> {
    let body: Value = serde_json::from_str(&reply.body).ok()?;
    body["error"]["code"].as_i64()
}

#[tokio::test]
async fn nonsense_is_answered_clearly_and_leaves_nothing_behind() {
    let target = Target::start().await;
    let cases: Vec<Case> = bodies().into_iter().chain(framings()).collect();
    let mut before = 0;
    for round in 0..6 {
        join_all(cases.iter().map(|case| check(target.door(), case))).await;
        assert!(target.serves().await, "others are served meanwhile");
        // The first rounds fill what the allocator keeps.
        if round == 1 {
            before = target.resident();
        }
    }
    let after = target.resident();
    assert!(
        after < before + 16 * MIB,
        "four rounds took the door from {before} to {after} bytes"
    );
    target.end().await;
}

#[tokio::test]
async fn slow_clients_are_given_up_and_others_are_served_meanwhile() {
    let target = Target::start().await;
    let half_body = format!("{}content-length: 100\r\n\r\n{{", raw::head(MCP));
    let half_chunk = format!("{}transfer-encoding: chunked\r\n\r\n5\r\n{{", raw::head(MCP));
    let mut waiting = Vec::new();
    for (bytes, status) in [
        (String::new(), None),
        (format!("{}x-a: b", raw::head(MCP)), None),
        (half_body, Some(408)),
        (half_chunk, Some(408)),
    ] {
        for _ in 0..25 {
            let mut client = Raw::connect(target.door()).await;
            assert!(client.send(&bytes).await);
            waiting.push(async move {
                let reply = client.reply().await;
                assert_eq!(reply.map(|reply| reply.status), status);
            });
        }
    }
    let serving = async {
        for _ in 0..100 {
            assert!(target.serves().await);
        }
    };
    futures::join!(serving, join_all(waiting));
    target.end().await;
}

#[tokio::test]
async fn an_old_client_and_one_that_does_not_wait_are_served_in_order() {
    let target = Target::start().await;
    let mut old = Raw::connect(target.door()).await;
    let request = echo_with("hi", "hi").replacen("HTTP/1.1", "HTTP/1.0", 1);
    assert!(old.send(request).await);
    let answer = old.read_to_end().await;
    assert!(
        answer.starts_with("HTTP/1.0 200 ") && answer.contains("\"hi\""),
        "{answer}"
    );
    // Events need no chunks when the end of the connection ends them.
    let mut old = Raw::connect(target.door()).await;
    let params = json!({ "name": "progress", "arguments": { "n": 3 }, "_meta": { "progressToken": 1 } });
    let request = raw::modern(MCP, "tools/call", "progress", params).replacen("HTTP/1.1", "HTTP/1.0", 1);
    assert!(old.send(request).await);
    let answer = old.read_to_end().await;
    assert_eq!(answer.matches("event: message").count(), 4, "{answer}");
    let mut hasty = Raw::connect(target.door()).await;
    let all: String = (1..=20)
        .map(|id| echo_with("\"id\":1", &format!("\"id\":{id}")))
        .collect();
    assert!(hasty.send(all).await);
    for id in 1..=20 {
        let reply = hasty.reply().await.expect("an answer");
        let body: Value = serde_json::from_str(&reply.body).expect("JSON");
        assert_eq!((reply.status, &body["id"]), (200, &json!(id)));
    }
    terminate(target.bridge.program).await;
}
