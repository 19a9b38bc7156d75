//! Requests that can be read in two ways, or come from where they must not.

use bus_schema::{audit::Kind, header, mcp::error};
use serde_json::json;
use tests::{http::modern_body, raw::head};

use super::{Attempt, Case, Refused, World, tool};

const HTTP: (Kind, &str) = (Kind::Request, "http");
const MISMATCH: (Kind, &str) = (Kind::Request, "header_mismatch");
const ORIGIN: (Kind, &str) = (Kind::Request, "origin");
const MALFORMED: (Kind, &str) = (Kind::Request, "malformed");
const PATH: &str = "/servers/vault/mcp";

pub(super) fn cases(world: &World) -> Vec<Case> {
    let mut cases = framing(world);
    cases.extend(mirrored(world));
    cases.extend(origins(world));
    cases.extend(bodies(world));
    cases
}

/// Where a request ends.
fn framing(world: &World) -> Vec<Case> {
    let token = world.token("ann", json!({}));
    let start = format!(
        "{}authorization: Bearer {token}\r\ntraceparent: {{trace}}\r\n",
        head(PATH)
    );
    let body = modern_body("tools/call", tool("shut")).to_string();
    let length = body.len();
    let mut cases: Vec<Case> = [
        (
            "two lengths",
            format!("content-length: {length}\r\ncontent-length: 3\r\n\r\n{body}"),
        ),
        (
            "a list of lengths",
            format!("content-length: 3, {length}\r\n\r\n{body}"),
        ),
        (
            "a length with a sign",
            format!("content-length: +{length}\r\n\r\n{body}"),
        ),
        ("a negative length", format!("content-length: -1\r\n\r\n{body}")),
        (
            "a length in hexadecimal digits",
            format!("content-length: 0x10\r\n\r\n{body}"),
        ),
        (
            "chunks that are not last",
            format!("transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{body}"),
        ),
        (
            "an encoding that nobody knows",
            format!("transfer-encoding: xchunked\r\n\r\n{body}"),
        ),
        (
            "a header that goes on in the next line",
            format!("x-a: b\r\n  c\r\ncontent-length: {length}\r\n\r\n{body}"),
        ),
        (
            "a blank before the colon",
            format!("content-length : {length}\r\n\r\n{body}"),
        ),
        (
            "a name with a blank",
            format!("mcp name: x\r\ncontent-length: {length}\r\n\r\n{body}"),
        ),
        (
            "a NUL in a header",
            format!("x-a: b\0c\r\ncontent-length: {length}\r\n\r\n{body}"),
        ),
    ]
    .into_iter()
    .map(|(what, rest)| {
        let attempt = Attempt::Raw(format!("{start}{rest}"));
        Case::new(format!("framing: {what}"), attempt, Refused::Status(400), HTTP).untraced()
    })
    .collect();
    let version = format!("POST {PATH} HTTP/9.9\r\nhost: localhost\r\n\r\n");
    cases.push(
        Case::new(
            "framing: a version that is none",
            Attempt::Raw(version),
            Refused::Status(400),
            HTTP,
        )
        .untraced(),
    );
    cases
}

/// What a header says, for whoever stands before the door, and the body says otherwise.
fn mirrored(world: &World) -> Vec<Case> {
    let client = world.of(PATH, "ann");
    let body = modern_body("tools/call", tool("shut")).to_string();
    let request = |headers: &[(&str, &str)]| {
        let mut request = client.raw(body.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    };
    let (version, method, name) = (header::PROTOCOL_VERSION, header::METHOD, header::NAME);
    let modern = "2026-07-28";
    let mut cases: Vec<Case> = [
        (
            "another tool",
            vec![(version, modern), (method, "tools/call"), (name, "open")],
        ),
        (
            "another method",
            vec![(version, modern), (method, "tools/list"), (name, "shut")],
        ),
        (
            "another version",
            vec![(version, "2026-07-29"), (method, "tools/call"), (name, "shut")],
        ),
        ("no name", vec![(version, modern), (method, "tools/call")]),
        ("no method", vec![(version, modern), (name, "shut")]),
        (
            "an encoded other name",
            vec![
                (version, modern),
                (method, "tools/call"),
                (name, "=?base64?b3Blbg==?="),
            ],
        ),
        (
            "a name that is not Base64",
            vec![(version, modern), (method, "tools/call"), (name, "=?base64?!?=")],
        ),
        (
            "a name in capitals",
            vec![(version, modern), (method, "tools/call"), (name, "SHUT")],
        ),
        (
            "two names, the right one first",
            vec![
                (version, modern),
                (method, "tools/call"),
                (name, "shut"),
                (name, "open"),
            ],
        ),
        (
            "two names, the right one last",
            vec![
                (version, modern),
                (method, "tools/call"),
                (name, "open"),
                (name, "shut"),
            ],
        ),
        (
            "two methods",
            vec![
                (version, modern),
                (method, "tools/call"),
                (method, "tools/list"),
                (name, "shut"),
            ],
        ),
        (
            "two versions",
            vec![
                (version, modern),
                (version, "2025-11-25"),
                (method, "tools/call"),
                (name, "shut"),
            ],
        ),
    ]
    .into_iter()
    .map(|(what, headers)| {
        Case::http(
            format!("a header says: {what}"),
            request(&headers),
            Refused::Code(error::HEADER_MISMATCH),
            MISMATCH,
        )
    })
    .collect();
    // The same trick on a tool that is open: what counts is what the body says.
    let open = client
        .raw(modern_body("tools/call", tool("open")).to_string())
        .header(version, modern)
        .header(method, "tools/call")
        .header(name, "shut");
    cases.push(Case::http(
        "a header says: something shut",
        open,
        Refused::Code(error::HEADER_MISMATCH),
        MISMATCH,
    ));
    cases
}

fn origins(world: &World) -> Vec<Case> {
    let client = world.of(PATH, "ann");
    let call = || client.modern("tools/call", tool("open"));
    let mut cases: Vec<Case> = [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "file://",
    ]
    .into_iter()
    .map(|origin| {
        Case::http(
            format!("origin {origin}"),
            call().header("origin", origin),
            Refused::Status(403),
            ORIGIN,
        )
    })
    .collect();
    for host in ["evil.example", "localhost@evil.example"] {
        let text = format!(
            "GET /healthz HTTP/1.1\r\nhost: {host}\r\ntraceparent: {{trace}}\r\nconnection: close\r\n\r\n"
        );
        cases.push(Case::new(
            format!("host {host}"),
            Attempt::Raw(text),
            Refused::Status(403),
            ORIGIN,
        ));
    }
    cases
}

fn bodies(world: &World) -> Vec<Case> {
    let client = world.of(PATH, "ann");
    let twice =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"tools/list","params":{"name":"shut"}}"#;
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    [
        ("no JSON", "{"),
        ("nothing", ""),
        ("a text", "\"tools/call\""),
        ("a method twice", twice),
        ("an array without a session", "[]"),
        ("without end", &deep),
        (
            "not UTF-8 in a name",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\ud800\"}",
        ),
        (
            "another version of JSON-RPC",
            r#"{"jsonrpc":"1.0","id":1,"method":"tools/call"}"#,
        ),
    ]
    .into_iter()
    .map(|(what, body)| {
        let request = client
            .raw(body.to_owned())
            .header(header::PROTOCOL_VERSION, "2026-07-28");
        Case::http(
            format!("a body: {what}"),
            request,
            Refused::Status(400),
            MALFORMED,
        )
    })
    .collect()
}
