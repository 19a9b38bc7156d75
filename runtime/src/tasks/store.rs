//! What JetStream holds of tasks: the queue, the records, what is to come later, and what is held.
//!
//! A record is written over the revision that was read, so whoever has lost a task can write nothing of it. Everything is read from the
//! stream's leader.

use std::{sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        consumer::{AckPolicy, PullConsumer, pull},
        context::{CreateStreamErrorKind, PublishErrorKind},
        message::{PublishMessage, StreamMessage},
        stream::{Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, Stream},
    },
};
use bus_schema::{
    ContentType, Token, header,
    subject::{self, TaskPlace},
    task::{Order, Priority, Task, Word},
};
use bytes::Bytes;
use tokio::sync::Mutex;

use super::TaskError;
use crate::{bus::Bus, moment};

const QUEUE: &str = "TASKS";
const RECORDS: &str = "KV_tasks";
const HELD: &str = "TASKS_DEAD";
const KEY: &str = "$KV.tasks.";
/// How long the broker may take over one read or write.
const REPLY_LIMIT: Duration = Duration::from_secs(5);
/// For how long a word that comes twice is known by its id.
const KNOWN_FOR: Duration = Duration::from_secs(2 * 60);
/// How long it stands written why a task was held.
const HELD_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// After how long without a sign of life a word is given to another worker.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// How many words workers of one group and priority may have at once, all together.
const MAX_TAKEN: i64 = 10_000;

/// A task as it was read.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The task.
    pub task: Task,
    /// Which write it was; 0 when nothing was written of it but what was asked.
    pub revision: u64,
}

/// The streams, once they are there.
pub(super) struct Store {
    bus: Bus,
    /// Opened at first use, and anew when the broker does not know the streams any more. Held only to look, and while they are opened.
    open: Mutex<Option<Arc<Opened>>>,
}

struct Opened {
    context: jetstream::Context,
    queue: Stream<()>,
    records: Stream<()>,
}

impl Store {
    pub(super) fn new(bus: Bus) -> Self {
        Self {
            bus,
            open: Mutex::default(),
        }
    }

    async fn opened(&self) -> Result<Arc<Opened>, TaskError> {
        if !self.bus.is_connected() {
            return Err(TaskError::Away);
        }
        let mut kept = self.open.lock().await;
        if let Some(opened) = &*kept {
            return Ok(opened.clone());
        }
        // Boxed, as it is large and done once.
        let opened = Arc::new(Box::pin(open(&self.bus)).await?);
        *kept = Some(opened.clone());
        Ok(opened)
    }

    /// Puts a word into the queue, and waits until it is on disk. One with the same id that comes again is the same.
    pub(super) async fn put(
        &self,
        place: &TaskPlace,
        order: &Order,
        word: &Word,
        id: Option<&str>,
    ) -> Result<(), TaskError> {
        let mut message = PublishMessage::build().payload(encode(word));
        if let Some(id) = id {
            message = message.message_id(id);
        }
        let group = Token::encode(&order.group);
        let subject = place.word(&group, order.priority, word);
        self.publish(subject, message).await.map(drop)
    }

    /// Has a word come into the queue at a time, in place of what was to come for the task before.
    pub(super) async fn put_later(
        &self,
        place: &TaskPlace,
        order: &Order,
        word: &Word,
        at_ms: u64,
    ) -> Result<(), TaskError> {
        let group = Token::encode(&order.group);
        let mut headers = HeaderMap::new();
        let at = format!("@at {}", moment::of_ms(at_ms));
        headers.insert(header::NATS_SCHEDULE, at);
        let target = place.word(&group, order.priority, word);
        headers.insert(header::NATS_SCHEDULE_TARGET, target);
        let message = PublishMessage::build().headers(headers).payload(encode(word));
        self.publish(place.later(), message).await.map(drop)
    }

    /// Writes a record over the revision that was read, and gives the new one.
    pub(super) async fn write(&self, place: &TaskPlace, kept: &Kept) -> Result<u64, TaskError> {
        let payload = encode(&kept.task);
        let left = kept.task.expires_ms.saturating_sub(moment::now_ms());
        let message = PublishMessage::build()
            .payload(payload.clone())
            .expected_last_subject_sequence(kept.revision)
            .ttl(seconds(left));
        match self.publish(format!("{KEY}{}", place.key()), message).await {
            Ok(revision) => Ok(revision),
            Err(error @ (TaskError::Conflict | TaskError::Broker(_))) => {
                // The broker may have written it, and its answer been lost.
                match self.record(place).await? {
                    Some((bytes, revision)) if revision > kept.revision && bytes == payload => Ok(revision),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a task, wherever it is written; `None` when there is none.
    pub(super) async fn read(&self, place: &TaskPlace) -> Result<Option<Kept>, TaskError> {
        if let Some(kept) = self.read_record(place).await? {
            return Ok(Some(kept));
        }
        if let Some(order) = self.order(&place.order()).await? {
            return Ok(Some(Kept {
                task: Task::new(order),
                revision: 0,
            }));
        }
        // It may have left the queue in between.
        self.read_record(place).await
    }

    /// Reads a task's record; `None` when nothing was written of it but what was asked.
    pub(super) async fn read_record(&self, place: &TaskPlace) -> Result<Option<Kept>, TaskError> {
        let Some((bytes, revision)) = self.record(place).await? else {
            return Ok(None);
        };
        let task = decode(&bytes)?;
        Ok(Some(Kept { task, revision }))
    }

    async fn record(&self, place: &TaskPlace) -> Result<Option<(Bytes, u64)>, TaskError> {
        let key = format!("{KEY}{}", place.key());
        let found = last(&self.opened().await?.records, &key).await?;
        Ok(found.map(|message| (message.payload, message.sequence)))
    }

    async fn order(&self, subject: &str) -> Result<Option<Order>, TaskError> {
        match last(&self.opened().await?.queue, subject).await? {
            Some(message) => Ok(Some(order_of(&message.payload)?)),
            None => Ok(None),
        }
    }

    /// Where a task is of which only the id is known.
    pub(super) async fn find(
        &self,
        tenant: &Token,
        id: &bus_schema::task::TaskId,
    ) -> Result<Option<TaskPlace>, TaskError> {
        let opened = self.opened().await?;
        let key = format!("{KEY}{tenant}.*.{id}");
        let of_record = |message: StreamMessage| {
            let key = message.subject.strip_prefix(KEY);
            key.and_then(TaskPlace::of_key)
        };
        if let Some(message) = last(&opened.records, &key).await? {
            return Ok(of_record(message));
        }
        if let Some(message) = last(&opened.queue, &subject::order_of_anybody(tenant, id)).await? {
            return Ok(TaskPlace::of_word(&message.subject));
        }
        // It may have left the queue in between.
        Ok(last(&opened.records, &key).await?.and_then(of_record))
    }

    /// The next record of somebody's tasks, or of anybody's in a tenant, from a place in the stream on.
    pub(super) async fn next_record(
        &self,
        tenant: &Token,
        owner: Option<&Token>,
        from: u64,
    ) -> Result<Option<(u64, Task)>, TaskError> {
        let owner = owner.map_or("*", Token::as_str);
        let filter = format!("{KEY}{tenant}.{owner}.*");
        let found = next(&self.opened().await?.records, &filter, from).await?;
        match found {
            Some(message) => Ok(Some((message.sequence, decode(&message.payload)?))),
            None => Ok(None),
        }
    }

    /// The next order that is in the queue, likewise.
    pub(super) async fn next_order(
        &self,
        tenant: &Token,
        owner: Option<&Token>,
        from: u64,
    ) -> Result<Option<(u64, Order)>, TaskError> {
        let filter = subject::orders_of(tenant, owner);
        let found = next(&self.opened().await?.queue, &filter, from).await?;
        match found {
            Some(message) => Ok(Some((message.sequence, order_of(&message.payload)?))),
            None => Ok(None),
        }
    }

    /// Writes down that a task is held, and why.
    pub(super) async fn tell_held(
        &self,
        place: &TaskPlace,
        told: Vec<u8>,
        id: &str,
    ) -> Result<(), TaskError> {
        let message = PublishMessage::build().payload(told.into()).message_id(id);
        self.publish(place.dead(), message).await.map(drop)
    }

    /// What the workers of a group take words of a priority from.
    pub(super) async fn consumer(
        &self,
        group: &Token,
        priority: Priority,
    ) -> Result<PullConsumer, TaskError> {
        let opened = self.opened().await?;
        let name = format!("{group}-{}", priority.as_str());
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: subject::words_for(group, priority),
            ack_policy: AckPolicy::Explicit,
            ack_wait: LEASE,
            max_ack_pending: MAX_TAKEN,
            ..pull::Config::default()
        };
        let consumer = opened.queue.get_or_create_consumer(&name, config).await;
        consumer.map_err(|error| TaskError::Broker(error.into()))
    }

    async fn publish(&self, subject: String, message: PublishMessage) -> Result<u64, TaskError> {
        let opened = self.opened().await?;
        let sent = async { opened.context.send_publish(subject, message).await?.await };
        match sent.await {
            Ok(ack) => Ok(ack.sequence),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Err(TaskError::Conflict),
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => Err(TaskError::TooLarge),
            Err(error) => {
                if error.kind() == PublishErrorKind::StreamNotFound {
                    // Lost by the broker, or without a leader for a moment.
                    *self.open.lock().await = None;
                }
                Err(TaskError::Broker(error.into()))
            }
        }
    }
}

async fn open(bus: &Bus) -> Result<Opened, TaskError> {
    let mut context = jetstream::new(bus.client().clone());
    context.set_timeout(REPLY_LIMIT);
    for config in [queue_config(), records_config(), held_config()] {
        match context.create_stream(config.clone()).await {
            Ok(_) => {}
            // Made by an older version with other limits; what it holds counts more.
            Err(error) if is_there(&error) => check_made_by_us(&context, &config).await?,
            Err(error) => return Err(TaskError::Open(error.into())),
        }
    }
    let stream = async |name| {
        let stream = context.get_stream_no_info(name).await;
        stream.map_err(|error| TaskError::Open(error.into()))
    };
    Ok(Opened {
        queue: stream(QUEUE).await?,
        records: stream(RECORDS).await?,
        context,
    })
}

/// The queue. It has no limits of its own, as those would drive out what was accepted; when the broker's own are reached, it takes no more.
fn queue_config() -> Config {
    Config {
        name: QUEUE.to_owned(),
        subjects: subject::task_queue(),
        retention: RetentionPolicy::WorkQueue,
        duplicate_window: KNOWN_FOR,
        allow_message_ttl: true,
        allow_message_schedules: true,
        allow_direct: false,
        ..Config::default()
    }
}

fn records_config() -> Config {
    Config {
        name: RECORDS.to_owned(),
        subjects: vec![format!("{KEY}>")],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_message_ttl: true,
        deny_delete: true,
        allow_direct: false,
        ..Config::default()
    }
}

fn held_config() -> Config {
    Config {
        name: HELD.to_owned(),
        subjects: vec![subject::dead_tasks()],
        max_messages_per_subject: 1,
        max_age: HELD_FOR,
        duplicate_window: KNOWN_FOR,
        allow_direct: false,
        ..Config::default()
    }
}

/// What somebody else has made under the name could hand tasks on, or lose them.
async fn check_made_by_us(context: &jetstream::Context, config: &Config) -> Result<(), TaskError> {
    let stream = context.get_stream(&config.name).await;
    let is = stream.map_err(|error| TaskError::Open(error.into()))?;
    let is = &is.cached_info().config;
    let as_made = is.subjects == config.subjects
        && is.retention == config.retention
        && is.republish.is_none()
        && is.mirror.is_none()
        && is.sources.as_ref().is_none_or(Vec::is_empty)
        && !is.no_ack;
    if as_made {
        return Ok(());
    }
    Err(TaskError::Open(
        format!(
            "the stream `{}` is not as this platform makes it; look who has made it, and delete it",
            config.name
        )
        .into(),
    ))
}

fn is_there(error: &jetstream::context::CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

async fn last(stream: &Stream<()>, subject: &str) -> Result<Option<StreamMessage>, TaskError> {
    found(stream.get_last_raw_message_by_subject(subject).await)
}

async fn next(stream: &Stream<()>, subject: &str, from: u64) -> Result<Option<StreamMessage>, TaskError> {
    found(
        stream
            .get_first_raw_message_by_subject(subject, from.max(1))
            .await,
    )
}

fn found(
    got: Result<StreamMessage, async_nats::jetstream::stream::LastRawMessageError>,
) -> Result<Option<StreamMessage>, TaskError> {
    match got {
        Ok(message) => Ok(Some(message)),
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            _ => Err(TaskError::Broker(error.into())),
        },
    }
}

fn order_of(payload: &[u8]) -> Result<Order, TaskError> {
    match decode(payload)? {
        Word::Run(order) => Ok(*order),
        _ => Err(TaskError::Broker(
            "a word in the queue is not what its subject says".into(),
        )),
    }
}

/// The broker counts in seconds.
fn seconds(ms: u64) -> Duration {
    Duration::from_secs(ms.div_ceil(1_000).max(1))
}

pub(super) fn encode(value: &impl serde::Serialize) -> Bytes {
    let bytes = ContentType::MessagePack.encode(value);
    bytes
        .expect("tasks have no values that MessagePack cannot carry")
        .into()
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, TaskError> {
    let read = ContentType::MessagePack.decode(bytes);
    read.map_err(|error| TaskError::Broker(Box::new(error)))
}
