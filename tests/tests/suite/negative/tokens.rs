//! What is shown is not good, or is shown where it must not be.

use bus_schema::audit::Kind;
use reqwest::Method;
use serde_json::json;
use tests::{bad_tokens::bad_tokens, raw::head};

use super::{Attempt, Case, Refused, World, tool};

const BAD: (Kind, &str) = (Kind::Auth, "invalid_token");
const MALFORMED: (Kind, &str) = (Kind::Auth, "invalid_request");
const NONE: (Kind, &str) = (Kind::Auth, "no_token");

pub(super) fn cases(world: &World) -> Vec<Case> {
    let own = world.platform.url("/servers/whoami/mcp");
    let elsewhere = world.platform.url("/mcp");
    let client = world.client("/servers/whoami/mcp");
    let call = |token: &str| client.with_token(token).modern("tools/call", tool("whoami"));
    let mut cases: Vec<Case> = bad_tokens(&world.issuer, &world.elsewhere, &own, &elsewhere)
        .into_iter()
        .map(|(what, token)| {
            Case::http(
                format!("a token: {what}"),
                call(&token),
                Refused::Status(401),
                BAD,
            )
        })
        .collect();
    let good = world.token("ann", json!({}));
    cases.extend(at_other_doors(world));
    cases.extend(in_odd_places(world, &good));
    let foreign = world
        .foreign
        .token("ann", &world.platform.url(""), json!({ "org": "elsewhere" }));
    cases.extend([
        Case::http(
            "a token: of a tenant that is not here",
            call(&foreign),
            Refused::Status(403),
            (Kind::Auth, "access_denied"),
        ),
        Case::http(
            "a key that nobody has given out",
            call("tlk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            Refused::Status(401),
            BAD,
        ),
    ]);
    cases.extend(of_operators(world, &good));
    cases
}

/// The other doors ask as well, each for its own audience.
fn at_other_doors(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    let for_mcp = world.issuer.token("ann", &world.platform.url("/mcp"), json!({}));
    let old = world.token("ann", json!({ "exp": 1 }));
    for path in [
        "/ws",
        "/servers/vault/ws",
        "/sse",
        "/servers/vault/sse",
        "/servers",
        "/status",
    ] {
        let get = |token: Option<&str>| match token {
            Some(token) => world.client(path).with_token(token).request(Method::GET),
            None => world.client(path).request(Method::GET),
        };
        for (what, token, record) in [
            ("nothing is shown", None, NONE),
            ("a token that has ended", Some(old.as_str()), BAD),
            ("a token for another endpoint", Some(for_mcp.as_str()), BAD),
        ] {
            cases.push(Case::http(
                format!("{path}: {what}"),
                get(token),
                Refused::Status(401),
                record,
            ));
        }
    }
    for (what, token) in [
        ("a token that has ended", old),
        ("a token for one endpoint", for_mcp),
        ("a key that nobody has given out", "tlk_AAAA".to_owned()),
        (
            "a token of another issuer",
            world.elsewhere.token("ann", &world.platform.url(""), json!({})),
        ),
        (
            "a token of a tenant that is not here",
            world
                .foreign
                .token("ann", &world.platform.url(""), json!({ "org": "elsewhere" })),
        ),
    ] {
        let case = Case::new(
            format!("plain NATS: {what}"),
            Attempt::Enter(token),
            Refused::Shut,
            (Kind::Callout, "kept_out"),
        );
        cases.push(case.untraced());
    }
    cases
}

fn in_odd_places(world: &World, good: &str) -> Vec<Case> {
    let client = world.client("/servers/whoami/mcp");
    let mut cases = Vec::new();
    for key in ["access_token", "token", "api_key", "apikey"] {
        let in_url = world.client(&format!("/servers/whoami/mcp?{key}={good}"));
        let request = in_url.with_token(good).modern("tools/call", tool("whoami"));
        cases.push(Case::http(
            format!("a token in the URL as {key}"),
            request,
            Refused::Status(400),
            MALFORMED,
        ));
    }
    for (what, value, status, record) in [
        ("another scheme", "Basic YTpi".to_owned(), 401, NONE),
        ("no token after the scheme", "Bearer".to_owned(), 400, MALFORMED),
        (
            "two tokens in one header",
            format!("Bearer {good} {good}"),
            400,
            MALFORMED,
        ),
        (
            "a list of tokens",
            format!("Bearer {good},{good}"),
            400,
            MALFORMED,
        ),
        (
            "a token without end",
            format!("Bearer {}", "a".repeat(20_000)),
            400,
            MALFORMED,
        ),
    ] {
        let request = client
            .modern("tools/call", tool("whoami"))
            .header("authorization", value);
        cases.push(Case::http(
            format!("the header: {what}"),
            request,
            Refused::Status(status),
            record,
        ));
    }
    for (name, value) in [
        (
            "x-forwarded-client-cert",
            "By=x;Subject=\"CN=ops,O=Acme\";URI=spiffe://acme.example/ops",
        ),
        ("x-forwarded-user", "root"),
        ("x-ssl-client-verify", "SUCCESS"),
    ] {
        let request = client.modern("tools/call", tool("whoami")).header(name, value);
        cases.push(Case::http(
            format!("{name} in place of a token"),
            request,
            Refused::Status(401),
            NONE,
        ));
    }
    for (what, first, second) in [
        ("twice the same", good.to_owned(), good.to_owned()),
        ("a bad one first", "abc".to_owned(), good.to_owned()),
        ("a bad one last", good.to_owned(), "abc".to_owned()),
    ] {
        let text = format!(
            "{}traceparent: {{trace}}\r\nauthorization: Bearer {first}\r\nauthorization: Bearer {second}\r\ncontent-length: 2\r\n\r\n{{}}",
            head("/servers/whoami/mcp")
        );
        cases.push(Case::new(
            format!("two tokens: {what}"),
            Attempt::Raw(text),
            Refused::Status(400),
            MALFORMED,
        ));
    }
    cases
}

/// What operators do is not for others.
fn of_operators(world: &World, good: &str) -> Vec<Case> {
    let endpoint = world.issuer.token(
        "root",
        &world.platform.url("/mcp"),
        json!({ "roles": ["operator"] }),
    );
    let mut cases: Vec<Case> = [
        (Method::GET, "/policy"),
        (Method::PUT, "/policy"),
        (Method::POST, "/servers"),
        (Method::DELETE, "/servers/vault"),
        (Method::POST, "/virtual-servers"),
        (Method::GET, "/blocks"),
        (Method::POST, "/blocks"),
    ]
    .into_iter()
    .map(|(method, path)| {
        let request = world
            .client(path)
            .with_token(good)
            .request(method.clone())
            .body("{}");
        let request = request.header("content-type", "application/json");
        Case::http(
            format!("not an operator: {method} {path}"),
            request,
            Refused::Status(403),
            (Kind::Admin, "hidden"),
        )
    })
    .collect();
    let request = world.client("/policy").with_token(&endpoint).request(Method::GET);
    cases.push(Case::http(
        "an operator's token for one endpoint",
        request,
        Refused::Status(401),
        BAD,
    ));
    cases
}
