//! Durable records: what one process has written, another reads at once, and nobody overwrites what it has not seen.

use std::time::Duration;

use runtime::store::{Bucket, BucketOptions, StoreError};
use tests::{nats::Nats, within};

fn options() -> BucketOptions {
    BucketOptions {
        // The broker knows no others than those of the platform.
        name: "sessions",
        max_age: Duration::from_secs(600),
        max_bytes: 64 * 1024,
        max_record_bytes: 16 * 1024,
    }
}

#[tokio::test]
async fn a_record_is_read_where_it_was_not_written_and_writes_are_fenced() {
    let nats = Nats::start().await;
    let (one, two) = (nats.bus().await, nats.bus().await);
    let a = Bucket::open(&one, options()).await.expect("opens");
    let b = Bucket::open(&two, options()).await.expect("opens where it is");
    assert!(b.get("x.1").await.expect("asks").is_none());
    let first = a.create("x.1", "one".into()).await.expect("creates");
    let record = b.get("x.1").await.expect("asks").expect("is there");
    assert_eq!((record.value.as_ref(), record.revision), (&b"one"[..], first));
    assert!(matches!(
        b.create("x.1", "again".into()).await,
        Err(StoreError::Conflict)
    ));
    let second = b.update("x.1", "two".into(), first).await.expect("updates");
    assert!(matches!(
        a.update("x.1", "late".into(), first).await,
        Err(StoreError::Conflict)
    ));
    a.remove("x.1").await.expect("removes");
    assert!(b.get("x.1").await.expect("asks").is_none());
    assert!(matches!(
        b.update("x.1", "gone".into(), second).await,
        Err(StoreError::Conflict)
    ));
    a.create("x.1", "anew".into())
        .await
        .expect("creates after a removal");
    for key in ["x.2", "x.y.3", "xx.4"] {
        b.create(key, "more".into()).await.expect("creates");
    }
    a.remove("x.2").await.expect("removes");
    for (prefix, count) in [("x", 2), ("x.y", 1), ("xx", 1), ("z", 0)] {
        assert_eq!(b.count(prefix).await.expect("counts"), count, "{prefix}");
    }
}

#[tokio::test]
async fn records_outlive_the_broker_and_a_full_bucket_says_so() {
    let mut nats = Nats::start().await;
    let bus = nats.bus().await;
    let bucket = Bucket::open(&bus, options()).await.expect("opens");
    bucket.create("kept", "here".into()).await.expect("creates");
    nats.restart().await;
    let again = nats.bus().await;
    let bucket = within("the bucket", Bucket::open(&again, options()))
        .await
        .expect("opens");
    assert_eq!(
        bucket
            .get("kept")
            .await
            .expect("asks")
            .expect("is there")
            .value
            .as_ref(),
        b"here"
    );
    let large = vec![b'x'; 15 * 1024];
    let mut full = None;
    for n in 0..8 {
        if let Err(error) = bucket.create(&format!("large.{n}"), large.clone().into()).await {
            full = Some(error);
            break;
        }
    }
    assert!(matches!(full, Some(StoreError::Full)), "{full:?}");
    assert!(bucket.get("kept").await.expect("asks").is_some());
}

#[tokio::test]
async fn some_of_the_records_are_listed_and_followed_by_their_keys() {
    let mut nats = Nats::start().await;
    let bus = nats.bus().await;
    let options = || BucketOptions {
        name: "credentials",
        ..options()
    };
    let bucket = Bucket::open(&bus, options()).await.expect("opens");
    let keys = async |filter: &str, most| {
        let listed = bucket.list(filter, most).await.expect("lists");
        let mut keys: Vec<_> = listed.into_iter().map(|(key, _)| key).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys("a.*.x", 9).await, [""; 0]);
    let mut changes = bucket.changes("a.*.x");
    for key in ["a.1.x", "a.2.x", "a.1.y", "b.1.x", "a.1.x.z"] {
        bucket.create(key, key.to_owned().into()).await.expect("creates");
    }
    assert_eq!(keys("a.*.x", 9).await, ["a.1.x", "a.2.x"]);
    assert_eq!(keys("a.1.*", 9).await, ["a.1.x", "a.1.y"]);
    assert_eq!(keys("a.*.x", 1).await.len(), 1);
    let one = bucket.get("a.1.x").await.expect("asks").expect("is there");
    bucket.remove_at("a.1.x", one.revision).await.expect("removes");
    assert_eq!(keys("a.*.x", 9).await, ["a.2.x"]);
    // Whoever follows hears of the newest of each at least, and nothing of the others.
    let mut heard = Vec::new();
    while heard.last() != Some(&("a.1.x".to_owned(), false)) {
        let change = within("a change", changes.next()).await;
        heard.push((change.key, change.value.is_some()));
    }
    assert!(heard.contains(&("a.2.x".to_owned(), true)), "{heard:?}");
    assert!(
        heard
            .iter()
            .all(|(key, _)| key.ends_with(".x") && key.starts_with("a.")),
        "{heard:?}"
    );
    // What happens while the broker is away from whoever follows is told afterwards.
    nats.restart().await;
    let again = nats.bus().await;
    let bucket = within("the bucket", Bucket::open(&again, options()))
        .await
        .expect("opens");
    bucket.create("a.3.x", "new".into()).await.expect("creates");
    let change = within("a change", async {
        loop {
            let change = changes.next().await;
            if change.key == "a.3.x" {
                break change;
            }
        }
    });
    assert_eq!(change.await.value.as_deref(), Some(b"new".as_slice()));
}
