//! Reads the body of a request, of a type, size and pace that a message can have.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, HeaderValue, StatusCode, header as http_header},
    response::Response,
};
use bus_schema::{
    RpcError,
    envelope::{INLINE_BYTES, MAX_BODY_BYTES},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{answer, text_header};

/// How long a client may take to send a request's body.
const WHOLE_LIMIT: Duration = Duration::from_secs(60);
/// How long it may send nothing of it.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// How many bytes of large bodies one door holds at once.
const LARGE_BODIES_BYTES: usize = 512 * 1024 * 1024;

/// The room for large bodies. It is taken by what has come, and not by what was declared: else a few clients that declare much and
/// send nothing would keep everybody out.
#[derive(Clone)]
pub(super) struct Room {
    /// In KiB, as one permit a byte would be too many for a semaphore.
    kib: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            kib: Arc::new(Semaphore::new(LARGE_BODIES_BYTES / 1024)),
        }
    }
}

/// A whole body, and the room that it takes while it is held.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Reads a body whole.
///
/// # Errors
/// The answer for a client whose body is of the wrong type, too large, too slow or not whole.
pub(super) async fn read(headers: &HeaderMap, mut body: Body, room: &Room) -> Result<Whole, Response> {
    let content_type = text_header(headers, http_header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("content type `{content_type}` is not supported; send application/json"),
        ));
    }
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let whole_limit = Instant::now() + WHOLE_LIMIT;
    let mut whole = Pieces::default();
    loop {
        let limit = whole_limit.min(Instant::now() + PAUSE_LIMIT);
        let frame = match timeout_at(limit, body.frame()).await {
            Ok(None) => return Ok(whole.join()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                let why = format!("the request's body did not arrive whole: {error}");
                return Err(refused(StatusCode::BAD_REQUEST, why));
            }
            Err(_) => return Err(too_slow()),
        };
        // Trailers are nothing to a message.
        if let Ok(piece) = frame.into_data() {
            if whole.bytes + piece.len() > MAX_BODY_BYTES {
                return Err(too_large());
            }
            whole.push(piece);
            if !whole.fits(room) {
                return Err(overloaded());
            }
        }
    }
}

/// What has come; a body that came in one piece is not copied.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    more: BytesMut,
    bytes: usize,
    room: Option<OwnedSemaphorePermit>,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if self.bytes == piece.len() {
            self.first = piece;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&piece);
    }

    /// Takes room for what has come; a small body needs none.
    fn fits(&mut self, room: &Room) -> bool {
        if self.bytes <= INLINE_BYTES {
            return true;
        }
        let held = self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = self.bytes.div_ceil(1024) - held;
        let missing = u32::try_from(missing).expect("a body is at most 64 MiB");
        let Ok(more) = Arc::clone(&room.kib).try_acquire_many_owned(missing) else {
            return false;
        };
        match &mut self.room {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        true
    }

    fn join(self) -> Whole {
        let bytes = if self.more.is_empty() {
            self.first
        } else {
            self.more.freeze()
        };
        Whole {
            bytes,
            room: self.room,
        }
    }
}

/// Whoever comes when the room is taken is to come again.
fn overloaded() -> Response {
    let error = RpcError::internal("this door holds as many large requests as it can; try again shortly");
    let mut response = answer::error(StatusCode::SERVICE_UNAVAILABLE, None, &error);
    response
        .headers_mut()
        .insert(http_header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn too_large() -> Response {
    refused(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the request is larger than {MAX_BODY_BYTES} bytes"),
    )
}

fn too_slow() -> Response {
    refused(
        StatusCode::REQUEST_TIMEOUT,
        format!(
            "the request's body did not come in time: it may pause for {PAUSE_LIMIT:?} and take {WHOLE_LIMIT:?} in all"
        ),
    )
}

fn refused(status: StatusCode, why: String) -> Response {
    answer::error(status, None, &RpcError::invalid_request(why))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};

    use super::*;

    fn json() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            http_header::CONTENT_TYPE,
            "application/json; charset=utf-8".parse().unwrap(),
        );
        headers
    }

    /// A body that says something after each pause, and then nothing more for ever.
    fn slow(pauses: Vec<Duration>) -> Body {
        let pieces = stream::iter(pauses).then(|pause| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, Infallible>(Bytes::from_static(b" "))
        });
        Body::from_stream(pieces.chain(stream::pending()))
    }

    #[tokio::test]
    async fn a_body_comes_whole_in_one_piece_or_many() {
        for pieces in [vec![], vec!["{}"], vec!["", "{", "\"a\"", ":1}"]] {
            let expected = pieces.concat();
            let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)));
            let whole = read(&json(), body, &Room::default()).await.unwrap();
            assert_eq!(whole.bytes, expected.as_bytes());
            assert!(whole.room.is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_pauses_or_trickles_is_given_up() {
        let second = Duration::from_secs(1);
        for (pauses, after) in [(vec![], 10), (vec![second * 9], 19), (vec![second * 9; 100], 60)] {
            let started = Instant::now();
            let refused = read(&json(), slow(pauses), &Room::default()).await.unwrap_err();
            assert_eq!(refused.status(), StatusCode::REQUEST_TIMEOUT);
            assert_eq!(started.elapsed(), second * after);
        }
    }

    #[tokio::test]
    async fn a_body_of_another_type_or_size_is_refused() {
        let room = Room::default();
        let refused = read(&HeaderMap::new(), Body::from("{}"), &room)
            .await
            .unwrap_err();
        assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let piece = Bytes::from(vec![b' '; MAX_BODY_BYTES / 4]);
        let endless = stream::iter(0..).map(move |_: u32| Ok::<_, Infallible>(piece.clone()));
        let refused = read(&json(), Body::from_stream(endless), &room)
            .await
            .unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn large_bodies_share_the_room_and_small_ones_need_none() {
        let mib = 1024 * 1024;
        let room = Room {
            kib: Arc::new(Semaphore::new(3 * 1024)),
        };
        let of = |bytes: usize| Body::from(vec![b' '; bytes]);
        let first = read(&json(), of(2 * mib), &room).await.unwrap();
        let refused = read(&json(), of(2 * mib), &room).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(http_header::RETRY_AFTER));
        read(&json(), of(INLINE_BYTES), &room).await.unwrap();
        read(&json(), of(mib), &room).await.unwrap();
        drop(first);
        let pieces = stream::iter(0..3000).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b' '; 1000])));
        let whole = read(&json(), Body::from_stream(pieces), &room).await.unwrap();
        assert_eq!(whole.room.unwrap().num_permits(), 3_000_000_usize.div_ceil(1024));
    }
}
