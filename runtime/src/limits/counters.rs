//! The counts that all processes share: JetStream counters, one subject for each window of each count.
//!
//! They live in memory, but for those of days, and are forgotten after two windows. A broker without JetStream, or one that does not answer,
//! is left alone for a while; each process then counts for itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        context::CreateStreamErrorKind,
        stream::{Config, DiscardPolicy, LastRawMessageErrorKind, StorageType},
    },
};
use bus_schema::{
    header,
    limits::DAY_SECS,
    subject::{self, Span},
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::{bus::Bus, moment};

/// How long the broker may take for one count: a call waits for it.
const REPLY_LIMIT: Duration = Duration::from_secs(1);
/// How long a broker is left alone that did not answer.
const ALONE_MS: u64 = 5_000;
/// How many counts may have calls that the broker was not told of; those of others are told to nobody.
const MAX_OWED: usize = 10_000;
/// What all counts of a span may take of the broker.
const MAX_BYTES: i64 = 64 * 1024 * 1024;

/// Why there is no count.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A count as the broker keeps it.
#[derive(Deserialize)]
struct Kept {
    val: String,
}

/// The counts of the bus.
pub(super) struct Counters {
    context: jetstream::Context,
    /// Which streams are known to be there. Held only to look or to change it.
    there: Mutex<Vec<Span>>,
    /// Until when nobody is asked, in milliseconds since 1970.
    alone_until_ms: AtomicU64,
    /// Whether it was said that each process counts for itself.
    is_alone: AtomicBool,
    /// What was allowed without the broker. Held only to look or to change it.
    owed: Mutex<Owed>,
}

/// Calls that the broker has to be told of, so that all processes count them.
#[derive(Default)]
struct Owed {
    /// By the subjects of their counts.
    calls: HashMap<String, (Span, u64)>,
    /// Whether somebody tells it as soon as it can.
    is_told: bool,
}

impl Counters {
    pub(super) fn new(bus: &Bus) -> Self {
        let mut context = jetstream::new(bus.client().clone());
        context.set_timeout(REPLY_LIMIT);
        Self {
            context,
            there: Mutex::default(),
            alone_until_ms: AtomicU64::new(0),
            is_alone: AtomicBool::new(false),
            owed: Mutex::default(),
        }
    }

    /// Notes calls that were allowed while nobody could be asked. They are added to the count of all when the broker is back.
    pub(super) fn owe(self: &Arc<Self>, bus: &Bus, span: Span, subject: &str, calls: u64) {
        let mut owed = self.owed();
        let is_full = owed.calls.len() >= MAX_OWED && !owed.calls.contains_key(subject);
        if calls == 0 || is_full {
            return;
        }
        owed.calls.entry(subject.to_owned()).or_insert((span, 0)).1 += calls;
        if !std::mem::replace(&mut owed.is_told, true) {
            bus.spawn(Arc::clone(self).tell());
        }
    }

    /// Tells the broker what it was not told of, until that is nothing.
    async fn tell(self: Arc<Self>) {
        loop {
            sleep(Duration::from_millis(ALONE_MS)).await;
            let next = || {
                let mut owed = self.owed();
                let first = owed.calls.iter().next();
                let first = first.map(|(subject, (span, calls))| (subject.clone(), *span, *calls));
                owed.is_told = first.is_some();
                first
            };
            loop {
                let Some((subject, span, calls)) = next() else {
                    info!("what was allowed without the broker is counted with the other processes' calls");
                    return;
                };
                if self.add(span, &subject, calls, None).await.is_none() {
                    break;
                }
                let mut owed = self.owed();
                if let Some((_, left)) = owed.calls.get_mut(&subject) {
                    *left -= calls;
                    if *left == 0 {
                        owed.calls.remove(&subject);
                    }
                }
            }
        }
    }

    fn owed(&self) -> std::sync::MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a count, and gives the sum; reads another one as well, if one is named. `None` when nobody can say.
    pub(super) async fn add(
        &self,
        span: Span,
        subject: &str,
        calls: u64,
        read: Option<&str>,
    ) -> Option<(u64, Option<u64>)> {
        if moment::now_ms() < self.alone_until_ms.load(Ordering::Relaxed) {
            return None;
        }
        let asking = async {
            self.prepare(span).await?;
            let reading = async {
                match read {
                    Some(subject) => self.read(span, subject).await.map(Some),
                    None => Ok(None),
                }
            };
            tokio::try_join!(self.publish(subject, format!("+{calls}")), reading)
        };
        let asked = timeout(REPLY_LIMIT, asking).await;
        match asked.unwrap_or_else(|_| Err("no answer in time".into())) {
            Ok(counted) => {
                if self.is_alone.swap(false, Ordering::Relaxed) {
                    info!("limits are kept together with the other processes again");
                }
                Some(counted)
            }
            Err(error) => {
                // The broker may have been started anew, and have forgotten what it kept in memory.
                self.there().retain(|known| *known != span);
                let until = moment::now_ms() + ALONE_MS;
                self.alone_until_ms.store(until, Ordering::Relaxed);
                if !self.is_alone.swap(true, Ordering::Relaxed) {
                    warn!(
                        error,
                        "the counts of limits cannot be had from the broker; until they can, each process keeps limits by itself"
                    );
                }
                None
            }
        }
    }

    /// Gives back what was too much.
    pub(super) async fn give_back(&self, subject: &str, calls: u64) {
        let giving = self.publish(subject, format!("-{calls}"));
        if !matches!(timeout(REPLY_LIMIT, giving).await, Ok(Ok(_))) {
            debug!(calls, "what was bought too much of could not be given back");
        }
    }

    /// Changes a count by so many, where somebody can be told.
    pub(super) async fn change(&self, span: Span, subject: &str, by: i64) {
        if moment::now_ms() < self.alone_until_ms.load(Ordering::Relaxed) {
            return;
        }
        let changing = async {
            self.prepare(span).await?;
            self.publish(subject, format!("{by:+}")).await
        };
        if !matches!(timeout(REPLY_LIMIT, changing).await, Ok(Ok(_))) {
            debug!(by, "a count could not be changed");
        }
    }

    async fn publish(&self, subject: &str, change: String) -> Result<u64, Failed> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_INCREMENT, change);
        let published = self
            .context
            .publish_with_headers(subject.to_owned(), headers, Bytes::new());
        let ack = published.await?.await?;
        let sum = ack.value.ok_or("the broker gave no sum")?;
        // After a restart of the broker more may be given back than was counted.
        Ok(u64::try_from(sum.parse::<i128>()?).unwrap_or(0))
    }

    async fn read(&self, span: Span, subject: &str) -> Result<u64, Failed> {
        let stream = self.context.get_stream_no_info(name(span)).await?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => {
                let kept: Kept = serde_json::from_slice(&message.payload)?;
                Ok(u64::try_from(kept.val.parse::<i128>()?).unwrap_or(0))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the stream of a span, if it is not there.
    async fn prepare(&self, span: Span) -> Result<(), Failed> {
        if self.there().contains(&span) {
            return Ok(());
        }
        match self.context.create_stream(config(span)).await {
            Ok(_) => {}
            Err(error) if is_there(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let mut there = self.there();
        if !there.contains(&span) {
            there.push(span);
        }
        Ok(())
    }

    fn there(&self) -> std::sync::MutexGuard<'_, Vec<Span>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The span that a window falls into.
pub(super) const fn span(length_ms: u64) -> Span {
    match length_ms / 1_000 {
        0..=60 => Span::Minute,
        61..=3_600 => Span::Hour,
        _ => Span::Day,
    }
}

const fn name(span: Span) -> &'static str {
    match span {
        Span::Minute => "RL_minute",
        Span::Hour => "RL_hour",
        Span::Day => "RL_day",
    }
}

fn config(span: Span) -> Config {
    let (longest_secs, storage) = match span {
        Span::Minute => (60, StorageType::Memory),
        Span::Hour => (3_600, StorageType::Memory),
        // A day's count is to outlive a restart of the broker.
        Span::Day => (DAY_SECS, StorageType::File),
    };
    Config {
        name: name(span).to_owned(),
        subjects: vec![subject::all_counters(span)],
        max_messages_per_subject: 1,
        max_age: Duration::from_secs(2 * longest_secs),
        max_bytes: MAX_BYTES,
        // Counters cannot do otherwise; what has not been counted for longest goes first.
        discard: DiscardPolicy::Old,
        storage,
        allow_message_counter: true,
        ..Config::default()
    }
}

fn is_there(error: &jetstream::context::CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}
