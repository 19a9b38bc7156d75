//! The NATS door: a plain NATS client calls tools by publishing JSON-RPC, and reaches nothing else.
//!
//! The client is Python's (`tests/python/door.py`), as no crate but `runtime` may speak to NATS.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bus_schema::{
    ContentType, Principal, Request, Token,
    mcp::{error, meta, method},
    principal::DEFAULT_TENANT,
    subject::{self, MethodPath, Subject},
};
use runtime::{Host, watch::CallWatch};
use serde_json::{Value, json};
use tests::{
    children::scripted,
    fixture::{self, Probe},
    http::{modern_body, text},
    nats::Nats,
    parts::{printed, python, script},
    platform::Platform,
    program::Program,
    root, within,
};

/// The public subject of a method of a server, and of the name that it is for.
fn public(server: &str, called: &str, name: Option<&str>) -> String {
    let subject = Subject::Public {
        tenant: Token::encode(DEFAULT_TENANT),
        server: Token::encode(server),
        method: MethodPath::encode(called),
        name: name.map(Token::encode),
    };
    subject.to_string()
}

fn request(called: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": called, "params": params })
}

/// A step that asks a server, with the subject that the message needs.
fn ask(server: &str, called: &str, name: Option<&str>, params: &Value) -> Value {
    json!({ "call": public(server, called, name), "json": request(called, params) })
}

/// A step that calls a tool of the fixture.
fn tool(name: &str, arguments: &Value) -> Value {
    let params = json!({ "name": name, "arguments": arguments });
    ask("fixture", method::TOOLS_CALL, Some(name), &params)
}

/// Lets a plain client do the steps, and gives what came of each.
async fn plain_client(url: &str, steps: Vec<Value>) -> Vec<Vec<Value>> {
    let mut command = python(&script("door.py"));
    command.arg(json!({ "url": url, "steps": steps }).to_string());
    serde_json::from_str(&printed(command).await).expect("JSON")
}

/// A platform with the fixture on its bus.
async fn with_fixture(probe: Arc<Probe>) -> (Platform, Host) {
    let platform = Platform::start("", &[]).await;
    let host = fixture::serve(platform.node.bus(), probe, |_| {}).await;
    platform.knows("fixture").await;
    (platform, host)
}

fn url(platform: &Platform) -> &str {
    platform.node.nats_url().expect("a NATS of its own")
}

/// The Python blocks of the README that follow the mark.
fn readme_examples() -> Vec<String> {
    const MARK: &str = "<!-- test: nats-py -->";
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let examples: Vec<String> = readme
        .split(MARK)
        .skip(1)
        .map(|after| {
            let block = after.trim_start().strip_prefix("```python\n");
            let block =
                block.unwrap_or_else(|| panic!("README.md: a line with {MARK} is not followed by ```python"));
            block.split("\n```").next().expect("a block ends").to_owned()
        })
        .collect();
    assert!(
        !examples.is_empty(),
        "README.md has no ```python block after a line with {MARK}"
    );
    examples
}

#[tokio::test]
async fn the_example_in_the_readme_runs() {
    const URL: &str = "nats://127.0.0.1:4222";
    let platform = Platform::start("", &["products"]).await;
    platform.knows("products").await;
    let found = platform
        .client("products")
        .call("search", json!({ "query": "desk" }))
        .await;
    let total = found["result"]["structuredContent"]["total"].to_string();
    let examples = readme_examples();
    for example in &examples {
        assert!(
            example.contains(URL),
            "the example connects elsewhere than to {URL}:\n{example}"
        );
        let program = platform.folder().join("example.py");
        fs::write(&program, example.replace(URL, url(&platform))).expect("the file is written");
        let out = printed(python(&program)).await;
        assert!(
            out.contains(&total),
            "the example does not print {total}, but:\n{out}"
        );
    }
    let all = examples.concat();
    assert!(
        all.contains("json.dumps") && all.contains("application/msgpack"),
        "it shows both encodings"
    );
}

/// A method, the name that it is for, its parameters, and what has to stand in the result.
type Case = (&'static str, Option<&'static str>, Value, &'static str);

fn every_method() -> Vec<Case> {
    let get = json!({ "name": "get", "arguments": { "sku": "OFF-0001" } });
    let categories = json!({ "name": "list_categories", "arguments": {} });
    let describe = json!({ "name": "describe_product", "arguments": { "sku": "OFF-0001" } });
    let reference = json!({ "type": "ref/prompt", "name": "describe_product" });
    let tone = json!({ "ref": reference, "argument": { "name": "tone", "value": "" } });
    let uri = "product://OFF-0001";
    vec![
        (method::DISCOVER, None, json!({}), "supportedVersions"),
        (method::TOOLS_LIST, None, json!({}), "tools"),
        (method::TOOLS_CALL, Some("get"), get, "structuredContent"),
        (method::TOOLS_CALL, Some("list_categories"), categories, "content"),
        (method::RESOURCES_LIST, None, json!({}), "resources"),
        (method::TEMPLATES_LIST, None, json!({}), "resourceTemplates"),
        (
            method::RESOURCES_READ,
            Some(uri),
            json!({ "uri": uri }),
            "contents",
        ),
        (method::PROMPTS_LIST, None, json!({}), "prompts"),
        (
            method::PROMPTS_GET,
            Some("describe_product"),
            describe,
            "messages",
        ),
        (method::COMPLETE, None, tone, "completion"),
    ]
}

#[tokio::test]
async fn every_method_is_answered_in_the_encoding_of_its_caller() {
    let platform = Platform::start("", &["products"]).await;
    platform.knows("products").await;
    let (json_type, packed_type) = ("application/json", "application/msgpack");
    let cases = every_method();
    let mut steps = Vec::new();
    for (called, name, params, _) in &cases {
        let subject = public("products", called, *name);
        let (bare, modern) = (request(called, params), modern_body(called, params.clone()));
        // Metadata may be left out, or be there.
        steps.push(json!({ "call": subject, "json": bare }));
        steps.push(json!({ "call": subject, "json": modern, "content_type": json_type }));
        steps.push(json!({ "call": subject, "msgpack": bare }));
    }
    let came = plain_client(url(&platform), steps).await;
    for ((called, _, _, key), came) in cases.iter().zip(came.chunks(3)) {
        let expected = &came[0][0]["body"]["result"];
        assert!(!expected[key].is_null(), "{called}: {came:?}");
        for (answers, content_type, id) in [
            (&came[0], json_type, 7),
            (&came[1], json_type, 1),
            (&came[2], packed_type, 7),
        ] {
            let body = json!({ "jsonrpc": "2.0", "id": id, "result": expected });
            let answer = json!({ "content_type": content_type, "body": body });
            assert_eq!(*answers, [answer], "{called} in {content_type}");
        }
    }
}

#[tokio::test]
async fn a_virtual_server_is_called_by_subjects_of_its_own() {
    let file = "[[virtual]]\nid = \"v\"\nitems = [{ server = \"fixture\", tools = [\"echo\"], rename = { echo = \"say\" } }]\n";
    let platform = Platform::start(file, &[]).await;
    let _host = fixture::serve(platform.node.bus(), Arc::default(), |_| {}).await;
    platform.knows("fixture").await;
    let call = |name: &str| {
        let params = json!({ "name": name, "arguments": { "text": "hi" } });
        ask("v", method::TOOLS_CALL, Some(name), &params)
    };
    let came = plain_client(url(&platform), vec![call("say"), call("echo")]).await;
    let last = |step: usize| came[step].last().expect("an answer").to_string();
    assert!(last(0).contains("\"hi\""), "{came:?}");
    assert!(last(1).contains("unknown tool `echo`"), "{came:?}");
}

#[tokio::test]
async fn the_subject_has_to_say_what_the_message_says() {
    let probe = Arc::<Probe>::default();
    let (platform, _host) = with_fixture(Arc::clone(&probe)).await;
    let count = request(method::TOOLS_CALL, &json!({ "name": "count", "arguments": {} }));
    let nameless = request(method::TOOLS_CALL, &json!({ "arguments": {} }));
    let list = request(method::TOOLS_LIST, &json!({}));
    let called = |name| public("fixture", method::TOOLS_CALL, name);
    let listed = public("fixture", method::TOOLS_LIST, None);
    let mismatch = error::HEADER_MISMATCH;
    let cases = [
        // The broker lets this client use `echo`, and the message asks for another tool.
        (json!({ "call": called(Some("echo")), "json": count }), mismatch),
        (
            json!({ "call": called(Some("echo")), "msgpack": count }),
            mismatch,
        ),
        (json!({ "call": called(Some("COUNT")), "json": count }), mismatch),
        (json!({ "call": called(None), "json": count }), mismatch),
        (json!({ "call": listed, "json": count }), mismatch),
        (json!({ "call": called(Some("count")), "json": list }), mismatch),
        (
            json!({ "call": called(Some("count")), "json": nameless }),
            error::INVALID_PARAMS,
        ),
    ];
    let (mut steps, codes): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    steps.push(json!({ "publish": called(Some("count")), "json": count }));
    steps.push(json!({ "call": called(Some("count")), "json": count }));
    let mut came = plain_client(url(&platform), steps).await;
    let counted = came.pop().expect("the last step");
    assert_eq!(
        (text(&counted[0]["body"]), probe.counted.load(Ordering::SeqCst)),
        ("1", 1)
    );
    assert_eq!(came.pop(), Some(vec![]), "who has no inbox is not served");
    for (answers, code) in came.iter().zip(codes) {
        assert_eq!(answers[0]["body"]["error"]["code"], code, "{answers:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_no_token_by_itself_is_refused_with_the_token_that_it_needs() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let params = json!({ "name": "hold_safe", "arguments": {} });
    let right = public("fixture", method::TOOLS_CALL, Some("hold_safe"));
    let written = right.replace(Token::encode("hold_safe").as_str(), "hold_safe");
    assert_ne!(right, written);
    let step = json!({ "call": written, "json": request(method::TOOLS_CALL, &params) });
    let came = plain_client(url(&platform), vec![step]).await;
    let refused = &came[0][0]["body"]["error"];
    assert_eq!(refused["code"], error::HEADER_MISMATCH, "{refused}");
    let words = refused["message"].as_str().expect("a message");
    assert!(
        words.contains(Token::encode("hold_safe").as_str()),
        "it does not say what would be right: {words}"
    );
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_name() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let echo = json!({ "name": "echo", "arguments": { "text": "x" } });
    let mut later = echo.clone();
    later["_meta"] = json!({ meta::PROTOCOL_VERSION: "2027-01-01", meta::CLIENT_CAPABILITIES: {} });
    let notification = json!({
        "call": public("fixture", method::TOOLS_CALL, Some("echo")),
        "json": { "jsonrpc": "2.0", "method": method::TOOLS_CALL, "params": echo },
    });
    let nobody = |called, name| ask("nobody", called, name, &echo);
    let fixture = |called| ask("fixture", called, None, &json!({}));
    let later = ask("fixture", method::TOOLS_CALL, Some("echo"), &later);
    let not_found = error::METHOD_NOT_FOUND;
    let cases = [
        (nobody(method::TOOLS_LIST, None), error::INTERNAL, "`nobody`"),
        (
            nobody(method::TOOLS_CALL, Some("echo")),
            error::INTERNAL,
            "`nobody`",
        ),
        (tool("no-such-tool", &json!({})), error::INVALID_PARAMS, "tool"),
        (fixture("tools/fly"), not_found, "tools/fly"),
        // It has no prompts.
        (fixture(method::PROMPTS_LIST), not_found, "prompts/list"),
        (later, error::UNSUPPORTED_VERSION, "2027-01-01"),
        (notification, error::INVALID_REQUEST, "requests"),
    ];
    let steps = cases.iter().map(|(step, _, _)| step.clone()).collect();
    let came = plain_client(url(&platform), steps).await;
    for (answers, (_, code, word)) in came.iter().zip(cases) {
        let refused = &answers[0]["body"]["error"];
        assert_eq!(refused["code"], code, "{answers:?}");
        let words = refused["message"].as_str().expect("a message");
        assert!(words.contains(word), "no `{word}` in {refused}");
    }
    for answers in &came[..2] {
        let data = &answers[0]["body"]["error"]["data"];
        assert_eq!(data["reason"], "unknown_server", "{answers:?}");
    }
}

#[tokio::test]
async fn who_asks_for_progress_gets_it_in_order_before_the_answer() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let subject = public("fixture", method::TOOLS_CALL, Some("progress"));
    let params = |meta: &Value| json!({ "name": "progress", "arguments": { "n": 5 }, "_meta": meta });
    let asked = request(method::TOOLS_CALL, &params(&json!({ "progressToken": "mine" })));
    let not_asked = request(method::TOOLS_CALL, &params(&json!({})));
    let steps = vec![
        json!({ "call": subject, "json": asked }),
        json!({ "call": subject, "msgpack": asked }),
        json!({ "call": subject, "json": not_asked }),
    ];
    let came = plain_client(url(&platform), steps).await;
    for answers in &came[..2] {
        let (last, parts) = answers.split_last().expect("an answer");
        let told: Vec<_> = parts
            .iter()
            .map(|part| {
                assert_eq!(part["content_type"], last["content_type"]);
                let params = &part["body"]["params"];
                assert_eq!(
                    (&part["body"]["method"], &params["progressToken"]),
                    (&json!(method::PROGRESS), &json!("mine"))
                );
                params["progress"].as_f64().expect("a number")
            })
            .collect();
        assert_eq!(told, [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(text(&last["body"]), "done");
    }
    assert_eq!(came[2].len(), 1, "{:?}", came[2]);
}

#[tokio::test]
async fn progress_of_a_long_call_comes_while_it_runs() {
    let platform = Platform::start("", &["products"]).await;
    platform.knows("products").await;
    let arguments = json!({ "batch_size": 60, "pause_ms": 1 });
    let params = json!({ "name": "reindex", "arguments": arguments, "_meta": { "progressToken": 1 } });
    let step = ask("products", method::TOOLS_CALL, Some("reindex"), &params);
    let came = plain_client(url(&platform), vec![step]).await;
    let (last, parts) = came[0].split_last().expect("an answer");
    let total = last["body"]["result"]["structuredContent"]["products"]
        .as_u64()
        .expect("a number");
    let told: Vec<_> = parts
        .iter()
        .map(|part| part["body"]["params"]["progress"].as_f64().map(|n| n as u64))
        .collect();
    assert_eq!(
        told,
        (1..=total.div_ceil(60))
            .map(|batch| Some((batch * 60).min(total)))
            .collect::<Vec<_>>()
    );
}

/// A well-made request of the internal plane, as a bridge would send it.
fn internal(called: &str, name: &str) -> (String, String) {
    let params = json!({ "name": name, "arguments": {} });
    let request = Request {
        caller: "forged".to_owned(),
        call: 1,
        server: "fixture".to_owned(),
        method: called.to_owned(),
        name: Some(name.to_owned()),
        principal: Principal::developer(),
        protocol_version: "2026-07-28".to_owned(),
        door: "forged".to_owned(),
        timeout_ms: 10_000,
        trace: None,
        chunked_bytes: 0,
        body: modern_body(called, params).to_string().into_bytes().into(),
    };
    let payload = ContentType::MessagePack.encode(&request).expect("encodes");
    let hex = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    (subject::call(DEFAULT_TENANT, "fixture", called).to_string(), hex)
}

#[tokio::test]
async fn a_plain_client_neither_publishes_nor_listens_on_internal_subjects() {
    let probe = Arc::<Probe>::default();
    let (platform, _host) = with_fixture(Arc::clone(&probe)).await;
    let (subject, hex) = internal(method::TOOLS_CALL, "count");
    assert!(subject.starts_with("mcp.rpc."), "{subject}");
    let mut steps: Vec<_> = [
        &subject,
        "mcp.pub.other.fixture.tools.call.count",
        "mcp.evt.default.fixture.replica.down",
        "mcp.cancel.default.fixture",
        "_INBOX_bridge.someone.call.1",
        "$JS.API.STREAM.LIST",
        "$SRV.PING",
    ]
    .map(|subject| json!({ "forbidden": subject, "hex": hex }))
    .into();
    let taps = [
        "mcp.rpc.>",
        "mcp.rpc.default.fixture.>",
        "mcp.pub.default.>",
        "mcp.evt.>",
        "_INBOX_bridge.>",
        "$SYS.>",
        ">",
    ];
    steps.extend(taps.map(|subject| json!({ "tap": subject })));
    // The host takes its calls in the order of the broker, so one more tells what became of those before.
    steps.push(tool("count", &json!({})));
    let mut came = plain_client(url(&platform), steps).await;
    let counted = came.pop().expect("the last step");
    assert_eq!(
        (text(&counted[0]["body"]), probe.counted.load(Ordering::SeqCst)),
        ("1", 1)
    );
    for refused in came {
        let [words] = refused.as_slice() else {
            panic!("{refused:?}")
        };
        let words = words.as_str().expect("the broker's words").to_lowercase();
        assert!(words.contains("permissions violation"), "{words}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_with_an_error() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let echo = public("fixture", method::TOOLS_CALL, Some("echo"));
    let raw = |bytes: &[u8], content_type: Option<&str>| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "call": echo, "hex": hex, "content_type": content_type })
    };
    let packed = "application/msgpack";
    let cases = [
        (raw(b"{\"jsonrpc\":", None), error::PARSE, "application/json"),
        (raw(b"", None), error::PARSE, "application/json"),
        (
            raw(b"\xff\xfe", Some("application/json")),
            error::PARSE,
            "application/json",
        ),
        (raw(b"[]", None), error::INVALID_REQUEST, "application/json"),
        (raw(b"{}", None), error::INVALID_REQUEST, "application/json"),
        // A byte that MessagePack never uses, a map that ends too soon, and nothing at all.
        (raw(b"\xc1", Some(packed)), error::PARSE, packed),
        (raw(b"\x82\xa2id", Some(packed)), error::PARSE, packed),
        (raw(b"", Some(packed)), error::PARSE, packed),
        (raw(b"\x01", Some(packed)), error::INVALID_REQUEST, packed),
        (
            raw(b"{}", Some("text/plain")),
            error::INVALID_REQUEST,
            "application/json",
        ),
    ];
    let (mut steps, expected): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .map(|(step, code, content_type)| (step, (code, content_type)))
        .unzip();
    steps.push(tool("echo", &json!({ "text": "still here" })));
    let mut came = plain_client(url(&platform), steps).await;
    assert_eq!(text(&came.pop().expect("the last step")[0]["body"]), "still here");
    for (at, (answers, (code, content_type))) in came.iter().zip(expected).enumerate() {
        let body = &answers[0]["body"];
        assert_eq!(
            (&body["jsonrpc"], &body["id"], &body["error"]["code"]),
            (&json!("2.0"), &Value::Null, &json!(code)),
            "{at}: {body}"
        );
        assert_eq!(answers[0]["content_type"], content_type, "{at}");
    }
}

#[tokio::test]
async fn an_answer_that_one_message_cannot_carry_is_refused_with_what_to_do() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let megabyte = 1_000_000;
    let steps = vec![
        tool("big", &json!({ "n": megabyte })),
        tool("big", &json!({ "n": 3 * megabyte })),
    ];
    let came = plain_client(url(&platform), steps).await;
    assert_eq!(text(&came[0][0]["body"]).len(), megabyte);
    let refused = &came[1][0]["body"];
    assert_eq!(
        (&refused["id"], &refused["error"]["data"]["reason"]),
        (&json!(7), &json!("too_large")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_call_carries_the_identity_that_the_broker_gives() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let mut watch = CallWatch::start(platform.node.bus(), DEFAULT_TENANT)
        .await
        .expect("watches");
    let calls = async {
        loop {
            plain_client(url(&platform), vec![tool("echo", &json!({ "text": "x" }))]).await;
        }
    };
    let seen = async {
        loop {
            let event = watch.next().await.expect("the bus is there");
            if event.name.as_deref() == Some("echo") {
                return event;
            }
        }
    };
    let event = within("the call is seen", async {
        tokio::select! { () = calls => panic!("calls go on"), event = seen => event }
    })
    .await;
    assert_eq!(
        (event.subject.as_str(), event.door.as_str()),
        ("DEFAULT/developer", "nats")
    );
}

#[tokio::test]
async fn a_plain_client_meets_the_policy_of_everybody() {
    let file = "[policy]\ndefault = \"deny\"\n[[policy.rules]]\nname = \"o\"\neffect = \"allow\"\ntools = [\"fixture__echo\"]\n";
    let platform = Platform::start(file, &[]).await;
    let probe = Arc::<Probe>::default();
    let _host = fixture::serve(platform.node.bus(), Arc::clone(&probe), |_| {}).await;
    platform.knows("fixture").await;
    let steps = vec![
        tool("count", &json!({})),
        tool("nothing", &json!({})),
        tool("echo", &json!({ "text": "x" })),
        ask("fixture", method::TOOLS_LIST, None, &json!({})),
    ];
    let came = plain_client(url(&platform), steps).await;
    let answer = |at: usize| came[at].last().expect("an answer").clone();
    let last = |at: usize| answer(at).to_string();
    assert!(last(0).contains("unknown tool") && last(0) == last(1), "{came:?}");
    assert!(!last(2).contains("error"), "{came:?}");
    assert!(last(3).contains("echo") && !last(3).contains("count"), "{came:?}");
    assert_eq!(probe.counted.load(Ordering::SeqCst), 0);
    platform.stop().await;
}

#[tokio::test]
async fn without_a_door_a_plain_client_hears_so_at_once() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let _host = fixture::serve(&bus, Arc::default(), |_| {}).await;
    let came = plain_client(nats.url(), vec![tool("echo", &json!({ "text": "x" }))]).await;
    assert_eq!(came, [[json!({ "no_responders": true })]]);
}

#[tokio::test]
async fn a_server_that_never_answers_does_not_keep_the_door_shut() {
    let nats = Nats::start().await;
    let (data, file) = (nats.data_dir(), nats.data_dir().join("trunkline.toml"));
    fs::write(&file, scripted("silent", "silent", "")).expect("the file is written");
    let [data, file] = [data, file].map(|path| path.display().to_string());
    let mut words = vec!["up", "--listen", "127.0.0.1:0", "--nats", nats.url()];
    words.extend(["--data-dir", &data, "--config", &file]);
    let _up = Program::start(&words);
    let params = json!({ "name": "get", "arguments": { "sku": "OFF-0001" } });
    let step = ask("products", method::TOOLS_CALL, Some("get"), &params);
    let answered = async {
        loop {
            let came = plain_client(nats.url(), vec![step.clone()]).await;
            if came[0][0]["body"]["result"].is_object() {
                return;
            }
        }
    };
    let soon = Duration::from_secs(10);
    let answered = tokio::time::timeout(soon, answered).await;
    assert!(
        answered.is_ok(),
        "after {soon:?} the door still waits for the silent server"
    );
}
