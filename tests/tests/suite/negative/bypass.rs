//! Ways around the policy: the same thing by another endpoint, name, method, era or door.

use bus_schema::{
    audit::Kind,
    header,
    mcp::{error, method},
};
use serde_json::{Value, json};
use tests::{http::modern_body, session::Session, vault::forged};

use super::{Attempt, Case, Refused, Via, World, tool};

const HIDDEN: (Kind, &str) = (Kind::Policy, "hidden");
const UNKNOWN: (Kind, &str) = (Kind::Policy, "unknown");
const SCOPES: (Kind, &str) = (Kind::Policy, "needs_scopes");
const DENIED: (Kind, &str) = (Kind::Policy, "no-secrets");
/// A rule of the policy tells that it denies something.
const DENIES: Refused = Refused::Code(error::INVALID_REQUEST);
const BAD: Refused = Refused::Code(error::INVALID_PARAMS);

pub(super) async fn cases(world: &mut World) -> Vec<Case> {
    let mut cases = endpoints(world);
    cases.extend(resources(world));
    cases.extend(searches(world));
    cases.extend(sessions(world).await);
    cases.extend(conversations());
    cases.extend(plain());
    cases.extend(hosts());
    cases.extend(limits(world).await);
    cases
}

fn secret(name: &str) -> Value {
    json!({ "name": name, "arguments": { "word": "secret" } })
}

fn reference(kind: &str, key: &str, value: &str) -> Value {
    json!({ "ref": { "type": kind, key: value }, "argument": { "name": "a", "value": "" } })
}

/// Each endpoint has the same server behind it.
fn endpoints(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for (path, shut, open, pay) in [
        ("/servers/vault/mcp", "shut", "open", "pay"),
        ("/mcp", "vault__shut", "vault__open", "vault__pay"),
        ("/mcp/search", "vault__shut", "vault__open", "vault__pay"),
        ("/servers/v/mcp", "first", "second", "pay"),
    ] {
        let client = world.of(path, "ann");
        let mut add = |what: &str, called: &str, params: Value, refused: Refused, record| {
            let name = format!("{path}: {what}");
            cases.push(Case::http(name, client.modern(called, params), refused, record));
        };
        add("a hidden tool", method::TOOLS_CALL, tool(shut), BAD, HIDDEN);
        add(
            "a denied argument",
            method::TOOLS_CALL,
            secret(open),
            DENIES,
            DENIED,
        );
        add(
            "a scope that is missing",
            method::TOOLS_CALL,
            tool(pay),
            Refused::Status(403),
            SCOPES,
        );
        add(
            "a hidden prompt",
            method::PROMPTS_GET,
            json!({ "name": shut }),
            BAD,
            HIDDEN,
        );
        add(
            "completion of a hidden prompt",
            method::COMPLETE,
            reference("ref/prompt", "name", shut),
            BAD,
            HIDDEN,
        );
    }
    let own = world.of("/servers/vault/mcp", "ann");
    for (what, name) in [
        ("in capitals", "SHUT"),
        ("with a blank", "shut "),
        ("with its server's prefix", "vault__shut"),
        ("with another prefix", "v__shut"),
    ] {
        let request = own.modern(method::TOOLS_CALL, tool(name));
        cases.push(Case::http(format!("a hidden tool {what}"), request, BAD, HIDDEN));
    }
    for (path, prefix) in [("/servers/vault/mcp", ""), ("/mcp", "vault__")] {
        let request = world
            .of(path, "ann")
            .modern(&format!("{prefix}acme/shut"), json!({}));
        cases.push(Case::http(
            format!("{path}: a hidden method"),
            request,
            Refused::Code(error::METHOD_NOT_FOUND),
            HIDDEN,
        ));
    }
    cases
}

/// A template opens what it names, and no more.
fn resources(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    // Where many servers are, nobody is asked for what the caller does not see; names in other letters are nobody's.
    for (path, known, other) in [
        ("/servers/vault/mcp", HIDDEN, HIDDEN),
        ("/mcp", UNKNOWN, UNKNOWN),
        ("/servers/v/mcp", HIDDEN, UNKNOWN),
    ] {
        let client = world.of(path, "ann");
        for (uri, record) in [
            ("vault://shut/a", known),
            ("VAULT://shut/a", other),
            ("vault://OPEN/a", known),
            ("vault://shut/../open/../shut/a", known),
        ] {
            let request = client.modern(method::RESOURCES_READ, json!({ "uri": uri }));
            cases.push(Case::http(format!("{path}: reads {uri}"), request, BAD, record));
        }
        let params = reference("ref/resource", "uri", "vault://shut/{item}");
        let request = client.modern(method::COMPLETE, params);
        cases.push(Case::http(
            format!("{path}: completes what is hidden"),
            request,
            BAD,
            known,
        ));
    }
    cases
}

fn searches(world: &World) -> Vec<Case> {
    let client = world.of("/mcp/search", "ann");
    let mut cases: Vec<Case> = ["shut", "vault__shut", "vault.shut"]
        .into_iter()
        .map(|name| {
            let params = json!({ "name": "call_tool", "arguments": { "name": name } });
            let request = client.modern(method::TOOLS_CALL, params);
            Case::http(format!("call_tool of {name}"), request, Refused::Result, UNKNOWN)
        })
        .collect();
    let through = |name: &str, arguments: Value| {
        let params = json!({ "name": "call_tool", "arguments": { "name": name, "arguments": arguments } });
        client.modern(method::TOOLS_CALL, params)
    };
    cases.push(Case::http(
        "call_tool with a denied argument",
        through("vault__open", json!({ "word": "secret" })),
        DENIES,
        DENIED,
    ));
    cases.push(Case::http(
        "call_tool without a scope",
        through("vault__pay", json!({})),
        Refused::Status(403),
        SCOPES,
    ));
    cases
}

/// Sessions of every version, and their batches.
async fn sessions(world: &World) -> Vec<Case> {
    let client = world.of("/servers/vault/mcp", "ann");
    let mut cases = Vec::new();
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let session = Session::open(&client, version).await;
        let failed = Refused::Without("\"done\"");
        for (what, called, params, record) in [
            ("a hidden tool", method::TOOLS_CALL, tool("shut"), HIDDEN),
            ("a denied argument", method::TOOLS_CALL, secret("open"), DENIED),
            (
                "a hidden resource",
                method::RESOURCES_READ,
                json!({ "uri": "vault://shut/a" }),
                HIDDEN,
            ),
        ] {
            cases.push(Case::http(
                format!("{version}: {what}"),
                session.request(called, &params),
                failed,
                record,
            ));
        }
        let request = session.request(method::TOOLS_CALL, &tool("pay"));
        cases.push(Case::http(
            format!("{version}: a scope that is missing"),
            request,
            Refused::Status(403),
            SCOPES,
        ));
    }
    let session = Session::open(&client, "2025-03-26").await;
    let message = |id: u64, params: Value| json!({ "jsonrpc": "2.0", "id": id, "method": method::TOOLS_CALL, "params": params });
    for (what, params, refused, record) in [
        (
            "a hidden tool",
            tool("shut"),
            Refused::Without("\"error\":null"),
            HIDDEN,
        ),
        (
            "a denied argument",
            secret("open"),
            Refused::Without("\"error\":null"),
            DENIED,
        ),
        (
            "a scope that is missing",
            tool("pay"),
            Refused::Status(403),
            SCOPES,
        ),
    ] {
        let batch = json!([
            message(1, tool("open")),
            message(2, params),
            message(3, tool("open"))
        ]);
        let request = client
            .raw(batch.to_string())
            .header(header::SESSION_ID, session.id());
        cases.push(Case::http(
            format!("a batch with {what}"),
            request,
            refused,
            record,
        ));
    }
    cases
}

fn conversations() -> Vec<Case> {
    let mut cases = Vec::new();
    for (via, prefix) in [
        (Via::Stdio, ""),
        (Via::StdioAll, "vault__"),
        (Via::StdioSearch, "vault__"),
        (Via::Socket, ""),
        (Via::SocketAll, "vault__"),
    ] {
        let name = |own: &str| format!("{prefix}{own}");
        for (what, called, params, record) in [
            ("a hidden tool", method::TOOLS_CALL, tool(&name("shut")), HIDDEN),
            (
                "a denied argument",
                method::TOOLS_CALL,
                secret(&name("open")),
                DENIED,
            ),
            (
                "a scope that is missing",
                method::TOOLS_CALL,
                tool(&name("pay")),
                SCOPES,
            ),
            (
                "a hidden prompt",
                method::PROMPTS_GET,
                json!({ "name": name("shut") }),
                HIDDEN,
            ),
        ] {
            let attempt = Attempt::Message(via, modern_body(called, params));
            cases.push(Case::new(
                format!("{via:?}: {what}"),
                attempt,
                Refused::Without("\"result\""),
                record,
            ));
        }
    }
    cases
}

/// A plain NATS client has the subjects of what it may use; what it says there counts all the same.
fn plain() -> Vec<Case> {
    let on = |rest: &str| format!("mcp.pub.default.vault.{rest}");
    let message = |called: &str, params: Value| modern_body(called, params);
    [
        (
            "a denied argument",
            on("tools.call.open"),
            message(method::TOOLS_CALL, secret("open")),
            DENIED,
        ),
        (
            "another tool than its subject says",
            on("tools.call.open"),
            message(method::TOOLS_CALL, tool("shut")),
            (Kind::Request, "subject_mismatch"),
        ),
        (
            "another method than its subject says",
            on("tools.list"),
            message(method::TOOLS_CALL, tool("shut")),
            (Kind::Request, "subject_mismatch"),
        ),
    ]
    .into_iter()
    .map(|(what, subject, message, record)| {
        let case = Case::new(
            format!("plain NATS: {what}"),
            Attempt::Plain(subject, message),
            Refused::Shut,
            record,
        );
        // The door reads no trace before it believes the message.
        if record == DENIED { case } else { case.untraced() }
    })
    .collect()
}

/// Behind a door that was broken into, the host asks again.
fn hosts() -> Vec<Case> {
    let unreadable = (Kind::Request, "unreadable");
    let shut = || json!({ "uri": "vault://shut/a" });
    let mut cases: Vec<Case> = [
        (
            "a hidden tool",
            method::TOOLS_CALL,
            method::TOOLS_CALL,
            tool("shut"),
            HIDDEN,
        ),
        (
            "a tool in the envelope of a list",
            method::TOOLS_CALL,
            method::TOOLS_LIST,
            tool("shut"),
            unreadable,
        ),
        (
            "a denied argument",
            method::TOOLS_CALL,
            method::TOOLS_CALL,
            secret("open"),
            DENIED,
        ),
        (
            "a scope that is missing",
            method::TOOLS_CALL,
            method::TOOLS_CALL,
            tool("pay"),
            SCOPES,
        ),
        (
            "a name that is a list",
            method::TOOLS_CALL,
            method::TOOLS_CALL,
            json!({ "name": ["shut"] }),
            unreadable,
        ),
        (
            "a hidden prompt",
            method::PROMPTS_GET,
            method::PROMPTS_GET,
            json!({ "name": "shut" }),
            HIDDEN,
        ),
        (
            "a hidden resource",
            method::RESOURCES_READ,
            method::RESOURCES_READ,
            shut(),
            HIDDEN,
        ),
        (
            "a completion",
            method::COMPLETE,
            method::COMPLETE,
            reference("ref/prompt", "name", "shut"),
            HIDDEN,
        ),
        (
            "a completion of both kinds",
            method::COMPLETE,
            method::COMPLETE,
            reference("both", "name", "shut"),
            unreadable,
        ),
        (
            "a watch of what is hidden",
            method::LISTEN,
            method::LISTEN,
            json!({ "notifications": { "resourceSubscriptions": ["vault://shut/a"] } }),
            HIDDEN,
        ),
        ("a hidden method", "acme/shut", "acme/shut", json!({}), HIDDEN),
    ]
    .into_iter()
    .map(|(what, called, in_envelope, params, record)| {
        let attempt = Attempt::Bus(Box::new(forged(called, in_envelope, &params)));
        Case::new(
            format!("a broken door: {what}"),
            attempt,
            Refused::Without("\"result\""),
            record,
        )
    })
    .collect();
    let twice = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"open","name":"shut"}}"#;
    let mut request = forged(method::TOOLS_CALL, method::TOOLS_CALL, &tool("open"));
    request.body = twice.to_vec().into();
    let attempt = Attempt::Bus(Box::new(request));
    cases.push(Case::new(
        "a broken door: a name twice",
        attempt,
        Refused::Without("\"result\""),
        unreadable,
    ));
    cases
}

/// Callers that may call no more.
async fn limits(world: &mut World) -> Vec<Case> {
    let first = world
        .of("/servers/whoami/mcp", "dave")
        .call("other", json!({}))
        .await;
    assert!(first["result"].is_object(), "{first}");
    let session = Session::open(&world.of("/servers/whoami/mcp", "mallory"), "2025-11-25").await;
    world.block("mallory").await;
    let dave = |path: &str, name: &str| world.of(path, "dave").modern(method::TOOLS_CALL, tool(name));
    let mallory = |path: &str| {
        world
            .of(path, "mallory")
            .modern(method::TOOLS_CALL, tool("whoami"))
    };
    let (once, blocked) = ((Kind::Limit, "once"), (Kind::Block, "blocked"));
    vec![
        Case::http(
            "once more than allowed",
            dave("/servers/whoami/mcp", "other"),
            Refused::Status(429),
            once,
        ),
        Case::http(
            "once more, by another endpoint",
            dave("/mcp", "whoami__other"),
            Refused::Status(429),
            once,
        ),
        Case::http(
            "a blocked caller",
            mallory("/servers/whoami/mcp"),
            Refused::Status(403),
            blocked,
        ),
        Case::http(
            "a blocked caller at all servers",
            mallory("/mcp"),
            Refused::Status(403),
            blocked,
        ),
        Case::http(
            "a blocked caller in a session",
            session.request(method::TOOLS_CALL, &tool("whoami")),
            Refused::Status(403),
            blocked,
        ),
        Case::http(
            "a blocked caller opens a WebSocket",
            world.of("/ws", "mallory").request(reqwest::Method::GET),
            Refused::Status(403),
            blocked,
        ),
    ]
}
