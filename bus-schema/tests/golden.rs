//! Golden files: the bytes of the wire, so that a change which other processes would notice is seen here first.
//!
//! `UPDATE_GOLDEN=1 cargo test -p bus-schema` writes them anew.

use std::{fs, path::PathBuf};

use bus_schema::{
    Body, ContentType, Frame, FrameKind, Principal, Request, ServerCard, Token, TraceContext,
    audit::Kind,
    card::{ListDigests, Place},
    envelope::Control,
    header,
    mcp::RpcError,
    rpc,
    subject::{self, CallerClass, EventKind, InstanceVerb, MethodPath, Span, Subject},
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

fn check_bytes(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, bytes).expect("write golden file");
    }
    let golden = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(
        golden == bytes,
        "{name} differs:\n{}",
        String::from_utf8_lossy(bytes)
    );
}

/// Checks both encodings against their files, and that each reads back equal.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let json = ContentType::Json.encode(value).expect("json");
    check_bytes(&format!("{name}.json"), &json);
    assert_eq!(&ContentType::Json.decode::<T>(&json).expect("json back"), value);
    let packed = ContentType::MessagePack.encode(value).expect("msgpack");
    check_bytes(&format!("{name}.msgpack"), &packed);
    assert_eq!(
        &ContentType::MessagePack
            .decode::<T>(&packed)
            .expect("msgpack back"),
        value
    );
}

fn request() -> Request {
    Request {
        caller: "0192f0c1a2b3".to_owned(),
        call: 42,
        server: "products".to_owned(),
        method: "tools/call".to_owned(),
        name: Some("search".to_owned()),
        principal: Principal {
            issuer: Some("https://id.example".to_owned()),
            client: Some("inspector".to_owned()),
            roles: vec!["buyer".to_owned()],
            scopes: vec!["products:read".to_owned()],
            ..Principal::developer()
        },
        protocol_version: "2026-07-28".to_owned(),
        door: "http".to_owned(),
        timeout_ms: 60_000,
        trace: TraceContext::parse(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            Some("v=1"),
        ),
        chunked_bytes: 0,
        body: br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}"#
            .to_vec()
            .into(),
    }
}

fn frame(kind: FrameKind, body: &[u8]) -> Frame {
    Frame {
        kind,
        instance: "0192f0c1a2b3".to_owned(),
        seq: 3,
        code: None,
        more: false,
        body: body.to_vec().into(),
    }
}

#[test]
fn envelopes_have_the_bytes_of_their_golden_files() {
    check("request", &request());
    check(
        "request_chunked",
        &Request {
            chunked_bytes: 10_485_760,
            body: Body::default(),
            trace: None,
            name: None,
            ..request()
        },
    );
    for (name, kind) in [
        ("accept", FrameKind::Accept),
        ("send_body", FrameKind::SendBody),
        ("credit", FrameKind::Credit),
        ("busy", FrameKind::Busy),
    ] {
        check(&format!("frame_{name}"), &frame(kind, b""));
    }
    check(
        "frame_part",
        &frame(
            FrameKind::Part,
            br#"{"jsonrpc":"2.0","method":"notifications/progress"}"#,
        ),
    );
    check(
        "frame_final_piece",
        &Frame {
            more: true,
            ..frame(FrameKind::Final, br#"{"jsonrpc":"2.0","#)
        },
    );
    check(
        "frame_final_error",
        &Frame {
            code: Some(-32602),
            ..frame(FrameKind::Final, br#"{"jsonrpc":"2.0","id":1}"#)
        },
    );
    check("frame_binary", &frame(FrameKind::Final, b"\xff\x00"));
    check(
        "control_body",
        &Control {
            caller: "c".to_owned(),
            call: 7,
            seq: 2,
            body: b"piece".to_vec().into(),
        },
    );
    check("card", &card());
}

fn card() -> ServerCard {
    let capabilities = serde_json::json!({ "tools": { "listChanged": true } });
    ServerCard {
        id: "products".parse().expect("id"),
        instance: "0192f0c1a2b3".to_owned(),
        place: Place {
            node: "node-1".to_owned(),
            region: "eu-1".to_owned(),
        },
        tenant: "default".to_owned(),
        title: "Products".to_owned(),
        version: "0.1.0".to_owned(),
        instructions: None,
        tags: vec!["catalogue".to_owned()],
        protocol_version: "2026-07-28".to_owned(),
        capabilities: capabilities.as_object().cloned().expect("object"),
        revision: "9f86d081884c7d65".to_owned(),
        lists: ListDigests {
            tools: "7f83b1657ff1fc53".to_owned(),
            ..ListDigests::default()
        },
        offered: "5891b5b522d5df08".to_owned(),
        tools: 7,
        prompts: 2,
        resources: 2,
        max_in_flight: 64,
        at_most_once: false,
        tasks: bus_schema::task::TaskKnob::default(),
        trouble: None,
    }
}

#[test]
fn subjects_have_the_spelling_of_their_golden_file() {
    let t = |name: &str| Token::encode(name);
    let (tenant, server, instance) = (t("default"), t("products"), t("0192f0c1a2b3"));
    let mut lines: Vec<String> = built_subjects(&tenant, &server, &instance);
    for kind in [EventKind::Call, EventKind::Tool, EventKind::Status] {
        lines.push(subject::all_events(&tenant, kind));
    }
    for class in CallerClass::ALL {
        lines.push(subject::all_answers(class, &instance));
        lines.push(subject::library_inbox_prefix(class, &instance));
    }
    lines.extend(subject::probes(CallerClass::Node));
    lines.push(subject::all_calls(&tenant, &server));
    let version = Subject::Version {
        tenant: tenant.clone(),
        server: server.clone(),
        version: t("1.4.2"),
        method: MethodPath::encode("tools/call"),
    };
    lines.push(version.to_string());
    lines.push(subject::all_version_calls(&tenant, &server, &t("1.4.2")));
    lines.push(subject::all_instance_words(&tenant, &server, &instance));
    let gone = Subject::Gone {
        tenant: tenant.clone(),
        server: server.clone(),
        instance: instance.clone(),
        caller: t("caller"),
        call: 255,
    };
    let door_cancel = Subject::DoorCancel {
        tenant: tenant.clone(),
    };
    lines.extend([gone.to_string(), door_cancel.to_string()]);
    lines.push(subject::all_gone(&tenant, &server, &instance));
    lines.push(subject::public_calls_of(&tenant));
    lines.push(subject::every_name(&tenant, &server, "resources/read"));
    lines.push(subject::private_inboxes("ann"));
    lines.push(subject::hooks_of(&tenant));
    lines.push(hook(&tenant).to_string());
    lines.push(subject::all_replica_events());
    lines.push(subject::all_public_calls());
    lines.push(subject::ask_all_services());
    lines.push(subject::ask_stats("products"));
    lines.extend(subject::service_questions("products", "0192f0c1a2b3"));
    lines.push(subject::DISCONNECTS.to_owned());
    for span in Span::ALL {
        let counter = Subject::Counter {
            span,
            limit: t("user"),
            key: t("0af7651916cd43dd8448eb211c80319c"),
            window: 1_790_000_000,
        };
        lines.push(counter.to_string());
        lines.push(subject::all_counters(span));
    }
    lines.extend(Kind::ALL.map(|kind| subject::audit_of("acme", kind)));
    lines.push(subject::all_audit());
    check_bytes("subjects.txt", (lines.join("\n") + "\n").as_bytes());
}

fn hook(tenant: &Token) -> Subject {
    Subject::Hook {
        tenant: tenant.clone(),
        name: Token::encode("payments"),
    }
}

/// One of each kind of subject.
fn built_subjects(tenant: &Token, server: &Token, instance: &Token) -> Vec<String> {
    let (tenant, server, instance) = (|| tenant.clone(), || server.clone(), || instance.clone());
    let rpc = |method| Subject::Rpc {
        tenant: tenant(),
        server: server(),
        method: MethodPath::encode(method),
    };
    let word = |verb| Subject::Instance {
        tenant: tenant(),
        server: server(),
        instance: instance(),
        verb,
    };
    let event = |kind| Subject::Event {
        tenant: tenant(),
        server: server(),
        kind,
    };
    let inbox = |class| Subject::Inbox {
        class,
        instance: instance(),
        call: 255,
    };
    let public = |method, name: Option<&str>| Subject::Public {
        tenant: tenant(),
        server: server(),
        method: MethodPath::encode(method),
        name: name.map(Token::encode),
    };
    let subjects = [
        rpc("tools/call"),
        rpc("server/discover"),
        rpc("com.example/any_thing"),
        word(InstanceVerb::Body),
        word(InstanceVerb::Credit),
        word(InstanceVerb::Cancel),
        word(InstanceVerb::Near),
        Subject::Cancel {
            tenant: tenant(),
            server: server(),
        },
        event(EventKind::Up),
        event(EventKind::Down),
        event(EventKind::Left),
        event(EventKind::Call),
        event(EventKind::Tool),
        event(EventKind::Status),
        Subject::Watch { tenant: tenant() },
        inbox(CallerClass::Bridge),
        inbox(CallerClass::Cli),
        inbox(CallerClass::Host),
        public("tools/call", Some("get_product")),
        public("resources/read", Some("product://a b")),
        public("tools/list", None),
    ];
    subjects.iter().map(ToString::to_string).collect()
}

#[test]
fn header_values_and_answers_have_the_bytes_of_their_golden_files() {
    let values = [
        "search",
        "product://OFF-0137",
        " padded",
        "zwölf",
        "=?base64?x?=",
        "a\nb",
        "",
    ];
    let lines: String = values
        .iter()
        .map(|value| format!("{value:?} -> {}\n", header::encode_value(value)))
        .collect();
    check_bytes("header_values.txt", lines.as_bytes());
    check_bytes(
        "answer_error.json",
        &rpc::error_response(Some("7"), &RpcError::unsupported_version("v999")),
    );
    check_bytes(
        "answer_error_without_id.json",
        &rpc::error_response(None, &RpcError::invalid_request("no")),
    );
    check_bytes(
        "answer_result.json",
        &rpc::result_response("\"a\"", b"{\"x\":1e400}"),
    );
}

fn any_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Body::from),
        ".*".prop_map(|text| Body::from(text.into_bytes())),
    ]
}

prop_compose! {
    fn any_principal()(
        subject in ".*", tenant in ".*", issuer in prop::option::of(".*"), client in prop::option::of(".*"),
        roles in prop::collection::vec(".*", 0..3), scopes in prop::collection::vec(".*", 0..3),
    ) -> Principal {
        Principal { subject, tenant, issuer, client, roles, scopes }
    }
}

prop_compose! {
    fn any_request()(
        caller in ".*", call: u64, server in ".*", method in ".*", name in prop::option::of(".*"),
        principal in any_principal(), version in ".*", door in ".*",
        timeout_ms: u64, trace: (u128, u64, bool), chunked_bytes: u64, body in any_body(),
    ) -> Request {
        let trace = trace.2.then(|| TraceContext::root(trace.0, trace.1, bus_schema::trace::Sampled::Yes));
        Request {
            caller, call, server, method, name, principal,
            protocol_version: version, door, timeout_ms, trace, chunked_bytes, body,
        }
    }
}

prop_compose! {
    fn any_frame()(
        kind in prop::sample::select(vec![
            FrameKind::Accept, FrameKind::SendBody, FrameKind::Credit, FrameKind::Part, FrameKind::Final, FrameKind::Busy,
        ]),
        instance in ".*", seq: u32, code in prop::option::of(any::<i64>()), more: bool, body in any_body(),
    ) -> Frame {
        Frame { kind, instance, seq, code, more, body }
    }
}

proptest! {
    #[test]
    fn every_envelope_decodes_equal_in_both_codecs(request in any_request(), frame in any_frame()) {
        for codec in [ContentType::Json, ContentType::MessagePack] {
            let bytes = codec.encode(&request).expect("request");
            prop_assert_eq!(&codec.decode::<Request>(&bytes).expect("request back"), &request);
            let bytes = codec.encode(&frame).expect("frame");
            prop_assert_eq!(&codec.decode::<Frame>(&bytes).expect("frame back"), &frame);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for codec in [ContentType::Json, ContentType::MessagePack] {
            let _ = codec.decode::<Request>(&bytes);
            let _ = codec.decode::<Frame>(&bytes);
            let _ = codec.to_json(&bytes);
        }
    }
}

#[test]
fn a_field_added_later_does_not_break_an_old_reader() {
    let mut value: serde_json::Value =
        serde_json::from_slice(&ContentType::Json.encode(&request()).expect("json")).expect("value");
    value["added_later"] = serde_json::json!({ "x": [1] });
    let packed = ContentType::MessagePack.encode(&value).expect("msgpack");
    // JSON text bodies are strings here, which MessagePack readers accept as bytes.
    let back: Request = ContentType::MessagePack.decode(&packed).expect("decodes");
    assert_eq!(back, request());
}
