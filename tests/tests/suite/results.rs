//! Results over HTTP: to their owner and nobody else, whole or in ranges, and never held by the door.

use bus_schema::Principal;
use bytes::Bytes;
use futures::stream;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use runtime::store::objects::{About, Info, ObjectKey, ObjectLimits, Objects};
use serde_json::{Value, json};
use tests::{
    issuer::Issuer,
    platform::Platform,
    raw::{Raw, resident},
    within,
};

use crate::processes::Cluster;

const MIB: usize = 1024 * 1024;

fn about() -> About {
    About {
        media_type: "text/csv; charset=utf-8".to_owned(),
        file_name: "products.csv".to_owned(),
    }
}

async fn kept(platform: &Platform, owner: &Principal, id: &str, bytes: &Bytes) -> Info {
    let objects = Objects::new(platform.node.bus(), ObjectLimits::default());
    let key = ObjectKey::new(owner, id);
    let put = objects.put(&key, about(), bytes.clone());
    put.await.expect("is kept")
}

async fn sent(request: RequestBuilder) -> Response {
    within("an answer", request.send()).await.expect("an answer")
}

fn said<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value
        .unwrap_or_else(|| panic!("no {name}"))
        .to_str()
        .expect("text")
}

#[tokio::test]
async fn a_result_is_given_whole_in_ranges_and_by_its_head() {
    let platform = Platform::start("", &[]).await;
    let bytes: Bytes = (0..600_000_u32)
        .map(|n| (n % 253) as u8)
        .collect::<Vec<_>>()
        .into();
    let info = kept(&platform, &Principal::developer(), "export 1/é", &bytes).await;
    let url = platform.url("/results/export%201%2F%C3%A9");
    let client = Client::new();
    let whole = sent(client.get(&url)).await;
    assert_eq!(whole.status(), StatusCode::OK);
    let tag = format!("\"{}\"", info.sha256);
    for (name, value) in [
        ("etag", tag.as_str()),
        ("content-length", "600000"),
        ("accept-ranges", "bytes"),
        ("content-type", "text/csv; charset=utf-8"),
        ("content-disposition", "attachment; filename=\"products.csv\""),
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(said(&whole, name), value);
    }
    assert!(said(&whole, "repr-digest").starts_with("sha-256=:"));
    assert_eq!(whole.bytes().await.expect("a body"), bytes);
    let head = sent(client.head(&url)).await;
    assert_eq!(
        (head.status(), said(&head, "content-length")),
        (StatusCode::OK, "600000")
    );
    assert_eq!(said(&head, "etag"), tag);
    // Over the end of a piece, in the middle of another, and the last bytes.
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=262100-262200", 262_100, 262_201),
        ("bytes=-5", 599_995, 600_000),
        ("bytes=1000-", 1_000, 600_000),
    ] {
        let part = sent(client.get(&url).header(header::RANGE, range)).await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(
            said(&part, "content-range"),
            format!("bytes {from}-{}/600000", to - 1)
        );
        assert_eq!(
            part.bytes().await.expect("a body"),
            bytes.slice(from..to),
            "{range}"
        );
    }
    let beyond = sent(client.get(&url).header(header::RANGE, "bytes=600000-")).await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(said(&beyond, "content-range"), "bytes */600000");
    let known = sent(client.get(&url).header(header::IF_NONE_MATCH, &tag)).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    let other = client.get(&url).header(header::RANGE, "bytes=0-0");
    let other = sent(other.header(header::IF_RANGE, "\"another\"")).await;
    assert_eq!(
        (other.status(), said(&other, "content-length")),
        (StatusCode::OK, "600000")
    );
    drop(other);
    let posted = sent(client.post(&url)).await;
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    platform.stop().await;
}

#[tokio::test]
async fn what_is_somebody_elses_is_as_unknown_as_what_is_not_there() {
    let issuer = Issuer::start().await;
    let platform = Platform::start(&issuer.section("audience = \"here\""), &[]).await;
    let principal = |subject: &str| Principal {
        issuer: Some(issuer.url().to_owned()),
        ..Principal::new(subject, "default")
    };
    let bytes = Bytes::from_static(b"a,b\r\n1,2\r\n");
    kept(&platform, &principal("ann"), "1", &bytes).await;
    let asked = async |who: &str, id: &str| {
        let token = issuer.token(who, "here", json!({}));
        let request = Client::new().get(platform.url(&format!("/results/{id}")));
        sent(request.bearer_auth(token)).await
    };
    let own = asked("ann", "1").await;
    assert_eq!(own.status(), StatusCode::OK);
    assert_eq!(own.bytes().await.expect("a body"), bytes);
    let mut refusals = Vec::new();
    for (who, id) in [("bob", "1"), ("bob", "2"), ("ann", "2")] {
        let refused = asked(who, id).await;
        assert_eq!(refused.status(), StatusCode::NOT_FOUND);
        refusals.push(refused.json::<Value>().await.expect("JSON"));
    }
    assert!(
        refusals.iter().all(|refusal| *refusal == refusals[0]),
        "{refusals:?}"
    );
    let forgotten = async |who: &str| {
        let token = issuer.token(who, "here", json!({}));
        let request = Client::new().delete(platform.url("/results/1"));
        sent(request.bearer_auth(token)).await.status()
    };
    assert_eq!(forgotten("bob").await, StatusCode::NOT_FOUND);
    assert_eq!(asked("ann", "1").await.status(), StatusCode::OK);
    assert_eq!(forgotten("ann").await, StatusCode::NO_CONTENT);
    assert_eq!(forgotten("ann").await, StatusCode::NOT_FOUND);
    assert_eq!(asked("ann", "1").await.status(), StatusCode::NOT_FOUND);
    for method in [Method::GET, Method::HEAD, Method::DELETE] {
        let nobody = Client::new().request(method, platform.url("/results/1"));
        assert_eq!(sent(nobody).await.status(), StatusCode::UNAUTHORIZED);
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_large_result_and_readers_that_stop_cost_the_door_little_memory() {
    let cluster = Cluster::start().await;
    let objects = Objects::new(&cluster.nats.bus().await, ObjectLimits::default());
    let chunk = Bytes::from(vec![b'x'; MIB]);
    let chunks = stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(chunk.clone())));
    let key = ObjectKey::new(&Principal::developer(), "large");
    let info = within("the result", objects.put_stream(&key, about(), chunks)).await;
    let info = info.expect("is kept");
    assert_eq!(info.bytes, 64 * MIB as u64);
    let bridge = cluster.bridge().await;
    let url = format!("{}/results/large", bridge.base);
    // What the first request of a process takes is not what this is about.
    let warm = sent(Client::new().get(&url).header(header::RANGE, "bytes=0-999999")).await;
    assert_eq!(warm.bytes().await.expect("a body").len(), MIB.min(1_000_000));
    let before = resident(bridge.program.pid());
    let address = bridge
        .base
        .strip_prefix("http://")
        .expect("HTTP")
        .parse()
        .expect("an address");
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut reader = Raw::connect_narrow(address).await;
        assert!(
            reader
                .send("GET /results/large HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                .await
        );
        assert!(!reader.read_some().await.is_empty());
        deaf.push(reader);
    }
    let mut most = 0;
    let mut whole = sent(Client::new().get(&url)).await;
    let mut bytes = 0;
    while let Some(piece) = within("more", whole.chunk()).await.expect("a body") {
        bytes += piece.len();
        most = most.max(resident(bridge.program.pid()));
    }
    assert_eq!(bytes, 64 * MIB);
    let grown = most.saturating_sub(before);
    assert!(grown < 32 * MIB, "grown by {grown} bytes");
    drop(deaf);
}
