//! Large results: committed at their end or not at all, taken over by whoever comes next, and kept within bounds.

use std::{io, time::Duration};

use bus_schema::Principal;
use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use runtime::store::objects::{
    About, Checksum, ObjectError, ObjectKey, ObjectLimits, Objects, Opened, PIECE_BYTES, Writing,
};
use serde_json::{Value, json};
use tests::nats::Nats;

fn about() -> About {
    About {
        media_type: "application/octet-stream".to_owned(),
        file_name: "result.bin".to_owned(),
    }
}

fn key(id: &str) -> ObjectKey {
    ObjectKey::new(&Principal::developer(), id)
}

/// Bytes of which no two pieces are alike.
fn bytes(length: usize) -> Bytes {
    (0..length)
        .map(|at| (at % 251) as u8 ^ (at / PIECE_BYTES) as u8)
        .collect::<Vec<_>>()
        .into()
}

async fn writing(objects: &Objects, id: &str) -> Writing {
    match objects.write(&key(id), about()).await.expect("it opens") {
        Opened::Unfinished(writing) => writing,
        Opened::Finished(info) => panic!("it is finished: {info:?}"),
    }
}

#[tokio::test]
async fn a_result_is_had_whole_and_in_parts_until_it_is_deleted() {
    let nats = Nats::start().await;
    let (one, other) = (nats.bus().await, nats.bus().await);
    let limits = ObjectLimits::default();
    let (near, far) = (Objects::new(&one, limits), Objects::new(&other, limits));
    for length in [
        0,
        1,
        PIECE_BYTES - 1,
        PIECE_BYTES,
        PIECE_BYTES + 1,
        5 * PIECE_BYTES / 2,
    ] {
        let (id, whole) = (key(&format!("of {length}")), bytes(length));
        assert!(far.get(&id).await.expect("asks").is_none());
        let info = near.put(&id, about(), whole.clone()).await.expect("is kept");
        assert_eq!((info.bytes, &info.about), (length as u64, &about()));
        assert_eq!(info.sha256, Checksum::of(&whole).finish());
        assert_eq!(far.info(&id).await.expect("asks"), Some(info.clone()));
        assert_eq!(far.get(&id).await.expect("asks"), Some(whole.clone()));
        // The same again is no second one; another is refused.
        let again = far.put(&id, about(), whole.clone()).await.expect("is kept");
        assert_eq!(again, info);
        let another = far.put(&id, about(), bytes(length + 1)).await;
        assert!(matches!(another, Err(ObjectError::Exists)), "{another:?}");
        let reading = far.read(&id).await.expect("asks").expect("is there");
        for range in [0..3, 1..length, length / 2..length + 9] {
            let parts: Vec<Bytes> = reading
                .pieces(range.start as u64..range.end as u64)
                .try_collect()
                .await
                .expect("bytes");
            let end = range.end.min(length);
            assert_eq!(parts.concat(), whole[range.start.min(end)..end]);
        }
        near.delete(&id).await.expect("is deleted");
        assert!(far.get(&id).await.expect("asks").is_none());
        let late = reading.pieces(0..u64::MAX).try_collect::<Vec<_>>().await;
        assert_eq!(length > 0, matches!(late, Err(ObjectError::Gone)), "{late:?}");
    }
}

#[tokio::test]
async fn who_takes_over_goes_on_behind_the_last_commit_and_who_was_replaced_commits_nothing() {
    let nats = Nats::start().await;
    let (one, other) = (nats.bus().await, nats.bus().await);
    let limits = ObjectLimits::default();
    let (one, other) = (Objects::new(&one, limits), Objects::new(&other, limits));
    let whole = bytes(3 * PIECE_BYTES + 77);
    let part = |from: usize, to: usize| whole.slice(from..to);
    let mut first = writing(&one, "x").await;
    assert_eq!((first.bytes(), first.note()), (0, &Value::Null));
    first.append(part(0, 1000), json!(1)).await.expect("commits");
    let middle = PIECE_BYTES + 5;
    first.append(part(1000, middle), json!(2)).await.expect("commits");
    let mut second = writing(&other, "x").await;
    assert_eq!((second.bytes(), second.note()), (middle as u64, &json!(2)));
    assert_eq!(
        second.read(990..middle as u64).await.expect("bytes"),
        part(990, middle)
    );
    // It writes its pieces, as it does not know better, and is told at the commit.
    let late = first.append(bytes(2 * PIECE_BYTES), json!("late")).await;
    assert!(matches!(late, Err(ObjectError::Taken)), "{late:?}");
    second
        .append(part(middle, whole.len()), json!(3))
        .await
        .expect("commits over what was left there");
    let late = first.append(bytes(2 * PIECE_BYTES), json!("late")).await;
    assert!(matches!(late, Err(ObjectError::Taken)), "{late:?}");
    assert!(
        other.info(&key("x")).await.expect("asks").is_none(),
        "is not finished"
    );
    let info = second.finish().await.expect("finishes");
    assert_eq!(info.note, json!(3));
    assert_eq!(one.get(&key("x")).await.expect("asks"), Some(whole.clone()));
    assert!(matches!(
        first.append(part(0, 1), json!("late")).await,
        Err(ObjectError::Taken)
    ));
    assert_eq!(one.get(&key("x")).await.expect("asks"), Some(whole));
}

#[tokio::test]
async fn a_stream_is_kept_as_it_comes_and_one_that_fails_leaves_nothing_to_read() {
    let nats = Nats::start().await;
    let objects = Objects::new(&nats.bus().await, ObjectLimits::default());
    let whole = bytes(9 * PIECE_BYTES + 3);
    let chunks = |whole: &Bytes| {
        let chunks: Vec<_> = whole.chunks(70_001).map(Bytes::copy_from_slice).collect();
        stream::iter(chunks.into_iter().map(Ok::<_, io::Error>))
    };
    let cut = chunks(&whole.slice(..6 * PIECE_BYTES)).chain_error();
    let failed = objects.put_stream(&key("s"), about(), cut).await;
    assert!(matches!(failed, Err(ObjectError::Source(_))), "{failed:?}");
    assert!(objects.get(&key("s")).await.expect("asks").is_none());
    let info = objects.put_stream(&key("s"), about(), chunks(&whole)).await;
    assert_eq!(info.expect("is kept").sha256, Checksum::of(&whole).finish());
    assert_eq!(objects.get(&key("s")).await.expect("asks"), Some(whole));
}

trait ChainError: futures::Stream<Item = Result<Bytes, io::Error>> + Sized {
    fn chain_error(self) -> impl futures::Stream<Item = Result<Bytes, io::Error>> + Unpin;
}

impl<S: futures::Stream<Item = Result<Bytes, io::Error>> + Unpin> ChainError for S {
    fn chain_error(self) -> impl futures::Stream<Item = Result<Bytes, io::Error>> + Unpin {
        use futures::StreamExt as _;
        self.chain(stream::iter([Err(io::Error::other("the disk is gone"))]))
    }
}

#[tokio::test]
async fn a_full_store_and_a_tenant_with_too_much_are_told_so_and_room_is_made_by_deleting() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let limits = ObjectLimits {
        kept: Duration::from_secs(600),
        max_bytes: 8 * PIECE_BYTES as i64,
        tenant_bytes: 4 * PIECE_BYTES as u64,
    };
    let objects = Objects::new(&bus, limits);
    let four = bytes(4 * PIECE_BYTES);
    objects.put(&key("a"), about(), four.clone()).await.expect("fits");
    let much = objects
        .put(&key("b"), about(), bytes(1))
        .await
        .expect_err("is too much");
    assert!(matches!(much, ObjectError::Quota(_)), "{much:?}");
    assert!(much.to_string().contains("delete some"), "{much}");
    let other = |id| ObjectKey::new(&Principal::new("ann", "other"), id);
    let full = objects.put(&other("a"), about(), bytes(6 * PIECE_BYTES)).await;
    assert!(matches!(full, Err(ObjectError::Full)), "{full:?}");
    assert_eq!(objects.get(&key("a")).await.expect("asks"), Some(four));
    objects.delete(&key("a")).await.expect("is deleted");
    objects.delete(&other("a")).await.expect("is deleted");
    let fits = objects.put(&other("a"), about(), bytes(6 * PIECE_BYTES)).await;
    fits.expect("there is room again");
}
