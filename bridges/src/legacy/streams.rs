//! The event streams of this process that a client may take up again, and the ids of their events.
//!
//! An event id says all that any door needs: which process keeps the stream, which stream it is, which requests it answers, and which
//! event it was. It is a hint for routing and proves nothing: a stream is read only by the session that it belongs to.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::time::{sleep, timeout};

use super::stream::Stream;

/// How long a stream is kept after its answer was taken: it may have been lost on its way.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How long it is kept when nobody takes its answer.
const UNTAKEN_FOR: Duration = Duration::from_secs(10 * 60);
/// How many streams that have ended are kept, and how many bytes of them.
const MAX_ENDED: usize = 10_000;
const MAX_ENDED_BYTES: usize = 256 * 1024 * 1024;
/// How long the spelled ids of requests may be that an event id carries, as it is sent with every event.
const MAX_REQUESTS_BYTES: usize = 1024;

/// What the ids of these streams' events begin with.
const PREFIX: &str = "c.";
/// What stands for the number of the last event.
const END: &str = "end";

/// The streams of one process.
#[derive(Default)]
pub(crate) struct Streams(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    last: u64,
    streams: HashMap<u64, (Arc<Stream>, usize)>,
    /// Those that have ended, the oldest first; some of them may be gone by now.
    ended: VecDeque<u64>,
    ended_bytes: usize,
}

/// Where a stream is kept, and what it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The instance of the process that keeps it.
    pub(crate) door: String,
    /// Its number there.
    pub(crate) number: u64,
    /// The ids of the requests that it answers as spelled, separated by commas; empty when they are too long to be told.
    pub(crate) requests: String,
}

/// Which event of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The event of this number; 0 is before the first.
    Event(u64),
    /// The last one: there is nothing more to come.
    End,
}

impl Place {
    /// The id of one event.
    pub(crate) fn event(&self, at: At) -> String {
        let requests = URL_SAFE_NO_PAD.encode(&self.requests);
        format!("{PREFIX}{}.{:x}~{requests}.{at}", self.door, self.number)
    }

    /// Reads an event id; `None` for one that is not of such a stream.
    pub(crate) fn parse(id: &str) -> Option<(Self, At)> {
        let mut parts = id.strip_prefix(PREFIX)?.split('.');
        let (door, stream, at) = (parts.next()?, parts.next()?, parts.next()?);
        let (number, requests) = stream.split_once('~')?;
        let requests = String::from_utf8(URL_SAFE_NO_PAD.decode(requests).ok()?).ok()?;
        let at = match at {
            END => At::End,
            number => At::Event(number.parse().ok()?),
        };
        let place = Self {
            door: door.to_owned(),
            number: u64::from_str_radix(number, 16).ok()?,
            requests,
        };
        let whole = parts.next().is_none() && !place.door.is_empty() && are_ids(&place.requests);
        whole.then_some((place, at))
    }

    /// The requests that the stream answers, by their ids as spelled.
    pub(crate) fn requests(&self) -> Vec<String> {
        spelled_ids(&self.requests).unwrap_or_default()
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(number) => write!(f, "{number}"),
            Self::End => f.write_str(END),
        }
    }
}

/// Takes the ids of requests apart; `None` when one is neither a string nor a number.
fn spelled_ids(text: &str) -> Option<Vec<String>> {
    let ids: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(&format!("[{text}]")).ok()?;
    let usable = |id: &str| id.starts_with(['"', '-']) || id.starts_with(|c: char| c.is_ascii_digit());
    ids.into_iter()
        .map(|id| usable(id.get()).then(|| id.get().to_owned()))
        .collect()
}

fn are_ids(text: &str) -> bool {
    spelled_ids(text).is_some()
}

impl Streams {
    /// Keeps a stream that answers these requests.
    pub(crate) fn keep(&self, door: &str, stream: &Arc<Stream>, requests: &[String]) -> Place {
        let mut kept = self.lock();
        kept.last += 1;
        let number = kept.last;
        kept.streams.insert(number, (Arc::clone(stream), 0));
        let mut requests = requests.join(",");
        if requests.len() > MAX_REQUESTS_BYTES {
            requests.clear();
        }
        Place {
            door: door.to_owned(),
            number,
            requests,
        }
    }

    /// Forgets a stream when its time has come.
    pub(crate) async fn keep_for_its_time(&self, number: u64, stream: &Stream) {
        let bytes = stream.ended().await;
        self.has_ended(number, bytes);
        if timeout(UNTAKEN_FOR, stream.taken()).await.is_ok() {
            sleep(KEPT_FOR).await;
        }
        self.lock().forget(number);
    }

    /// The stream of a session.
    pub(crate) fn find(&self, number: u64, session: &str) -> Option<Arc<Stream>> {
        let kept = self.lock();
        let (stream, _) = kept.streams.get(&number)?;
        (stream.session() == session).then(|| Arc::clone(stream))
    }

    fn has_ended(&self, number: u64, bytes: usize) {
        let mut kept = self.lock();
        if let Some(entry) = kept.streams.get_mut(&number) {
            entry.1 = bytes;
            kept.ended_bytes += bytes;
            kept.ended.push_back(number);
        }
        kept.make_room();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn make_room(&mut self) {
        let mut most = usize::MAX;
        if self.ended.len() > MAX_ENDED {
            let Self { ended, streams, .. } = self;
            ended.retain(|number| streams.contains_key(number));
            // A tenth at once, so that this is done seldom.
            most = MAX_ENDED - MAX_ENDED / 10;
        }
        while self.ended_bytes > MAX_ENDED_BYTES || self.ended.len() > most {
            let Some(oldest) = self.ended.pop_front() else {
                return;
            };
            self.forget(oldest);
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some((_, bytes)) = self.streams.remove(&number) {
            self.ended_bytes -= bytes;
        }
        // Those at the front that are gone leave no trace.
        while self
            .ended
            .front()
            .is_some_and(|number| !self.streams.contains_key(number))
        {
            self.ended.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_says_where_its_stream_is() {
        let place = Place {
            door: "00ff".to_owned(),
            number: 26,
            requests: r#"5,"a.b~c""#.to_owned(),
        };
        for at in [At::Event(0), At::Event(7), At::End] {
            let id = place.event(at);
            assert!(
                id.starts_with("c.00ff.1a~") && id.bytes().all(|b| (0x21..=0x7e).contains(&b)),
                "{id}"
            );
            assert_eq!(Place::parse(&id), Some((place.clone(), at)));
        }
        assert_eq!(place.requests(), ["5", r#""a.b~c""#]);
        for other in [
            "",
            "c.",
            "c.a.b.1",
            "g.a.1~.1",
            "c.a.1~.x",
            "c.a.1~.1.2",
            "c..1~.1",
            "c.a.1~e30.1",
            "c.a.z~.1",
        ] {
            assert_eq!(Place::parse(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn an_event_id_names_its_requests_unless_they_are_too_long() {
        let streams = Streams::default();
        let stream = Stream::open("mine", 1);
        let of = |bytes: usize| {
            let spelled = format!("\"{}\"", "a".repeat(bytes - 2));
            let place = streams.keep("00ff", &stream, std::slice::from_ref(&spelled));
            let (read, _) = Place::parse(&place.event(At::Event(1))).expect("an event id");
            (read.requests(), spelled)
        };
        let (read, spelled) = of(MAX_REQUESTS_BYTES);
        assert_eq!(read, [spelled]);
        let (read, _) = of(MAX_REQUESTS_BYTES + 1);
        assert!(read.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_kept_until_it_was_read_and_a_while_longer() {
        let streams = Streams::default();
        let stream = Stream::open("mine", 1);
        let place = streams.keep("00ff", &stream, &["1".to_owned()]);
        assert!(streams.find(place.number, "foreign").is_none());
        let mut reader = stream.read_after(0);
        let reads = async {
            stream.answer("a".into());
            sleep(Duration::from_secs(90)).await;
            assert!(streams.find(place.number, "mine").is_some(), "not read yet");
            reader.next().await.expect("the answer");
            sleep(KEPT_FOR / 2).await;
            assert!(streams.find(place.number, "mine").is_some());
        };
        tokio::join!(reads, streams.keep_for_its_time(place.number, &stream));
        assert!(streams.find(place.number, "mine").is_none());
        let kept = streams.lock();
        assert_eq!(
            (kept.ended_bytes, kept.ended.len(), kept.streams.len()),
            (0, 0, 0)
        );
    }

    #[tokio::test]
    async fn what_has_ended_is_bounded() {
        let streams = Streams::default();
        for _ in 0..=MAX_ENDED {
            let stream = Stream::open("mine", 1);
            let place = streams.keep("00ff", &stream, &[]);
            streams.has_ended(place.number, 1);
        }
        assert!(streams.find(1, "mine").is_none());
        assert!(streams.find(MAX_ENDED as u64, "mine").is_some());
        streams.has_ended(
            streams.keep("00ff", &Stream::open("mine", 1), &[]).number,
            MAX_ENDED_BYTES,
        );
        assert_eq!(streams.lock().streams.len(), 1);
    }
}
