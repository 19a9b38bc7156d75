//! What nobody here knows comes through every translation as it was spelled.

use bus_schema::{
    ProtocolVersion as V, RpcError,
    mcp::{error as code, method},
};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, value::RawValue};

use super::{
    Dialect, Tasks,
    asking::{self, Askable, ClientRequest},
    batch::{self, Batch},
    capabilities::{self, Asks},
    error, request,
    result::{self, Downgraded},
    task::{self, client, server},
};

const LEGACY: [V; 4] = [V::V2024_11_05, V::V2025_03_26, V::V2025_06_18, V::V2025_11_25];
const METHODS: [&str; 8] = [
    method::TOOLS_CALL,
    method::TOOLS_LIST,
    method::PROMPTS_LIST,
    method::PROMPTS_GET,
    method::RESOURCES_LIST,
    method::TEMPLATES_LIST,
    method::RESOURCES_READ,
    "com.example/other",
];
const ALL: Askable = Askable {
    roots: true,
    sampling: true,
    sampling_tools: true,
    sampling_context: true,
    forms: true,
    urls: true,
};

/// JSON as a stranger may spell it.
fn spelled() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "1e400",
            "-0.0",
            "1.50",
            "12345678901234567890123",
            r#""\ud800""#,
            r#""\u00e9 \/ é""#,
            "null",
            "{ }",
            "[]",
        ])
        .prop_map(str::to_owned),
        ".{0,8}".prop_map(|text| Value::from(text).to_string()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[ {}]", items.join(" ,"))),
            ("[a-z_]{1,9}", inner).prop_map(|(key, value)| format!("{{ \"{key}\":\n{value} }}")),
        ]
    })
}

/// A member that no version has.
fn unknown() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["com.example/x", "x-\\u0061", "résumé", "traceparentish"]);
    (key, spelled()).prop_map(|(key, value)| format!("\"{key}\":{value}"))
}

fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).expect("the test writes JSON")
}

fn text(body: &[u8]) -> String {
    let text = String::from_utf8(body.to_vec()).expect("text");
    assert!(
        serde_json::from_str::<&RawValue>(&text).is_ok(),
        "no JSON: {text}"
    );
    text
}

fn count(text: &str, member: &str) -> usize {
    text.matches(member).count()
}

/// How often the member comes through the translation of a result.
fn down(dialect: Dialect, called: &str, result: &str, member: &str) -> usize {
    let body = Bytes::from(format!(
        r#"{{"id":1,{member},"result":{result},"jsonrpc":"2.0"}}"#
    ));
    match result::downgrade(dialect, called, &body) {
        Downgraded::Complete(body) => count(&text(&body), member),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn results_keep_what_is_unknown(member in unknown()) {
        let link = format!(r#"{{{member},"type":"resource_link","uri":"a:b","title":"t","name":"n","_meta":{{{member}}}}}"#);
        let sound = format!(r#"{{"type":"audio","data":"","_meta":{{{member}}},{member},"mimeType":"a/b"}}"#);
        let entry = format!(r#"{{"title":"t","name":"n",{member},"icons":[],"execution":{{}},"outputSchema":[],"_meta":{{{member}}}}}"#);
        let meta = format!(r#""_meta":{{"io.modelcontextprotocol/serverInfo":{{}},{member}}}"#);
        let result = format!(
            r#"{{{member},"resultType":"complete","content":[{link},{sound}],"tools":[{entry},{entry}],"prompts":[{entry}],"resources":[{entry}],"resourceTemplates":[{entry}],"messages":[{{"role":"user",{member},"content":{link}}}],"contents":[{{"uri":"ui://a","_meta":{{"ui":{{{member}}}}}}}],"structuredContent":[1],"ttlMs":0,"cacheScope":"private",{meta}}}"#
        );
        let before = count(&result, &member) + 1;
        for version in LEGACY {
            for tasks in [Tasks::Hidden, Tasks::Offered] {
                for called in METHODS {
                    let after = down(Dialect { version, tasks }, called, &result, &member);
                    prop_assert_eq!(after, before, "{} {}", version, called);
                }
            }
        }
    }

    #[test]
    fn errors_keep_what_is_unknown(member in unknown()) {
        for (called, code) in [
            (method::RESOURCES_READ, code::INVALID_PARAMS),
            (method::TOOLS_CALL, code::MISSING_CAPABILITY),
            (method::TOOLS_CALL, code::HEADER_MISMATCH),
            (method::TOOLS_CALL, -32000),
        ] {
            let body = Bytes::from(format!(
                r#"{{"id":1,"error":{{"code":{code},{member},"message":"m","data":{{{member},"uri":"a:b"}}}},{member}}}"#
            ));
            let body = text(&error::downgrade(called, code, &body));
            prop_assert_eq!(count(&body, &member), 3, "{}", body);
        }
    }

    #[test]
    fn capabilities_keep_what_is_unknown(member in unknown()) {
        let declared = format!(
            r#"{{{member},"roots":{{{member},"listChanged":true}},"sampling":{{"tools":{{}},{member}}},"elicitation":{{{member},"form":{{}}}},"experimental":{{{member}}},"extensions":{{"io.modelcontextprotocol/tasks":{{}},{member}}},"tasks":{{}}}}"#
        );
        for version in LEGACY {
            let modern = capabilities::of_client(version, Some(raw(&declared)), Asks::Declared);
            let expected = if version < V::V2025_06_18 { 5 } else { 6 };
            prop_assert_eq!(count(&text(modern.as_bytes()), &member), expected);
            prop_assert_eq!(count(&text(capabilities::with_tasks(&modern).as_bytes()), &member), expected);
        }
    }

    #[test]
    fn questions_and_answers_keep_what_is_unknown(member in unknown()) {
        let form = format!(
            r#"{{{member},"mode":"form","message":"m","requestedSchema":{{{member},"type":"object","properties":{{"a":{{"type":"string",{member},"oneOf":[]}}}}}},"_meta":{{{member}}}}}"#
        );
        let url = format!(r#"{{{member},"mode":"url","url":"u","task":{{}},"_meta":{{{member}}}}}"#);
        let sampling = format!(
            r#"{{{member},"messages":[{{"role":"user",{member},"content":{{"type":"text","text":"t",{member}}}}}],"task":{{}},"maxTokens":1}}"#
        );
        let list = format!(r#"{{"messages":[{{"role":"user",{member},"content":[{{"type":"text",{member}}}]}}]}}"#);
        for version in LEGACY {
            for (asked, params, since) in [
                (method::ELICIT, &form, V::V2025_06_18),
                (method::ELICIT, &url, V::V2025_11_25),
                (method::SAMPLE, &sampling, V::V2024_11_05),
                (method::SAMPLE, &list, V::V2024_11_05),
                (method::ROOTS_LIST, &form, V::V2024_11_05),
            ] {
                if version < since {
                    continue;
                }
                let sent = asking::client_request(version, ALL, asked, params, "e");
                let ClientRequest::Send(sent) = sent else { panic!("{asked}: {sent:?}") };
                prop_assert_eq!(count(&text(sent.as_bytes()), &member), count(params, &member), "{}", sent);
            }
        }
        for (asked, answer) in [
            (method::ELICIT, format!(r#"{{"action":"accept","content":{{{member}}},{member}}}"#)),
            (method::SAMPLE, format!(r#"{{"role":"assistant","content":{{{member}}},"model":"m",{member}}}"#)),
            (method::ROOTS_LIST, format!(r#"{{"roots":[{{{member}}}],{member}}}"#)),
        ] {
            prop_assert_eq!(asking::client_answer(asked, Ok(raw(&answer))), Ok::<_, RpcError>(answer.clone()));
        }
    }

    #[test]
    fn requests_keep_what_is_unknown(member in unknown()) {
        let params = format!(
            r#"{{{member},"task":{{}},"context":{{}},"requestState":"s","arguments":{{{member}}},"_meta":{{"traceparent":"t",{member}}}}}"#
        );
        let body = Bytes::from(format!(r#"{{{member},"jsonrpc":"2.0","id":1,"method":"m","params":{params}}}"#));
        for version in V::ALL {
            for called in [method::TOOLS_CALL, method::COMPLETE] {
                let sent = text(&request::for_server(version, called, &body));
                prop_assert_eq!(count(&sent, &member), 4);
            }
        }
        let again = asking::retry(&body, Some("{}"), None).expect("a request");
        prop_assert_eq!(count(&text(&again), &member), 4);
        let wished = server::augment(&body, Some(1)).expect("a request");
        prop_assert_eq!(count(&text(&wished), &member), 4);
        prop_assert_eq!(count(&text(&client::plain(&wished)), &member), 4);
        let split = batch::split(&batch::join(std::slice::from_ref(&body)).expect("a message"));
        prop_assert_eq!(split, Ok(Batch::Asking(vec![body])));
    }

    #[test]
    fn tasks_keep_what_is_unknown_there_and_back(member in unknown()) {
        let flat = format!(
            r#"{{"resultType":"task","taskId":"t","status":"working","createdAt":"c","lastUpdatedAt":"u","ttlMs":1.0,"pollIntervalMs":5,{member},"_meta":{{{member}}}}}"#
        );
        let nested = client::created(raw(&flat)).expect("a task");
        prop_assert_eq!(count(&text(nested.as_bytes()), &member), 2);
        prop_assert_eq!(server::created(raw(&nested)), Ok(flat.clone()));

        let told = flat.replace(r#""resultType":"task""#, r#""resultType":"complete""#);
        let legacy = client::task(raw(&told), client::Standing::AsTold).expect("a task");
        prop_assert_eq!(count(&text(legacy.as_bytes()), &member), 2);
        prop_assert_eq!(server::task(raw(&legacy), server::Detail::Nothing), Ok(told));

        let outcome = format!(r#"{{"content":[],{member},"_meta":{{{member}}}}}"#);
        let tagged = task::with_related(&outcome, "\"t\"");
        prop_assert_eq!(task::related(raw(&tagged)), Some("\"t\"".to_owned()));
        let ended = legacy.replace("working", "completed");
        let back = server::task(raw(&ended), server::Detail::Result(raw(&tagged))).expect("a task");
        let result = format!(r#""result":{{"resultType":"complete",{}"#, &outcome[1..]);
        prop_assert!(back.contains(&result), "{}", back);
    }
}

/// Words that translations look for, in all the wrong places.
const WORDS: [&str; 34] = [
    "result",
    "resultType",
    "content",
    "tools",
    "prompts",
    "messages",
    "arguments",
    "structuredContent",
    "outputSchema",
    "annotations",
    "title",
    "icons",
    "execution",
    "name",
    "type",
    "text",
    "data",
    "_meta",
    "io.modelcontextprotocol/serverInfo",
    "io.modelcontextprotocol/related-task",
    "requestedSchema",
    "properties",
    "oneOf",
    "const",
    "mode",
    "task",
    "tit\\u006ce",
    "status",
    "ttlMs",
    "ttl",
    "code",
    "message",
    "uri",
    "taskId",
];

/// JSON of known words, in no order that makes sense.
fn nonsense() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "7",
        "null",
        r#""complete""#,
        r#""resource_link""#,
        r#""audio""#,
        r#""object""#,
        r#""array""#,
        r#""url""#,
        r#""completed""#,
        "[]",
        "{}",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(5, 60, 6, |inner| {
        let member = (prop::sample::select(WORDS.to_vec()), inner.clone());
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            3 => prop::collection::vec(member, 1..6).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(key, value)| format!("\"{key}\" :{value}")).collect();
                format!("{{ {}}}", members.join(" ,"))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn nonsense_in_is_json_out(inner in nonsense(), member in prop::sample::select(WORDS.to_vec())) {
        let object = format!(r#"{{"{member}":[{inner}],"z":{inner}}}"#);
        for value in [&inner, &object] {
            let body = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","result":{value}}}"#));
            let wrong = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"error":{value}}}"#));
            let call = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{value}}}"#));
            for version in LEGACY {
                for called in METHODS {
                    let dialect = Dialect { version, tasks: Tasks::Offered };
                    if let Downgraded::Complete(body) = result::downgrade(dialect, called, &body) {
                        text(&body);
                    }
                }
                for asked in [method::ELICIT, method::SAMPLE] {
                    if let ClientRequest::Send(sent) = asking::client_request(version, ALL, asked, value, "e") {
                        text(sent.as_bytes());
                    }
                }
                text(capabilities::of_client(version, Some(raw(value)), Asks::Declared).as_bytes());
                text(&request::for_server(version, method::TOOLS_CALL, &call));
            }
            text(&error::downgrade(method::RESOURCES_READ, code::INVALID_PARAMS, &wrong));
            text(&error::downgrade(method::TOOLS_CALL, code::MISSING_CAPABILITY, &wrong));
            for again in [asking::retry(&call, Some("{}"), Some("7")), server::augment(&call, None)] {
                again.iter().for_each(|body| drop(text(body)));
            }
            let value = raw(value);
            let tasks = [client::created(value), client::task(value, client::Standing::Cancelled)];
            let more = [server::created(value).ok(), server::task(value, server::Detail::Nothing).ok()];
            for task in tasks.into_iter().chain(more).flatten() {
                text(task.as_bytes());
            }
            text(task::with_related(value.get(), "7").as_bytes());
            text(&server::without_related(&body));
        }
    }
}

#[test]
fn server_capabilities_keep_what_is_unknown() {
    let modern = serde_json::json!({
        "tools": { "com.example/x": 1 }, "com.example/y": { "z": [1.5] }, "experimental": { "e": {} }, "extensions": { "a/b": { "c": 1 } },
    });
    for version in LEGACY {
        let told = capabilities::of_server(
            Dialect::plain(version),
            modern.as_object().expect("an object").clone(),
        );
        assert_eq!(Value::Object(told), modern);
    }
}
